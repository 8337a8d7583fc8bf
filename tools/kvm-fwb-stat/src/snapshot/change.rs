// SPDX-License-Identifier: GPL-2.0

use super::{Figures, Snapshot, VmId};
use crate::counters::Stat;

/// What happened between two snapshots.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    before: &'a Snapshot,
    seconds: f64,
}

impl<'a> Change<'a> {
    /// From `before` to `after`. `None` if no time passed.
    pub fn new(before: &'a Snapshot, after: &Snapshot) -> Option<Self> {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
        (seconds > 0.0).then_some(Self { before, seconds })
    }

    /// How much `now`, of all VMs, counted in a second.
    pub fn total(&self, now: &Figures, stat: Stat) -> f64 {
        self.rate(Some(&self.before.total), now, stat)
    }

    /// How much `now`, of the VM `id`, counted in a second. One that is new counted all of it.
    pub fn vm(&self, id: &VmId, now: &Figures, stat: Stat) -> f64 {
        // They are sorted, and there may be thousands.
        let at = self.before.vms.binary_search_by(|vm| vm.id.cmp(id)).ok();
        self.rate(at.map(|at| &self.before.vms[at].figures), now, stat)
    }

    /// How much all VMs counted in a second that no VM of `after` did: by VMs that went
    /// meanwhile, or have no entry.
    pub fn unlisted(&self, after: &Snapshot, stat: Stat) -> f64 {
        let listed = (after.vms.iter()).map(|vm| self.vm(&vm.id, &vm.figures, stat));
        let rest = self.total(&after.total, stat) - listed.sum::<f64>();
        // Sums of fractions are not exact; what is seen is at least one event.
        if rest * self.seconds > 0.5 { rest } else { 0.0 }
    }

    fn rate(&self, before: Option<&Figures>, now: &Figures, stat: Stat) -> f64 {
        let now = now.stats.get(stat);
        let before = before.map_or(0, |before| before.stats.get(stat));
        // A counter that fell was cleared, or belongs to another VM of that name.
        now.checked_sub(before).unwrap_or(now) as f64 / self.seconds
    }
}

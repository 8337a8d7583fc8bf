// SPDX-License-Identifier: GPL-2.0
//! One VM, as the module should see it.

use super::race::Race;
use crate::{Counters, Host, NativeReset, Policy};

#[derive(Clone, Copy, Default)]
pub(super) struct Vcpu {
    pub(super) has_run: bool,
    pub(super) running: bool,
}

/// Re-inits whose end the module could not see; nobody knows how many if a race was with a change.
#[derive(Clone, Copy)]
pub(super) struct Untimed(pub(super) Option<u64>);

impl Default for Untimed {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Untimed {
    pub(super) fn add(&mut self, count: u64) {
        self.0 = self.0.map(|untimed| untimed + count);
    }
}

/// One VM, as the module should see it.
#[derive(Clone, Default)]
pub(super) struct Vm {
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) counters: Counters,
    /// By how much more the counters may have moved in races.
    pub(super) slack: Counters,
    pub(super) racing: Option<Race>,
    pub(super) untimed: Untimed,
    /// KVM gave it no name, for another VM has it: the thread that made it.
    pub(super) nameless: Option<i32>,
    /// What it is called if not by KVM's name.
    pub(super) own_name: Option<String>,
    /// Re-initialised since the module was loaded, so that it has files of its own.
    pub(super) listed: bool,
    /// Has memory that an unmap may not reach.
    pub(super) out_of_reach: bool,
    /// Re-initialised since the last KVM_RUN.
    pub(super) in_reset: bool,
    /// All RAM unmapped under `once` or `lazy` since the last KVM_RUN.
    pub(super) unmapped: bool,
    /// An invalidation is due before the next KVM_RUN.
    pub(super) owed: bool,
    /// Or perhaps one is.
    pub(super) may_owe: bool,
    /// A vCPU may have mapped RAM at stage 2, which makes it coherent, since all was unmapped.
    pub(super) mapped: bool,
    /// Code was written that instruction caches may hold an older version of.
    pub(super) stale: bool,
}

impl Vm {
    /// What it is called in `vms`, which KVM calls `name` if it may.
    pub(super) fn shown<'a>(&'a self, name: &'a str) -> &'a str {
        self.own_name.as_deref().unwrap_or(name)
    }

    /// Whether another vCPU is in KVM_RUN.
    pub(super) fn is_busy(&self, vcpu: usize) -> bool {
        let mut others = self.vcpus.iter().enumerate();
        others.any(|(other, state)| other != vcpu && state.running)
    }

    /// Whether what a re-init `did` was an unmap that cleans nothing. Where anything is in doubt it is one
    /// in full.
    pub(super) fn may_elide(&self, did: &Counters, busy: bool, host: Host, policy: Policy) -> bool {
        policy == Policy::Lazy && !host.fwb && did.stage2_unmap > 0 && !busy && !self.out_of_reach
    }

    pub(super) fn reset(
        &mut self,
        busy: bool,
        host: Host,
        policy: Policy,
        blind: bool,
    ) -> Counters {
        let mut add = Counters {
            vcpu_reset: 1,
            busy: busy.into(),
            ..Counters::default()
        };
        add.vm_reset = (!self.in_reset).into();
        (self.listed, self.in_reset) = (true, true);

        let native_icache = u64::from(host.native_reset == NativeReset::Icache);
        let native_unmap = u64::from(host.native_reset == NativeReset::Unmap);
        add.icache_dic = (host.fwb && host.dic).into();
        match policy {
            // Without S2FWB data may be stale too: only an unmap will do.
            _ if policy.is_per_vm() && !host.fwb && self.unmapped && !busy => {
                add.stage2_unmap_elide = 1;
            }
            _ if !host.fwb || policy == Policy::Unmap => {
                // A vCPU that runs may have mapped pages again by now; and what an unmap does not
                // reach the next one might.
                self.unmapped |= policy.is_per_vm() && !busy && !self.out_of_reach;
                add.stage2_unmap = 1;
                // It does not stand for the kernel's own invalidation either.
                add.icache_invalidate = native_icache;
            }
            Policy::Native => {
                add.icache_invalidate = native_icache;
                add.stage2_unmap = native_unmap;
            }
            _ if host.dic => add.stage2_unmap_elide = native_unmap,
            Policy::Once | Policy::Lazy if !blind && !busy => {
                self.owed = true;
                add.icache_elide = native_icache;
                add.stage2_unmap_elide = native_unmap;
            }
            _ => {
                add.icache_invalidate = 1;
                add.stage2_unmap_elide = native_unmap;
            }
        }
        add
    }
}

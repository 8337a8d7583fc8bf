// SPDX-License-Identifier: GPL-2.0

//! The lines above the list of VMs.

use super::{column::View, units};
use crate::{
    counters::{FUNCTION, Shown, Stat, Timing, Unit},
    snapshot::{Figures, Maintenance, Policy, Snapshot, Stats},
};

impl Snapshot {
    /// What these figures cost, as text.
    pub fn cost_text(&self, figures: &Figures) -> String {
        let cost = self.cost(figures);
        if self.is_timed() {
            units::time(cost)
        } else {
            cost.to_string()
        }
    }
}

/// What this host does: `FWB yes  DIC no  policy once  hooks armed  ...`, as name and value.
pub fn host(snapshot: &Snapshot) -> Vec<(&'static str, &'static str)> {
    let host = &snapshot.host;
    let flag = |flag| if flag { "yes" } else { "no" };
    let own = match host.native_reset {
        Maintenance::None => "nothing",
        Maintenance::Icache => "icache, each vCPU",
        Maintenance::Unmap => "unmap, each vCPU",
    };
    vec![
        ("FWB", flag(host.fwb)),
        ("DIC", flag(host.dic)),
        ("policy", snapshot.policy.map_or("hidden", Policy::name)),
        ("hooks", host.hooks.name()),
        ("kernel's own reset", own),
    ]
}

/// The totals of all VMs since load, with rates of those that moved: heading, number, rate.
pub fn totals(view: &View<'_>) -> Vec<(&'static str, String, Option<String>)> {
    let total = &view.snapshot.total;
    // With FEAT_S2FWB nothing is cleaned, and nothing to be left out.
    let cleans = |stat| match view.snapshot.host.fwb {
        true => None,
        false => total.stats.seen(stat),
    };
    let mut lines: Vec<_> = [
        ("VM resets", Stat::VmReset),
        ("re-inits", Stat::VcpuReset),
        ("I-cache invalidations", Stat::IcacheInvalidate),
        ("unmaps", Stat::Stage2Unmap),
        ("invalidations left out", Stat::IcacheElide),
        ("unmaps left out", Stat::Stage2UnmapElide),
        ("not needed by DIC", Stat::IcacheDic),
        ("busy", Stat::Busy),
        ("VMs in debt", Stat::Pending),
        ("left uncleaned", Stat::DcacheCleanElideBytes),
        ("TLBI left out", Stat::TlbiElide),
        ("stage-2 flushes", Stat::Stage2Flush),
    ]
    .into_iter()
    .filter(|&(_, stat)| stat.field().shown == Shown::Always || cleans(stat).is_some())
    .map(|(heading, stat)| {
        let unit = stat.field().unit;
        let rate = view.change.filter(|_| stat != Stat::Pending);
        let rate = rate
            .map(|change| change.total(total, stat))
            .filter(|&rate| rate > 0.0);
        (
            heading,
            units::value(total.stats.get(stat), unit),
            rate.map(|rate| units::growth(rate, unit)),
        )
    })
    .collect();
    let latency = (total.latency.as_ref()).filter(|_| cleans(Stat::Stage2Flush).is_some());
    if let Some(times) = latency.and_then(|latency| latency.get(Timing::Stage2Flush)) {
        let sum = units::value(times.sum_ns, Unit::Nanoseconds);
        lines.push(("time in flushes", sum, None));
    }
    lines
}

/// What this host needs counted, and is not, and why.
pub fn uncounted(snapshot: &Snapshot) -> Option<String> {
    if snapshot.host.fwb {
        return None;
    }
    let (names, shown) = snapshot.uncounted()?;
    let why = match shown {
        Shown::WithFunction => format!("this kernel has no function {FUNCTION}"),
        Shown::SinceLazy | Shown::Always => "the module is older than this tool".into(),
    };
    Some(format!("Not counted: {}; {why}", names.join(", ")))
}

/// The one sentence that an operator came for.
pub fn verdict(view: &View<'_>) -> String {
    let snapshot = view.snapshot;
    match snapshot.costliest() {
        Some((vm, share)) => {
            let cost = snapshot.present_cost();
            let all = if snapshot.is_timed() {
                units::time(cost)
            } else {
                format!("{cost} operations")
            };
            let (id, comm, share) = (&vm.id, vm.comm(), units::share(share));
            format!("Costs most: {id} ({comm}), {share} of the {all} for the VMs listed")
        }
        None if snapshot.vms.is_empty() => no_entry(&snapshot.total.stats),
        None => "Resets of the VMs listed cost nothing so far.".into(),
    }
}

/// Why the list is empty.
fn no_entry(total: &Stats) -> String {
    let mut line = "No VM has an entry now: it comes with the VM's first reset.".to_owned();
    let inits = total.get(Stat::VcpuInit);
    if inits > 0 && total.get(Stat::VcpuReset) == 0 {
        line += &format!(
            " None of the {inits} initialisations counted was of a vCPU that had run: no guest has rebooted, or its VMM makes a new VM for each reboot."
        );
    }
    line
}

/// What the totals hold beyond the VMs in the list, if anything.
pub fn unlisted(view: &View<'_>) -> Option<String> {
    let rest = view.snapshot.unlisted();
    let count = |stat| rest.stats.get(stat);
    // A VM has its entry from its first reset on; what it was initialised with before is no reset's.
    let is_some = Stat::ALL
        .into_iter()
        .any(|stat| !matches!(stat, Stat::Pending | Stat::VcpuInit) && count(stat) > 0);
    if !is_some && view.snapshot.cost(&rest) == 0 {
        return None;
    }
    let rate = (view.change)
        .map(|change| change.unlisted(view.snapshot, Stat::VmReset))
        .filter(|&rate| rate > 0.0)
        .map_or_else(String::new, |rate| format!(" ({})", units::rate(rate)));
    let cost = view.snapshot.cost_text(&rest);
    let cost = match view.snapshot.is_timed() {
        true => cost,
        false => format!("{cost} operations"),
    };
    let counted = |stat, name| match count(stat) {
        1 => format!("1 {name}"),
        count => format!("{count} {name}s"),
    };
    Some(format!(
        "VMs that are gone or have no entry: {}{rate}, {}, {cost}",
        counted(Stat::VmReset, "VM reset"),
        counted(Stat::VcpuReset, "re-init")
    ))
}

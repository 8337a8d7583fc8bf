// SPDX-License-Identifier: GPL-2.0
//! What is due at a VM's reset, from what the policies promise and what the architecture demands.

use contract::{Counters, Expected, Host, Policy};

use crate::record::State;

/// What one section must show. Dirty data, never: with FWB stage 2 makes all accesses cacheable (Arm
/// ARM, HCR_EL2.FWB), and without it all states unmap, so that what is not clean faults in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Invalidations of all PEs' I-caches on account of re-inits.
    pub invalidations: u64,
    /// Unmaps of all RAM at stage 2.
    pub unmaps: u64,
    /// Whether guests execute code that is not there any more.
    pub stale: bool,
    /// What `stats` reads, but for what unmaps under `lazy` leave out.
    pub counters: Option<Counters>,
    /// Whether unmaps leave something out: how much depends on what was mapped, and how.
    pub elides: bool,
}

impl Due {
    /// At the reset of a VM of so many vCPUs that have all run, and all run again.
    pub fn at_reset(host: Host, state: State, vcpus: usize) -> Self {
        // Without the module the kernel goes its own way, and that is what the module calls native.
        let counters = counters(host, state.0.unwrap_or(Policy::Native), vcpus, true);
        let (invalidations, unmaps) = (counters.icache_invalidate, counters.stage2_unmap);
        Self {
            invalidations,
            unmaps,
            // With DIC the I-caches need nothing: instructions are as coherent as data (Arm ARM,
            // CTR_EL0.DIC). Otherwise it takes an invalidation, or else an unmap: what faults in
            // again is invalidated then.
            stale: !host.dic && invalidations == 0 && unmaps == 0,
            counters: state.0.map(|_| counters),
            elides: state.0 == Some(Policy::Lazy) && !host.fwb,
        }
    }

    /// When the VM is made and runs for the first time: all of its memory faults in.
    pub fn at_first(host: Host, state: State, vcpus: usize) -> Self {
        Self {
            invalidations: 0,
            unmaps: 0,
            stale: false,
            counters: state.0.map(|policy| counters(host, policy, vcpus, false)),
            elides: false,
        }
    }
}

fn counters(host: Host, policy: Policy, vcpus: usize, reset: bool) -> Counters {
    const VM: &str = "vm";
    let mut contract = Expected::new(host);
    contract.load(policy);
    contract.create(VM, vcpus);
    let init_and_run = |contract: &mut Expected| {
        (0..vcpus).for_each(|vcpu| contract.init(VM, vcpu));
        (0..vcpus).for_each(|vcpu| contract.enter(VM, vcpu));
        (0..vcpus).for_each(|vcpu| contract.leave(VM, vcpu));
    };
    init_and_run(&mut contract);
    if reset {
        contract.clear();
        init_and_run(&mut contract);
    }
    contract.total()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 6] = State::ALL;

    fn due(facts: &str, vcpus: usize) -> [(u64, u64, bool); 6] {
        let host: Host = facts.parse().unwrap();
        STATES.map(|state| {
            let due = Due::at_reset(host, state, vcpus);
            (due.invalidations, due.unmaps, due.stale)
        })
    }

    /// The promise in full, for none, native, fwb, once, unmap and lazy.
    #[test]
    fn what_is_due() {
        for vcpus in [1, 8, 64] {
            let n = vcpus as u64;
            let [all, once] = [n, 1].map(|count| (count, 0, false));
            let [each, one] = [n, 1].map(|count| (0, count, false));
            let (nothing, stale) = ((0, 0, false), (0, 0, true));

            let icache = "fwb:1,dic:0,native_reset:icache";
            // An unmap does not stand for the kernel's own invalidation.
            let both = (n, n, false);
            assert_eq!(due(icache, vcpus), [all, all, all, once, both, once]);
            let rfc = "fwb:1,dic:0,native_reset:none";
            assert_eq!(due(rfc, vcpus), [stale, stale, all, once, each, once]);
            let legacy = "fwb:1,dic:0,native_reset:unmap";
            assert_eq!(due(legacy, vcpus), [each, each, all, once, each, once]);
            let dic = "fwb:1,dic:1,native_reset:none";
            let nothings = [nothing; 4];
            assert_eq!(due(dic, vcpus)[..4], nothings);
            assert_eq!(due(dic, vcpus)[4..], [each, nothing]);
            let no_fwb = "fwb:0,dic:0,native_reset:unmap";
            assert_eq!(due(no_fwb, vcpus), [each, each, each, one, each, one]);
        }
    }

    #[test]
    fn a_new_vm_owes_nothing() {
        let host = "fwb:1,dic:0".parse().unwrap();
        let due = Due::at_first(host, State(Some(Policy::Once)), 8);
        let counters = due.counters.unwrap();
        assert_eq!((counters.vcpu_init, counters.vcpu_reset), (8, 0));
        assert_eq!(Due::at_first(host, State(None), 8).counters, None);
    }
}

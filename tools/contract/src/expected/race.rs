// SPDX-License-Identifier: GPL-2.0
//! Re-inits, KVM_RUNs and changes of the host all at once: between what bounds the counters lie then,
//! and what each vCPU must run all the same.

use super::Expected;
use super::vm::Vm;
use crate::counters::ANY_ELIDED;
use crate::{Counters, NativeReset, Policy};

/// A change of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// insmod, with this policy.
    Load(Policy),
    /// rmmod.
    Unload,
    /// This policy is written to debugfs.
    Switch(Policy),
    /// All kprobes of the host are armed, or disarmed.
    Kprobes(bool),
}

/// What the host may be like for one re-init of a race.
#[derive(Clone, Copy)]
struct Setting {
    loaded: bool,
    policy: Policy,
    blind: bool,
    trusted: bool,
}

/// A race that goes on.
#[derive(Clone)]
pub(super) struct Race {
    /// Inits that are no re-inits.
    first: usize,
    /// The module is there all the time.
    steady: bool,
    /// How many times each of them is not timed, if that is known.
    untimed: Option<u64>,
    /// What each re-init does, at least and at most.
    each: (Counters, Counters),
    /// What all of them do at least, if there is one.
    least: Counters,
    /// Invalidations that were due before.
    owed: u64,
    /// Who may pay for one debt at the same time.
    payers: u64,
}

impl Expected {
    /// From here to [`Expected::race_over`], each of `inits` is re-initialised and then enters the guest,
    /// once or more often, in a thread of its own, while `runs` enter it and leave, and the host
    /// changes. Nothing else is told of that VM meanwhile. Returns whether each of `inits` runs the
    /// code as it was written before.
    pub fn race(
        &mut self,
        name: &str,
        inits: &[usize],
        runs: &[usize],
        change: Option<Change>,
    ) -> bool {
        let covered = self.covers(name);
        let settings = self.settings(change);
        self.apply(change);
        let (host, blind) = (self.host, self.is_blind());
        let Some(vm) = self.vms.get_mut(name) else {
            return covered;
        };

        let first = inits.iter().filter(|&&vcpu| !vm.vcpus[vcpu].has_run);
        let first = first.count();
        let payers = (inits.len() + runs.len()) as u64;
        let steady = settings.iter().all(|setting| setting.loaded);
        let rearmed = matches!(change, Some(Change::Kprobes(_)));

        // What one re-init does at least and at most, whatever it finds.
        let (mut low, mut high) = (None, Counters::default());
        // What all of them do for sure: make code coherent, invalidate or owe it, unmap.
        let (mut cures, mut invalidates, mut unmaps) = (true, true, !vm.unmapped);
        for setting in settings {
            for (mut vm, busy) in vm.possible() {
                let unmapped = vm.unmapped;
                let done = vm.reset(busy, host, setting.policy, setting.blind);
                vm.cover(&done, busy, setting.trusted);
                cures &= !vm.stale || vm.owed || vm.unmapped || host.fwb && host.dic;
                invalidates &= done.icache_invalidate > 0 || vm.owed;
                unmaps &= done.stage2_unmap > 0 || unmapped;

                // A debt is paid, be it found too late to be taken back, and by each who sees it at once.
                let debts = setting.policy.is_per_vm() && host.needs_icache();
                let debts = u64::from(debts) * payers;
                // While hooks go in or out the kernel's own is counted, whoever decided.
                let own = u64::from(!steady || rearmed);
                let mut most = Counters {
                    icache_invalidate: done.icache_invalidate + debts + own,
                    stage2_unmap: done.stage2_unmap + own,
                    ..done
                };
                if setting.loaded && vm.may_elide(&done, busy, host, setting.policy) {
                    most += ANY_ELIDED;
                }
                let least = match (setting.loaded, rearmed) {
                    (false, _) => Counters::default(),
                    (true, false) => done,
                    (true, true) => Counters {
                        icache_invalidate: 0,
                        icache_elide: 0,
                        ..done
                    },
                };
                low = Some(low.map_or(least, |low: Counters| low.zip(least, u64::min)));
                high = high.zip(most, u64::max);
            }
        }

        vm.racing = Some(Race {
            first,
            steady,
            untimed: (steady && !rearmed).then_some(blind.into()),
            each: (low.unwrap_or_default(), high),
            least: Counters {
                vm_reset: (!vm.in_reset).into(),
                stage2_unmap: unmaps.into(),
                icache_invalidate: (invalidates && !rearmed).into(),
                ..Counters::default()
            },
            owed: vm.owed.into(),
            payers,
        });
        let cures = covered || cures && first == 0;
        vm.stale &= !cures;
        // Each enters the guest after its re-init: that ends the reset.
        (vm.in_reset, vm.unmapped, vm.owed, vm.mapped) = (false, false, false, true);
        for &vcpu in inits.iter().chain(runs) {
            vm.vcpus[vcpu].has_run = true;
        }
        cures
    }

    /// All threads of the race have ended, after so many inits.
    ///
    /// After a race with a load, a vCPU of the VM has to be re-initialised for the VM to be listed.
    pub fn race_over(&mut self, name: &str, inits: usize) {
        let Some((vm, race)) = self.vms.get_mut(name).and_then(|vm| {
            let race = vm.racing.take()?;
            Some((vm, race))
        }) else {
            return;
        };
        if !self.loaded {
            return;
        }
        let resets = inits.saturating_sub(race.first) as u64;
        let times = |one: Counters| one.zip(one, |one, _| one * resets);
        let (mut low, mut high) = (times(race.each.0), times(race.each.1));
        if race.steady {
            low.vcpu_init = inits as u64;
            if resets > 0 {
                low = low.zip(race.least, u64::max);
            }
        }
        // What was owed before is paid by the first to enter, and stays with each re-init that comes
        // before that has ended.
        low.icache_invalidate = low.icache_invalidate.max(race.owed);
        high.icache_invalidate += race.owed * race.payers * (1 + resets);
        high.vcpu_init = inits as u64;

        for untimed in [&mut vm.untimed, &mut self.untimed] {
            match race.untimed {
                Some(each) => untimed.add(each * resets),
                None => untimed.0 = None,
            }
        }

        let slack = high.zip(low, u64::saturating_sub);
        vm.listed |= resets > 0;
        vm.counters += low;
        vm.slack += slack;
        self.total += low;
        self.slack += slack;
    }

    /// vCPUs were re-initialised at the same time while another ran. One may have found a debt of
    /// another's, which neither then takes back: whether it stays is open.
    pub fn contended(&mut self, name: &str) {
        let may_owe =
            self.loaded && self.policy.is_per_vm() && self.host.needs_icache() && !self.is_blind();
        if let Some(vm) = self.vms.get_mut(name) {
            vm.may_owe = may_owe;
        }
    }

    /// What the host is like before the change, and after it.
    fn settings(&self, change: Option<Change>) -> Vec<Setting> {
        let now = Setting {
            loaded: self.loaded,
            policy: self.way(),
            blind: self.is_blind(),
            trusted: self.trusts(self.way()),
        };
        let way = |policy| Setting {
            loaded: true,
            policy,
            trusted: self.trusts(policy),
            ..now
        };
        let then = match change {
            None => return vec![now],
            Some(Change::Load(policy) | Change::Switch(policy)) => way(policy),
            Some(Change::Unload) => Setting {
                loaded: false,
                ..way(Policy::Native)
            },
            Some(Change::Kprobes(armed)) => Setting {
                blind: !armed && self.host.native_reset == NativeReset::Icache,
                ..now
            },
        };
        vec![now, then]
    }

    fn apply(&mut self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Load(policy)) => self.load(policy),
            Some(Change::Unload) => self.unload(),
            Some(Change::Switch(policy)) => self.policy = policy,
            Some(Change::Kprobes(armed)) => self.armed = armed,
        }
    }
}

impl Vm {
    /// The states in which a re-init of a race may find the VM, and whether it finds another vCPU in
    /// KVM_RUN.
    fn possible(&self) -> Vec<(Self, bool)> {
        let spinning = self.vcpus.iter().any(|vcpu| vcpu.running);
        (0..16)
            .map(|bits| {
                let is = |bit: u32| bits & (1 << bit) != 0;
                let vm = Self {
                    in_reset: is(0),
                    unmapped: is(1),
                    owed: is(2),
                    stale: true,
                    ..self.clone()
                };
                (vm, spinning || is(3))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;
    use crate::host::machines::ICACHE;

    /// Two vCPUs that have run, raced under a policy and a change.
    fn race(host: Host, policy: Policy, change: Option<Change>) -> (Expected, bool) {
        let mut expected = Expected::new(host);
        expected.load(policy);
        expected.create("vm", 2);
        (0..2).for_each(|vcpu| expected.enter("vm", vcpu));
        (0..2).for_each(|vcpu| expected.leave("vm", vcpu));
        expected.write("vm");
        let cures = expected.race("vm", &[0, 1], &[], change);
        expected.race_over("vm", 2);
        (expected, cures)
    }

    fn accepts(expected: &mut Expected, got: Counters) -> bool {
        expected.adopt(None, &got);
        expected.total() == got
    }

    #[test]
    fn two_re_inits_pay_once_or_each() {
        for invalidations in 0..=7 {
            for resets in 0..=3 {
                let (mut expected, cures) = race(ICACHE, Policy::Once, None);
                assert!(cures);
                let got = Counters {
                    vcpu_init: 2,
                    vcpu_reset: 2,
                    vm_reset: resets,
                    icache_invalidate: invalidations,
                    icache_elide: 2,
                    ..Counters::default()
                };
                let possible = (1..=6).contains(&invalidations) && (1..=2).contains(&resets);
                assert_eq!(accepts(&mut expected, got), possible, "{got:?}");
            }
        }
    }

    #[test]
    fn what_races_under_lazy_leave_out_is_open() {
        let no_fwb = Host {
            fwb: false,
            native_reset: NativeReset::Unmap,
            ..ICACHE
        };
        for (policy, change, open) in [
            (Policy::Lazy, None, true),
            (Policy::Once, None, false),
            (Policy::Once, Some(Change::Switch(Policy::Lazy)), true),
        ] {
            let (mut expected, _) = race(no_fwb, policy, change);
            let got = Counters {
                vcpu_init: 2,
                vcpu_reset: 2,
                vm_reset: 1,
                stage2_unmap: 1,
                stage2_unmap_elide: 1,
                dcache_clean_elide_bytes: 8192,
                tlbi_elide: 2,
                ..Counters::default()
            };
            assert_eq!(accepts(&mut expected, got), open, "{policy:?}, {change:?}");
        }
    }

    #[test]
    fn a_kernel_that_does_nothing_is_no_cure() {
        let rfc = Host {
            native_reset: NativeReset::None,
            ..ICACHE
        };
        assert!(race(rfc, Policy::Once, None).1);
        assert!(race(rfc, Policy::Fwb, None).1);
        assert!(!race(rfc, Policy::Native, None).1);
        assert!(!race(rfc, Policy::Once, Some(Change::Unload)).1);
        assert!(!race(rfc, Policy::Once, Some(Change::Switch(Policy::Native))).1);
        assert!(race(ICACHE, Policy::Once, Some(Change::Unload)).1);
        assert!(race(ICACHE, Policy::Native, Some(Change::Kprobes(false))).1);
    }
}

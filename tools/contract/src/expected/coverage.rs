// SPDX-License-Identifier: GPL-2.0
//! Which code a vCPU is sure to run: what user space wrote, or perhaps what an I-cache still holds.

use super::Expected;
use super::vm::Vm;
use crate::{Counters, Host, Policy};

/// Whether code that user space writes after a VM's re-init, and before any of its vCPUs runs again, is
/// what they run: what is owed is paid that late, or code comes in by a fault, or nothing is needed.
/// Without a `policy` the module is not there.
pub fn covers_late_writes(host: Host, policy: Option<Policy>) -> bool {
    const VM: &str = "vm";
    let mut expected = Expected::new(host);
    if let Some(policy) = policy {
        expected.load(policy);
    }
    expected.create(VM, 1);
    expected.enter(VM, 0);
    expected.leave(VM, 0);
    expected.init(VM, 0);
    expected.write(VM);
    expected.covers(VM)
}

impl Expected {
    /// Whether a re-init under that policy is taken to invalidate, though nothing says so.
    pub(super) fn trusts(&self, policy: Policy) -> bool {
        self.trusting && policy == Policy::Native
    }

    /// User space wrote other code.
    pub fn write(&mut self, name: &str) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.stale |= vm.mapped;
        }
    }

    /// Whether all code written so far is what a vCPU runs that enters the guest now.
    pub fn covers(&self, name: &str) -> bool {
        let never_stale = self.host.fwb && self.host.dic;
        self.vms
            .get(name)
            .is_some_and(|vm| never_stale || !vm.stale || vm.owed)
    }
}

impl Vm {
    /// What a re-init `did` makes coherent; one that is trusted invalidates in any case.
    pub(super) fn cover(&mut self, did: &Counters, busy: bool, trusted: bool) {
        if did.stage2_unmap > 0 {
            // Who runs on maps it again at once, and code written from then on is not covered.
            (self.stale, self.mapped) = (false, busy);
        }
        self.stale &= did.icache_invalidate == 0 && !trusted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NativeReset;
    use crate::host::machines::{DIC, ICACHE, NO_FWB};

    /// A vCPU that has run; then code written before its re-init, code written after it, and code written
    /// once it runs again: whether each is covered.
    fn covered(host: Host, policy: Policy, trusting: bool) -> [bool; 3] {
        let mut expected = Expected::new(host);
        expected.trusting = trusting;
        expected.load(policy);
        expected.create("vm", 2);
        expected.write("vm");
        assert!(expected.covers("vm"), "the first fault makes it coherent");
        expected.enter("vm", 0);
        expected.leave("vm", 0);
        expected.write("vm");
        expected.init("vm", 0);
        let before = expected.covers("vm");
        expected.write("vm");
        let after = expected.covers("vm");
        expected.enter("vm", 1);
        expected.write("vm");
        [before, after, expected.covers("vm")]
    }

    #[test]
    fn which_code_is_covered() {
        for policy in [Policy::Native, Policy::Fwb] {
            assert_eq!(covered(ICACHE, policy, false), [true, false, false]);
        }
        for policy in [Policy::Once, Policy::Unmap, Policy::Lazy] {
            assert_eq!(covered(ICACHE, policy, false), [true, true, false]);
        }
        for policy in Policy::ALL {
            assert_eq!(covered(NO_FWB, policy, false), [true, true, false]);
            assert_eq!(covered(DIC, policy, false), [true, true, true]);
        }
        let rfc = Host {
            native_reset: NativeReset::None,
            ..ICACHE
        };
        assert_eq!(covered(rfc, Policy::Native, false), [false; 3]);
        assert_eq!(covered(rfc, Policy::Native, true), [true, false, false]);
        assert_eq!(covered(rfc, Policy::Once, false), [true, true, false]);
    }

    #[test]
    fn what_covers_late_writes() {
        let covered = |host| {
            let states = std::iter::once(None).chain(Policy::ALL.map(Some));
            let covered: Vec<_> = states
                .map(|state| covers_late_writes(host, state))
                .collect();
            covered
        };
        let legacy = Host {
            native_reset: NativeReset::Unmap,
            ..ICACHE
        };
        // Without the module, native, fwb, once, unmap and lazy.
        assert_eq!(covered(ICACHE), [false, false, false, true, true, true]);
        assert_eq!(covered(legacy), [true, true, false, true, true, true]);
        assert_eq!(covered(DIC), [true; 6]);
        assert_eq!(covered(NO_FWB), [true; 6]);
    }
}

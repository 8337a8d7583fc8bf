// SPDX-License-Identifier: GPL-2.0

//! VMs that come and go while the module does.

use simulated::{make, Change, Job, Machine};

/// The redirects go in one after the other, and the one that drops a VM's record may be the last.
#[test]
fn no_record_outlives_its_vm() {
    let machine = Machine::boot(true, false, "icache");
    for seed in 0..200 {
        let churn: Job = Box::new(|| {
            for _ in 0..40 {
                let vm = make(1);
                // Without the code being called: what it is does not matter here.
                assert!(vm.run(0, false).is_ok());
                vm.init(0);
                vm.destroy();
            }
        });
        let load: Job = Box::new(|| assert!(Change::Insert(2).make()));
        machine.race(seed, vec![churn, load]);
        assert_eq!(machine.records(), 0, "seed {seed}");
        assert!(Change::Remove.make());
    }
}

/// A re-init may come while the hooks go out one after the other, KVM_RUN's first: it owes nothing any more.
#[test]
fn nothing_is_owed_behind_an_unload() {
    let machine = Machine::boot(true, false, "icache");
    for seed in 0..200 {
        assert!(Change::Insert(2).make());
        let vm = make(1);
        assert_eq!(vm.run(0, true), Ok(()), "seed {seed}");
        let guest = vm.clone();
        let resets: Job = Box::new(move || {
            for _ in 0..10 {
                guest.write();
                guest.init(0);
                assert_eq!(guest.run(0, true), Ok(()), "seed {seed}");
            }
        });
        let unload: Job = Box::new(|| assert!(Change::Remove.make()));
        machine.race(seed, vec![resets, unload]);
        assert_eq!(machine.policy(), "native");
    }
}

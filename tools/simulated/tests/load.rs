// SPDX-License-Identifier: GPL-2.0

//! VMs that come and go while the module does.

use simulated::{make, Change, Job, Machine};
use std::sync::{
    atomic::{AtomicBool, Ordering::SeqCst},
    Arc,
};

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

/// However early a switch comes: what it says was switched must be so when all hooks are in.
#[test]
fn no_switch_is_lost() {
    let machine = Machine::boot(true, false, "icache");
    for seed in 0..200 {
        let switched = Arc::new(AtomicBool::new(false));
        let load: Job = Box::new(|| assert!(Change::Insert(2).make()));
        let noted = switched.clone();
        let switch: Job = Box::new(move || {
            // One write, at any moment of the load.
            make(1).destroy();
            noted.store(Change::Switch("fwb").make(), SeqCst);
        });
        machine.race(seed, vec![load, switch]);
        let expected = if switched.load(SeqCst) { "fwb" } else { "once" };
        assert_eq!(machine.policy(), expected, "seed {seed}");
        assert!(Change::Remove.make());
        assert!(!Change::Switch("once").make());
        assert_eq!(machine.policy(), "native");
    }
}

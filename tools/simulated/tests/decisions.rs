// SPDX-License-Identifier: GPL-2.0

//! What a re-init decides of the kernel's own maintenance is for itself alone.

use simulated::{make, Change, Job, Machine};

/// With kprobes disarmed behind the decision the kernel never asks for it; what is left over must not be what the next
/// re-init goes by, which decides otherwise.
#[test]
fn none_is_taken_by_another_reinit() {
    let machine = Machine::boot(true, false, "icache");
    for seed in 0..200 {
        assert!(Change::Insert(2).make());
        let vm = make(1);
        assert_eq!(vm.run(0, true), Ok(()), "seed {seed}");
        let resets: Job = Box::new(move || {
            for policy in ["once", "native"].into_iter().cycle().take(6) {
                assert!(Change::Switch(policy).make());
                vm.write();
                vm.init(0);
                assert_eq!(vm.run(0, true), Ok(()), "seed {seed}, {policy}");
            }
        });
        let disarm: Job = Box::new(|| {
            for _ in 0..3 {
                assert!(Change::Kprobes(false).make());
                assert!(Change::Kprobes(true).make());
            }
        });
        machine.race(seed, vec![resets, disarm]);
        assert!(Change::Remove.make());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! VMs that the module found no memory to remember.

use simulated::{make, Change, Machine};

/// What a reset owes cannot be written down, so nothing may be owed: each re-init does all of its work, whatever the policy.
#[test]
fn a_vm_without_a_record_owes_nothing() {
    for (fwb, native) in [
        (true, "icache"),
        (true, "unmap"),
        (true, "none"),
        (false, "unmap"),
    ] {
        let machine = Machine::boot(fwb, false, native);
        for policy in 0..5 {
            // `native` there is wrong by itself; and not every host has `lazy`.
            if native == "none" && policy == 0 || !Change::Insert(policy).make() {
                continue;
            }
            assert!(Change::Memory(false).make());
            let vm = make(2);
            assert_eq!(vm.run(0, true), Ok(()));
            for round in 0..3 {
                vm.write();
                vm.init(0);
                vm.init(1);
                let case = format!("fwb {fwb}, {native}, policy {policy}, round {round}");
                assert_eq!(vm.run(0, true), Ok(()), "{case}");
                assert_eq!(vm.run(1, true), Ok(()), "{case}");
                assert_eq!(machine.records(), 0, "{case}");
            }
            assert!(Change::Memory(true).make());
            assert!(Change::Remove.make());
        }
    }
}

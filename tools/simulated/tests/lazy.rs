// SPDX-License-Identifier: GPL-2.0

//! Unmaps that clean nothing.

use simulated::{make, Change, Machine};

/// What they leave out is counted; under the other policies there is nothing to count.
#[test]
fn what_is_left_out_is_counted() {
    let machine = Machine::boot(false, false, "unmap");
    assert!(Change::Insert(2).make());
    let vm = make(1);
    for (policy, bytes, invalidations) in [("once", 0, 0), ("lazy", 4096, 1), ("native", 0, 0)] {
        assert!(Change::Switch(policy).make());
        let before = left_out(&machine);
        assert_eq!(vm.run(0, true), Ok(()), "{policy}");
        vm.write();
        vm.init(0);
        let after = left_out(&machine);
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (bytes, invalidations),
            "{policy}"
        );
        assert_eq!(vm.run(0, true), Ok(()), "{policy}");
    }
}

fn left_out(machine: &Machine) -> (u64, u64) {
    let stats = machine.stats();
    let counted = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.parse().ok())
            .expect("all counters have a line")
    };
    (counted("dcache_clean_elide_bytes "), counted("tlbi_elide "))
}

// SPDX-License-Identifier: GPL-2.0

//! Re-inits that share an unmap.

use simulated::{make, Change, Job, Machine};

/// One whose task is killed as it waits for another's unmap makes its own. Where it need not wait it shares.
#[test]
fn the_killed_unmap_by_themselves() {
    let machine = Machine::boot(false, false, "unmap");
    let (mut by_itself, mut shared) = (0, 0);
    for seed in 0..200 {
        assert!(Change::Insert(2).make());
        let vm = make(2);
        for vcpu in 0..2 {
            assert_eq!(vm.run(vcpu, true), Ok(()), "seed {seed}");
        }
        vm.write();
        let (one, other) = (vm.clone(), vm.clone());
        let waits: Job = Box::new(move || one.init(0));
        let killed: Job = Box::new(move || other.init_killed(1));
        machine.race(seed, vec![waits, killed]);
        let stats = vm.stats().expect("a VM that was reset has stats");
        let counted = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.parse::<u64>().ok())
        };
        match (counted("stage2_unmap "), counted("stage2_unmap_elide ")) {
            (Some(2), Some(0)) => by_itself += 1,
            (Some(1), Some(1)) => shared += 1,
            counted => panic!("seed {seed}: {counted:?} unmaps made and left out in 2 re-inits"),
        }
        for vcpu in 0..2 {
            assert_eq!(vm.run(vcpu, true), Ok(()), "seed {seed}");
        }
        vm.destroy();
        assert!(Change::Remove.make());
    }
    assert!(
        by_itself > 0 && shared > 0,
        "{by_itself} by themselves, {shared} shared"
    );
}

// SPDX-License-Identifier: GPL-2.0

//! Re-inits that share an unmap.

use simulated::{make, Change, Job, Machine, Vm};

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
        match (
            counted(&vm, "stage2_unmap "),
            counted(&vm, "stage2_unmap_elide "),
        ) {
            (2, 0) => by_itself += 1,
            (1, 1) => shared += 1,
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

/// So do those on a kernel whose own re-inits make none, where a CPU wants it.
#[test]
fn one_is_shared_where_the_kernel_makes_none() {
    let machine = Machine::boot(false, false, "none");
    for policy in [2, 4] {
        assert!(Change::Insert(policy).make());
        let vm = make(3);
        for resets in 1..4 {
            for vcpu in 0..3 {
                assert_eq!(vm.run(vcpu, true), Ok(()), "policy {policy}");
            }
            vm.write();
            for vcpu in 0..3 {
                vm.init(vcpu);
            }
            assert_eq!(counted(&vm, "stage2_unmap "), resets, "policy {policy}");
        }
        for vcpu in 0..3 {
            assert_eq!(vm.run(vcpu, true), Ok(()), "policy {policy}");
        }
        vm.destroy();
        assert!(Change::Remove.make());
    }
    assert_eq!(machine.records(), 0);
}

fn counted(vm: &Vm, name: &str) -> u64 {
    let stats = vm.stats().expect("a VM that was reset has stats");
    let line = stats.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.parse().ok())
        .expect("all counters have a line")
}

// SPDX-License-Identifier: GPL-2.0
//! What is expected, against what is known of each event.

use super::*;
use crate::counters::PAGE;
use crate::host::machines::{DIC, ICACHE, NO_FWB};

/// A VM of four vCPUs that has run, is re-initialised, and runs again.
fn reset(host: Host, policy: Policy, armed: bool) -> Counters {
    let mut expected = Expected::new(host);
    expected.load(policy);
    expected.armed = armed;
    expected.create("vm", 4);
    let mut pending = 0;
    for _ in 0..2 {
        (0..4).for_each(|vcpu| expected.init("vm", vcpu));
        pending = expected.total().pending;
        (0..4).for_each(|vcpu| expected.enter("vm", vcpu));
        (0..4).for_each(|vcpu| expected.leave("vm", vcpu));
    }
    assert_eq!(expected.total().pending, 0);
    assert_eq!(expected.per_vm()["vm"], expected.total());
    Counters {
        pending,
        ..expected.total()
    }
}

#[test]
fn one_reset_of_four_vcpus() {
    let base = Counters {
        vcpu_init: 8,
        vcpu_reset: 4,
        vm_reset: 1,
        ..Counters::default()
    };
    let icache = |icache_invalidate| Counters {
        icache_invalidate,
        ..base
    };
    let unmap = |stage2_unmap, stage2_unmap_elide| Counters {
        stage2_unmap,
        stage2_unmap_elide,
        ..base
    };
    let dic = Counters {
        icache_dic: 4,
        ..base
    };

    assert_eq!(reset(ICACHE, Policy::Native, true), icache(4));
    assert_eq!(reset(ICACHE, Policy::Fwb, true), icache(4));
    assert_eq!(
        reset(ICACHE, Policy::Once, true),
        Counters {
            icache_elide: 4,
            pending: 1,
            ..icache(1)
        }
    );
    assert_eq!(reset(ICACHE, Policy::Once, false), icache(4));
    assert_eq!(
        reset(ICACHE, Policy::Lazy, true),
        reset(ICACHE, Policy::Once, true)
    );
    assert_eq!(
        reset(ICACHE, Policy::Unmap, true),
        Counters {
            icache_invalidate: 4,
            ..unmap(4, 0)
        }
    );

    for policy in [Policy::Native, Policy::Fwb, Policy::Once, Policy::Lazy] {
        assert_eq!(reset(DIC, policy, true), dic);
    }
    assert_eq!(
        reset(DIC, Policy::Unmap, true),
        Counters {
            stage2_unmap: 4,
            ..dic
        }
    );

    for policy in [Policy::Native, Policy::Fwb, Policy::Unmap] {
        assert_eq!(reset(NO_FWB, policy, true), unmap(4, 0));
    }
    for policy in [Policy::Once, Policy::Lazy] {
        assert_eq!(reset(NO_FWB, policy, true), unmap(1, 3));
    }
}

/// Whether so many bytes and pages may be left out at a reset of a VM of two vCPUs that have run, and
/// no more at the next look.
fn may_elide(host: Host, policy: Policy, bytes: u64, tlbi: u64) -> bool {
    let mut expected = Expected::new(host);
    expected.load(policy);
    expected.create("vm", 2);
    (0..2).for_each(|vcpu| expected.enter("vm", vcpu));
    (0..2).for_each(|vcpu| expected.leave("vm", vcpu));
    (0..2).for_each(|vcpu| expected.init("vm", vcpu));
    let mut got = expected.total();
    (got.dcache_clean_elide_bytes, got.tlbi_elide) = (bytes, tlbi);
    let agrees = |expected: &mut Expected, got: &Counters| {
        expected.adopt(None, got);
        expected.adopt(Some("vm"), got);
        let agrees = expected.total() == *got && got.contradictions().is_none();
        assert_eq!(expected.per_vm()["vm"], expected.total());
        agrees
    };
    let agreed = agrees(&mut expected, &got);
    got.dcache_clean_elide_bytes += PAGE;
    got.tlbi_elide += 1;
    assert!(!agrees(&mut expected, &got), "nothing was unmapped since");
    agreed
}

#[test]
fn what_lazy_may_leave_out() {
    for (bytes, tlbi, agree) in [
        (0, 0, true),
        (PAGE, 1, true),
        (512 * PAGE, 1, true),
        (PAGE, 0, false),
        (0, 1, false),
        (PAGE, 2, false),
        (PAGE + 1, 1, false),
    ] {
        assert_eq!(may_elide(NO_FWB, Policy::Lazy, bytes, tlbi), agree);
    }
    assert!(!may_elide(NO_FWB, Policy::Once, PAGE, 1));
    assert!(!may_elide(ICACHE, Policy::Lazy, PAGE, 1));
}

#[test]
fn in_doubt_lazy_leaves_nothing_out() {
    let mut expected = Expected::new(NO_FWB);
    expected.load(Policy::Lazy);
    for name in ["busy", "hole"] {
        expected.create(name, 2);
        expected.immediate(name, 1);
    }
    expected.enter("busy", 0);
    expected.out_of_reach("hole");
    for name in ["busy", "hole"] {
        expected.init(name, 1);
    }
    let want = expected.total();
    assert_eq!(want.stage2_unmap, 2);
    let got = Counters {
        dcache_clean_elide_bytes: PAGE,
        tlbi_elide: 1,
        ..want
    };
    expected.adopt(None, &got);
    assert_eq!(expected.total(), want);
}

#[test]
fn what_an_unmap_may_not_reach_is_unmapped_each_time() {
    for policy in [Policy::Once, Policy::Lazy] {
        let mut expected = Expected::new(NO_FWB);
        expected.load(policy);
        expected.create("vm", 2);
        expected.out_of_reach("vm");
        (0..2).for_each(|vcpu| expected.immediate("vm", vcpu));
        (0..2).for_each(|vcpu| expected.init("vm", vcpu));
        let total = expected.total();
        assert_eq!((total.stage2_unmap, total.stage2_unmap_elide), (2, 0));
    }
}

#[test]
fn a_vm_without_a_name_gets_one() {
    let mut expected = Expected::new(ICACHE);
    expected.load(Policy::Once);
    expected.create("7-3", 1);
    expected.create("7-3 again", 1);
    expected.nameless("7-3 again", 7);
    for vm in ["7-3", "7-3 again"] {
        expected.immediate(vm, 0);
        expected.init(vm, 0);
    }
    let names: Vec<_> = expected.per_vm().into_keys().collect();
    assert_eq!(names, ["7-3", "7-vm1"]);
}

/// A kernel whose own path is wrong is put right under `fwb` and `once`.
#[test]
fn wrong_kernels() {
    let nothing = Host {
        native_reset: NativeReset::None,
        ..ICACHE
    };
    assert_eq!(reset(nothing, Policy::Native, true).icache_invalidate, 0);
    assert_eq!(reset(nothing, Policy::Fwb, true).icache_invalidate, 4);
    assert_eq!(reset(nothing, Policy::Once, true).icache_invalidate, 1);

    let unmaps = Host {
        native_reset: NativeReset::Unmap,
        ..ICACHE
    };
    assert_eq!(reset(unmaps, Policy::Native, true).stage2_unmap, 4);
    assert_eq!(reset(unmaps, Policy::Fwb, true).stage2_unmap_elide, 4);
    assert_eq!(reset(unmaps, Policy::Once, true).icache_invalidate, 1);
}

#[test]
fn a_running_vcpu_makes_the_others_busy() {
    for (host, icache_invalidate, stage2_unmap) in [(ICACHE, 2, 0), (NO_FWB, 0, 2)] {
        let mut expected = Expected::new(host);
        expected.load(Policy::Once);
        expected.create("vm", 2);
        expected.immediate("vm", 1);
        expected.enter("vm", 0);
        expected.init("vm", 1);
        expected.init("vm", 1);
        let want = Counters {
            vcpu_init: 2,
            vcpu_reset: 2,
            vm_reset: 1,
            busy: 2,
            icache_invalidate,
            stage2_unmap,
            ..Counters::default()
        };
        assert_eq!(expected.total(), want);
    }
}

#[test]
fn immediate_exit_neither_pays_nor_ends_the_reset() {
    let mut expected = Expected::new(ICACHE);
    expected.load(Policy::Once);
    expected.create("vm", 2);
    expected.immediate("vm", 0);
    expected.immediate("vm", 1);
    expected.init("vm", 0);
    expected.immediate("vm", 0);
    expected.init("vm", 1);
    let total = expected.total();
    assert_eq!(
        (total.vm_reset, total.pending, total.icache_invalidate),
        (1, 1, 0)
    );
}

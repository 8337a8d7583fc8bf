// SPDX-License-Identifier: GPL-2.0

//! The table of counters against the module's own, compiled.

use kvm_fwb_stat::{
    counters::{Stat, Timing},
    snapshot::{Lazy, Policy},
};
use simulated::names;

#[test]
fn counters_are_the_modules() {
    let mut expected = names::counters();
    expected.push("pending");
    assert_eq!(Stat::ALL.map(|stat| stat.field().name).to_vec(), expected);
}

#[test]
fn timings_are_the_modules() {
    let ours = Timing::ALL.map(|timing| timing.field().name).to_vec();
    assert_eq!(ours, names::timings());
}

#[test]
fn policies_are_the_modules() {
    let ours: Vec<_> = Policy::ALL.iter().map(|policy| policy.name()).collect();
    assert_eq!(ours, names::policies());
}

#[test]
fn words_for_lazy_are_the_modules() {
    let ours: Vec<_> = Lazy::ALL.iter().map(|lazy| lazy.name()).collect();
    assert_eq!(ours, names::lazy());
}

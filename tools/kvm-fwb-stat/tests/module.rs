// SPDX-License-Identifier: GPL-2.0

//! The table of counters against the module's own source.

use kvm_fwb_stat::{
    counters::{Stat, Timing},
    snapshot::{Lazy, Policy},
};
use std::{fs, path::PathBuf};

fn source(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../src")
        .join(name);
    fs::read_to_string(path).ok()
}

/// The names that `text` gives to the variants of an enum: `Variant => "name"`.
fn names(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| {
            let (variant, name) = line.trim().split_once(" => \"")?;
            let is_variant = variant.chars().all(char::is_alphanumeric);
            is_variant.then_some(name.split('"').next()?)
        })
        .collect()
}

#[test]
fn counters_are_the_modules() {
    let counters = source("counters.rs").expect("the module's src/counters.rs");
    let files = source("files.rs").expect("the module's src/files.rs");
    let mut expected = names(&counters);
    assert!(files.contains("\"pending {}\\n\""), "the gauge's line");
    expected.push("pending");
    assert_eq!(Stat::ALL.map(|stat| stat.field().name).to_vec(), expected);
}

#[test]
fn timings_are_the_modules() {
    let latency = source("latency.rs").expect("the module's src/latency.rs");
    let expected: Vec<_> = latency
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(Self::")?.split_once(", \""))
        .map(|(_, name)| name.trim_end_matches("\"),"))
        .collect();
    assert_eq!(
        Timing::ALL.map(|timing| timing.field().name).to_vec(),
        expected
    );
}

#[test]
fn policies_are_the_modules() {
    let policy = source("policy.rs").expect("the module's src/policy.rs");
    let expected: Vec<_> = policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""))
        .map(|(_, name)| name.trim_end_matches("\","))
        .collect();
    let ours: Vec<_> = Policy::ALL.iter().map(|policy| policy.name()).collect();
    assert_eq!(ours, expected);
}

#[test]
fn words_for_lazy_are_the_modules() {
    let files = source("files.rs").expect("the module's src/files.rs");
    let expected: Vec<_> = files
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Lazy::")?.split_once(" => \""))
        .map(|(_, name)| name.trim_end_matches("\","))
        .collect();
    let ours: Vec<_> = Lazy::ALL.iter().map(|lazy| lazy.name()).collect();
    assert_eq!(ours, expected);
}

// SPDX-License-Identifier: GPL-2.0
//! The judge on boots that were recorded in the lab: right kernels and a right module, a wrong kernel,
//! and modules that were wrong on purpose. Cut to two states and one number of vCPUs, and to the sites
//! that maintain I-caches; counters that are younger were filled in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn recorded(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/recorded/{name}.log"))
}

/// Whether the judge finds all as due, and what it says.
fn judge(arguments: &[&str], logs: &[PathBuf]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_verify-judge"))
        .args(arguments)
        .args(logs)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn complaints(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.strip_prefix("WRONG: "))
        .collect()
}

/// Without the module the kernel without its invalidation is stale at each reset, and that is as due.
#[test]
fn right() {
    let (is_right, said) = judge(
        &[],
        &[recorded("stock"), recorded("rfc"), recorded("no-fwb")],
    );
    assert!(is_right, "{said}");
    let want = include_str!("recorded/table");
    assert_eq!(said, want);
}

/// The same as KTAP: a test for each cell and one for the rest of each boot.
#[test]
fn ktap() {
    let (is_right, said) = judge(&["--ktap"], &[recorded("stock"), recorded("rfc")]);
    assert!(is_right, "{said}");
    assert!(said.starts_with("KTAP version 1\n1..6\n"), "{said}");
    assert!(
        said.contains("\nok 4 rfc on cortex-a710, none, 8 vCPUs\n"),
        "{said}"
    );
    let (is_right, said) = judge(&["--ktap"], &[recorded("counts-but-does-not-pay")]);
    assert!(!is_right);
    assert!(
        said.contains("\nnot ok 2 stock on cortex-a710, once, 8 vCPUs\n"),
        "{said}"
    );
}

/// Its counters say that it paid, and guests ran old code.
#[test]
fn a_module_that_counts_but_does_not_pay() {
    let (is_right, said) = judge(&[], &[recorded("counts-but-does-not-pay")]);
    assert!(!is_right);
    let want: Vec<_> = (1..=3)
        .flat_map(|reset| {
            let at = format!("stock on cortex-a710, once, 8 vCPUs: reset {reset}");
            let stale = if reset == 3 { 2 } else { 1 };
            [
                format!("{at}: invalidations: want 1, got 0"),
                format!("{at}: stale fetches: want none, got {stale}"),
            ]
        })
        .collect();
    assert_eq!(complaints(&said), want, "{said}");
}

/// A host without FWB has stale code, and data that goes past the caches.
#[test]
fn a_module_that_never_unmaps() {
    let (is_right, said) = judge(&[], &[recorded("never-unmaps")]);
    assert!(!is_right);
    assert!(
        said.ends_with("1 VMs, 3 resets: not all as due\n"),
        "{said}"
    );
    let complaints = complaints(&said);
    for what in [
        "unmaps: want 1, got 0",
        "dirty reads: want 0, got 9",
        "dirty writes: want 0, got 8",
        "stale fetches: want none, got 1",
        "stage2_unmap: want 1, got 0",
    ] {
        for reset in 1..=3 {
            let want = format!("stock on neoverse-n1, once, 8 vCPUs: reset {reset}: {what}");
            assert!(complaints.contains(&want.as_str()), "{said}");
        }
    }
    assert_eq!(complaints.len(), 15, "{said}");
}

/// A kernel that is not what it is said to be: the wrong one's log and verdict, and the right one's
/// name.
#[test]
fn a_wrong_kernel_under_a_right_ones_name() {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("misnamed.log");
    let text = fs::read_to_string(recorded("rfc")).unwrap();
    let misnamed = text.replace("native_reset:none", "native_reset:icache");
    assert_ne!(text, misnamed);
    fs::write(&log, misnamed).unwrap();
    fs::copy(
        recorded("rfc").with_extension("json"),
        log.with_extension("json"),
    )
    .unwrap();
    let (is_right, said) = judge(&[], &[log]);
    assert!(!is_right);
    assert!(
        said.contains("none, 8 vCPUs: reset 1: stale fetches: want none"),
        "{said}"
    );
    assert!(
        said.contains("none, 8 vCPUs: reset 1: invalidations: want 8, got 0"),
        "{said}"
    );
}

/// One clear line, and no table.
#[test]
fn what_is_not_there() {
    let (is_right, said) = judge(&[], &[recorded("nothing")]);
    assert!(!is_right);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("verify-judge: ") && said.contains("nothing.log"),
        "{said}"
    );
}

// SPDX-License-Identifier: GPL-2.0
//! The functions of the kernel that the oracle's counts are told apart by.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use bench::row::Line;
use vmm::marker;

use crate::work::tell;

/// Each entry is counted, and what is maintained after it, of those that a kernel has. The walkers say why lines
/// are cleaned.
const WATCHED: [&str; 7] = [
    "user_mem_abort",
    "stage2_map_walker_try_leaf",
    "stage2_unmap_vm",
    "stage2_unmap_walker",
    "stage2_flush_vm",
    "stage2_flush_walker",
    "kvm_reset_vcpu",
];
/// KVM cleans lines in here alone.
const CLEANS: &str = "dcache_clean_inval_poc";

/// Tells the oracle what to watch, and who gathers its counts where that lies.
pub fn watch() -> Result<()> {
    let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    let mut symbols: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            matches!(words.next()?, "t" | "T").then_some((address, words.next()?))
        })
        .collect();
    symbols.sort_unstable();
    let mut functions = BTreeMap::new();
    for name in WATCHED.into_iter().chain([CLEANS]) {
        let at = symbols.iter().position(|&(_, symbol)| symbol == name);
        let Some(at) = at else {
            ensure!(name != CLEANS, "the kernel has no function {name}");
            continue;
        };
        let start = symbols[at].0;
        ensure!(start != 0, "/proc/kallsyms hides addresses: run as root");
        let mut behind = symbols[at..].iter().map(|&(address, _)| address);
        let end = behind.find(|&address| address > start).unwrap_or(u64::MAX);
        functions.insert(name.to_owned(), (start, end));
    }
    for name in WATCHED {
        if let Some(&(start, _)) = functions.get(name) {
            marker::watch(start);
        }
    }
    tell(&Line::Functions(functions))
}

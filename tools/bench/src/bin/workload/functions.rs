// SPDX-License-Identifier: GPL-2.0
//! The functions of the kernel that the oracle's counts are told apart by.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, ensure};
use bench::row::Line;
use vmm::{marker, symbols::Symbols};

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
    let symbols = Symbols::read()?;
    let mut functions = BTreeMap::new();
    for name in WATCHED.into_iter().chain([CLEANS]) {
        if let Some(Range { start, end }) = symbols.function(name) {
            functions.insert(name.to_owned(), (start, end));
        }
    }
    ensure!(
        functions.contains_key(CLEANS),
        "the kernel has no function {CLEANS}"
    );
    for name in WATCHED {
        if let Some(&(start, _)) = functions.get(name) {
            marker::watch(start);
        }
    }
    tell(&Line::Functions(functions))
}

// SPDX-License-Identifier: GPL-2.0
//! What the kernel's slabs hold, to tell what the module keeps for each VM.

use std::fs;

use anyhow::{Context, Result};
use kvm_ioctls::Kvm;
use vmm::limit;

use crate::vm::Vm;

/// Descriptors that each VM takes, and some more.
const DESCRIPTORS: usize = 8;

/// Bytes by which all slabs together grow for each VM that is re-initialised for the first time,
/// having run before. Without the module that should be nothing.
pub fn per_vm_in_reset(vms: &mut [Vm]) -> Result<u64> {
    let before = slabs()?;
    for vm in vms.iter_mut() {
        vm.init()?;
    }
    Ok(slabs()?.saturating_sub(before) / vms.len() as u64)
}

/// So many VMs: a slab more or less hardly shows in a thousand.
pub fn vms(kvm: &Kvm, count: usize) -> Result<Vec<Vm>> {
    limit::descriptors(256.max(DESCRIPTORS * count) as u64)?;
    (0..count).map(|_| Vm::new(kvm, 1, 0)).collect()
}

fn slabs() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("Slab:")?.split_whitespace().next())
        .context("/proc/meminfo tells nothing of slabs")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

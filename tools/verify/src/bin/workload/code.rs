// SPDX-License-Identifier: GPL-2.0
//! Where the host's code lies that invalidates I-caches on account of re-inits.

use std::fs;

use anyhow::{Context, Result, ensure};
use verify::record::Code;
use vmm::module;

/// What holds the kernel's own `ic ialluis` of KVM_ARM_VCPU_INIT; the second may be part of the first.
const PATH: [&str; 2] = ["kvm_arch_vcpu_ioctl", "kvm_arch_vcpu_ioctl_vcpu_init"];
/// Where kprobes executes an instruction that has a probe: for the module's probe, that one.
const SLOTS: &str = "kprobe_insn_page";
/// The most that slots take of a page, and the least that a page has.
const PAGE: u64 = 4096;

/// The kernel's own. At least one kprobe has to be there, or its slots may not be.
pub fn kernel() -> Result<Vec<Code>> {
    let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    let mut addresses = Vec::new();
    let mut codes = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), _, Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let start = u64::from_str_radix(address, 16).context("/proc/kallsyms")?;
        addresses.push(start);
        if PATH.contains(&name) || name == SLOTS {
            codes.push(Code {
                name: name.to_owned(),
                start,
                end: start + PAGE,
            });
        }
    }
    // A function ends where the next begins.
    addresses.sort_unstable();
    for code in codes.iter_mut().filter(|code| code.name != SLOTS) {
        let next = addresses.partition_point(|&address| address <= code.start);
        code.end = *addresses.get(next).context("the last of all symbols")?;
    }
    for name in [PATH[0], SLOTS] {
        ensure!(
            codes
                .iter()
                .any(|code| code.name == name && code.start != 0),
            "/proc/kallsyms does not say where {name} is"
        );
    }
    Ok(codes)
}

/// The loaded module's.
pub fn module() -> Result<Code> {
    let text = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    // NAME SIZE USERS DEPENDENCIES STATE ADDRESS: of all its parts together, and of its code.
    let place = text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [module::NAME, size, _, _, _, address, ..] = words[..] else {
            return None;
        };
        let start = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some((start, start + size.parse::<u64>().ok()?))
    });
    let (start, end) = place.context("/proc/modules does not say where the module is")?;
    Ok(Code {
        name: module::NAME.to_owned(),
        start,
        end,
    })
}

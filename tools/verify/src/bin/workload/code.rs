// SPDX-License-Identifier: GPL-2.0
//! Where the host's code lies that invalidates I-caches on account of re-inits.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use verify::record::Code;
use vmm::{module, symbols::Symbols};

/// What holds the kernel's own `ic ialluis` of KVM_ARM_VCPU_INIT; the second may be part of the first.
const PATH: [&str; 2] = ["kvm_arch_vcpu_ioctl", "kvm_arch_vcpu_ioctl_vcpu_init"];
/// Where kprobes executes an instruction that has a probe: for the module's probe, that one.
const SLOTS: &str = "kprobe_insn_page";
/// The most that slots take of a page, and the least that a page has.
const PAGE: u64 = 4096;

/// The kernel's own. At least one kprobe has to be there, or its slots may not be.
pub fn kernel() -> Result<Vec<Code>> {
    let symbols = Symbols::read()?;
    let code = |name: &str, Range { start, end }| Code {
        name: name.to_owned(),
        start,
        end,
    };
    let slots = symbols.address(SLOTS).map(|start| start..start + PAGE);
    let missing = |name| format!("/proc/kallsyms does not say where {name} is");
    let mut codes = vec![code(SLOTS, slots.with_context(|| missing(SLOTS))?)];
    for name in PATH {
        codes.extend(symbols.function(name).map(|range| code(name, range)));
    }
    ensure!(
        codes.iter().any(|code| code.name == PATH[0]),
        missing(PATH[0])
    );
    Ok(codes)
}

/// The loaded module's.
pub fn module() -> Result<Code> {
    let Range { start, end } = module::code()?;
    Ok(Code {
        name: module::NAME.to_owned(),
        start,
        end,
    })
}

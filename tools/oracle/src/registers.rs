// SPDX-License-Identifier: GPL-2.0

//! A PE's registers, as QEMU shows them to gdb.

use crate::ram::Ram;
use anyhow::{Context, Result};
use coherence::{
    Features,
    memory::{PAGE, page_of},
    walk::Regime,
};
use qemu_plugin::{RegisterDescriptor, qemu_plugin_get_registers};

/// Those that the oracle reads. They are the PE's own whose thread reads.
pub struct Registers {
    x: Vec<RegisterDescriptor<'static>>,
    cpsr: RegisterDescriptor<'static>,
    ctr_el0: RegisterDescriptor<'static>,
    clidr_el1: RegisterDescriptor<'static>,
    hcr_el2: RegisterDescriptor<'static>,
    sctlr_el1: RegisterDescriptor<'static>,
    tcr_el1: RegisterDescriptor<'static>,
    ttbr0_el1: RegisterDescriptor<'static>,
    ttbr1_el1: RegisterDescriptor<'static>,
    sctlr_el2: RegisterDescriptor<'static>,
    tcr_el2: RegisterDescriptor<'static>,
    ttbr0_el2: RegisterDescriptor<'static>,
    ttbr1_el2: Option<RegisterDescriptor<'static>>,
    vtcr_el2: RegisterDescriptor<'static>,
    vttbr_el2: RegisterDescriptor<'static>,
}

impl Registers {
    /// Finds them, in a PE's thread.
    ///
    /// # Errors
    ///
    /// If one is missing: QEMU without EL2, or of another architecture.
    pub fn new() -> Result<Self> {
        let mut all = qemu_plugin_get_registers()?;
        let mut find = |name: &str| {
            let at = all.iter().position(|register| register.name == name);
            at.map(|at| all.swap_remove(at)).with_context(|| {
                format!("the machine has no {name}: it needs an arm64 CPU and virtualization=on")
            })
        };
        Ok(Self {
            x: (0..31)
                .map(|n| find(&format!("x{n}")))
                .collect::<Result<_>>()?,
            cpsr: find("cpsr")?,
            ctr_el0: find("CTR_EL0")?,
            clidr_el1: find("CLIDR")?,
            hcr_el2: find("HCR_EL2")?,
            sctlr_el1: find("SCTLR")?,
            tcr_el1: find("TCR_EL1")?,
            ttbr0_el1: find("TTBR0_EL1")?,
            ttbr1_el1: find("TTBR1_EL1")?,
            sctlr_el2: find("SCTLR_EL2")?,
            tcr_el2: find("TCR_EL2")?,
            ttbr0_el2: find("TTBR0_EL2")?,
            // Only with VHE.
            ttbr1_el2: find("TTBR1_EL2").ok(),
            vtcr_el2: find("VTCR_EL2")?,
            vttbr_el2: find("VTTBR_EL2")?,
        })
    }

    /// Register `x<n>`; 31 is zero.
    pub fn x(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).map_or(0, read)
    }

    /// What the caches are.
    pub fn features(&self) -> Features {
        Features::from_registers(read(&self.ctr_el0), read(&self.clidr_el1))
    }

    pub fn hcr_el2(&self) -> u64 {
        read(&self.hcr_el2)
    }

    pub fn sctlr_el1(&self) -> u64 {
        read(&self.sctlr_el1)
    }

    /// The exception level.
    pub fn el(&self) -> u8 {
        ((read(&self.cpsr) >> 2) & 3) as u8
    }

    /// All that address translation depends on.
    pub fn regime(&self) -> Regime {
        Regime {
            el: self.el(),
            hcr_el2: self.hcr_el2(),
            sctlr_el1: self.sctlr_el1(),
            tcr_el1: read(&self.tcr_el1),
            ttbr0_el1: read(&self.ttbr0_el1),
            ttbr1_el1: read(&self.ttbr1_el1),
            sctlr_el2: read(&self.sctlr_el2),
            tcr_el2: read(&self.tcr_el2),
            ttbr0_el2: read(&self.ttbr0_el2),
            ttbr1_el2: self.ttbr1_el2.as_ref().map_or(0, read),
            vtcr_el2: read(&self.vtcr_el2),
            vttbr_el2: read(&self.vttbr_el2),
        }
    }

    /// Text in the memory of who runs now; as much of it as is there.
    pub fn text(&self, ram: &Ram, addr: u64, len: u64) -> String {
        let mut bytes = Vec::new();
        let mut next = addr;
        let end = addr.saturating_add(len);
        while next < end {
            let stop = end.min(page_of(next).saturating_add(PAGE));
            let mut part = vec![0; (stop - next) as usize];
            match self.regime().translate(next, ram) {
                Some(addr) if ram.copy(addr, &mut part) => bytes.append(&mut part),
                _ => break,
            }
            next = stop;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The value of a register of up to 64 bits. What QEMU does not let be read, reads as zero.
fn read(register: &RegisterDescriptor<'_>) -> u64 {
    let bytes = register.read().unwrap_or_default();
    let little = |value, &byte| (value << 8) | u64::from(byte);
    bytes.iter().rev().fold(0, little)
}

// SPDX-License-Identifier: GPL-2.0

//! Address translation as the PE does it (DDI 0487, D8.2), for maintenance by address.
//!
//! It takes what the tables say and checks no permissions: the PE has done that, or it will fault.
//! Physical addresses end at 48 bits, which is more than the machine's.

use crate::memory::Memory;

/// The registers that decide how a PE translates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Regime {
    /// Exception level, 0 to 2.
    pub el: u8,
    pub hcr_el2: u64,
    pub sctlr_el1: u64,
    pub tcr_el1: u64,
    pub ttbr0_el1: u64,
    pub ttbr1_el1: u64,
    pub sctlr_el2: u64,
    pub tcr_el2: u64,
    pub ttbr0_el2: u64,
    pub ttbr1_el2: u64,
    pub vtcr_el2: u64,
    pub vttbr_el2: u64,
}

/// HCR_EL2.VM: there is a second stage.
pub const HCR_VM: u64 = 1;
/// HCR_EL2.FB: a guest's local maintenance is broadcast.
pub const HCR_FB: u64 = 1 << 9;
/// HCR_EL2.DC: a guest without MMU has cacheable memory.
pub const HCR_DC: u64 = 1 << 12;
/// HCR_EL2.TGE: EL0 is the host's.
pub const HCR_TGE: u64 = 1 << 27;
/// HCR_EL2.E2H: EL2 has two ranges of addresses, like EL1.
pub const HCR_E2H: u64 = 1 << 34;
/// HCR_EL2.FWB: the second stage makes a guest's memory cacheable, whatever the first one says.
pub const HCR_FWB: u64 = 1 << 46;
/// SCTLR_ELx.M: the MMU is on.
pub const SCTLR_M: u64 = 1;
/// SCTLR_ELx.C: data may be cached.
pub const SCTLR_C: u64 = 1 << 2;

/// SCTLR_ELx.I: instructions may be cached beyond the instruction cache.
pub const SCTLR_I: u64 = 1 << 12;

/// Whether HCR_EL2 makes EL1 and EL0 a guest's.
pub fn is_guest(hcr_el2: u64) -> bool {
    hcr_el2 & (HCR_VM | HCR_TGE) == HCR_VM
}

/// One table walk.
struct Walk {
    table: u64,
    /// log2 of the granule
    granule: u32,
    start: i32,
    /// Bits of input address
    input: u32,
}

impl Walk {
    /// A stage 1 walk: `field` has T0SZ, or what stands in its place.
    fn stage1(table: u64, size: u64, granule: u32) -> Option<Self> {
        let input = 64 - (size & 0x3f) as u32;
        let stride = granule - 3;
        (input > granule && input <= 56).then(|| Self {
            table: table & 0xffff_ffff_fffe,
            granule,
            start: 4 - (input - granule).div_ceil(stride) as i32,
            input,
        })
    }

    fn stage2(vttbr: u64, vtcr: u64) -> Option<Self> {
        let granule = granule0(vtcr);
        let sl0 = ((vtcr >> 6) & 3) as i32;
        let sl2 = (vtcr >> 33) & 1 != 0;
        let start = match (granule, sl0) {
            (12, 0) if sl2 => -1,
            (12, 3) => 3,
            (12, _) => 2 - sl0,
            _ => 3 - sl0,
        };
        Some(Self {
            start,
            ..Self::stage1(vttbr, vtcr, granule)?
        })
    }

    /// `next` makes a physical address of what a table has.
    fn run(
        &self,
        addr: u64,
        memory: &dyn Memory,
        next: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        let addr = addr & ((1 << self.input) - 1);
        let stride = self.granule - 3;
        let mut table = self.table;
        for level in self.start..=3 {
            let shift = self.granule + stride * (3 - level) as u32;
            let mut index = addr >> shift;
            if level != self.start {
                index &= (1 << stride) - 1;
            }
            let entry = memory.doubleword(next(table + index * 8)?)?;
            let output = entry & 0xffff_ffff_ffff & !((1 << self.granule) - 1);
            match (entry & 3, level) {
                (3, 3) => return Some(output | addr & ((1 << self.granule) - 1)),
                (3, _) => table = output,
                (1, ..3) => {
                    let low = (1u64 << shift) - 1;
                    return Some(output & !low | addr & low);
                }
                _ => return None,
            }
        }
        None
    }
}

/// The granule in TG0, as log2.
fn granule0(tcr: u64) -> u32 {
    match (tcr >> 14) & 3 {
        1 => 16,
        2 => 14,
        _ => 12,
    }
}

/// The granule in TG1, as log2.
fn granule1(tcr: u64) -> u32 {
    match (tcr >> 30) & 3 {
        1 => 14,
        3 => 16,
        _ => 12,
    }
}

impl Regime {
    /// Whether what runs is a guest.
    pub fn is_guest(&self) -> bool {
        self.el < 2 && is_guest(self.hcr_el2)
    }

    /// The physical address of `addr`, if it is mapped.
    pub fn translate(&self, addr: u64, memory: &dyn Memory) -> Option<u64> {
        let guest = self.is_guest();
        let stage2 = |addr| {
            if guest {
                Walk::stage2(self.vttbr_el2, self.vtcr_el2)?.run(addr, memory, Some)
            } else {
                Some(addr)
            }
        };
        let vhe = self.hcr_el2 & HCR_E2H != 0;
        let host = self.el == 2 || vhe && self.hcr_el2 & HCR_TGE != 0;
        let (sctlr, tcr, ttbr0, ttbr1) = if host {
            (self.sctlr_el2, self.tcr_el2, self.ttbr0_el2, self.ttbr1_el2)
        } else {
            (self.sctlr_el1, self.tcr_el1, self.ttbr0_el1, self.ttbr1_el1)
        };
        // HCR_EL2.DC behaves as if the guest's MMU were off.
        if sctlr & SCTLR_M == 0 || guest && self.hcr_el2 & HCR_DC != 0 {
            return stage2(addr);
        }
        // EL2 without VHE has one range only, and another format of TCR_EL2.
        let upper = (addr >> 55) & 1 != 0 && (!host || vhe);
        let walk = if upper {
            Walk::stage1(ttbr1, tcr >> 16, granule1(tcr))
        } else {
            Walk::stage1(ttbr0, tcr, granule0(tcr))
        };
        stage2(walk?.run(addr, memory, stage2)?)
    }
}

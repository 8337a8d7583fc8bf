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
    /// HCR_EL2: what EL2 does to guests.
    pub hcr_el2: u64,
    /// SCTLR_EL1: whether the MMU is on, at EL1.
    pub sctlr_el1: u64,
    /// TCR_EL1: how stage 1 translates, at EL1.
    pub tcr_el1: u64,
    /// TTBR0_EL1: the lower half's table, at EL1.
    pub ttbr0_el1: u64,
    /// TTBR1_EL1: the upper half's table, at EL1.
    pub ttbr1_el1: u64,
    /// SCTLR_EL2: whether the MMU is on, at EL2.
    pub sctlr_el2: u64,
    /// TCR_EL2: how stage 1 translates, at EL2.
    pub tcr_el2: u64,
    /// TTBR0_EL2: the lower half's table, at EL2.
    pub ttbr0_el2: u64,
    /// TTBR1_EL2: the upper half's table, at EL2, with VHE.
    pub ttbr1_el2: u64,
    /// VTCR_EL2: how stage 2 translates.
    pub vtcr_el2: u64,
    /// VTTBR_EL2: stage 2's table, and the VMID.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Words;
    use std::collections::HashMap;

    /// Tables, by the addresses of their entries.
    struct Tables(HashMap<u64, u64>);

    impl Memory for Tables {
        fn read(&self, _: u64, _: &mut Words) -> bool {
            false
        }

        fn doubleword(&self, addr: u64) -> Option<u64> {
            self.0.get(&addr).copied()
        }
    }

    fn tables<const N: usize>(entries: [(u64, u64); N]) -> Tables {
        Tables(entries.into())
    }

    const T0SZ_48: u64 = 16;
    const TABLE: u64 = 3;
    const PAGE: u64 = 3 | (1 << 10);
    const BLOCK: u64 = 1 | (1 << 10);

    /// At EL1 without a second stage.
    fn kernel(tcr_el1: u64) -> Regime {
        Regime {
            el: 1,
            sctlr_el1: SCTLR_M,
            tcr_el1,
            ttbr0_el1: 0x1000 | (7 << 48) | 1, // with an ASID, and CnP
            ttbr1_el1: 0x2000,
            ..Regime::default()
        }
    }

    #[test]
    fn four_levels_of_4k() {
        let addr = (1 << 39) | (2 << 30) | (3 << 21) | (4 << 12) | 0x567;
        let memory = tables([
            (0x1008, 0x3000 | TABLE),
            (0x3010, 0x4000 | TABLE),
            (0x4018, 0x5000 | TABLE),
            (0x5020, 0x12_3000 | PAGE | (1 << 54)),
        ]);
        let regime = kernel(T0SZ_48);
        assert_eq!(regime.translate(addr, &memory), Some(0x12_3567));
        assert_eq!(regime.translate(addr + 0x1000, &memory), None);
        assert_eq!(regime.translate(addr | (1 << 55), &memory), None);
    }

    #[test]
    fn blocks() {
        let memory = tables([
            (0x1000, 0x3000 | TABLE),
            (0x3008, 0x4000_0000 | BLOCK),
            (0x3010, 0x4000 | TABLE),
            (0x4008, 0x60_0000 | BLOCK),
        ]);
        let regime = kernel(T0SZ_48);
        let translate = |addr| regime.translate(addr, &memory);
        assert_eq!(translate(0x4765_4321), Some(0x4765_4321));
        assert_eq!(translate(0x8035_4321), Some(0x75_4321));
    }

    #[test]
    fn the_upper_range() {
        let memory = tables([(0x2ff8, 0x3000 | TABLE), (0x3000, 0x4000_0000 | BLOCK)]);
        // T1SZ is 25, and TG1 is 4K: three levels.
        let regime = kernel(T0SZ_48 | (25 << 16) | (2 << 30));
        let three = tables([(0x2000, 0x4000_0000 | BLOCK)]);
        assert_eq!(
            regime.translate(0xffff_ff80_0000_1234, &three),
            Some(0x4000_1234)
        );
        let four = kernel(T0SZ_48 | (16 << 16) | (2 << 30));
        assert_eq!(
            four.translate(0xffff_ff80_0000_1234, &memory),
            Some(0x4000_1234)
        );
    }

    #[test]
    fn other_granules() {
        // 16K and 47 bits: levels 1 to 3.
        let memory = tables([
            (0x1008, 0x8000 | TABLE),
            (0x8010, 0xc000 | TABLE),
            (0xc018, 0x1_0000 | PAGE),
        ]);
        let addr = (1 << 36) | (2 << 25) | (3 << 14) | 0x3abc;
        let regime = kernel(17 | (2 << 14));
        assert_eq!(regime.translate(addr, &memory), Some(0x1_3abc));
        // 64K and 42 bits: levels 2 and 3.
        let memory = tables([(0x1008, 0x2_0000 | TABLE), (0x2_0010, 0x3_0000 | PAGE)]);
        let regime = kernel(22 | (1 << 14));
        let addr = (1 << 29) | (2 << 16) | 0xfedc;
        assert_eq!(regime.translate(addr, &memory), Some(0x3_fedc));
    }

    /// 52 bits of 4K begin at level -1.
    #[test]
    fn five_levels() {
        let memory = tables([
            (0x1008, 0x3000 | TABLE),
            (0x3000, 0x4000 | TABLE),
            (0x4000, 0x4000_0000 | BLOCK),
        ]);
        let regime = kernel(12 | (1 << 59));
        assert_eq!(regime.translate((1 << 48) | 5, &memory), Some(0x4000_0005));
    }

    /// A guest's tables lie at addresses of its own, and the second stage begins with two tables in
    /// one.
    #[test]
    fn two_stages() {
        let guest = Regime {
            hcr_el2: HCR_VM,
            vtcr_el2: 24 | (1 << 6), // 40 bits, from level 1
            vttbr_el2: 0x9000 | (3 << 48),
            ..kernel(25)
        };
        let memory = tables([
            (0x9000, 0x8000_0000 | BLOCK),           // 0 to 1 GiB
            (0x9000 + 8 * 513, 0xc000_0000 | BLOCK), // in the second table
            (0x8000_1000, (513 << 30) | BLOCK),      // what the guest maps at 0
        ]);
        assert_eq!(guest.translate(0x777, &memory), Some(0xc000_0777));
        let off = Regime {
            sctlr_el1: 0,
            ..guest
        };
        assert_eq!(off.translate(0x777, &memory), Some(0x8000_0777));
        let dc = Regime {
            hcr_el2: HCR_VM | HCR_DC,
            ..guest
        };
        assert_eq!(dc.translate(0x777, &memory), Some(0x8000_0777));
        // The host's EL2 has nothing to do with either.
        let host = Regime { el: 2, ..guest };
        assert_eq!(host.translate(0x777, &memory), Some(0x777));
    }

    #[test]
    fn a_host_with_vhe_has_its_own_tables() {
        let memory = tables([(0x3000, 0x4000_0000 | BLOCK), (0x4000, 0x8000_0000 | BLOCK)]);
        let user = Regime {
            el: 0,
            hcr_el2: HCR_E2H | HCR_TGE,
            sctlr_el2: SCTLR_M,
            tcr_el2: 25 | (25 << 16) | (2 << 30),
            ttbr0_el2: 0x3000,
            ttbr1_el2: 0x4000,
            ..kernel(T0SZ_48)
        };
        assert!(!user.is_guest());
        assert_eq!(user.translate(0x10, &memory), Some(0x4000_0010));
        let kernel = Regime { el: 2, ..user };
        let addr = 0xffff_ff80_0000_0010;
        assert_eq!(kernel.translate(addr, &memory), Some(0x8000_0010));
    }

    #[test]
    fn tables_that_are_no_memory_map_nothing() {
        assert_eq!(kernel(T0SZ_48).translate(0, &tables([])), None);
        assert_eq!(kernel(63).translate(0, &tables([])), None);
        assert_eq!(kernel(0).translate(0, &tables([])), None);
    }
}

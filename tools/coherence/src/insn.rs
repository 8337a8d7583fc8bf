// SPDX-License-Identifier: GPL-2.0

//! The A64 instructions that the oracle looks at (DDI 0487, C5.3 to C5.5 and C6.2).

use serde::{Deserialize, Serialize};

/// What is counted, by program counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `ic ialluis`: all instruction caches of the inner-shareable domain.
    IcIalluis,
    /// `ic iallu`: those of the PE that executes it.
    IcIallu,
    /// `ic ivau`: one line, in all of the inner-shareable domain.
    IcIvau,
    /// Any TLB invalidation.
    Tlbi,
    /// Data cache maintenance by VA.
    Dc,
}

/// How far data cache maintenance by VA takes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `dc cvau`: where instruction fetch sees it.
    Unification,
    /// `dc cvac`, `civac`, `ivac`, `cvap`, `cvadp`: where everything does, caches or no caches.
    Coherency,
}

/// Shareability domain of a barrier. The order is by what they include.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// `nsh`: this PE.
    Own,
    /// `ish`, `osh`, `sy`: all PEs that an operating system runs on.
    Shared,
}

/// An instruction that the oracle acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `ic ialluis`: all of the PEs' instruction caches.
    IcIalluis,
    /// `ic iallu`: the PE's own.
    IcIallu,
    /// `ic ivau`: a line of all.
    IcIvau {
        /// The register that its address is in.
        rt: u8,
    },
    /// A data cache operation on a line.
    Dc {
        /// The register that its address is in.
        rt: u8,
        /// How far it goes.
        point: Point,
    },
    /// `dc zva`: a store of zeroes to one block.
    DcZva {
        /// The register that its address is in.
        rt: u8,
    },
    /// A `tlbi` of any kind.
    Tlbi,
    /// A `dsb` that waits for loads and stores; one that waits for only some completes no cache
    /// maintenance, and is not an `Op`.
    Dsb(Domain),
    /// `hint #0x70`: a section begins, its number is in x0.
    Section,
    /// `hint #0x71`: x0 bytes at x1 name the section.
    Name,
    /// `hint #0x72`: who counts is to count how often the instruction at x0 is executed, too.
    Watch,
    /// A write to a register that decides whose code runs, and whether its MMU is on.
    Context,
}

impl Op {
    /// What `word` is, if it is of any interest.
    pub fn decode(word: u32) -> Option<Self> {
        match word {
            0xd503_2e1f => return Some(Self::Section),
            0xd503_2e3f => return Some(Self::Name),
            0xd503_2e5f => return Some(Self::Watch),
            _ => {}
        }
        let crm = (word >> 8) & 0xf;
        if word & 0xffff_f0ff == 0xd503_309f {
            // The low bits say what it waits for. 0 are not `dsb` but SSBB and PSSBB.
            return (crm & 3 == 3).then_some(Self::dsb(crm >> 2));
        }
        if word & 0xffff_f3ff == 0xd503_323f {
            return Some(Self::dsb(crm >> 2)); // dsb nXS
        }
        let rt = (word & 0x1f) as u8;
        let name = ((word >> 16) & 7, (word >> 12) & 0xf, crm, (word >> 5) & 7);
        if word & 0xfff8_0000 == 0xd508_0000 {
            return Self::sys(name, rt);
        }
        // msr to HCR_EL2, SCTLR_EL1 and SCTLR_EL12
        let context = [(4, 1, 1, 0), (0, 1, 0, 0), (5, 1, 0, 0)];
        (word & 0xfff8_0000 == 0xd518_0000 && context.contains(&name)).then_some(Self::Context)
    }

    fn dsb(domain: u32) -> Self {
        Self::Dsb(if domain == 1 {
            Domain::Own
        } else {
            Domain::Shared
        })
    }

    /// By op1, CRn, CRm and op2.
    fn sys(name: (u32, u32, u32, u32), rt: u8) -> Option<Self> {
        let dc = |point| Some(Self::Dc { rt, point });
        match name {
            (0, 7, 1, 0) => Some(Self::IcIalluis),
            (0, 7, 5, 0) => Some(Self::IcIallu),
            (3, 7, 5, 1) => Some(Self::IcIvau { rt }),
            (3, 7, 11, 1) => dc(Point::Unification),
            // cvac, cvap, cvadp and civac, without and with the tags
            (3, 7, 10 | 12 | 13 | 14, 1 | 5) => dc(Point::Coherency),
            (0, 7, 6, 1 | 5) => dc(Point::Coherency), // ivac
            (3, 7, 4, 1 | 4) => Some(Self::DcZva { rt }),
            (_, 8 | 9, _, _) => Some(Self::Tlbi),
            _ => None,
        }
    }

    /// As what it is counted, if it is.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::IcIalluis => Some(Kind::IcIalluis),
            Self::IcIallu => Some(Kind::IcIallu),
            Self::IcIvau { .. } => Some(Kind::IcIvau),
            Self::Dc { .. } => Some(Kind::Dc),
            Self::Tlbi => Some(Kind::Tlbi),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as the GNU assembler makes them.
    #[test]
    fn decodes() {
        let dc = |point| Some(Op::Dc { rt: 3, point });
        for (word, op) in [
            (0xd508_711f, Some(Op::IcIalluis)),
            (0xd508_751f, Some(Op::IcIallu)),
            (0xd50b_7523, Some(Op::IcIvau { rt: 3 })),
            (0xd50b_7b23, dc(Point::Unification)), // cvau
            (0xd50b_7a23, dc(Point::Coherency)),   // cvac
            (0xd50b_7e23, dc(Point::Coherency)),   // civac
            (0xd50b_7c23, dc(Point::Coherency)),   // cvap
            (0xd508_7623, dc(Point::Coherency)),   // ivac
            (0xd50b_7423, Some(Op::DcZva { rt: 3 })),
            (0xd508_7e43, None),                          // cisw
            (0xd508_831f, Some(Op::Tlbi)),                // vmalle1is
            (0xd50c_83df, Some(Op::Tlbi)),                // vmalls12e1is
            (0xd503_3f9f, Some(Op::Dsb(Domain::Shared))), // sy
            (0xd503_3b9f, Some(Op::Dsb(Domain::Shared))), // ish
            (0xd503_379f, Some(Op::Dsb(Domain::Own))),    // nsh
            (0xd503_3a9f, None),                          // ishst
            (0xd503_399f, None),                          // ishld
            (0xd503_309f, None),                          // ssbb
            (0xd503_3a3f, Some(Op::Dsb(Domain::Shared))), // ishnxs
            (0xd503_2e1f, Some(Op::Section)),
            (0xd503_2e3f, Some(Op::Name)),
            (0xd503_2e5f, Some(Op::Watch)),
            (0xd51c_1100, Some(Op::Context)), // hcr_el2
            (0xd518_1000, Some(Op::Context)), // sctlr_el1
            (0xd51d_1000, Some(Op::Context)), // sctlr_el12
            (0xd53c_1100, None),              // mrs hcr_el2
            (0xd503_201f, None),              // nop
            (0xd503_3fdf, None),              // isb
        ] {
            assert_eq!(Op::decode(word), op, "{word:#x}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Reading the kernel's code: which of its instructions can be reached, as they are patched.

#[allow(dead_code)]
#[path = "../../../rust/insn.rs"]
mod insn;

use insn::{DSB_ISH, IC_IALLUIS};
use std::iter;

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const BR_X16: u32 = 0xd61f_0200;
const BLR_X16: u32 = 0xd63f_0200;
const BRK: u32 = 0xd421_0000;
const BRK_KPROBE: u32 = 0xd420_0080;
const PACIASP: u32 = 0xd503_233f;
const BTI_C: u32 = 0xd503_245f;
const MOV_X9_LR: u32 = 0xaa1e_03e9;

fn b(offset: i32) -> u32 {
    0x1400_0000 | (offset as u32 & 0x03ff_ffff)
}

fn bl(offset: i32) -> u32 {
    0x9400_0000 | (offset as u32 & 0x03ff_ffff)
}

/// cbz x0
fn cbz(offset: i32) -> u32 {
    0xb400_0000 | ((offset as u32 & 0x7_ffff) << 5)
}

/// tbnz w0, #3
fn tbnz(offset: i32) -> u32 {
    0x3718_0000 | ((offset as u32 & 0x3fff) << 5)
}

/// b.ne
fn b_ne(offset: i32) -> u32 {
    0x5400_0001 | ((offset as u32 & 0x7_ffff) << 5)
}

fn reached(code: &[u32], starts: &[usize]) -> Vec<usize> {
    let mut seen = vec![false; code.len()];
    let mut reached = vec![];
    insn::reach(code, &mut seen, starts.iter().copied(), |at, word| {
        assert_eq!(code[at], word);
        reached.push(at);
    });
    reached.sort();
    reached
}

#[test]
fn control_flow() {
    assert_eq!(reached(&[NOP, NOP, RET, NOP], &[0]), [0, 1, 2]);
    assert_eq!(reached(&[b(2), NOP, RET], &[0]), [0, 2]);
    assert_eq!(reached(&[NOP, RET, b(-2), RET], &[2]), [0, 1, 2]);
    for branch in [cbz(2), tbnz(2), b_ne(2)] {
        assert_eq!(reached(&[branch, RET, RET, NOP], &[0]), [0, 1, 2]);
    }
    for branch in [cbz(-1), tbnz(-1), b_ne(-1)] {
        assert_eq!(reached(&[RET, branch, RET], &[1]), [0, 1, 2]);
    }
    for end in [RET, BR_X16, BRK] {
        assert_eq!(reached(&[end, NOP], &[0]), [0]);
    }
    for on in [bl(2), BLR_X16, NOP, BRK_KPROBE] {
        assert_eq!(reached(&[on, RET, NOP], &[0]), [0, 1]);
    }
}

#[test]
fn what_lies_outside_is_not_followed() {
    assert_eq!(reached(&[cbz(-1), b(5)], &[0]), [0, 1]);
    assert_eq!(reached(&[NOP], &[0, 7]), [0]);
    assert_eq!(reached(&[], &[0]), [] as [usize; 0]);
}

/// The shape that gcc gives the re-init: one branch for FEAT_S2FWB, one for CTR_EL0.DIC.
#[test]
fn alternatives_choose() {
    let path = |fwb: bool, dic: bool| {
        [
            if fwb { NOP } else { b(5) },
            if dic { b(3) } else { NOP },
            IC_IALLUIS,
            DSB_ISH,
            RET,
            bl(100),
            b(-2),
        ]
    };
    let ends = |code: &[u32]| {
        let reached = reached(code, &[0]);
        (reached.contains(&2), reached.contains(&5))
    };
    assert_eq!(ends(&path(true, false)), (true, false));
    assert_eq!(ends(&path(true, true)), (false, false));
    assert_eq!(ends(&path(false, false)), (false, true));

    // Kernels that are wrong: the invalidation gone, or a way to the unmap in its place.
    let mut rfc = path(true, false);
    rfc[2] = NOP;
    assert_eq!(insn::calls(&rfc, 0).count(), 1);
    assert!(!rfc.contains(&IC_IALLUIS));
    assert!(!ends(&rfc).1);
    let mut legacy = path(true, false);
    legacy[2] = b(3);
    assert!(ends(&legacy).1);
}

#[test]
fn calls_forward_and_back() {
    let code = [bl(3), NOP, bl(-2), b(1)];
    let calls: Vec<_> = insn::calls(&code, 0x1000).collect();
    assert_eq!(calls, [(0, 0x100c), (2, 0x1000)]);
    // Before the start of the address space: not a call.
    assert_eq!(insn::calls(&[bl(-1)], 0).count(), 0);
}

#[test]
fn entries_that_ftrace_patches() {
    for (code, entry) in [
        (&[NOP, NOP, PACIASP][..], Some(8)),
        (&[MOV_X9_LR, bl(-9), PACIASP], Some(8)),
        (&[MOV_X9_LR, NOP, PACIASP], Some(8)),
        (&[BTI_C, NOP, NOP, PACIASP], Some(12)),
        (&[BTI_C, MOV_X9_LR, bl(7)], Some(12)),
        (&[PACIASP, NOP, NOP], None),
        (&[NOP, PACIASP], None),
        (&[NOP, b(3)], None),
        (&[BTI_C, NOP], None),
        (&[], None),
    ] {
        assert_eq!(insn::patched_entry(code), entry, "{code:x?}");
    }
    // Compilers leave nothing else behind a function's start.
    assert!(iter::once(NOP).all(|nop| insn::patched_entry(&[nop]).is_none()));
}

// SPDX-License-Identifier: GPL-2.0

//! The few A64 instructions that tell where control goes (Arm ARM, C4.1), and which of a function's
//! instructions can be reached from where. Plain code: it is tested on the build host.

/// `ic ialluis`.
pub(crate) const IC_IALLUIS: u32 = 0xd508_711f;
/// `dsb ish`.
pub(crate) const DSB_ISH: u32 = 0xd503_3b9f;
/// `brk #0x800` (BUG_BRK_IMM in the kernel's asm/brk-imm.h).
const BRK_BUG: u32 = 0xd421_0000;
/// `brk #0x4` (KPROBES_BRK_IMM in the kernel's asm/brk-imm.h).
pub(crate) const BRK_KPROBE: u32 = 0xd420_0080;
const BTI_C: u32 = 0xd503_245f;
/// `nop`.
pub(crate) const NOP: u32 = 0xd503_201f;
const MOV_X9_LR: u32 = 0xaa1e_03e9;

/// Bytes in an instruction.
pub(crate) const SIZE: usize = 4;

/// A signed field of `bits` bits at bit `low`, in instructions.
fn offset(insn: u32, low: u32, bits: u32) -> isize {
    let up = 32 - bits;
    ((((insn >> low) << up) as i32) >> up) as isize
}

/// The offset, in instructions, that `bl` calls to.
fn call(insn: u32) -> Option<isize> {
    (insn & 0xfc00_0000 == 0x9400_0000).then(|| offset(insn, 0, 26))
}

/// Where control can go after `insn`: the offset it may branch to, and whether it may go on.
pub(crate) fn successors(insn: u32) -> (Option<isize>, bool) {
    match insn {
        // B
        i if i & 0xfc00_0000 == 0x1400_0000 => (Some(offset(i, 0, 26)), false),
        // B.cond, BC.cond; CBZ, CBNZ
        i if i & 0xff00_0000 == 0x5400_0000 || i & 0x7e00_0000 == 0x3400_0000 => {
            (Some(offset(i, 5, 19)), true)
        }
        // TBZ, TBNZ
        i if i & 0x7e00_0000 == 0x3600_0000 => (Some(offset(i, 5, 14)), true),
        // BLR and its authenticated forms return
        i if i & 0xfeff_f000 == 0xd63f_0000 => (None, true),
        // BR, RET, ERET and their authenticated forms
        i if i & 0xfe00_0000 == 0xd600_0000 => (None, false),
        // The BRK of a BUG() ends the code, and that of a WARN() only goes back. Others are probes.
        BRK_BUG => (None, false),
        _ => (None, true),
    }
}

/// Calls `visit` once for each instruction of `code` that can be reached from the instructions
/// `starts`, with its index. `seen` is working memory, as long as `code`, all false. Indirect
/// branches are not followed.
pub(crate) fn reach(
    code: &[u32],
    seen: &mut [bool],
    starts: impl Iterator<Item = usize>,
    mut visit: impl FnMut(usize, u32),
) {
    let mut mark = |seen: &mut [bool], at: usize| match seen.get_mut(at) {
        Some(seen) if !*seen => {
            *seen = true;
            visit(at, code[at]);
            true
        }
        _ => false,
    };

    for start in starts {
        mark(seen, start);
    }
    // Passes over the code until nothing new is found: no stack to run out of, and few passes, as
    // most branches go forward.
    let mut changed = true;
    while changed {
        changed = false;
        for at in 0..code.len() {
            if !seen[at] {
                continue;
            }
            let (target, next) = successors(code[at]);
            if let Some(target) = target.and_then(|offset| at.checked_add_signed(offset)) {
                changed |= target < code.len() && mark(seen, target);
            }
            if next && at + 1 < code.len() {
                changed |= mark(seen, at + 1);
            }
        }
    }
}

/// The calls in `code`, which lies at `address`: the index of each and what it calls.
pub(crate) fn calls(code: &[u32], address: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    code.iter().enumerate().filter_map(move |(at, &insn)| {
        let target = (at as isize)
            .checked_add(call(insn)?)?
            .checked_mul(SIZE as isize)?;
        Some((at, address.checked_add_signed(target)?))
    })
}

/// How many bytes of a function's entry belong to ftrace: an optional landing pad and two patched
/// instructions, idle or calling. `None` where the entry looks different.
pub(crate) fn patched_entry(code: &[u32]) -> Option<usize> {
    let pad = usize::from(*code.first()? == BTI_C);
    let is_bl = |insn: u32| call(insn).is_some();
    match *code.get(pad..pad + 2)? {
        [first, second]
            if (first == NOP || first == MOV_X9_LR) && (second == NOP || is_bl(second)) =>
        {
            Some((pad + 2) * SIZE)
        }
        _ => None,
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Makes a wrong kernel out of a right one, by one instruction on the path of KVM_ARM_VCPU_INIT: the
//! mistakes that were once proposed, or made, for CPUs with FEAT_S2FWB.

#[allow(dead_code)]
#[path = "../../../rust/insn.rs"]
mod insn;

use anyhow::{bail, ensure, Context, Result};
use clap::{Parser, ValueEnum};
use std::{collections::HashMap, fs, ops::Range, path::PathBuf};

/// Makes a wrong kernel out of an arm64 Image.
#[derive(Parser)]
struct Arguments {
    /// What it should do wrong
    kind: Kind,
    /// The uncompressed Image of a kernel that does it right
    image: PathBuf,
    /// Its symbols, a line each: NAME START END, in hexadecimal as in /proc/kallsyms; _text,
    /// kvm_arch_vcpu_ioctl, stage2_unmap_vm and stage2_map_walker_try_leaf at least
    symbols: PathBuf,
    /// Where to put the wrong one
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// With FEAT_S2FWB it does nothing: no unmap, and no invalidation (the RFC of April 2020)
    Rfc,
    /// With FEAT_S2FWB it unmaps all the same (before Linux 5.8)
    Legacy,
    /// It cleans nothing before it maps it (no kernel ever did, without FEAT_S2FWB)
    Unclean,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let symbols = fs::read_to_string(&arguments.symbols)
        .with_context(|| format!("symbols {}", arguments.symbols.display()))?;
    let mut image = fs::read(&arguments.image)
        .with_context(|| format!("image {}", arguments.image.display()))?;
    make_wrong(arguments.kind, &mut image, &parse(&symbols)?)?;
    fs::write(&arguments.out, image)
        .with_context(|| format!("result {}", arguments.out.display()))?;
    Ok(())
}

type Symbols = HashMap<String, Range<usize>>;

fn parse(text: &str) -> Result<Symbols> {
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let mut address = || usize::from_str_radix(words.next()?, 16).ok();
        Some((name, address()?..address()?))
    };
    text.lines()
        .map(|line| symbol(line).with_context(|| format!("not a symbol: {line}")))
        .collect()
}

fn make_wrong(kind: Kind, image: &mut [u8], symbols: &Symbols) -> Result<()> {
    // An Image is mapped from _text on as it lies in the file.
    ensure!(
        image.get(0x38..0x3c) == Some(b"ARM\x64"),
        "not an uncompressed arm64 Image"
    );
    let function = |name: &str| {
        let function = symbols.get(name);
        function
            .cloned()
            .with_context(|| format!("no symbol {name}"))
    };
    let text = function("_text")?.start;
    let place = function(match kind {
        Kind::Rfc | Kind::Legacy => "kvm_arch_vcpu_ioctl",
        Kind::Unclean => "stage2_map_walker_try_leaf",
    })?;
    let bytes = image
        .get_mut((place.start - text)..(place.end - text))
        .context("the symbols are not of this image")?;
    let code: Vec<u32> = bytes
        .chunks_exact(insn::SIZE)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();

    let (at, instead) = match kind {
        Kind::Rfc | Kind::Legacy => {
            let found = code.iter().enumerate();
            let at = only(found.filter(|(_, insn)| **insn == insn::IC_IALLUIS))
                .context("ic ialluis in kvm_arch_vcpu_ioctl")?
                .0;
            let unmap = function("stage2_unmap_vm")?.start;
            let call = only(insn::calls(&code, place.start).filter(|(_, to)| *to == unmap))
                .context("calls of stage2_unmap_vm in kvm_arch_vcpu_ioctl")?
                .0;
            match kind {
                Kind::Rfc => (at, insn::NOP),
                _ => (at, branch(at, block(&code, call))),
            }
        }
        Kind::Unclean => {
            let (at, to) = only(unless_it_cleans(&code))
                .context("looks for dcache_clean_inval_poc in stage2_map_walker_try_leaf")?;
            (at, branch(at, to))
        }
    };
    bytes[at * insn::SIZE..][..insn::SIZE].copy_from_slice(&instead.to_le_bytes());
    Ok(())
}

/// Where code goes on elsewhere if there is nothing to clean with: `cbz` behind a load from the offset
/// of `dcache_clean_inval_poc`, the tenth of `struct kvm_pgtable_mm_ops`; and where that is.
fn unless_it_cleans(code: &[u32]) -> impl Iterator<Item = (usize, usize)> + '_ {
    const NEAR: usize = 8;
    let loads = |insn: u32| (insn & 0xffff_fc00 == 0xf940_2400).then_some(insn & 0x1f);
    let branches = |insn: u32, register| insn & 0xff00_001f == 0xb400_0000 | register;
    code.iter().enumerate().filter_map(move |(at, &insn)| {
        let register = loads(insn)?;
        let mut near = (at + 1..code.len()).take(NEAR);
        let at = near.find(|&at| branches(code[at], register))?;
        let (to, _) = insn::successors(code[at]);
        Some((at, at.checked_add_signed(to?)?))
    })
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Result<T> {
    match (items.next(), items.next()) {
        (Some(item), None) => Ok(item),
        (None, _) => bail!("want one, found none"),
        (Some(_), Some(_)) => bail!("want one, found more"),
    }
}

/// Where the straight run of code up to `at` begins: behind a branch, or a nop that an alternative
/// may have put in place of one. What loads the arguments of a call is in it.
fn block(code: &[u32], at: usize) -> usize {
    let ends = |insn| insn == insn::NOP || insn::successors(insn) != (None, true);
    code[..at]
        .iter()
        .rposition(|&insn| ends(insn))
        .map_or(0, |end| end + 1)
}

/// `b`, from one index to another.
fn branch(from: usize, to: usize) -> u32 {
    0x1400_0000 | ((to.wrapping_sub(from) as u32) & 0x03ff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use insn::NOP;

    const TEXT: usize = 0xffff_8000_8000_0000;
    const RET: u32 = 0xd65f_03c0;

    /// An image of a header, and the path as gcc lays it out: `code` at 0x100, stage2_unmap_vm at 0x200.
    fn image(code: &[u32]) -> (Vec<u8>, Symbols) {
        let mut image = vec![0; 0x300];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        for (at, insn) in code.iter().enumerate() {
            image[0x100 + at * 4..][..4].copy_from_slice(&insn.to_le_bytes());
        }
        let line = |name: &str, start: usize, end: usize| {
            format!("{name} {:x} {:x}\n", TEXT + start, TEXT + end)
        };
        let symbols = line("_text", 0, 0x100)
            + &line("kvm_arch_vcpu_ioctl", 0x100, 0x100 + code.len() * 4)
            + &line("stage2_unmap_vm", 0x200, 0x204);
        (image, parse(&symbols).unwrap())
    }

    /// `ldr x0, [x23]; bl stage2_unmap_vm` from index 1, the invalidation at 4.
    const PATH: [u32; 7] = [
        NOP,
        0xf940_02e0,
        0x9400_003e,
        RET,
        insn::IC_IALLUIS,
        insn::DSB_ISH,
        RET,
    ];

    fn changed(kind: Kind) -> Vec<(usize, u32)> {
        let (before, symbols) = image(&PATH);
        let mut after = before.clone();
        make_wrong(kind, &mut after, &symbols).unwrap();
        let word =
            |image: &[u8], at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        (0..before.len())
            .step_by(4)
            .filter(|&at| word(&before, at) != word(&after, at))
            .map(|at| (at, word(&after, at)))
            .collect()
    }

    #[test]
    fn one_instruction_changes() {
        assert_eq!(changed(Kind::Rfc), [(0x110, NOP)]);
        // Three instructions back, where the argument is loaded.
        assert_eq!(changed(Kind::Legacy), [(0x110, 0x17ff_fffd)]);
    }

    #[test]
    fn a_kernel_that_cleans_nothing() {
        // `ldr x0, [x25, #72]; nop; cbz x0, 4f; ldr x20, [x25, #80]; cbz x20, ...`
        let code = [0xf940_2720, NOP, 0xb400_0040, 0xf940_2b34, 0xb400_00b4, RET];
        let found: Vec<_> = unless_it_cleans(&code).collect();
        assert_eq!(found, [(2, 4)]);
        assert_eq!(branch(2, 4), 0x1400_0002);
        assert_eq!(unless_it_cleans(&code[3..]).count(), 0);
    }

    #[test]
    fn what_is_not_the_path_is_refused() {
        let refused = |code: &[u32]| {
            let (mut image, symbols) = image(code);
            make_wrong(Kind::Rfc, &mut image, &symbols).is_err()
        };
        assert!(!refused(&PATH));
        assert!(refused(&PATH[..4]));
        assert!(refused(&PATH[3..]));
        assert!(refused(&[PATH[2], insn::IC_IALLUIS, insn::IC_IALLUIS]));

        let (mut image, mut symbols) = image(&PATH);
        symbols.remove("stage2_unmap_vm");
        assert!(make_wrong(Kind::Rfc, &mut image, &symbols).is_err());
        assert!(parse("_text 0").is_err());
    }
}

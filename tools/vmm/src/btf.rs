// SPDX-License-Identifier: GPL-2.0
//! What the kernel tells of its own types, as far as its functions go by numbers there: BTF.

use std::fs;

use anyhow::{Context, Result, ensure};

/// There on kernels with CONFIG_DEBUG_INFO_BTF.
pub const FILE: &str = "/sys/kernel/btf/vmlinux";

/// The ids of the kernel's functions of these names, in any order, of those that have one.
pub fn functions(names: &[&str]) -> Result<Vec<u32>> {
    let btf = fs::read(FILE).context(FILE)?;
    let ids = find(&btf, names).with_context(|| format!("{FILE} ends within a type"))?;
    ensure!(!ids.is_empty(), "{FILE} has none of {names:?}");
    Ok(ids)
}

/// Documentation/bpf/btf.rst: a header, types that differ in length and are numbered from 1, and names.
fn find(btf: &[u8], functions: &[&str]) -> Option<Vec<u32>> {
    const FUNCTION: u32 = 12;
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let size = |at| word(at).map(|size| size as usize);
    let header = size(4)?;
    let (mut at, names) = (header + size(8)?, header + size(16)?);
    let end = at + size(12)?;
    let mut ids = Vec::new();
    for id in 1.. {
        if at >= end {
            break;
        }
        let info = word(at + 4)?;
        let (kind, parts) = ((info >> 24) & 0x7f, info as usize & 0xff_ffff);
        if kind == FUNCTION {
            let name = btf.get(names + size(at)?..)?;
            let is_it = |function: &&str| {
                let rest = name.strip_prefix(function.as_bytes());
                rest.is_some_and(|rest| rest.first() == Some(&0))
            };
            if functions.iter().any(is_it) {
                ids.push(id);
            }
        }
        at += 12
            + match kind {
                // An integer, a variable, a tag of a declaration.
                1 | 14 | 17 => 4,
                // An array.
                3 => 12,
                // What has members, of a structure, a union, a section, a large enumeration,
                4 | 5 | 15 | 19 => 12 * parts,
                // or of a small one, or arguments.
                6 | 13 => 8 * parts,
                _ => 0,
            };
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn functions_are_numbered_with_all_types() {
        let names = b"\0int\0run\0running\0";
        let types: [&[u32]; 4] = [
            // An integer with its encoding, a prototype with one argument, and two functions.
            &[1, 1 << 24, 4, 32],
            &[0, (13 << 24) | 1, 0, 0, 1],
            &[9, 12 << 24, 2],
            &[5, 12 << 24, 2],
        ];
        let types: Vec<u8> = types
            .concat()
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let sizes = [24, 0, types.len(), types.len(), names.len()];
        let sizes = sizes
            .into_iter()
            .flat_map(|size| (size as u32).to_le_bytes());
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        btf.extend(sizes);
        btf.extend(&types);
        btf.extend(names);
        assert_eq!(find(&btf, &["run"]), Some(vec![4]));
        assert_eq!(find(&btf, &["running", "run"]), Some(vec![3, 4]));
        assert_eq!(find(&btf, &["int"]), Some(vec![]));
        assert_eq!(find(&btf[..60], &["run"]), None);
    }
}

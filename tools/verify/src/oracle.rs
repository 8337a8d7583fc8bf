// SPDX-License-Identifier: GPL-2.0
//! The oracle's verdict, as far as it is judged here: see tools/oracle for what each number means.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The version that is understood here.
const VERSION: u64 = 1;

#[derive(Debug, Deserialize)]
struct Verdict {
    version: u64,
    sections: Vec<Section>,
}

/// What was seen between two markers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Section {
    pub number: u64,
    #[serde(default)]
    pub name: String,
    /// Instructions that guests executed.
    pub guest_instructions: u64,
    /// Those of them that were not those in memory.
    pub stale_fetches: u64,
    /// Guest accesses past the caches to lines that host writes had left dirty.
    pub dirty_reads: u64,
    pub dirty_writes: u64,
    pub sites: Vec<Site>,
}

/// An instruction of the host's that maintains caches or TLBs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Site {
    /// In hexadecimal, with 0x.
    pub pc: String,
    pub kind: String,
    pub count: u64,
}

impl Section {
    /// How often this host code executed `ic ialluis`.
    pub fn invalidations(&self, is_ours: impl Fn(u64) -> bool) -> Result<u64> {
        let mut sum = 0;
        for site in self.sites.iter().filter(|site| site.kind == "ic_ialluis") {
            let pc = site
                .pc
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .with_context(|| format!("section {}: no address: {}", self.number, site.pc))?;
            if is_ours(pc) {
                sum += site.count;
            }
        }
        Ok(sum)
    }
}

/// All sections, by number.
pub fn parse(text: &str) -> Result<BTreeMap<u64, Section>> {
    let verdict: Verdict = serde_json::from_str(text).context("no verdict of the oracle's")?;
    ensure!(
        verdict.version == VERSION,
        "a verdict of version {}, and only {VERSION} is known",
        verdict.version
    );
    let mut sections = BTreeMap::new();
    for section in verdict.sections {
        let number = section.number;
        ensure!(
            sections.insert(number, section).is_none(),
            "the verdict has section {number} twice"
        );
    }
    Ok(sections)
}

/// The same from a file.
pub fn read(path: &Path) -> Result<BTreeMap<u64, Section>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(pc: &str, kind: &str) -> Site {
        Site {
            pc: pc.to_owned(),
            kind: kind.to_owned(),
            count: 3,
        }
    }

    #[test]
    fn only_our_invalidations_of_all_pes_count() -> Result<()> {
        let section = Section {
            sites: vec![
                site("0xffff800080001000", "ic_ialluis"),
                site("0xffff800080001000", "ic_ivau"),
                site("0xffff800080002000", "ic_ialluis"),
            ],
            ..Section::default()
        };
        assert_eq!(section.invalidations(|pc| pc < 0xffff_8000_8000_2000)?, 3);
        assert_eq!(section.invalidations(|_| true)?, 6);
        let wrong = Section {
            sites: vec![site("kvm", "ic_ialluis")],
            ..Section::default()
        };
        assert!(wrong.invalidations(|_| true).is_err());
        Ok(())
    }

    #[test]
    fn another_version_or_a_section_twice_is_refused() {
        let verdict = |version: u64, numbers: &[u64]| {
            let section = |number| {
                format!(
                    "{{\"number\":{number},\"guest_instructions\":0,\"stale_fetches\":0,\"dirty_reads\":0,\
                     \"dirty_writes\":0,\"sites\":[]}}"
                )
            };
            let sections: Vec<_> = numbers.iter().map(section).collect();
            parse(&format!(
                "{{\"version\":{version},\"sections\":[{}]}}",
                sections.join(",")
            ))
        };
        assert!(verdict(1, &[1, 2]).is_ok_and(|sections| sections.len() == 2));
        assert!(verdict(2, &[1, 2]).is_err());
        assert!(verdict(1, &[1, 1]).is_err());
        assert!(parse("").is_err());
    }
}

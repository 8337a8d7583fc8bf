// SPDX-License-Identifier: GPL-2.0

//! The verdict on a run, as JSON. All who write or read one do it by these types.

use crate::{insn::Kind, whole};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, fmt, fs, path::Path};

/// Version of the format.
pub const VERSION: u32 = 1;
/// How many findings of a section are told in full. All are counted.
pub const REPORTS: usize = 32;

/// What was found from boot to the end.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// [`VERSION`].
    pub version: u32,
    /// In the order in which they began. 0 is from boot to the first marker.
    pub sections: Vec<Section>,
    /// Whether nothing stale or dirty was found.
    pub coherent: bool,
}

/// What was found and counted from one marker to the next; between all markers of one number
/// together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The marker's; 0 before the first.
    pub number: u64,
    /// What was said at the marker.
    pub name: String,
    /// That all CPUs began, for the host and for guests. One that faults and is done again counts
    /// again.
    #[serde(default)]
    pub instructions: u64,
    /// Those of guests.
    pub guest_instructions: u64,
    /// Of [`Finding::StaleFetch`].
    pub stale_fetches: u64,
    /// Stale fetches of what the guest itself had written: no findings.
    #[serde(default)]
    pub self_modified: u64,
    /// Of [`Finding::DirtyRead`].
    pub dirty_reads: u64,
    /// Of [`Finding::DirtyWrite`].
    pub dirty_writes: u64,
    /// `ic ialluis` executed.
    pub ic_ialluis: u64,
    /// `ic iallu` executed.
    pub ic_iallu: u64,
    /// `ic ivau` executed.
    pub ic_ivau: u64,
    /// `tlbi` executed, of any kind.
    pub tlbi: u64,
    /// Data cache operations on a line, of any kind but `dc zva`.
    pub dc: u64,
    /// Where each of these was executed.
    pub sites: Vec<Site>,
    /// The first findings, at most [`REPORTS`].
    pub reports: Vec<Report>,
}

impl Section {
    /// The counter of `kind`.
    pub fn counter(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::IcIalluis => &mut self.ic_ialluis,
            Kind::IcIallu => &mut self.ic_iallu,
            Kind::IcIvau => &mut self.ic_ivau,
            Kind::Tlbi => &mut self.tlbi,
            Kind::Dc => &mut self.dc,
        }
    }

    /// What is wrong with it, in numbers.
    pub fn findings(&self) -> Findings {
        Findings {
            stale_fetches: self.stale_fetches,
            dirty_reads: self.dirty_reads,
            dirty_writes: self.dirty_writes,
        }
    }
}

/// How many findings of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Of [`Finding::StaleFetch`].
    pub stale_fetches: u64,
    /// Of [`Finding::DirtyRead`].
    pub dirty_reads: u64,
    /// Of [`Finding::DirtyWrite`].
    pub dirty_writes: u64,
}

impl Findings {
    /// Whether there is not one.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stale_fetches,
            dirty_reads,
            dirty_writes,
        } = self;
        write!(
            f,
            "{stale_fetches} stale fetches, {dirty_reads} dirty reads, {dirty_writes} dirty writes"
        )
    }
}

/// How often one instruction was executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its virtual address.
    pub pc: Address,
    /// What it is.
    pub kind: Kind,
    /// How often.
    pub count: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// A guest executed an instruction of which an instruction cache may have had another version.
    StaleFetch,
    /// A guest read around the caches what lies dirty in one.
    DirtyRead,
    /// A guest wrote around the caches to what lies dirty in one.
    DirtyWrite,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was found.
    pub kind: Finding,
    /// The guest's virtual address.
    pub vaddr: Address,
    /// The physical one.
    pub paddr: Address,
    /// Of a stale fetch: what the cache had.
    pub old: Option<Word>,
    /// Of a stale fetch: what memory has.
    pub new: Option<Word>,
    /// The CPU that the guest ran on.
    pub cpu: usize,
    /// The last invalidation that any CPU issued.
    pub last_invalidation: Option<Invalidation>,
}

/// An instruction that invalidated instruction caches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invalidation {
    /// What it is.
    pub kind: Kind,
    /// Its virtual address.
    pub pc: Address,
    /// The CPU that executed it.
    pub cpu: usize,
}

/// An address, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(pub u64);

/// An instruction, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(pub u32);

fn parse(text: &str) -> Result<u64> {
    text.strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .with_context(|| format!("not a hexadecimal number: {text}"))
}

impl TryFrom<String> for Address {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        parse(&text).map(Self)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        format!("{:#x}", address.0)
    }
}

impl TryFrom<String> for Word {
    type Error = anyhow::Error;
    fn try_from(text: String) -> Result<Self> {
        Ok(Self(u32::try_from(parse(&text)?)?))
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        format!("{:#010x}", word.0)
    }
}

fn are_coherent(sections: &[Section]) -> bool {
    let mut findings = sections.iter().map(Section::findings);
    findings.all(Findings::is_empty)
}

impl Verdict {
    /// On these sections, in the order in which they began.
    pub fn new(sections: Vec<Section>) -> Self {
        Self {
            version: VERSION,
            coherent: are_coherent(&sections),
            sections,
        }
    }

    /// Reads one from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is no verdict, is of another version, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let verdict: Self = serde_json::from_str(text).context("no verdict of the oracle")?;
        let Self {
            version,
            sections,
            coherent,
        } = &verdict;
        ensure!(
            *version == VERSION,
            "a verdict of version {version}, and this program knows {VERSION}"
        );
        ensure!(
            *coherent == are_coherent(sections),
            "the verdict calls itself coherent: {coherent}, and its sections say otherwise"
        );
        let mut numbers = HashSet::new();
        for Section { number, .. } in sections {
            ensure!(
                numbers.insert(number),
                "the verdict has section {number} twice"
            );
        }
        Ok(verdict)
    }

    /// Writes it to a file, which is there in full or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        whole::write(path, self)
    }
}

impl fmt::Display for Verdict {
    /// A line for each section, and those for what was found below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(
                f,
                "section {} {:?}: {}; \
                 {} self-modified, {} guest instructions, {} instructions, {} ic ialluis, {} ic iallu, {} ic ivau, {} tlbi, {} dc",
                section.number,
                section.name,
                section.findings(),
                section.self_modified,
                section.guest_instructions,
                section.instructions,
                section.ic_ialluis,
                section.ic_iallu,
                section.ic_ivau,
                section.tlbi,
                section.dc
            )?;
            for report in &section.reports {
                write!(
                    f,
                    "  {:?} on CPU {} at {:#x}, physical {:#x}",
                    report.kind, report.cpu, report.vaddr.0, report.paddr.0
                )?;
                if let (Some(old), Some(new)) = (report.old, report.new) {
                    write!(f, ": cached {:#010x}, now {:#010x}", old.0, new.0)?;
                }
                match &report.last_invalidation {
                    Some(last) => writeln!(
                        f,
                        "; last invalidation {:?} at {:#x} on CPU {}",
                        last.kind, last.pc.0, last.cpu
                    )?,
                    None => writeln!(f, "; no invalidation so far")?,
                }
            }
        }
        writeln!(f, "coherent: {}", self.coherent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sections: &[(u64, u64)]) -> Verdict {
        let section = |&(number, stale_fetches)| Section {
            number,
            stale_fetches,
            ..Section::default()
        };
        Verdict::new(sections.iter().map(section).collect())
    }

    /// Whatever the oracle writes, its readers read.
    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let mut verdict = verdict(&[(0, 0), (7, 2)]);
        verdict.sections[1].sites.push(Site {
            pc: Address(0xffff_8000_8000_1000),
            kind: Kind::IcIalluis,
            count: 3,
        });
        let text = serde_json::to_string(&verdict)?;
        assert_eq!(Verdict::parse(&text)?, verdict);
        assert!(text.contains(r#"{"pc":"0xffff800080001000","kind":"ic_ialluis","count":3}"#));
        let wrong = text.replace("0xffff800080001000", "kvm");
        assert!(Verdict::parse(&wrong).is_err());
        Ok(())
    }

    #[test]
    fn another_version_or_a_section_twice_is_refused() {
        let why = |verdict: &Verdict| {
            let text = serde_json::to_string(verdict).unwrap();
            Verdict::parse(&text).unwrap_err().to_string()
        };
        let good = verdict(&[(1, 0), (2, 1)]);
        let (version, coherent) = (2, true);
        let other = Verdict { version, ..good };
        assert!(why(&other).contains("of version 2"));
        let good = verdict(&[(1, 0), (2, 1)]);
        assert!(why(&Verdict { coherent, ..good }).contains("say otherwise"));
        assert!(why(&verdict(&[(1, 0), (1, 0)])).contains("section 1 twice"));
        assert!(Verdict::parse("").is_err());
        assert!(Verdict::parse("{}").is_err());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The verdict on a run, as JSON.

use crate::insn::Kind;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{fmt, fs, path::Path, process};

/// Version of the format.
pub const VERSION: u32 = 1;
/// How many findings of a section are told in full. All are counted.
pub const REPORTS: usize = 32;

/// What was found from boot to the end.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
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
    pub number: u64,
    pub name: String,
    /// That all CPUs began, for the host and for guests. One that faults and is done again counts
    /// again.
    #[serde(default)]
    pub instructions: u64,
    /// Those of guests.
    pub guest_instructions: u64,
    pub stale_fetches: u64,
    /// Stale fetches of what the guest itself had written: no findings.
    #[serde(default)]
    pub self_modified: u64,
    pub dirty_reads: u64,
    pub dirty_writes: u64,
    pub ic_ialluis: u64,
    pub ic_iallu: u64,
    pub ic_ivau: u64,
    pub tlbi: u64,
    pub dc: u64,
    pub sites: Vec<Site>,
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

    fn findings(&self) -> u64 {
        self.stale_fetches + self.dirty_reads + self.dirty_writes
    }
}

/// How often one instruction was executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    pub pc: Address,
    pub kind: Kind,
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
    pub kind: Finding,
    pub vaddr: Address,
    pub paddr: Address,
    /// Of a stale fetch: what the cache had.
    pub old: Option<Word>,
    /// Of a stale fetch: what memory has.
    pub new: Option<Word>,
    pub cpu: usize,
    /// The last invalidation that any CPU issued.
    pub last_invalidation: Option<Invalidation>,
}

/// An instruction that invalidated instruction caches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invalidation {
    pub kind: Kind,
    pub pc: Address,
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

impl Verdict {
    pub fn new(sections: Vec<Section>) -> Self {
        Self {
            version: VERSION,
            coherent: sections.iter().all(|section| section.findings() == 0),
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
        let verdict: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no verdict of the oracle", path.display()))?;
        ensure!(
            verdict.version == VERSION,
            "{} is of version {}, and this program knows {VERSION}",
            path.display(),
            verdict.version
        );
        ensure!(
            verdict.coherent == Self::new(verdict.sections.clone()).coherent,
            "{} calls itself coherent: {}, and its sections say otherwise",
            path.display(),
            verdict.coherent
        );
        Ok(verdict)
    }

    /// Writes it to a file, which is there in full or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", process::id()));
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }
}

impl fmt::Display for Verdict {
    /// A line for each section, and those for what was found below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(
                f,
                "section {} {:?}: {} stale fetches, {} dirty reads, {} dirty writes; \
                 {} self-modified, {} guest instructions, {} instructions, {} ic ialluis, {} ic iallu, {} ic ivau, {} tlbi, {} dc",
                section.number,
                section.name,
                section.stale_fetches,
                section.dirty_reads,
                section.dirty_writes,
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

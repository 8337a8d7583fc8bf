// SPDX-License-Identifier: GPL-2.0

//! The worst caches that the architecture allows, and what a guest finds in them.
//!
//! An emulator has no caches: whatever maintenance a hypervisor forgets, its guests run right. An
//! [`Oracle`] is told what a machine executes, keeps what caches might have kept, and reports where
//! that is not what memory has. References are to DDI 0487, the Arm Architecture Reference Manual for
//! A-profile; by name, as numbers change from issue to issue.
//!
//! # Instruction side ([`Finding::StaleFetch`])
//!
//! | rule | from |
//! |---|---|
//! | What a PE may have fetched it keeps until it is invalidated. Caches are by physical address. | D7.5, Cache support: a cache may keep a line for as long as it likes |
//! | Fetches are speculative: when a guest has executed an instruction of a 4 KiB page, each PE has all of that page, and after an invalidation has it again. | B2, Synchronization and coherency issues between data and instruction accesses; the vCPU may have been on any PE |
//! | So an invalidation is about what was written before it was issued. What is written later, even before the `dsb`, may be stale. | the same |
//! | It counts when a `dsb` for loads and stores, by the PE that issued it, has completed it; for all PEs, when that `dsb` is for all (`ish`, `osh`, `sy`). | D7.5, Ordering and completion of data and instruction cache instructions |
//! | `ic ialluis` is for all PEs, `ic iallu` for the one that executes it, or for all if it is a guest's and HCR_EL2.FB is set; `ic ivau` for one line, in all PEs, of the physical address that the VA translates to. | C5.3, IC; HCR_EL2.FB |
//! | Without CTR_EL0.IDC, a line has to have been cleaned to the PoU before the invalidation. | B2, as above; CTR_EL0.IDC, CLIDR_EL1 |
//! | With CTR_EL0.DIC nothing is ever stale. | CTR_EL0.DIC |
//!
//! What a guest itself wrote last is apart ([`Section::self_modified`]): to invalidate is then its own
//! business, and no fault of the host's. Kernels run into code that they are about to patch, between
//! the write and the `ic`, where both versions are good (B2, Concurrent modification and execution of
//! instructions): a Debian guest does so some ten times while it boots.
//!
//! A stale fetch is counted once for each word and PE, until the PE's cache gets another version:
//! having been executed, memory's version is what it holds.
//!
//! # Data side ([`Finding::DirtyRead`], [`Finding::DirtyWrite`])
//!
//! | rule | from |
//! |---|---|
//! | A store by the host, or by a guest whose MMU is on, leaves its line dirty; `dc zva` is one. Nothing is written back by itself. | D7.5, Cache support |
//! | `dc cvac`, `civac`, `ivac`, `cvap` and `cvadp` clean to the PoC, `cvau` only to the PoU; by VA, and when a `dsb` by the same PE has completed it. (`ivac` in a guest is `civac`; a host that uses it wants no more of the line.) | D7.5, A64 Cache maintenance instructions |
//! | A guest with SCTLR_EL1.M or C clear reads and writes around the caches, and with SCTLR_EL1.I clear it fetches so. Where the line is dirty it gets, or leaves behind, the wrong bytes. | D8.2, The effects of disabling an address translation stage; SCTLR_EL1.C and I |
//! | With HCR_EL2.FWB (or DC) it does not. | D8.6, FEAT_S2FWB; HCR_EL2.DC |
//!
//! Counted once for each line, kind and section, until the line is cleaned. A fetch that goes around
//! the caches is a dirty read.
//!
//! # Whose code it is
//!
//! A guest is what runs at EL1 and EL0 with HCR_EL2.VM set and TGE clear. So a host that gives itself a
//! second stage of translation (protected KVM) would be taken for one.
//!
//! # What it does not do
//!
//! - A value that comes and goes between two looks at memory (an execution, an invalidation) is
//!   missed, and so is a page's first code: a page that no guest has executed is taken to be in no
//!   cache. What KVM does when it maps a page for the first time is not judged by this.
//! - Maintenance by set and way does nothing: it is about one PE's caches and no basis for coherency.
//! - A host's stale clean lines, read after a guest wrote around the caches, are not looked for. Nor
//!   are those who write without a PE: devices.
//! - QEMU does not show the stores of FEAT_MOPS (`cpyfp` and kin), so lines written by them are not dirty
//!   here: findings on the data side may be missed, and none is made up.
//! - Lines are of 64 bytes. CTR_EL0's are honoured in what one instruction maintains, if longer.
//! - On a host without VHE a page that both host and guest execute, never written in between, is
//!   taken for the one's who came first.

pub mod counts;
mod dcache;
mod icache;
pub mod insn;
pub mod memory;
mod rules;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod view;
pub mod walk;
mod whole;
mod writers;

use dcache::Dcache;
pub use dcache::Dirty;
use icache::{Icaches, Reach};
use insn::{Domain, Kind, Point};
use memory::{LINE, Memory};
use rules::{Rule, Rules};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::AtomicU64},
};
use verdict::{Address, Finding, Invalidation, Report, Section, Site, Verdict, Word};
use view::View;
pub use writers::Writers;

/// What the CPUs of the machine are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// CTR_EL0.DIC: what is written is fetched, once it is at the PoU.
    pub dic: bool,
    /// CTR_EL0.IDC, or CLIDR_EL1 with no cache above the PoU: what is written is there.
    pub idc: bool,
    /// Bytes that one `ic ivau` invalidates.
    pub icache_line: u64,
    /// Bytes that one `dc` cleans.
    pub dcache_line: u64,
}

impl Features {
    /// From CTR_EL0 and CLIDR_EL1 (DDI 0487, D24.2). Linux reads them the same way
    /// (`read_cpuid_effective_cachetype`).
    pub fn from_registers(ctr_el0: u64, clidr_el1: u64) -> Self {
        let level = |shift: u32| (clidr_el1 >> shift) & 7;
        let (louis, loc, louu) = (level(21), level(24), level(27));
        let line = |shift: u32| (4 << ((ctr_el0 >> shift) & 0xf)).max(LINE);
        Self {
            dic: (ctr_el0 >> 29) & 1 != 0,
            idc: (ctr_el0 >> 28) & 1 != 0 || loc == 0 || (louis == 0 && louu == 0),
            icache_line: line(0),
            dcache_line: line(16),
        }
    }
}

/// An instruction that some PE executes.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The PE's number.
    pub pe: usize,
    /// Its virtual address.
    pub pc: u64,
}

/// Instructions that all PEs together have begun since the machine has been running.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executed {
    /// The host's and guests'.
    pub all: u64,
    /// Those of guests.
    pub guests: u64,
}

/// The caches of one machine, and what was found in them.
pub struct Oracle {
    rules: Rules,
    features: Features,
    icaches: Icaches,
    dcache: Dcache,
    writers: Arc<Writers>,
    last: Option<Invalidation>,
    sections: Vec<Section>,
    current: usize,
    sites: BTreeMap<(usize, Kind, u64), u64>,
    /// What had been executed when the current section began.
    begun_at: Executed,
}

impl Oracle {
    /// Of a machine with `pes` PEs and RAM at the physical addresses `ram`.
    pub fn new(pes: usize, ram: Range<u64>, features: Features) -> Self {
        Self::with_rules(pes, ram, features, Rules::default())
    }

    fn with_rules(pes: usize, ram: Range<u64>, features: Features, rules: Rules) -> Self {
        Self {
            rules,
            features,
            icaches: Icaches::new(pes, rules),
            writers: Arc::new(Writers::new(&ram)),
            dcache: Dcache::new(pes, ram, rules),
            last: None,
            sections: vec![Section::default()],
            current: 0,
            sites: BTreeMap::new(),
            begun_at: Executed::default(),
        }
    }

    /// As long as it stays the same, a guest's instruction that was in order on a PE still is.
    pub fn generation(&self) -> Arc<AtomicU64> {
        self.icaches.generation()
    }

    /// Where stores are told, without asking the oracle, and what reads may ask there.
    pub fn dirty(&self) -> Arc<Dirty> {
        self.dcache.dirty()
    }

    /// Where it is told who writes, without asking the oracle.
    pub fn writers(&self) -> Arc<Writers> {
        self.writers.clone()
    }

    /// How a PE sees memory at EL1 and EL0, by its HCR_EL2 and SCTLR_EL1.
    pub fn view(&self, hcr_el2: u64, sctlr_el1: u64) -> View {
        View::new(hcr_el2, sctlr_el1, self.rules)
    }

    fn report(&mut self, report: Report) {
        let section = &mut self.sections[self.current];
        *match report.kind {
            Finding::StaleFetch => &mut section.stale_fetches,
            Finding::DirtyRead => &mut section.dirty_reads,
            Finding::DirtyWrite => &mut section.dirty_writes,
        } += 1;
        if section.reports.len() < verdict::REPORTS {
            section.reports.push(report);
        }
    }

    /// A guest that sees memory as `view` executes `word`, from physical address `addr`.
    pub fn fetch(&mut self, at: At, view: View, addr: u64, word: u32, memory: &dyn Memory) {
        if view.fetch_bypasses() {
            self.bypass(at, addr, Finding::DirtyRead);
        }
        if self.features.dic && self.rules.holds(Rule::DicIsCoherent) {
            return;
        }
        if let Some(old) = self.icaches.fetch(at.pe, addr, word, memory) {
            if self.writers.is_guests(addr) && self.rules.holds(Rule::GuestsOwnCode) {
                self.sections[self.current].self_modified += 1;
                return;
            }
            self.report(Report {
                kind: Finding::StaleFetch,
                vaddr: Address(at.pc),
                paddr: Address(addr),
                old: Some(Word(old)),
                new: Some(Word(word)),
                cpu: at.pe,
                last_invalidation: self.last.clone(),
            });
        }
    }

    /// A guest reads or writes at physical address `addr`, `at.pc` being the virtual one, around
    /// the caches.
    pub fn bypass(&mut self, at: At, addr: u64, kind: Finding) {
        if self.dcache.bypass(addr, kind) {
            self.report(Report {
                kind,
                vaddr: Address(at.pc),
                paddr: Address(addr),
                old: None,
                new: None,
                cpu: at.pe,
                last_invalidation: self.last.clone(),
            });
        }
    }

    /// Counts an instruction of `kind`.
    pub fn count(&mut self, at: At, kind: Kind) {
        *self.sections[self.current].counter(kind) += 1;
        *self.sites.entry((self.current, kind, at.pc)).or_default() += 1;
        if matches!(kind, Kind::IcIalluis | Kind::IcIallu | Kind::IcIvau) {
            self.last = Some(Invalidation {
                kind,
                pc: Address(at.pc),
                cpu: at.pe,
            });
        }
    }

    /// `ic ialluis`.
    pub fn ic_ialluis(&mut self, at: At, memory: &dyn Memory) {
        self.count(at, Kind::IcIalluis);
        self.invalidate(at, Reach::All, memory);
    }

    /// `ic iallu`; `broadcast` if it is a guest's, and HCR_EL2.FB is set.
    pub fn ic_iallu(&mut self, at: At, broadcast: bool, memory: &dyn Memory) {
        self.count(at, Kind::IcIallu);
        let reach = if broadcast && self.rules.holds(Rule::FbBroadcasts) {
            Reach::All
        } else {
            Reach::Own
        };
        self.invalidate(at, reach, memory);
    }

    /// `ic ivau` of what translates to `addr`; None if that is no memory.
    pub fn ic_ivau(&mut self, at: At, addr: Option<u64>, memory: &dyn Memory) {
        self.count(at, Kind::IcIvau);
        let Some(addr) = addr else { return };
        let line = self.features.icache_line;
        for addr in around(addr, line).step_by(LINE as usize) {
            self.invalidate(at, Reach::Line(addr), memory);
        }
    }

    /// `dc` by the VA of what translates to `addr`, to `point`.
    pub fn dc(&mut self, at: At, addr: Option<u64>, point: Point) {
        self.count(at, Kind::Dc);
        if let Some(addr) = addr {
            let line = around(addr, self.features.dcache_line);
            self.dcache.clean(at.pe, line, point);
        }
    }

    fn invalidate(&mut self, at: At, reach: Reach, memory: &dyn Memory) {
        let Self {
            features,
            rules,
            dcache,
            ..
        } = self;
        let unified = features.idc || !rules.holds(Rule::PouBeforeInvalidation);
        let covers = |addr| unified || dcache.is_unified(addr);
        self.icaches.invalidate(at.pe, reach, memory, covers);
    }

    /// A `dsb` for loads and stores.
    pub fn dsb(&mut self, pe: usize, domain: Domain, memory: &dyn Memory) {
        self.icaches.complete(pe, domain, memory);
        self.dcache.complete(pe, domain);
    }

    /// Section `number` begins, or goes on, `executed` being what was so far.
    pub fn section(&mut self, number: u64, executed: Executed) {
        self.end_section(executed);
        self.dcache.retell();
        let known = self.sections.iter().position(|s| s.number == number);
        self.current = known.unwrap_or_else(|| {
            self.sections.push(Section {
                number,
                ..Section::default()
            });
            self.sections.len() - 1
        });
    }

    fn end_section(&mut self, executed: Executed) {
        let section = &mut self.sections[self.current];
        section.instructions += executed.all - self.begun_at.all;
        section.guest_instructions += executed.guests - self.begun_at.guests;
        self.begun_at = executed;
    }

    /// Names the current section.
    pub fn name(&mut self, name: String) {
        self.sections[self.current].name = name;
    }

    /// All that was found, in all that was `executed`.
    pub fn verdict(&mut self, executed: Executed) -> Verdict {
        self.end_section(executed);
        let mut sections = self.sections.clone();
        for (&(section, kind, pc), &count) in &self.sites {
            sections[section].sites.push(Site {
                pc: Address(pc),
                kind,
                count,
            });
        }
        Verdict::new(sections)
    }
}

/// The aligned block of `size` bytes that `addr` lies in.
fn around(addr: u64, size: u64) -> Range<u64> {
    let start = addr & !(size - 1);
    start..start + size
}

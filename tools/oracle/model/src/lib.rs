// SPDX-License-Identifier: GPL-2.0

//! The worst caches that the architecture allows.

mod icache;
pub mod insn;
pub mod memory;
mod rules;
pub mod verdict;
pub mod walk;

use icache::{Icaches, Reach};
use insn::{Domain, Kind};
use memory::Memory;
use rules::{Rule, Rules};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};
use verdict::{Address, Finding, Invalidation, Report, Section, Site, Verdict, Word};

/// What the CPUs of the machine are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// CTR_EL0.DIC: what is written is fetched, once it is at the PoU.
    pub dic: bool,
}

impl Features {
    /// From CTR_EL0.
    pub fn from_ctr(ctr_el0: u64) -> Self {
        Self {
            dic: (ctr_el0 >> 29) & 1 != 0,
        }
    }
}

/// An instruction that some PE executes.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub pe: usize,
    /// Its virtual address.
    pub pc: u64,
}

/// The caches of one machine, and what was found in them.
pub struct Oracle {
    rules: Rules,
    features: Features,
    icaches: Icaches,
    last: Option<Invalidation>,
    sections: Vec<Section>,
    current: usize,
    sites: BTreeMap<(usize, Kind, u64), u64>,
    /// How many guest instructions there had been when the current section began.
    begun_at: u64,
}

impl Oracle {
    /// Of a machine with `pes` PEs.
    pub fn new(pes: usize, features: Features) -> Self {
        Self::with_rules(pes, features, Rules::default())
    }

    fn with_rules(pes: usize, features: Features, rules: Rules) -> Self {
        Self {
            rules,
            features,
            icaches: Icaches::new(pes, rules),
            last: None,
            sections: vec![Section::default()],
            current: 0,
            sites: BTreeMap::new(),
            begun_at: 0,
        }
    }

    /// As long as it stays the same, a guest's instruction that was in order on a PE still is.
    pub fn generation(&self) -> Arc<AtomicU64> {
        self.icaches.generation()
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

    /// A guest executes `word`, which lies at physical address `addr`.
    pub fn fetch(&mut self, at: At, addr: u64, word: u32, memory: &dyn Memory) {
        if self.features.dic && self.rules.holds(Rule::DicIsCoherent) {
            return;
        }
        if let Some(old) = self.icaches.fetch(at.pe, addr, word, memory) {
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
        if let Some(addr) = addr {
            self.invalidate(at, Reach::Line(addr), memory);
        }
    }

    fn invalidate(&mut self, at: At, reach: Reach, memory: &dyn Memory) {
        self.icaches.invalidate(at.pe, reach, memory, |_| true);
    }

    /// A `dsb` for loads and stores.
    pub fn dsb(&mut self, pe: usize, domain: Domain, memory: &dyn Memory) {
        self.icaches.complete(pe, domain, memory);
    }

    /// Section `number` begins, or goes on. By now there have been `guest_instructions`.
    pub fn section(&mut self, number: u64, guest_instructions: u64) {
        self.end_section(guest_instructions);
        let known = self.sections.iter().position(|s| s.number == number);
        self.current = known.unwrap_or_else(|| {
            self.sections.push(Section {
                number,
                ..Section::default()
            });
            self.sections.len() - 1
        });
    }

    fn end_section(&mut self, guest_instructions: u64) {
        self.sections[self.current].guest_instructions += guest_instructions - self.begun_at;
        self.begun_at = guest_instructions;
    }

    /// Names the current section.
    pub fn name(&mut self, name: String) {
        self.sections[self.current].name = name;
    }

    /// All that was found, `guest_instructions` being the last.
    pub fn verdict(&mut self, guest_instructions: u64) -> Verdict {
        self.end_section(guest_instructions);
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

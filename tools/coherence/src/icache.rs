// SPDX-License-Identifier: GPL-2.0

//! Instruction caches that never evict, by physical address.

use crate::{
    insn::Domain,
    memory::{LINE, LINES, Memory, PAGE, Words, line_of, page_of},
    rules::{Rule, Rules},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What an invalidation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything, in all PEs.
    All,
    /// Everything, in the PE that asks.
    Own,
    /// The line with this physical address, in all PEs.
    Line(u64),
}

/// What one PE's cache holds of one page.
#[derive(Clone)]
struct Held {
    words: Arc<Words>,
    /// For each line, when what is held was read from memory.
    since: [u64; LINES],
}

/// An invalidation that no `dsb` has completed yet.
struct Pending {
    reach: Reach,
    issued: u64,
    /// What memory had at the issue, where that is not what is held, and for which lines.
    seen: Vec<(u64, u64, Arc<Words>)>,
}

/// The caches of all PEs.
pub struct Icaches {
    rules: Rules,
    /// By page, then by PE.
    pages: HashMap<u64, Vec<Held>>,
    /// By the PE that issued them, oldest first.
    pending: Vec<Vec<Pending>>,
    /// Orders reads of memory.
    clock: u64,
    generation: Arc<AtomicU64>,
}

impl Icaches {
    pub fn new(pes: usize, rules: Rules) -> Self {
        Self {
            rules,
            pages: HashMap::new(),
            pending: (0..pes).map(|_| Vec::new()).collect(),
            clock: 0,
            generation: Arc::default(),
        }
    }

    /// Goes up whenever a fetch that was in order may not be so again.
    pub fn generation(&self) -> Arc<AtomicU64> {
        self.generation.clone()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// `pe` executes `word`, from physical address `addr`. Returns the word that its cache has there
    /// instead, if it has another. From then on it has this one.
    pub fn fetch(&mut self, pe: usize, addr: u64, word: u32, memory: &dyn Memory) -> Option<u32> {
        if !self.rules.holds(Rule::NeverEvicts) {
            return None;
        }
        let now = self.tick();
        let pes = self.pending.len();
        let page = page_of(addr);
        let index = (addr % PAGE) as usize / 4;
        let all = match self.pages.entry(page) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut words = Words::EMPTY;
                if !memory.read(page, &mut words) {
                    return None;
                }
                words.0[index] = word;
                let held = Held {
                    words: Arc::new(words),
                    since: [now; LINES],
                };
                entry.insert(vec![held; pes])
            }
        };
        let held = &mut all[pe];
        let old = held.words.0[index];
        if old == word {
            return None;
        }
        Arc::make_mut(&mut held.words).0[index] = word;
        held.since[line_of(addr)] = now;
        self.generation.fetch_add(1, Ordering::Release);
        Some(old)
    }

    /// `pe` issues an invalidation. `covers` tells whether what was written to the line at a
    /// physical address has got to where fetches see it.
    pub fn invalidate(
        &mut self,
        pe: usize,
        mut reach: Reach,
        memory: &dyn Memory,
        covers: impl Fn(u64) -> bool,
    ) {
        if reach == Reach::Own && !self.rules.holds(Rule::IalluIsLocal) {
            reach = Reach::All;
        }
        if reach == Reach::All && !self.rules.holds(Rule::IalluisReachesAll) {
            reach = Reach::Own;
        }
        if matches!(reach, Reach::Line(_)) && !self.rules.holds(Rule::IvauIsOneLine) {
            reach = Reach::All;
        }
        let issued = self.tick();
        // What does not differ may do so by the time that one on its way completes.
        let others = self.pending.iter().any(|pending| !pending.is_empty())
            || !self.rules.holds(Rule::OnlyWritesBefore);
        let mut seen = Vec::new();
        let mut now = Words::EMPTY;
        let mut look = |page: u64, held: &[Held], wanted: u64| {
            if !memory.read(page, &mut now) {
                return;
            }
            let differs = |held: &Held| *held.words != now;
            let differs = match reach {
                Reach::Own => differs(&held[pe]),
                _ => held.iter().any(differs),
            };
            if differs || others {
                let lines = (0..LINES as u64)
                    .filter(|line| (wanted >> line) & 1 != 0 && covers(page + line * LINE))
                    .fold(0, |lines, line| lines | (1 << line));
                seen.push((page, lines, Arc::new(now.clone())));
            }
        };
        match reach {
            Reach::Line(addr) => {
                if let Some(held) = self.pages.get(&page_of(addr)) {
                    look(page_of(addr), held, 1 << line_of(addr));
                }
            }
            _ => {
                for (page, held) in &self.pages {
                    look(*page, held, u64::MAX);
                }
            }
        }
        if !seen.is_empty() {
            self.pending[pe].push(Pending {
                reach,
                issued,
                seen,
            });
        }
        if !self.rules.holds(Rule::DsbCompletes) {
            self.complete(pe, Domain::Shared, memory);
        }
    }

    /// `pe` has executed a `dsb` for `domain`: what it issued before, and the barrier is wide enough
    /// for, is complete.
    pub fn complete(&mut self, pe: usize, domain: Domain, memory: &dyn Memory) {
        if self.pending[pe].is_empty() {
            return;
        }
        let wide = domain == Domain::Shared || !self.rules.holds(Rule::DsbReachesAsFar);
        let (done, left) = std::mem::take(&mut self.pending[pe])
            .into_iter()
            .partition(|pending| wide || pending.reach == Reach::Own);
        self.pending[pe] = left;
        for pending in done {
            self.apply(pe, pending, memory);
        }
    }

    fn apply(&mut self, pe: usize, pending: Pending, memory: &dyn Memory) {
        for (page, lines, mut words) in pending.seen {
            if !self.rules.holds(Rule::OnlyWritesBefore) {
                memory.read(page, Arc::make_mut(&mut words));
            }
            let Some(held) = self.pages.get_mut(&page) else {
                continue;
            };
            for (owner, held) in held.iter_mut().enumerate() {
                if pending.reach == Reach::Own && owner != pe {
                    continue;
                }
                held.refill(lines, &words, pending.issued);
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl Held {
    /// Replaces `lines` by what memory had at `when`, except where what is held is newer.
    fn refill(&mut self, lines: u64, words: &Arc<Words>, when: u64) {
        let old: Vec<usize> = (0..LINES)
            .filter(|&line| (lines >> line) & 1 != 0 && self.since[line] < when)
            .collect();
        if old.len() == LINES {
            self.words = words.clone();
            self.since = [when; LINES];
            return;
        }
        for line in old {
            let range = Words::line(line);
            if self.words.0[range.clone()] != words.0[range.clone()] {
                Arc::make_mut(&mut self.words).0[range.clone()].copy_from_slice(&words.0[range]);
            }
            self.since[line] = when;
        }
    }
}

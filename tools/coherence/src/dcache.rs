// SPDX-License-Identifier: GPL-2.0

//! Data caches that write nothing back until they are told to, as one: which lines are dirty.

use crate::{
    insn::{Domain, Point},
    memory::LINE,
    rules::{Rule, Rules},
    verdict::Finding,
};
use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// A bit for each line of RAM, that any thread may set.
struct Bits(Vec<AtomicU64>);

impl Bits {
    fn new(len: u64) -> Self {
        Self((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn get(&self, bit: u64) -> bool {
        let word = self.0.get((bit / 64) as usize);
        word.is_some_and(|word| word.load(Relaxed) & (1 << (bit % 64)) != 0)
    }

    fn set(&self, bit: u64) {
        // Most stores find it set, and then leave the word to be shared.
        if !self.get(bit) {
            if let Some(word) = self.0.get((bit / 64) as usize) {
                word.fetch_or(1 << (bit % 64), Relaxed);
            }
        }
    }

    fn clear(&self, bit: u64) {
        if let Some(word) = self.0.get((bit / 64) as usize) {
            word.fetch_and(!(1 << (bit % 64)), Relaxed);
        }
    }
}

/// What can be told without a lock.
pub struct Dirty {
    rules: Rules,
    /// Of RAM, by physical address.
    start: u64,
    /// Lines that have not got to the PoC since they were written.
    coherency: Bits,
    /// Those that have not got to the PoU.
    unification: Bits,
    /// How many lines are on their way, in either.
    cleaning: AtomicUsize,
}

impl Dirty {
    fn bit(&self, addr: u64) -> u64 {
        // What lies below RAM gets a bit that is not there.
        addr.wrapping_sub(self.start) / LINE
    }

    /// The line at `addr` is written through a cacheable mapping, by a guest if `guest`.
    pub fn store(&self, addr: u64, guest: bool) {
        let rule = if guest {
            Rule::GuestStoresDirty
        } else {
            Rule::StoresDirty
        };
        if !self.rules.holds(rule) {
            return;
        }
        self.coherency.set(self.bit(addr));
        self.unification.set(self.bit(addr));
    }

    /// Whether the line at `addr` may be dirty above the PoC; if it is, [`Dcache`] knows.
    pub fn is_suspect(&self, addr: u64) -> bool {
        self.coherency.get(self.bit(addr)) || self.cleaning.load(Relaxed) > 0
    }
}

/// The caches of all PEs, as one.
pub struct Dcache {
    rules: Rules,
    dirty: Arc<Dirty>,
    /// For each PE, the lines that it cleans without a `dsb` so far.
    cleaning: Vec<HashSet<(u64, bool)>>,
    /// What was reported since it became dirty.
    told: HashSet<(Finding, u64)>,
}

impl Dcache {
    /// For a machine with `pes` PEs and RAM at `ram`.
    pub fn new(pes: usize, ram: Range<u64>, rules: Rules) -> Self {
        let lines = (ram.end - ram.start) / LINE;
        Self {
            rules,
            dirty: Arc::new(Dirty {
                rules,
                start: ram.start,
                coherency: Bits::new(lines),
                unification: Bits::new(lines),
                cleaning: AtomicUsize::new(0),
            }),
            cleaning: vec![HashSet::new(); pes],
            told: HashSet::new(),
        }
    }

    /// What may be asked and told without a lock.
    pub fn dirty(&self) -> Arc<Dirty> {
        self.dirty.clone()
    }

    /// `pe` cleans the lines of `addrs` to `point`.
    pub fn clean(&mut self, pe: usize, addrs: Range<u64>, mut point: Point) {
        if !self.rules.holds(Rule::PocIsBeyondPou) {
            point = Point::Coherency;
        }
        for addr in addrs.step_by(LINE as usize) {
            let bit = self.dirty.bit(addr);
            self.clean_line(pe, bit, false);
            if point == Point::Coherency {
                self.clean_line(pe, bit, true);
            }
        }
        if !self.rules.holds(Rule::DsbCompletesClean) {
            self.complete(pe, Domain::Shared);
        }
    }

    fn clean_line(&mut self, pe: usize, bit: u64, coherency: bool) {
        let bits = match coherency {
            true => &self.dirty.coherency,
            false => &self.dirty.unification,
        };
        // One that is not dirty may be on its way in another PE, which is that one's business.
        if bits.get(bit) {
            // In this order, so that no moment sees it clean.
            if self.cleaning[pe].insert((bit, coherency)) {
                self.dirty.cleaning.fetch_add(1, Relaxed);
            }
            bits.clear(bit);
        }
    }

    /// `pe` has executed a `dsb`.
    pub fn complete(&mut self, pe: usize, domain: Domain) {
        if domain == Domain::Own && self.rules.holds(Rule::DsbReachesAsFar) {
            return;
        }
        for (bit, coherency) in self.cleaning[pe].drain() {
            self.dirty.cleaning.fetch_sub(1, Relaxed);
            if coherency {
                self.told.retain(|&(_, told)| told != bit);
            }
        }
    }

    fn is_dirty(&self, bit: u64, coherency: bool) -> bool {
        let bits = match coherency {
            true => &self.dirty.coherency,
            false => &self.dirty.unification,
        };
        bits.get(bit)
            || self.dirty.cleaning.load(Relaxed) > 0
                && self
                    .cleaning
                    .iter()
                    .any(|pe| pe.contains(&(bit, coherency)))
    }

    /// Whether what was written to the line at `addr` has got to the PoU.
    pub fn is_unified(&self, addr: u64) -> bool {
        !self.is_dirty(self.dirty.bit(addr), false)
    }

    /// Someone reads or writes the line at `addr` around the caches. Returns whether that is to be
    /// reported as `finding`: the line is dirty, and this has not been told yet.
    pub fn bypass(&mut self, addr: u64, finding: Finding) -> bool {
        let bit = self.dirty.bit(addr);
        self.is_dirty(bit, true) && self.told.insert((finding, bit))
    }

    /// Forgets what was told: whoever asks from now on has not heard of it.
    pub fn retell(&mut self) {
        self.told.clear();
    }
}

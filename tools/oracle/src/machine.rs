// SPDX-License-Identifier: GPL-2.0

//! The machine that QEMU runs, and what the oracle is told of it.

use crate::{
    qemu::{Access, Counter},
    ram::Ram,
    registers::Registers,
};
use anyhow::Result;
use coherence::{
    At, Dirty, Executed, Oracle, Writers,
    insn::{Kind, Op},
    memory::{LINE, PAGE, page_of},
    verdict::{Finding, Verdict},
    view::View,
    walk,
};
use std::{
    collections::HashMap,
    hash::Hash,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
};

/// Longest name of a section, in bytes.
pub const NAME: u64 = 128;

/// The machine, from its first instruction on.
pub struct Machine {
    registers: Registers,
    ram: Ram,
    oracle: Mutex<Oracle>,
    /// What of it can be asked and told without the lock.
    generation: Arc<AtomicU64>,
    dirty: Arc<Dirty>,
    writers: Arc<Writers>,
    /// Of all PEs, the host's and guests'.
    instructions: &'static Counter,
    /// Bytes that `dc zva` writes.
    block: u64,
    pes: Vec<Pe>,
    fetches: Interned<(Option<u64>, u32), Fetch>,
    sites: Interned<(u64, u32), Site>,
}

/// What only its own thread touches of a PE, apart from the others' cache lines.
#[repr(align(64))]
#[derive(Default)]
struct Pe {
    /// Whose EL1 and EL0 are, as a `View`. It is looked up when it is asked for.
    view: AtomicU8,
    /// Instructions of guests.
    guest_instructions: AtomicU64,
}

/// Values that are kept for good, one for each key.
pub type Interned<K, V> = Mutex<HashMap<K, &'static V>>;

pub fn intern<K: Eq + Hash, V>(
    all: &Interned<K, V>,
    key: K,
    new: impl FnOnce() -> V,
) -> &'static V {
    lock(all)
        .entry(key)
        .or_insert_with(|| Box::leak(Box::new(new())))
}

/// A panic while it was held has ended QEMU, or will.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One instruction of a guest, in one version.
pub struct Fetch {
    /// Where it lies in RAM, if it does.
    addr: Option<u64>,
    word: u32,
    /// Where it was last seen.
    pc: AtomicU64,
    /// A generation of the caches, and below it a bit for each PE on which it was in order then.
    verified: AtomicU64,
}

/// How many PEs have a bit in `Fetch::verified`. Those above are looked up each time.
const VERIFIED: u32 = 16;

impl Fetch {
    fn is_verified(&self, pe: usize, generation: u64) -> bool {
        let verified = self.verified.load(Relaxed);
        pe < VERIFIED as usize && verified >> VERIFIED == generation && (verified >> pe) & 1 != 0
    }

    fn set_verified(&self, pe: usize, generation: u64) {
        if pe < VERIFIED as usize {
            let before = self.verified.load(Relaxed);
            let others = if before >> VERIFIED == generation {
                before
            } else {
                generation << VERIFIED
            };
            self.verified.store(others | (1 << pe), Relaxed);
        }
    }
}

/// One instruction that the oracle acts on.
pub struct Site {
    pc: u64,
    op: Op,
}

impl Machine {
    /// On a PE's thread. `host` is where QEMU has the instruction at `vaddr`.
    pub fn new(host: u64, vaddr: u64, pes: usize, instructions: &'static Counter) -> Result<Self> {
        let registers = Registers::new()?;
        let ram = Ram::around(host, vaddr)?;
        let features = registers.features();
        let oracle = Oracle::new(pes, ram.range(), features);
        Ok(Self {
            registers,
            ram,
            generation: oracle.generation(),
            dirty: oracle.dirty(),
            writers: oracle.writers(),
            instructions,
            block: features.dcache_line,
            oracle: Mutex::new(oracle),
            pes: (0..pes).map(|_| Pe::default()).collect(),
            fetches: Interned::default(),
            sites: Interned::default(),
        })
    }

    /// How `pe` sees memory at EL1 and EL0.
    fn view(&self, pe: usize) -> View {
        let known = View::from_bits(self.pes[pe].view.load(Relaxed));
        if known != View::UNKNOWN {
            return known;
        }
        let (hcr_el2, sctlr_el1) = (self.registers.hcr_el2(), self.registers.sctlr_el1());
        let view = lock(&self.oracle).view(hcr_el2, sctlr_el1);
        self.pes[pe].view.store(view.bits(), Relaxed);
        view
    }

    /// All that was found and counted so far.
    pub fn verdict(&self) -> Verdict {
        lock(&self.oracle).verdict(self.executed())
    }

    /// What all PEs have executed so far.
    fn executed(&self) -> Executed {
        let guest = |pe: &Pe| pe.guest_instructions.load(Relaxed);
        Executed {
            all: self.instructions.sum(),
            guests: self.pes.iter().map(guest).sum(),
        }
    }

    /// A guest is about to execute an instruction.
    pub fn fetch(&self, pe: usize, fetch: &Fetch) {
        let view = self.view(pe);
        if !view.is_guest() {
            return;
        }
        self.pes[pe].guest_instructions.fetch_add(1, Relaxed);
        let Some(addr) = fetch.addr else {
            return;
        };
        let bypasses = view.fetch_bypasses() && self.dirty.is_suspect(addr);
        if !bypasses && fetch.is_verified(pe, self.generation.load(Acquire)) {
            return;
        }
        let pc = fetch.pc.load(Relaxed);
        let mut oracle = lock(&self.oracle);
        oracle.fetch(At { pe, pc }, view, addr, fetch.word, &self.ram);
        // The generation changes only under the lock.
        fetch.set_verified(pe, self.generation.load(Acquire));
    }

    /// A PE has accessed memory at exception level `el`.
    pub fn access(&self, pe: usize, el: usize, access: &Access) {
        let view = if el < 2 { self.view(pe) } else { View::HOST };
        if !access.is_store && !view.data_bypasses() {
            return;
        }
        let Some(addr) = access.physical() else {
            return;
        };
        self.touch(pe, view, access, addr..addr + access.len);
        // What reaches into another page has another place there.
        let over = (addr % PAGE + access.len).saturating_sub(PAGE);
        if over > 0 {
            let next = page_of(access.vaddr).wrapping_add(PAGE);
            if let Some(addr) = self.translate(next) {
                self.touch(pe, view, access, addr..addr + over);
            }
        }
    }

    /// The lines at the physical addresses `addrs` are accessed.
    fn touch(&self, pe: usize, view: View, access: &Access, addrs: Range<u64>) {
        let end = addrs.end.min(page_of(addrs.start) + PAGE);
        if access.is_store {
            self.writers.wrote(addrs.start..end, view.is_guest());
        }
        for line in ((addrs.start & !(LINE - 1))..end).step_by(LINE as usize) {
            if !view.data_bypasses() {
                self.dirty.store(line, view.is_guest());
            } else if self.dirty.is_suspect(line) {
                let finding = if access.is_store {
                    Finding::DirtyWrite
                } else {
                    Finding::DirtyRead
                };
                let pc = access.vaddr;
                lock(&self.oracle).bypass(At { pe, pc }, line, finding);
            }
        }
    }

    /// A PE is about to execute one of the instructions that matter.
    pub fn execute(&self, pe: usize, site: &Site) {
        let at = At { pe, pc: site.pc };
        match site.op {
            Op::IcIalluis => lock(&self.oracle).ic_ialluis(at, &self.ram),
            Op::IcIallu => {
                let regime = self.registers.regime();
                let broadcast = regime.is_guest() && regime.hcr_el2 & walk::HCR_FB != 0;
                lock(&self.oracle).ic_iallu(at, broadcast, &self.ram);
            }
            Op::IcIvau { rt } => {
                let addr = self.translate(self.registers.x(rt));
                lock(&self.oracle).ic_ivau(at, addr, &self.ram);
            }
            Op::Dsb(domain) => lock(&self.oracle).dsb(pe, domain, &self.ram),
            Op::Tlbi => lock(&self.oracle).count(at, Kind::Tlbi),
            Op::Dc { rt, point } => {
                let addr = self.translate(self.registers.x(rt));
                lock(&self.oracle).dc(at, addr, point);
            }
            Op::DcZva { rt } => self.zero(pe, self.registers.x(rt)),
            Op::Context => self.pes[pe].view.store(View::UNKNOWN.bits(), Relaxed),
            Op::Section => {
                lock(&self.oracle).section(self.registers.x(0), self.executed());
            }
            Op::Name => {
                let (len, addr) = (self.registers.x(0), self.registers.x(1));
                let name = self.registers.text(&self.ram, addr, len.min(NAME));
                lock(&self.oracle).name(name);
            }
            Op::Watch => {}
        }
    }

    /// `dc zva`, which QEMU does not show as a store. Blocks are as large as lines on all CPUs that
    /// anything is found on (DCZID_EL0).
    fn zero(&self, pe: usize, vaddr: u64) {
        let regime = self.registers.regime();
        let view = if regime.is_guest() {
            self.view(pe)
        } else {
            View::HOST
        };
        let vaddr = vaddr & !(self.block - 1);
        if let Some(addr) = regime.translate(vaddr, &self.ram) {
            let access = Access {
                is_store: true,
                vaddr,
                len: self.block,
                info: 0,
            };
            self.touch(pe, view, &access, addr..addr + self.block);
        }
    }

    fn translate(&self, addr: u64) -> Option<u64> {
        self.registers.regime().translate(addr, &self.ram)
    }

    /// The exception level that this thread's PE runs at, and whether that is a guest's.
    pub fn level(&self) -> (u8, bool) {
        let el = self.registers.el();
        (el, el < 2 && walk::is_guest(self.registers.hcr_el2()))
    }

    /// A guest's instruction `word` at `pc`, where `host` is where QEMU has it.
    pub fn guest_instruction(&self, pc: u64, host: u64, word: u32) -> &'static Fetch {
        let addr = self.ram.physical(host);
        let fetch = intern(&self.fetches, (addr, word), || Fetch {
            addr,
            word,
            pc: AtomicU64::new(0),
            verified: AtomicU64::new(u64::MAX << VERIFIED),
        });
        fetch.pc.store(pc, Relaxed);
        fetch
    }

    /// The instruction `word` at `pc`, if the oracle acts on it. Guests have no markers.
    pub fn site(&self, pc: u64, word: u32, guest: bool) -> Option<&'static Site> {
        let op = Op::decode(word)?;
        let is_marker = matches!(op, Op::Section | Op::Name | Op::Watch);
        (!(guest && is_marker)).then(|| intern(&self.sites, (pc, word), || Site { pc, op }))
    }
}

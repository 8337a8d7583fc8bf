// SPDX-License-Identifier: GPL-2.0

//! The machine that QEMU runs, where it is only counted what it executes: no caches are kept and nothing
//! is judged, in a small part of the time.

use crate::{
    machine::{Interned, NAME, intern, lock},
    qemu::Counter,
    ram::Ram,
    registers::Registers,
};
use anyhow::Result;
use coherence::{
    Executed,
    counts::{Census, Counts},
    insn::{Kind, Op},
    walk,
};
use std::{collections::HashSet, sync::Mutex};

/// The machine, from its first instruction on.
pub struct Counting {
    registers: Registers,
    ram: Ram,
    census: Mutex<Census>,
    /// Instructions to count beside those that maintain something. They are to be told before they are first
    /// executed: what QEMU has translated without a callback gets none.
    watched: Mutex<HashSet<u64>>,
    all: &'static Counter,
    guests: &'static Counter,
    sites: Interned<(u64, u32), Site>,
}

/// One instruction that is counted, or tells what to count.
pub struct Site {
    pc: u64,
    is_watched: bool,
    op: Option<Op>,
}

impl Counting {
    /// On a PE's thread. `host` is where QEMU has the instruction at `vaddr`.
    pub fn new(
        host: u64,
        vaddr: u64,
        pes: usize,
        all: &'static Counter,
        guests: &'static Counter,
    ) -> Result<Self> {
        Ok(Self {
            registers: Registers::new()?,
            ram: Ram::around(host, vaddr)?,
            census: Mutex::new(Census::new(pes)),
            watched: Mutex::default(),
            all,
            guests,
            sites: Interned::default(),
        })
    }

    /// All that was counted so far.
    pub fn counts(&self) -> Counts {
        lock(&self.census).counts(self.executed())
    }

    fn executed(&self) -> Executed {
        Executed {
            all: self.all.sum(),
            guests: self.guests.sum(),
        }
    }

    /// Whether this thread's PE runs a guest.
    pub fn is_guest(&self) -> bool {
        self.registers.el() < 2 && walk::is_guest(self.registers.hcr_el2())
    }

    /// The instruction `word` at `pc`, if there is anything to do when it is executed. A guest's own
    /// maintenance is not the host's, and it has no markers.
    pub fn site(&self, pc: u64, word: u32, guest: bool) -> Option<&'static Site> {
        if guest {
            return None;
        }
        let is_watched = lock(&self.watched).contains(&pc);
        let op = Op::decode(word)
            .filter(|op| !matches!(op, Op::Dsb(_) | Op::DcZva { .. } | Op::Context));
        (is_watched || op.is_some())
            .then(|| intern(&self.sites, (pc, word), || Site { pc, is_watched, op }))
    }

    /// A PE is about to execute it.
    pub fn execute(&self, pe: usize, site: &Site) {
        if site.is_watched {
            lock(&self.census).entry(pe, site.pc);
        }
        let Some(op) = site.op else {
            return;
        };
        let kind = match op {
            Op::IcIalluis => Kind::IcIalluis,
            Op::IcIallu => Kind::IcIallu,
            Op::IcIvau { .. } => Kind::IcIvau,
            Op::Tlbi => Kind::Tlbi,
            Op::Dc { .. } => Kind::Dc,
            Op::Section => {
                let number = self.registers.x(0);
                return lock(&self.census).section(number, self.executed());
            }
            Op::Name => {
                let (len, addr) = (self.registers.x(0), self.registers.x(1));
                let name = self.registers.text(&self.ram, addr, len.min(NAME));
                return lock(&self.census).name(name);
            }
            Op::Watch => {
                lock(&self.watched).insert(self.registers.x(0));
                return;
            }
            Op::Dsb(_) | Op::DcZva { .. } | Op::Context => return,
        };
        lock(&self.census).operation(pe, site.pc, kind);
    }
}

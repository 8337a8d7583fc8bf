// SPDX-License-Identifier: GPL-2.0

//! Who wrote a word last: the host, or a guest.

use crate::memory::PAGE;
use std::{
    ops::Range,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A bit for each word of a page.
type Words = [AtomicU64; PAGE as usize / 4 / 64];

/// Of all words of RAM, by physical address. Without a lock.
pub struct Writers {
    start: u64,
    /// Only pages that a guest has written to have bits.
    pages: Vec<OnceLock<Box<Words>>>,
}

impl Writers {
    /// For RAM at `ram`, written by nobody, which counts as the host.
    pub fn new(ram: &Range<u64>) -> Self {
        let pages = (ram.end - ram.start).div_ceil(PAGE);
        Self {
            start: ram.start,
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
        }
    }

    fn page(&self, addr: u64) -> Option<&OnceLock<Box<Words>>> {
        self.pages
            .get((addr.wrapping_sub(self.start) / PAGE) as usize)
    }

    /// `addrs` is written, by a guest if `guest`.
    pub fn wrote(&self, addrs: Range<u64>, guest: bool) {
        for addr in ((addrs.start & !3)..addrs.end).step_by(4) {
            let Some(page) = self.page(addr) else {
                continue;
            };
            let words = match (page.get(), guest) {
                (Some(words), _) => words,
                (None, true) => page.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 16])),
                (None, false) => continue,
            };
            let (word, bit) = place(addr);
            // Most writers are who wrote last.
            match (guest, words[word].load(Relaxed) & bit != 0) {
                (true, false) => words[word].fetch_or(bit, Relaxed),
                (false, true) => words[word].fetch_and(!bit, Relaxed),
                _ => continue,
            };
        }
    }

    /// Whether a guest wrote the word at `addr` last.
    pub fn is_guests(&self, addr: u64) -> bool {
        let words = self.page(addr).and_then(OnceLock::get);
        let (word, bit) = place(addr);
        words.is_some_and(|words| words[word].load(Relaxed) & bit != 0)
    }
}

/// Where in its page's bits the word at `addr` has its own.
fn place(addr: u64) -> (usize, u64) {
    let word = addr % PAGE / 4;
    ((word / 64) as usize, 1 << (word % 64))
}

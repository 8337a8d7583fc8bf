// SPDX-License-Identifier: GPL-2.0

//! RAM, below the caches.

use std::ops::Range;

/// Bytes of a cache line. CTR_EL0 may say less or more (DDI 0487, D24.2): where a line is
/// longer, it counts as several.
pub const LINE: u64 = 64;
/// Bytes of what is remembered at once.
pub const PAGE: u64 = 4096;
/// Lines of a page.
pub const LINES: usize = (PAGE / LINE) as usize;

/// The instructions of a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Words(pub [u32; PAGE as usize / 4]);

impl Words {
    /// All zeroes.
    pub const EMPTY: Self = Self([0; PAGE as usize / 4]);

    /// Where those of one line are.
    pub fn line(line: usize) -> Range<usize> {
        const WORDS: usize = LINE as usize / 4;
        line * WORDS..(line + 1) * WORDS
    }
}

/// The machine's RAM, by physical address.
pub trait Memory {
    /// Reads the page at `page`; false if that is not RAM.
    fn read(&self, page: u64, words: &mut Words) -> bool;

    /// Reads eight aligned bytes; None if that is not RAM.
    fn doubleword(&self, addr: u64) -> Option<u64>;
}

/// The page that `addr` lies in.
pub fn page_of(addr: u64) -> u64 {
    addr & !(PAGE - 1)
}

/// The line in its page that `addr` lies in.
pub fn line_of(addr: u64) -> usize {
    (addr % PAGE / LINE) as usize
}

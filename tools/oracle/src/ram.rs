// SPDX-License-Identifier: GPL-2.0

//! The machine's RAM, where QEMU has it.

use anyhow::{Context, Result};
use coherence::memory::{Memory, PAGE, Words};
use std::{fs, ops::Range};

/// RAM as one piece of QEMU's own memory, which stays where it is as long as the machine lives.
#[derive(Debug)]
pub struct Ram {
    /// Where QEMU has it.
    host: Range<u64>,
    /// What to add to a physical address to get there, wrapping.
    offset: u64,
}

impl Ram {
    /// By one byte of it: `host` is where QEMU has what is at physical address `addr`.
    ///
    /// # Errors
    ///
    /// If the process's map cannot be read, or has nothing there.
    pub fn around(host: u64, addr: u64) -> Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps").context("the map of QEMU's memory")?;
        let range = maps
            .lines()
            .filter_map(|line| {
                let (start, end) = line.split_whitespace().next()?.split_once('-')?;
                let hex = |text| u64::from_str_radix(text, 16).ok();
                Some(hex(start)?..hex(end)?)
            })
            .find(|range| range.contains(&host))
            .context("QEMU's memory has no RAM in it")?;
        Ok(Self {
            host: range,
            offset: host.wrapping_sub(addr),
        })
    }

    /// Physical addresses that may be RAM.
    pub fn range(&self) -> Range<u64> {
        let physical = |host: u64| host.wrapping_sub(self.offset);
        physical(self.host.start)..physical(self.host.end)
    }

    /// The physical address of what QEMU has at `host`, if that is RAM.
    pub fn physical(&self, host: u64) -> Option<u64> {
        self.host
            .contains(&host)
            .then(|| host.wrapping_sub(self.offset))
    }

    /// Where `len` bytes at `addr` are, if all of them are RAM.
    fn find(&self, addr: u64, len: u64) -> Option<u64> {
        let host = addr.wrapping_add(self.offset);
        (self.host.contains(&host) && self.host.end - host >= len).then_some(host)
    }

    /// Copies bytes out; false if not all of them are RAM.
    pub fn copy(&self, addr: u64, bytes: &mut [u8]) -> bool {
        let Some(host) = self.find(addr, bytes.len() as u64) else {
            return false;
        };
        // SAFETY: `find` has checked that it lies in one readable mapping, which QEMU keeps until it
        // ends. The machine may write meanwhile; then some bytes are old and some new.
        unsafe {
            std::ptr::copy_nonoverlapping(host as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        true
    }
}

impl Memory for Ram {
    fn read(&self, page: u64, words: &mut Words) -> bool {
        let Some(host) = self.find(page, PAGE) else {
            return false;
        };
        // SAFETY: As in `copy`, and any bytes are words.
        words.0 = unsafe { std::ptr::read_unaligned(host as *const _) };
        true
    }

    fn doubleword(&self, addr: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.copy(addr, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }
}

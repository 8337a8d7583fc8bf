// SPDX-License-Identifier: GPL-2.0
//! Further RAM, in pages that the host replaces under the guest.

use std::arch::asm;
use std::ffi::c_void;
use std::fs;
use std::ptr;

use anyhow::{Context, Result, ensure};
use rustix::io;
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap_fixed, munmap,
};

use crate::guest;

/// How large huge pages are, if the host has any.
pub fn huge_page() -> Option<usize> {
    let file = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The pages that memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The host's own.
    Small,
    /// Transparent huge pages, of that size, as far as the host has any.
    Huge(usize),
}

/// Further RAM, mapped by the VMM at an address that huge pages can begin at.
pub struct Extra {
    mapping: usize,
    mapped: usize,
    address: usize,
    size: usize,
    pages: Pages,
}

impl Extra {
    /// Memory of that size, in whole pages of the largest size of any host.
    pub fn new(size: usize, pages: Pages) -> Result<Self> {
        let align = match pages {
            Pages::Small => guest::HOST_PAGE as usize,
            Pages::Huge(size) => size,
        };
        let mapped = size + align;
        let mapping = map(0, mapped, MapFlags::empty())?;
        let extra = Self {
            mapping,
            mapped,
            address: mapping.next_multiple_of(align),
            size,
            pages,
        };
        extra.advise(mapping, mapped)?;
        Ok(extra)
    }

    fn advise(&self, at: usize, size: usize) -> Result<()> {
        let advice = match self.pages {
            Pages::Small => Advice::LinuxNoHugepage,
            Pages::Huge(_) => Advice::LinuxHugepage,
        };
        // SAFETY: The range is this mapping's, and its content stays.
        match unsafe { madvise(at as *mut c_void, size, advice) } {
            // A kernel without huge pages has none to avoid.
            Err(_) if self.pages == Pages::Small => Ok(()),
            result => result.context("madvise"),
        }
    }

    fn place(&self, offset: usize, size: usize) -> Result<usize> {
        ensure!(
            offset + size <= self.size,
            "{offset} is not in further RAM of {} bytes",
            self.size
        );
        Ok(self.address + offset)
    }

    /// Where the VMM maps it.
    pub fn host_address(&self) -> usize {
        self.address
    }

    /// Writes a word, and cleans it from the cache.
    pub fn write(&self, offset: usize, word: u32) -> Result<()> {
        let place = self.place(offset, size_of::<u32>())?;
        // SAFETY: Mapped, and of nobody but the guest.
        unsafe { write(place, word) };
        Ok(())
    }

    /// Makes a mapping of its own of each `step` bytes, so that unmaps have as many ranges to go through.
    pub fn split(&self, step: usize) -> Result<()> {
        for offset in (0..self.size).step_by(2 * step) {
            let place = self.place(offset, step)?;
            // SAFETY: What is left out of core dumps is of no consequence.
            unsafe { madvise(place as *mut c_void, step, Advice::LinuxDontDump) }
                .context("MADV_DONTDUMP")?;
        }
        Ok(())
    }

    /// Gives pages back to the host. What is read there from now on is 0.
    pub fn discard(&self, offset: usize, size: usize) -> Result<()> {
        let place = self.place(offset, size)?;
        // SAFETY: Nothing but guest RAM lies there.
        unsafe { madvise(place as *mut c_void, size, Advice::LinuxDontNeed) }
            .context("MADV_DONTNEED")
    }

    /// Maps other pages over those that are there.
    pub fn map_over(&self, offset: usize, size: usize) -> Result<()> {
        let place = self.place(offset, size)?;
        map(place, size, MapFlags::FIXED)?;
        self.advise(place, size)
    }

    /// Moves pages there that were somewhere else, and hold `word`.
    pub fn move_over(&self, offset: usize, size: usize, word: u32) -> Result<()> {
        let place = self.place(offset, size)?;
        let other = map(0, size, MapFlags::empty())?;
        // SAFETY: Just mapped.
        unsafe { write(other, word) };
        let (other, over) = (other as *mut c_void, place as *mut c_void);
        // SAFETY: The first is ours to give away, and nothing but guest RAM lies where it is moved.
        unsafe { mremap_fixed(other, size, size, MremapFlags::MAYMOVE, over) }.context("mremap")?;
        self.advise(place, size)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        // SAFETY: Mapped here, and the VM that knew it is closed. A refusal leaves it mapped.
        let _ = unsafe { munmap(self.mapping as *mut c_void, self.mapped) };
    }
}

/// Anonymous memory, at `address` if `flags` say so. Where it is.
fn map(address: usize, size: usize, flags: MapFlags) -> Result<usize> {
    // More than the host has, perhaps: nobody touches all of it.
    let flags = flags | MapFlags::PRIVATE | MapFlags::NORESERVE;
    let address = ptr::without_provenance_mut(address);
    // SAFETY: Only where callers know what is there do they give MAP_FIXED.
    let mapping: io::Result<_> =
        unsafe { mmap_anonymous(address, size, ProtFlags::READ | ProtFlags::WRITE, flags) };
    Ok(mapping.context("mmap")? as usize)
}

/// Writes a word, and cleans its line from the cache.
///
/// # Safety
///
/// The word must be mapped, and nothing of Rust's own may lie there.
unsafe fn write(place: usize, word: u32) {
    let place = place as *mut u32;
    // SAFETY: As the caller says.
    unsafe {
        place.write_volatile(word);
        asm!("dc civac, {}", "dsb sy", in(reg) place);
    }
}

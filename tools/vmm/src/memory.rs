// SPDX-License-Identifier: GPL-2.0
//! Guest RAM: the routines, the function, and a data page for each vCPU.

use std::arch::asm;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::guest;

/// Guest RAM.
pub(crate) struct Memory(GuestMemoryMmap);

impl Memory {
    pub(crate) fn new(size: usize) -> Result<Self> {
        let ranges = [(GuestAddress(guest::RAM), size)];
        Ok(Self(GuestMemoryMmap::from_ranges(&ranges)?))
    }

    pub(crate) fn host_address(&self, address: u64) -> Result<*mut u8> {
        Ok(self.0.get_host_address(GuestAddress(address))?)
    }

    /// Writes through the cache, with nothing cleaned.
    pub(crate) fn write_cached(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let address = GuestAddress(address);
        self.0
            .write_slice(bytes, address)
            .context("write to guest RAM")
    }

    /// Writes to a data page. What the guest does with its MMU off goes past our cache, except with
    /// S2FWB: so the line is cleaned.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.write_cached(address, bytes)?;
        self.clean(address)
    }

    /// A word as the guest wrote it.
    pub(crate) fn word(&self, address: u64) -> Result<u32> {
        self.clean(address)?;
        Ok(self.0.load(GuestAddress(address), Ordering::Acquire)?)
    }

    /// Cleans and invalidates a line of the data cache, so that host and guest see one content.
    fn clean(&self, address: u64) -> Result<()> {
        let line = self.host_address(address)?;
        // SAFETY: The line is mapped, and its content does not change.
        unsafe { asm!("dc civac, {}", "dsb sy", in(reg) line) };
        Ok(())
    }
}

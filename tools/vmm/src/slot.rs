// SPDX-License-Identifier: GPL-2.0
//! Memory slots beside RAM: of guest_memfd, or with a hole in what the VMM maps of them.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use kvm_bindings::{KVM_MEM_GUEST_MEMFD, kvm_create_guest_memfd, kvm_userspace_memory_region2};
use kvm_ioctls::VmFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::guest;

const SIZE: usize = guest::HOST_PAGE as usize;

// Of KVM's header, newer than kvm-bindings.
const GUEST_MEMFD_FLAG_MMAP: u64 = 1 << 0;
const GUEST_MEMFD_FLAG_INIT_SHARED: u64 = 1 << 1;

/// A page of the VMM's address space, of the largest size, far from where mmap puts anything by itself.
pub(crate) struct Slot {
    address: usize,
    mapped: bool,
}

impl Slot {
    /// The slot of that number, from 1. The guest has memory there; where it is to be `mapped`, the VMM
    /// has it in its own address space, too. The VM must be closed before the slot goes.
    pub(crate) fn add(fd: &VmFd, number: usize, guest_memfd: bool, mapped: bool) -> Result<Self> {
        let mut slot = Self {
            address: (64 << 30) + number * SIZE,
            mapped: false,
        };
        let file = guest_memfd.then(|| {
            fd.create_guest_memfd(kvm_create_guest_memfd {
                size: guest::HOST_PAGE,
                flags: GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
                ..Default::default()
            })
        });
        let file = file.transpose().context("KVM_CREATE_GUEST_MEMFD")?;
        // SAFETY: Just made, and nobody else's.
        let file = file.map(|file| unsafe { OwnedFd::from_raw_fd(file) });
        if mapped {
            slot.map(file.as_ref())?;
        }
        let region = kvm_userspace_memory_region2 {
            slot: number as u32,
            flags: if guest_memfd { KVM_MEM_GUEST_MEMFD } else { 0 },
            guest_phys_addr: guest::MORE + guest::HOST_PAGE * number as u64,
            memory_size: guest::HOST_PAGE,
            userspace_addr: slot.address as u64,
            guest_memfd: file.as_ref().map_or(0, |file| file.as_raw_fd() as u32),
            ..Default::default()
        };
        // SAFETY: What is mapped there goes after the VM.
        unsafe { fd.set_user_memory_region2(region) }.context("KVM_SET_USER_MEMORY_REGION2")?;
        Ok(slot)
    }

    fn map(&mut self, file: Option<&OwnedFd>) -> Result<()> {
        let address = self.address as *mut c_void;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::FIXED_NOREPLACE;
        // SAFETY: With MAP_FIXED_NOREPLACE nothing that is there is touched.
        unsafe {
            match file {
                Some(file) => mmap(address, SIZE, access, flags | MapFlags::SHARED, file, 0),
                None => mmap_anonymous(address, SIZE, access, flags | MapFlags::PRIVATE),
            }
        }
        .context("mmap")?;
        self.mapped = true;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: Mapped here, and the VM that knew it is closed. A refusal leaves it mapped.
            let _ = unsafe { munmap(self.address as *mut c_void, SIZE) };
        }
    }
}

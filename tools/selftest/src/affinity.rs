// SPDX-License-Identifier: GPL-2.0
//! Where the current thread may run.

use std::io;

use anyhow::{Result, ensure};

/// A set of CPUs.
pub struct Affinity(libc::cpu_set_t);

impl Affinity {
    const SIZE: usize = size_of::<libc::cpu_set_t>();

    fn none() -> Self {
        // SAFETY: All zeroes is an empty set.
        Self(unsafe { std::mem::zeroed() })
    }

    /// One CPU alone.
    pub fn one(cpu: usize) -> Self {
        let mut one = Self::none();
        // SAFETY: Checks the number itself.
        unsafe { libc::CPU_SET(cpu, &mut one.0) };
        one
    }

    /// Where the current thread may run now.
    pub fn get() -> Result<Self> {
        let mut here = Self::none();
        // SAFETY: The kernel writes the set, of the size given.
        let status = unsafe { libc::sched_getaffinity(0, Self::SIZE, &mut here.0) };
        ensure!(
            status == 0,
            "sched_getaffinity: {}",
            io::Error::last_os_error()
        );
        Ok(here)
    }

    /// The current thread runs there from now on.
    pub fn set(&self) -> Result<()> {
        // SAFETY: The kernel reads the set, of the size given.
        let status = unsafe { libc::sched_setaffinity(0, Self::SIZE, &self.0) };
        ensure!(
            status == 0,
            "sched_setaffinity: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }
}

/// Does `work` on this CPU.
pub fn on<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let here = Affinity::get()?;
    Affinity::one(cpu).set()?;
    let result = work();
    here.set()?;
    result
}

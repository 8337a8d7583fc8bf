// SPDX-License-Identifier: GPL-2.0

//! Atomics: before each operation others may go on.

use crate::race::step;
use core::sync::atomic::{self, Ordering::SeqCst};

pub(crate) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self) -> u64 {
        step();
        self.0.load(SeqCst)
    }

    pub(crate) fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        step();
        let result = self.0.compare_exchange(old, new, SeqCst, SeqCst);
        result.map(|_| ())
    }

    pub(crate) fn store(&self, value: u64) {
        step();
        self.0.store(value, SeqCst);
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, SeqCst) + 1
    }

    /// For counters: nobody acts on them.
    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, SeqCst);
    }
}

pub(crate) struct AtomicI32(atomic::AtomicI32);

impl AtomicI32 {
    pub(crate) const fn new(value: i32) -> Self {
        Self(atomic::AtomicI32::new(value))
    }

    pub(crate) fn load(&self) -> i32 {
        step();
        self.0.load(SeqCst)
    }

    /// All that the module counts in one are VMs, and anyone may look at any time.
    pub(crate) fn fetch_add(&self, value: i32) -> i32 {
        step();
        let before = self.0.fetch_add(value, SeqCst);
        assert!(before + value >= 0, "{} VMs", before + value);
        before
    }

    /// Not for the module.
    pub(crate) fn set(&self, value: i32) {
        self.0.store(value, SeqCst);
    }
}

pub(crate) fn full_barrier() {
    step();
}

// SPDX-License-Identifier: GPL-2.0

//! The module's atomics, on the host's.

use std::sync::atomic::{self, Ordering::SeqCst};

pub struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub fn load(&self) -> u64 {
        self.0.load(SeqCst)
    }

    pub fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(old, new, SeqCst, SeqCst)
            .map(|_| ())
    }

    pub fn store(&self, value: u64) {
        self.0.store(value, SeqCst);
    }
}

pub struct AtomicI32(atomic::AtomicI32);

impl AtomicI32 {
    pub const fn new(value: i32) -> Self {
        Self(atomic::AtomicI32::new(value))
    }

    pub fn load(&self) -> i32 {
        self.0.load(SeqCst)
    }

    pub fn fetch_add(&self, value: i32) -> i32 {
        self.0.fetch_add(value, SeqCst)
    }
}

pub fn full_barrier() {
    atomic::fence(SeqCst);
}

// SPDX-License-Identifier: GPL-2.0

//! The atomics that the reset protocol is written in. A host-side model checker compiles the
//! protocol against its own module of this name; both follow the LKMM's reading: read-modify-writes
//! that return a value are fully ordered.

use super::bindings;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};

/// A 64-bit atomic.
pub(crate) struct AtomicU64(Atomic<u64>);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(Atomic::new(value))
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Replaces `old` by `new`, fully ordered; otherwise returns what was there.
    pub(crate) fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Full).map(|_| ())
    }

    /// Stores behind all that this CPU did before.
    pub(crate) fn store(&self, value: u64) {
        self.0.store(value, Release);
    }

    /// Counts on by one, and returns what it comes to: a number that nobody else gets.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    /// Adds without ordering: for counters.
    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }
}

/// A 32-bit atomic whose address C code may poll.
#[repr(transparent)]
pub(crate) struct AtomicI32(Atomic<i32>);

impl AtomicI32 {
    pub(crate) const fn new(value: i32) -> Self {
        Self(Atomic::new(value))
    }

    pub(crate) fn load(&self) -> i32 {
        self.0.load(Acquire)
    }

    /// Adds, fully ordered, and returns what was there.
    pub(crate) fn fetch_add(&self, value: i32) -> i32 {
        self.0.fetch_add(value, Full)
    }

    pub(crate) const fn as_ptr(&self) -> *const i32 {
        core::ptr::from_ref(self).cast()
    }
}

/// `smp_mb()`.
pub(crate) fn full_barrier() {
    // SAFETY: A barrier has no preconditions.
    unsafe { bindings::full_barrier() }
}

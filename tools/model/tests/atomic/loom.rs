// SPDX-License-Identifier: GPL-2.0

//! The module's atomics, on loom's. The kernel's fully ordered read-modify-writes have a full barrier on
//! both sides. loom's atomics have no `const` constructor, so they are made when first used.

use loom::sync::atomic::{
    self, fence,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use std::sync::OnceLock;

struct Lazy<V, A> {
    value: V,
    atomic: OnceLock<A>,
}

impl<V: Copy, A> Lazy<V, A> {
    const fn new(value: V) -> Self {
        Self {
            value,
            atomic: OnceLock::new(),
        }
    }

    fn get(&self, make: impl FnOnce(V) -> A) -> &A {
        self.atomic.get_or_init(|| make(self.value))
    }
}

pub struct AtomicU64(Lazy<u64, atomic::AtomicU64>);

impl AtomicU64 {
    pub const fn new(value: u64) -> Self {
        Self(Lazy::new(value))
    }

    fn get(&self) -> &atomic::AtomicU64 {
        self.0.get(atomic::AtomicU64::new)
    }

    pub fn load(&self) -> u64 {
        self.get().load(Acquire)
    }

    pub fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        fence(SeqCst);
        let result = self.get().compare_exchange(old, new, AcqRel, Acquire);
        fence(SeqCst);
        result.map(|_| ())
    }

    pub fn store(&self, value: u64) {
        self.get().store(value, Release);
    }
}

pub struct AtomicI32(Lazy<i32, atomic::AtomicI32>);

impl AtomicI32 {
    pub const fn new(value: i32) -> Self {
        Self(Lazy::new(value))
    }

    fn get(&self) -> &atomic::AtomicI32 {
        self.0.get(atomic::AtomicI32::new)
    }

    pub fn load(&self) -> i32 {
        self.get().load(Relaxed)
    }

    pub fn fetch_add(&self, value: i32) -> i32 {
        fence(SeqCst);
        let result = self.get().fetch_add(value, AcqRel);
        fence(SeqCst);
        result
    }
}

pub fn full_barrier() {
    fence(SeqCst);
}

// SPDX-License-Identifier: GPL-2.0

//! How long the work of resets took.

use crate::rust::atomic::AtomicU64;
use kernel::time::{Instant, Monotonic};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A re-init, from the reset of the vCPU's registers to the end of its cache maintenance.
    VcpuReset,
    /// A run of `stage2_unmap_vm`.
    Stage2Unmap,
    /// An invalidation of all PEs' instruction caches, until it is complete.
    IcacheInvalidate,
    /// What a KVM_RUN waited for the VM's debt to be paid, by itself or by another.
    Pay,
    /// A run of `stage2_flush_vm`.
    Stage2Flush,
}

impl Work {
    /// All kinds of work, with the names in `latency`, in its order.
    const ALL: [(Self, &'static str); 5] = [
        (Self::VcpuReset, "vcpu_reset"),
        (Self::Stage2Unmap, "stage2_unmap"),
        (Self::IcacheInvalidate, "icache_invalidate"),
        (Self::Pay, "pay"),
        (Self::Stage2Flush, "stage2_flush"),
    ];
}

/// The histograms of all work.
pub(crate) struct Latency([Histogram; Work::ALL.len()]);

impl Latency {
    pub(crate) const fn new() -> Self {
        Self([const { Histogram::new() }; Work::ALL.len()])
    }

    pub(crate) fn add(&self, work: Work, ns: u64) {
        self.0[work as usize].add(ns);
    }

    pub(crate) fn clear(&self) {
        for histogram in &self.0 {
            histogram.clear();
        }
    }

    /// What was timed, with names and histograms.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Work, &'static str, &Histogram)> {
        Work::ALL
            .iter()
            .map(|&(work, name)| (work, name, &self.0[work as usize]))
    }
}

/// From 0, then by powers of two; the last has no end, and begins at four and a half minutes.
const BUCKETS: usize = 40;

/// How often a duration of each order of magnitude was seen.
pub(crate) struct Histogram {
    sum: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    const fn new() -> Self {
        Self {
            sum: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    fn add(&self, ns: u64) {
        let order = (u64::BITS - ns.leading_zeros()) as usize;
        self.buckets[order.min(BUCKETS - 1)].add(1);
        self.sum.add(ns);
    }

    fn clear(&self) {
        self.sum.store(0);
        for bucket in &self.buckets {
            bucket.store(0);
        }
    }

    /// All durations together, in ns.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load()
    }

    /// Where each bucket begins, in ns, and what is in it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let begins = |order| (1_u64 << order) >> 1;
        (0_u32..)
            .zip(&self.buckets)
            .map(move |(order, bucket)| (begins(order), bucket.load()))
    }
}

/// Tells how long something takes. May be started and read in any context.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant<Monotonic>);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn ns(self) -> u64 {
        self.0.elapsed().as_nanos().unsigned_abs()
    }
}

// SPDX-License-Identifier: GPL-2.0
//! The generic timer's counter as a clock of instructions: in the lab it counts one for each.

use std::arch::asm;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

/// The counter now.
pub fn now() -> u64 {
    let count: u64;
    // SAFETY: Reads a register that Linux lets user space read.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack)) };
    count
}

/// Refuses a counter that is too coarse to count instructions.
pub fn check() -> Result<()> {
    let frequency: u64;
    // SAFETY: Reads a register that Linux lets user space read.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nostack)) };
    ensure!(
        frequency == 1_000_000_000,
        "the counter runs at {frequency} Hz, so it does not count instructions: boot with EXACT=1"
    );
    Ok(())
}

/// What was measured, sorted.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Calls `work` so often, with a rest after each `burst`; it says itself what a call took. The
    /// first calls, which fault in what the later ones find, are left out.
    pub fn take(count: usize, burst: usize, mut work: impl FnMut() -> Result<u64>) -> Result<Self> {
        for _ in 0..3 {
            work()?;
        }
        let mut samples = Vec::with_capacity(count);
        for index in 0..count {
            if index % burst == 0 {
                // Let kernel threads finish what went before: KVM goes other ways where another
                // task wants the CPU. (It traps the guest's WFI then, for one.)
                sleep(Duration::from_millis(100));
            }
            samples.push(work()?);
        }
        Ok(Self::of(samples))
    }

    /// What was measured elsewhere; at least once.
    pub fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The middle one: a timer tick in some does not show.
    pub fn median(&self) -> u64 {
        self.0[self.0.len() / 2]
    }
}

/// Returns right after a timer tick, so that what takes less than a tick's period (4 ms, most often)
/// has none in it.
pub fn after_tick() {
    // No two looks at the clock are that far apart unless the kernel was at work between them.
    const TICK: u64 = 1000;
    let mut before = now();
    loop {
        let after = now();
        if after - before > TICK {
            return;
        }
        before = after;
    }
}

/// What `work` takes, and the few instructions to look at the clock twice.
pub fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<u64> {
    let start = now();
    let result = work();
    let end = now();
    result?;
    Ok(end - start)
}

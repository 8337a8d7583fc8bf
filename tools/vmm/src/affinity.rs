// SPDX-License-Identifier: GPL-2.0
//! Where the current thread may run.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Does `work` on this CPU, then goes back to where the thread might run before.
pub fn on<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let here = sched_getaffinity(None).context("sched_getaffinity")?;
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).context("sched_setaffinity")?;
    let result = work();
    sched_setaffinity(None, &here).context("sched_setaffinity")?;
    result
}

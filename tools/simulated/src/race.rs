// SPDX-License-Identifier: GPL-2.0

//! Which thread goes on: a race's threads may be switched at every step that they make, as its seed says.

use shuttle::scheduler::RandomScheduler;
use std::sync::{
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    Arc,
};

/// What a thread of a race does.
pub type Job = Box<dyn Fn() + Send + Sync>;

static RACING: AtomicBool = AtomicBool::new(false);
/// Of the race: its seed, and the places passed where threads may be switched.
static SEED: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);

/// Does all jobs at once, interleaved as `seed` says. There is one race at a time.
pub(crate) fn race(seed: u64, jobs: Vec<Job>) {
    let jobs: Arc<[Job]> = jobs.into();
    let scheduler = RandomScheduler::new_from_seed(seed, 1);
    let runner = shuttle::Runner::new(scheduler, shuttle::Config::new());
    SEED.store(seed, SeqCst);
    STEP.store(0, SeqCst);
    RACING.store(true, SeqCst);
    runner.run(move || {
        let threads: Vec<_> = (0..jobs.len())
            .map(|number| {
                let jobs = jobs.clone();
                shuttle::thread::spawn(move || jobs[number]())
            })
            .collect();
        for thread in threads {
            // A job that panics ends the run, and the test.
            let _ = thread.join();
        }
    });
    end();
}

/// No race goes on, even where one broke off.
pub(crate) fn end() {
    RACING.store(false, SeqCst);
}

pub(crate) fn is_racing() -> bool {
    RACING.load(SeqCst)
}

/// The number of the current task, from 1.
pub(crate) fn task() -> usize {
    #[cfg(test)]
    if let Some(task) = AS_TASK.get() {
        return task;
    }
    if is_racing() {
        usize::from(shuttle::current::me()) + 2
    } else {
        1
    }
}

#[cfg(test)]
thread_local!(static AS_TASK: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) });

/// Does `work` as another task.
#[cfg(test)]
pub(crate) fn as_task<R>(task: usize, work: impl FnOnce() -> R) -> R {
    let before = AS_TASK.replace(Some(task));
    let result = work();
    AS_TASK.set(before);
    result
}

/// A place where another thread of a race may go on first.
pub(crate) fn step() {
    if is_racing() && may_switch() {
        shuttle::thread::yield_now();
    }
}

/// A place where another thread has to go on first.
pub(crate) fn wait() {
    shuttle::thread::yield_now();
}

/// Whether threads may be switched here. Some races switch everywhere, and in some a thread goes far while
/// another stands still.
fn may_switch() -> bool {
    let (seed, step) = (SEED.load(SeqCst), STEP.fetch_add(1, SeqCst));
    let stride = [1, 4, 16][(seed % 3) as usize];
    // The finalizer of SplitMix64.
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % stride == 0
}

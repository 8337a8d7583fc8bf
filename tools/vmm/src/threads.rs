// SPDX-License-Identifier: GPL-2.0
//! Threads and locks of tests, where a panic of one is a failure like any other.

use std::sync::{Mutex, MutexGuard};
use std::thread::ScopedJoinHandle;

use anyhow::{Result, anyhow};

/// A lock that outlives a panic of its holder: the test has failed then, the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

/// The result of a thread; its panic becomes an error.
pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

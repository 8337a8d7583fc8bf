// SPDX-License-Identifier: GPL-2.0

//! Locks that are held for long.

use super::bindings;
use core::ptr;
use kernel::sync::{Mutex, MutexGuard};

/// Takes the lock, unless the task is killed before it gets it. Unlike [`Mutex::lock`], to wait for as long
/// as it takes is not to hang: whoever waits can be killed.
pub(crate) fn lock_unless_killed(lock: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    let mutex = ptr::from_ref(lock).cast_mut().cast();
    // SAFETY: A `Mutex` of no data is the kernel's `struct mutex` alone, as `Mutex::from_raw` has it, and was
    // initialised as it was made.
    let taken = unsafe { bindings::lock_mutex_unless_killed(mutex) };
    // SAFETY: Taken just now.
    taken.then(|| unsafe { MutexGuard::new(lock, ()) })
}

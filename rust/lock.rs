// SPDX-License-Identifier: GPL-2.0

//! Locks that are held for long.

use super::bindings;
use core::ptr;
use kernel::sync::{Mutex, MutexGuard};

// Of no data it is the kernel's `struct mutex` alone, which `Mutex::from_raw` relies on, too.
const _: () = assert!(size_of::<Mutex<()>>() == size_of::<kernel::bindings::mutex>());

/// Takes the lock, unless the task is killed before it gets it. Unlike [`Mutex::lock`], to wait for as long
/// as it takes is not to hang: whoever waits can be killed.
pub(crate) fn lock_unless_killed(lock: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    let mutex = ptr::from_ref(lock).cast_mut().cast();
    // SAFETY: `Mutex::new`, the only way to one, pinned and initialised it, and `lock` borrows it for as long
    // as the guard that is returned lives. A `struct mutex` may be written through a shared reference: it lies
    // in an `Opaque`.
    let taken = unsafe { bindings::lock_mutex_unless_killed(mutex) };
    // SAFETY: This task has taken it just now, and nobody but the guard lets go of it.
    taken.then(|| unsafe { MutexGuard::new(lock, ()) })
}

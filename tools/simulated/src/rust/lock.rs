// SPDX-License-Identifier: GPL-2.0

//! Locks that are held for long.

use crate::{
    race::task,
    sync::{Guard, Mutex},
};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The number of the task that was killed, 0 if none was.
static KILLED: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn lock_unless_killed(lock: &Mutex<()>) -> Option<Guard<'_, ()>> {
    if KILLED.load(SeqCst) == task() {
        lock.try_lock()
    } else {
        Some(lock.lock())
    }
}

/// Has the current task killed as long as it is in `ioctl`. There is one such task at a time.
pub(crate) fn while_killed(ioctl: impl FnOnce()) {
    KILLED.store(task(), SeqCst);
    ioctl();
    KILLED.store(0, SeqCst);
}

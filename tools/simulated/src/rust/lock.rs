// SPDX-License-Identifier: GPL-2.0

//! Locks that are held for long. Nobody is killed here.

use crate::sync::{Guard, Mutex};

pub(crate) fn lock_unless_killed(lock: &Mutex<()>) -> Option<Guard<'_, ()>> {
    Some(lock.lock())
}

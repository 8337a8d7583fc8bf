// SPDX-License-Identifier: GPL-2.0

//! Which directories there are.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::{Mutex, MutexGuard, PoisonError};

static DIRECTORIES: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

fn directories() -> MutexGuard<'static, BTreeSet<CString>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directory of one VM.
pub(crate) struct Directory<const FILES: usize>(CString);

impl<const FILES: usize> Directory<FILES> {
    pub(crate) fn new(name: &CStr) -> Option<Self> {
        let new = directories().insert(name.to_owned());
        new.then(|| Self(name.to_owned()))
    }
}

impl<const FILES: usize> Drop for Directory<FILES> {
    fn drop(&mut self) {
        directories().remove(&self.0);
    }
}

/// Whether a directory of that name is there.
pub(crate) fn has(name: &CStr) -> bool {
    directories().contains(name)
}

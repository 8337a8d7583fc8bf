// SPDX-License-Identifier: GPL-2.0

//! Which VMs have files.

use crate::vm::Record;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::{Mutex, MutexGuard, PoisonError};

static SHOWN: Mutex<BTreeSet<CString>> = Mutex::new(BTreeSet::new());

fn shown() -> MutexGuard<'static, BTreeSet<CString>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directory of one VM.
pub(crate) struct VmFiles(CString);

impl VmFiles {
    /// Makes it.
    ///
    /// # Safety
    ///
    /// None here.
    pub(crate) unsafe fn new(_: &Record, name: &CStr) -> Option<Self> {
        shown()
            .insert(name.to_owned())
            .then(|| Self(name.to_owned()))
    }
}

impl Drop for VmFiles {
    fn drop(&mut self) {
        shown().remove(&self.0);
    }
}

/// Whether a VM's directory of that name is there.
pub(crate) fn has_vm(name: &CStr) -> bool {
    shown().contains(name)
}

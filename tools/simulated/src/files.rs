// SPDX-License-Identifier: GPL-2.0

//! Which VMs have files.

use crate::vm::Record;
use std::collections::BTreeSet;
use std::sync::Mutex;

static SHOWN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// The directory of one VM.
pub(crate) struct VmFiles(usize);

impl VmFiles {
    /// Makes it.
    ///
    /// # Safety
    ///
    /// None here.
    pub(crate) unsafe fn new(record: &Record) -> Option<Self> {
        let number = record.vm().number();
        SHOWN.lock().ok()?.insert(number).then_some(Self(number))
    }
}

impl Drop for VmFiles {
    fn drop(&mut self) {
        if let Ok(mut shown) = SHOWN.lock() {
            shown.remove(&self.0);
        }
    }
}

/// Whether the VM of that number has its directory.
pub(crate) fn is_shown(number: usize) -> bool {
    SHOWN.lock().is_ok_and(|shown| shown.contains(&number))
}

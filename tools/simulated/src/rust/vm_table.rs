// SPDX-License-Identifier: GPL-2.0

//! A value for each VM.

use super::kvm::{DyingVm, Vm};
use crate::{
    prelude::{KBox, Pin, Result},
    race::step,
    sync,
};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// Not for the module: how many entries its one table has.
pub(crate) static ENTRIES: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct VmTable<T> {
    entries: Mutex<BTreeMap<usize, Pin<KBox<T>>>>,
    open: AtomicBool,
    /// As in the module: no entry goes while it is held.
    changes: sync::Mutex<()>,
}

impl<T: Send + Sync> VmTable<T> {
    /// # Safety
    ///
    /// None here.
    pub(crate) const unsafe fn new() -> Self {
        Self {
            entries: Mutex::new(BTreeMap::new()),
            open: AtomicBool::new(false),
            changes: sync::Mutex::new(()),
        }
    }

    /// # Safety
    ///
    /// None here.
    pub(crate) unsafe fn open(&self) {
        self.open.store(true, SeqCst);
    }

    /// # Safety
    ///
    /// No entry is used any more.
    pub(crate) unsafe fn close(&self) {
        self.open.store(false, SeqCst);
        let entries = std::mem::take(&mut *self.entries());
        ENTRIES.fetch_sub(entries.len(), SeqCst);
    }

    /// Never held where others may go on.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<usize, Pin<KBox<T>>>> {
        self.entries
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    pub(crate) fn find<'a>(&'a self, vm: &'a Vm) -> Option<&'a T> {
        step();
        let entry = self
            .entries()
            .get(&vm.number())
            .map(|entry| &raw const **entry);
        // SAFETY: Boxed, and there as long as its VM is.
        entry.map(|entry| unsafe { &*entry })
    }

    pub(crate) fn find_or_insert<'a>(
        &'a self,
        vm: &'a Vm,
        make: impl FnOnce() -> Result<Pin<KBox<T>>>,
    ) -> Option<&'a T> {
        if let Some(entry) = self.find(vm) {
            return Some(entry);
        }
        if !self.open.load(SeqCst) {
            return None;
        }
        let entry = make().ok()?;
        step();
        let mut entries = self.entries();
        entries.entry(vm.number()).or_insert_with(|| {
            ENTRIES.fetch_add(1, SeqCst);
            entry
        });
        drop(entries);
        self.find(vm)
    }

    pub(crate) fn remove(&self, vm: &DyingVm) -> Option<Pin<KBox<T>>> {
        let _changes = self.changes.lock();
        let removed = self.entries().remove(&vm.0.number());
        ENTRIES.fetch_sub(usize::from(removed.is_some()), SeqCst);
        removed
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&T)) {
        let _changes = self.changes.lock();
        let entries: Vec<_> = self
            .entries()
            .values()
            .map(|entry| &raw const **entry)
            .collect();
        for entry in entries {
            // SAFETY: Boxed, and not taken out while the lock is held.
            visit(unsafe { &*entry });
        }
    }
}

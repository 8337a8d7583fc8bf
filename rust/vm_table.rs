// SPDX-License-Identifier: GPL-2.0

//! A value for each VM.

use super::{
    atomic::AtomicU64,
    bindings,
    kvm::{Argument, DyingVm, Vm},
};
use core::{marker::PhantomData, pin::Pin};
use kernel::prelude::*;

/// Values of type `T`, found by VM without a lock.
///
/// # Invariants
///
/// - `raw` is used by this table alone.
/// - Each entry is a `KBox<T>` turned raw, under the [`address`] of a VM that has a user, or is
///   being destroyed and was not yet given to [`VmTable::remove`]. So a `&Vm` keeps its entry alive, until
///   [`VmTable::close`].
pub(crate) struct VmTable<T> {
    raw: *mut bindings::vm_table,
    /// 1 while values may be put in.
    open: AtomicU64,
    _values: PhantomData<T>,
}

// SAFETY: Look-ups are protected by RCU inside the xarray, removals by the mutex; the values are
// shared between threads and freed by any of them.
unsafe impl<T: Send + Sync> Sync for VmTable<T> {}

impl<T: Send + Sync> VmTable<T> {
    /// An empty table, which takes nothing in before [`VmTable::open`].
    ///
    /// # Safety
    ///
    /// There is one, for they would be the same.
    pub(crate) const unsafe fn new() -> Self {
        // INVARIANT: By the caller.
        Self {
            raw: &raw mut bindings::vm_table,
            open: AtomicU64::new(0),
            _values: PhantomData,
        }
    }

    /// Lets values be put in from now on.
    ///
    /// # Safety
    ///
    /// Until [`VmTable::close`], every VM whose destruction begins after this is given to
    /// [`VmTable::remove`] before its memory is freed.
    pub(crate) unsafe fn open(&self) {
        self.open.store(1);
    }

    /// Frees all entries.
    ///
    /// # Safety
    ///
    /// No reference that this table gave out is used any more, and it is used by nobody from now on.
    pub(crate) unsafe fn close(&self) {
        self.open.store(0);
        let mut at = 0;
        loop {
            // SAFETY: By the caller nothing else is done with the table.
            let entry = unsafe { bindings::vm_table_next(self.raw, &mut at) };
            if entry.is_null() {
                break;
            }
            // SAFETY: Entries are boxes turned raw, each freed once, as it is taken out first.
            unsafe {
                bindings::xa_erase(&raw mut (*self.raw).entries, at);
                drop(KBox::<T>::from_raw(entry.cast()));
            }
        }
    }

    /// The entry of `vm`.
    pub(crate) fn find<'a>(&'a self, vm: &'a Vm) -> Option<&'a T> {
        // SAFETY: The table is there for good, and is looked into under RCU's read lock. Of `vm`, which
        // has a user, only the address is taken.
        let entry = unsafe { bindings::vm_table_find(self.raw, address(vm)) };
        // SAFETY: By the type invariant the entry lives as long as `vm` does.
        unsafe { entry.cast::<T>().as_ref() }
    }

    /// The entry of `vm`, made by `make` if there is none yet. `None` where there is no memory for
    /// it, or the table is not open. Holds no lock while it waits for memory.
    pub(crate) fn find_or_insert<'a>(
        &'a self,
        vm: &'a Vm,
        make: impl FnOnce() -> Result<Pin<KBox<T>>>,
    ) -> Option<&'a T> {
        if let Some(entry) = self.find(vm) {
            return Some(entry);
        }
        if self.open.load() == 0 {
            return None;
        }
        // SAFETY: The value is not moved out of its box again.
        let mine = KBox::into_raw(unsafe { Pin::into_inner_unchecked(make().ok()?) });
        // INVARIANT: `vm` has a user, and its destruction, to come, removes the entry.
        // SAFETY: The entry is aligned, as an xarray wants its pointers. Of `vm` only the address is taken.
        let there = unsafe { bindings::vm_table_insert(self.raw, address(vm), mine.cast()) };
        if there.is_null() {
            // SAFETY: By the type invariant the entry lives as long as `vm` does.
            return Some(unsafe { &*mine });
        }
        // Another vCPU of the VM was faster, or there is no memory for the table to grow.
        // SAFETY: Made above, and not in the table.
        drop(unsafe { KBox::from_raw(mine) });
        self.find(vm)
    }

    /// Takes out the entry of a VM that is being destroyed.
    pub(crate) fn remove(&self, vm: &DyingVm) -> Option<Pin<KBox<T>>> {
        let _changes = self.lock();
        // SAFETY: The table is there for good. Of `vm`, whose memory its destroyer frees later, only the
        // address is taken.
        let entry = unsafe { bindings::vm_table_remove(self.raw, address(vm)) };
        // SAFETY: Entries are boxes turned raw. It is out of the table; nobody has a `&Vm` to a dying
        // VM by which to have found it before, and whoever walks the table has the mutex.
        (!entry.is_null()).then(|| unsafe { Pin::new_unchecked(KBox::from_raw(entry.cast())) })
    }

    /// Calls `visit` with every entry. No VM's entry goes meanwhile, so `visit` must be short.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&T)) {
        let _changes = self.lock();
        let mut at = 0;
        loop {
            // SAFETY: The table is there for good, and the mutex held.
            let entry = unsafe { bindings::vm_table_next(self.raw, &mut at) };
            // SAFETY: In the table, and not taken out while the mutex is held.
            match unsafe { entry.cast::<T>().as_ref() } {
                Some(entry) => visit(entry),
                None => break,
            }
        }
    }

    fn lock(&self) -> Changes<'_, T> {
        // SAFETY: The table is there for good; callers may sleep.
        unsafe { bindings::vm_table_lock(self.raw) };
        Changes(self)
    }
}

/// By which a VM is told from all others whose memory was not freed.
fn address(vm: &impl Argument) -> *const bindings::kvm {
    vm.as_raw().cast_const().cast()
}

/// The table's mutex, held.
struct Changes<'a, T>(&'a VmTable<T>);

impl<T> Drop for Changes<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked when this value was made.
        unsafe { bindings::vm_table_unlock(self.0.raw) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! A value for each VM.

use super::{
    bindings,
    kvm::{Argument, DyingVm, Vm},
};
use core::{marker::PhantomData, pin::Pin};
use kernel::{error::to_result, prelude::*, types::Opaque};

/// Values of type `T`, found by VM without a lock.
///
/// # Invariants
///
/// Each entry is a `KBox<T>` turned raw, under the address of a VM that is alive, or is being
/// destroyed and was not yet given to [`VmTable::remove`]. So a `&Vm` keeps its entry alive.
pub(crate) struct VmTable<T> {
    raw: Opaque<bindings::vm_table>,
    _values: PhantomData<T>,
}

// SAFETY: Look-ups are protected by RCU inside the xarray, changes by the mutex; the values are
// shared between threads and freed by any of them.
unsafe impl<T: Send + Sync> Sync for VmTable<T> {}

impl<T: Send + Sync> VmTable<T> {
    /// An empty table, of no use until [`VmTable::open`].
    pub(crate) const fn new() -> Self {
        Self {
            raw: Opaque::zeroed(),
            _values: PhantomData,
        }
    }

    /// Makes the table usable until the returned value is dropped, which frees all entries. Only
    /// one may exist at a time, and no use of the table may begin before it or last beyond it.
    pub(crate) fn open(&'static self) -> OpenTable<T> {
        // SAFETY: Static memory, not used by anyone yet.
        unsafe { bindings::vm_table_init(self.raw.get()) };
        OpenTable(self)
    }

    /// The entry of `vm`.
    pub(crate) fn get<'a>(&'a self, vm: &'a Vm) -> Option<&'a T> {
        // SAFETY: The table is initialised; `xa_load` takes the RCU read lock by itself.
        let entry = unsafe { bindings::xa_load(&raw mut (*self.raw.get()).entries, key(vm)) };
        // SAFETY: By the type invariant the entry lives as long as `vm` does.
        unsafe { entry.cast::<T>().as_ref() }
    }

    /// The entry of `vm`, made by `make` if there is none yet. `None` where there is no memory for
    /// it.
    pub(crate) fn get_or_insert<'a>(
        &'a self,
        vm: &'a Vm,
        make: impl FnOnce() -> Result<Pin<KBox<T>>>,
    ) -> Option<&'a T> {
        if let Some(entry) = self.get(vm) {
            return Some(entry);
        }
        let _changes = self.lock();
        if let Some(entry) = self.get(vm) {
            return Some(entry);
        }
        // SAFETY: The value is not moved out of its box again.
        let entry = KBox::into_raw(unsafe { Pin::into_inner_unchecked(make().ok()?) });
        // INVARIANT: `vm` is alive, for the caller has a reference to it.
        // SAFETY: The mutex is held; the entry is aligned, as an xarray wants its pointers.
        let error = unsafe { bindings::vm_table_store(self.raw.get(), key(vm), entry.cast()) };
        match to_result(error) {
            // SAFETY: By the type invariant the entry lives as long as `vm` does.
            Ok(()) => Some(unsafe { &*entry }),
            Err(_) => {
                // SAFETY: Made above, and not in the table.
                drop(unsafe { KBox::from_raw(entry) });
                None
            }
        }
    }

    /// Takes out the entry of a VM that is being destroyed.
    pub(crate) fn remove(&self, vm: &DyingVm) -> Option<Pin<KBox<T>>> {
        let _changes = self.lock();
        // SAFETY: The table is initialised.
        let entry = unsafe { bindings::xa_erase(&raw mut (*self.raw.get()).entries, key(vm)) };
        // SAFETY: Entries are boxes turned raw. It is out of the table, and nobody has a `&Vm` to a
        // dying VM by which to have found it before.
        (!entry.is_null()).then(|| unsafe { Pin::new_unchecked(KBox::from_raw(entry.cast())) })
    }

    /// Calls `visit` with every entry. No VM's entry comes or goes meanwhile, so `visit` must be
    /// short.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&T)) {
        let _changes = self.lock();
        let mut at = 0;
        loop {
            // SAFETY: The table is initialised and the mutex held.
            let entry = unsafe { bindings::vm_table_next(self.raw.get(), &mut at) };
            // SAFETY: In the table, and not taken out while the mutex is held.
            match unsafe { entry.cast::<T>().as_ref() } {
                Some(entry) => visit(entry),
                None => break,
            }
        }
    }

    fn lock(&self) -> Changes<'_, T> {
        // SAFETY: The table is initialised; callers may sleep.
        unsafe { bindings::vm_table_lock(self.raw.get()) };
        Changes(self)
    }
}

fn key(vm: &impl Argument) -> kernel::ffi::c_ulong {
    vm.as_raw() as kernel::ffi::c_ulong
}

/// The table's mutex, held.
struct Changes<'a, T>(&'a VmTable<T>);

impl<T> Drop for Changes<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked by who made this value.
        unsafe { bindings::vm_table_unlock(self.0.raw.get()) };
    }
}

/// A table in use.
pub(crate) struct OpenTable<T: 'static>(&'static VmTable<T>);

impl<T> Drop for OpenTable<T> {
    fn drop(&mut self) {
        let mut at = 0;
        loop {
            // SAFETY: The table is initialised, and by `open` nobody uses it any more.
            let entry = unsafe { bindings::vm_table_next(self.0.raw.get(), &mut at) };
            if entry.is_null() {
                break;
            }
            // SAFETY: As above; entries are boxes turned raw, each freed once, as it is taken out
            // first.
            unsafe {
                bindings::xa_erase(&raw mut (*self.0.raw.get()).entries, at);
                drop(KBox::<T>::from_raw(entry.cast()));
            }
        }
    }
}

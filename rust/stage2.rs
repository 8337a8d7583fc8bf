// SPDX-License-Identifier: GPL-2.0

//! How KVM unmaps a range of a VM's stage 2, led through this module.

use super::{
    atomic::AtomicI32,
    bindings,
    ftrace::{can_redirect, in_flight, Plan},
    kvm::{Argument, Vm},
    symbol::Symbol,
    unsupported,
};
use core::{ffi::CStr, marker::PhantomData};
use kernel::{error::to_result, prelude::*, sync::SetOnce};

/// The function whose calls are led here.
const UNMAP: &CStr = c"kvm_pgtable_stage2_unmap";

/// What an unmap would have done for the maintenance of caches and TLB, and did not.
#[derive(Clone, Copy, Default)]
pub(crate) struct LeftOut {
    /// Bytes that were not cleaned to the point of coherency.
    pub(crate) bytes: u64,
    /// Invalidations of one leaf entry in the TLB that were not made.
    pub(crate) invalidations: u64,
}

/// The functions of this kernel's that it takes to unmap in another way than it does.
///
/// # Invariants
///
/// Each is the address of the kernel's function of that name, whose type `helpers/stage2.c` knows.
pub(crate) struct Functions(bindings::stage2_functions);

// SAFETY: Plain addresses.
unsafe impl Send for Functions {}
// SAFETY: As for `Send`.
unsafe impl Sync for Functions {}

impl Functions {
    /// Finds them, and has a page mapped into a table of no VM's to see that the kernel cleans a page,
    /// and invalidates instruction caches for it, before it maps it. Refusals are logged, and say
    /// that this is what `what` needs.
    pub(crate) fn find(what: &str) -> Option<Self> {
        let find = |name: &'static CStr| match Symbol::find(name) {
            Ok(function) => Some(function.address()),
            Err(error) => {
                pr_warn!(
                    "{} is not to be had, take another: the kernel's function {} is not found ({:?})\n",
                    what,
                    Symbol::display(name),
                    error
                );
                None
            }
        };
        // INVARIANT: Found by name.
        let functions = Self(bindings::stage2_functions {
            walk: find(c"kvm_pgtable_walk")?,
            map: find(c"kvm_pgtable_stage2_map")?,
            flush: find(c"kvm_tlb_flush_vmid_range")?,
        });
        if !can_redirect(UNMAP).unwrap_or(false) {
            pr_warn!(
                "{} is not to be had, take another: ftrace cannot patch {}\n",
                what,
                Symbol::display(UNMAP)
            );
            return None;
        }
        // SAFETY: By the type invariant.
        match to_result(unsafe { bindings::stage2_map_cleans(&functions.0) }) {
            Ok(()) => (),
            Err(error) if error == unsupported() => {
                pr_warn!(
                    "{what} is not to be had, take another: this kernel maps pages that it has not cleaned\n"
                );
                return None;
            }
            Err(error) => {
                pr_warn!("{what} is not to be had, take another: no page could be mapped to see whether this kernel cleans it: {error:?}\n");
                return None;
            }
        }
        Some(functions)
    }
}

/// Whether the tables of VMs are out of the host's reach, at EL2 (`kvm-arm.mode=protected`).
pub(crate) fn is_protected() -> bool {
    // SAFETY: Reads a capability that is final once modules can be loaded.
    unsafe { bindings::stage2_is_protected() }
}

/// A call of `kvm_pgtable_stage2_unmap`: a range of the stage 2 of some VM, to be unmapped. The caller
/// holds the VM's `mmu_lock` for writing.
pub(crate) struct Range<'a> {
    table: *mut bindings::kvm_pgtable,
    addr: u64,
    size: u64,
    _call: PhantomData<&'a ()>,
}

/// What came of an unmap of a [`Range`]: 0, or the error.
pub(crate) struct Done(i32);

impl Range<'_> {
    /// Whether it is of the stage 2 of `vm` itself, and not of one that shadows a nested guest's.
    pub(crate) fn is_of(&self, vm: &Vm) -> bool {
        // SAFETY: The table is valid for the call, the VM alive.
        unsafe { bindings::stage2_is_of(self.table, vm.as_raw().cast()) }
    }

    /// Unmaps it as the kernel does.
    pub(crate) fn unmap(self) -> Done {
        // SAFETY: The call that was meant to be made, once, for `self` is gone.
        Done(unsafe { bindings::stage2_unmap_native(self.table, self.addr, self.size) })
    }

    /// Unmaps it without cleaning anything, and invalidates the TLB once for all of it. Adds to
    /// `left_out`.
    pub(crate) fn drop_leaves(self, functions: &Functions, left_out: &mut LeftOut) -> Done {
        let mut raw = bindings::stage2_left_out {
            bytes: 0,
            invalidations: 0,
        };
        // SAFETY: The table is valid for the call, its lock held for writing by the caller; the
        // functions are what their names say, by their invariant.
        let error = unsafe {
            bindings::stage2_drop_leaves(&functions.0, self.table, self.addr, self.size, &mut raw)
        };
        left_out.bytes += raw.bytes;
        left_out.invalidations += raw.invalidations;
        Done(error)
    }
}

/// How ranges are unmapped while a gate is open.
pub(crate) trait UnmapRange {
    /// While this is zero the kernel's own way is gone, and a call costs one load more. Whoever opens
    /// it sees it open at once; others may not.
    fn gate() -> &'static AtomicI32;

    /// Unmaps the range in some way. With a spinning lock held: must not sleep.
    fn unmap(range: Range<'_>) -> Done;
}

/// The [`UnmapRange::unmap`] that calls are led to.
static UNMAP_RANGE: SetOnce<fn(Range<'_>) -> Done> = SetOnce::new();

/// Adds to `plan`: calls of `kvm_pgtable_stage2_unmap` go to `U::unmap`, while its gate is open.
/// Refusals are logged.
pub(crate) fn redirect<U: UnmapRange>(plan: Plan) -> Result<Plan> {
    let to: unsafe extern "C" fn(*mut bindings::kvm_pgtable, u64, u64) -> i32 = stage2_unmap;
    if !UNMAP_RANGE.populate(U::unmap) {
        return Err(EBUSY);
    }
    let (plan, original) = plan.add(UNMAP, to as usize, Some(U::gate()))?;
    // SAFETY: Only the trampoline reads this word, and nothing leads there yet.
    unsafe { (&raw mut bindings::stage2_unmap_original).write(original) };
    Ok(plan)
}

/// # Safety
///
/// Called in place of `kvm_pgtable_stage2_unmap`, with its arguments and what its callers hold.
unsafe extern "C" fn stage2_unmap(table: *mut bindings::kvm_pgtable, addr: u64, size: u64) -> i32 {
    in_flight(|| {
        let range = Range {
            table,
            addr,
            size,
            _call: PhantomData,
        };
        let Done(error) = match UNMAP_RANGE.as_ref() {
            Some(unmap) => unmap(range),
            None => range.unmap(),
        };
        error
    })
}

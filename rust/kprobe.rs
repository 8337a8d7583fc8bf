// SPDX-License-Identifier: GPL-2.0

//! A probe on an `ic ialluis` of the kernel, which may step over it.

use super::{bindings, symbol::IcacheInvalidation};
use core::marker::PhantomData;
use kernel::{error::to_result, prelude::*, types::Opaque};

/// What becomes of the probed instruction.
pub(crate) enum Step {
    /// The probed instruction is executed.
    Execute,
    /// The probed instruction is stepped over, with the barrier that completes it.
    Over,
}

/// What is done when control reaches the probed instruction.
pub(crate) trait Probe {
    /// Runs in the context of an exception taken at the instruction: it must not sleep, nor take a
    /// lock that can on PREEMPT_RT.
    fn hit() -> Step;

    /// Runs behind the instruction, on the same CPU and in such a context, if it was executed.
    fn executed();
}

/// A probe that is in place while this lives, unless kprobes are disarmed globally.
///
/// # Invariants
///
/// The kprobe in `raw` is registered on `target`.
pub(crate) struct InstructionProbe<P: Probe> {
    raw: KBox<Registered>,
    _probe: PhantomData<fn() -> P>,
}

/// What kprobes gets a pointer to.
///
/// # Invariants
///
/// `kprobe` is the first field, so that a pointer to it is one to this.
#[repr(C)]
struct Registered {
    kprobe: Opaque<bindings::kprobe>,
    target: IcacheInvalidation,
}

// SAFETY: kprobes does its own locking; between registration and drop nothing here touches `raw`.
unsafe impl<P: Probe> Send for InstructionProbe<P> {}
// SAFETY: As above.
unsafe impl<P: Probe> Sync for InstructionProbe<P> {}

impl<P: Probe> InstructionProbe<P> {
    /// Puts a probe on `target`. What is left out when it is stepped over is cache maintenance and a
    /// barrier: no memory can be lost by that, whatever else may go wrong.
    pub(crate) fn new(target: IcacheInvalidation) -> Result<Self> {
        // SAFETY: All zeroes is a `struct kprobe` before registration.
        let mut kprobe = unsafe { core::mem::zeroed::<bindings::kprobe>() };
        kprobe.addr = core::ptr::with_exposed_provenance_mut(target.address());
        kprobe.pre_handler = Some(Self::pre_handler);
        kprobe.post_handler = Some(Self::post_handler);
        let raw = KBox::new(
            Registered {
                kprobe: Opaque::new(kprobe),
                target,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: `raw` is boxed and lives until `drop` unregisters it.
        to_result(unsafe { bindings::register_kprobe(raw.kprobe.get()) })?;
        // INVARIANT: Registered above.
        Ok(Self {
            raw,
            _probe: PhantomData,
        })
    }

    /// # Safety
    ///
    /// Called by kprobes for the one that `new` registered, with the registers at the probed
    /// instruction.
    unsafe extern "C" fn pre_handler(
        kprobe: *mut bindings::kprobe,
        regs: *mut bindings::pt_regs,
    ) -> i32 {
        match P::hit() {
            Step::Execute => 0,
            Step::Over => {
                // SAFETY: By this function's requirements and the invariant of `Registered`; it lives
                // until the kprobe is unregistered, which waits for handlers.
                let registered = unsafe { &*kprobe.cast::<Registered>() };
                // SAFETY: `regs` are those of the interrupted context, ours to change. What they go on
                // behind is `target`.
                unsafe { bindings::probe_skip(regs, registered.target.bytes()) };
                // kprobes then goes on from the changed registers.
                1
            }
        }
    }

    /// # Safety
    ///
    /// Called by kprobes.
    unsafe extern "C" fn post_handler(
        _: *mut bindings::kprobe,
        _: *mut bindings::pt_regs,
        _: kernel::ffi::c_ulong,
    ) {
        P::executed();
    }
}

impl<P: Probe> Drop for InstructionProbe<P> {
    fn drop(&mut self) {
        // Waits for handlers in flight.
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::unregister_kprobe(self.raw.kprobe.get()) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! A probe on one instruction of the kernel, which may step over it.

use super::bindings;
use core::marker::PhantomData;
use kernel::{error::to_result, prelude::*, types::Opaque};

/// What becomes of the probed instruction.
pub(crate) enum Step {
    /// It is executed.
    Execute,
    /// It is stepped over, with what follows it, this many bytes in all.
    Over(usize),
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
/// `raw` is registered.
pub(crate) struct InstructionProbe<P: Probe> {
    raw: KBox<Opaque<bindings::kprobe>>,
    _probe: PhantomData<fn() -> P>,
}

// SAFETY: kprobes does its own locking; between registration and drop nothing here touches `raw`.
unsafe impl<P: Probe> Send for InstructionProbe<P> {}
// SAFETY: As above.
unsafe impl<P: Probe> Sync for InstructionProbe<P> {}

impl<P: Probe> InstructionProbe<P> {
    /// Puts a probe on the instruction at `address`, in the kernel's text.
    pub(crate) fn new(address: usize) -> Result<Self> {
        // SAFETY: All zeroes is a `struct kprobe` before registration.
        let mut kprobe = unsafe { core::mem::zeroed::<bindings::kprobe>() };
        kprobe.addr = core::ptr::with_exposed_provenance_mut(address);
        kprobe.pre_handler = Some(Self::pre_handler);
        kprobe.post_handler = Some(Self::post_handler);
        let raw = KBox::new(Opaque::new(kprobe), GFP_KERNEL)?;
        // SAFETY: `raw` is boxed and lives until `drop` unregisters it.
        to_result(unsafe { bindings::register_kprobe(raw.get()) })?;
        // INVARIANT: Registered above.
        Ok(Self {
            raw,
            _probe: PhantomData,
        })
    }

    /// # Safety
    ///
    /// Called by kprobes, with the registers at the probed instruction.
    unsafe extern "C" fn pre_handler(
        _: *mut bindings::kprobe,
        regs: *mut bindings::pt_regs,
    ) -> i32 {
        match P::hit() {
            Step::Execute => 0,
            Step::Over(bytes) => {
                // SAFETY: `regs` are those of the interrupted context, ours to change.
                unsafe { bindings::probe_skip(regs, bytes) };
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
        unsafe { bindings::unregister_kprobe(self.raw.get()) };
    }
}

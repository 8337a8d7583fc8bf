// SPDX-License-Identifier: GPL-2.0

//! KVM's VMs and vCPUs, as far as the hooks need to look at them.

use super::{bindings, symbol::Symbol};
use core::ffi::{c_void, CStr};
use kernel::prelude::*;
use kernel::types::Opaque;

/// A type that the kernel hands to a redirected function by pointer.
pub(crate) trait Argument {
    /// # Safety
    ///
    /// `raw` points to what `Self` stands for, and stays valid for `'a`.
    unsafe fn from_raw<'a>(raw: *mut c_void) -> &'a Self;

    /// The pointer again.
    fn as_raw(&self) -> *mut c_void;
}

macro_rules! argument {
    ($type:ident) => {
        impl Argument for $type {
            unsafe fn from_raw<'a>(raw: *mut c_void) -> &'a Self {
                // SAFETY: By the caller; the type is a transparent, opaque view.
                unsafe { &*raw.cast() }
            }

            fn as_raw(&self) -> *mut c_void {
                self.0.get().cast()
            }
        }
    };
}

/// A vCPU (`struct kvm_vcpu`).
#[repr(transparent)]
pub(crate) struct Vcpu(Opaque<bindings::kvm_vcpu>);

/// A VM (`struct kvm`).
#[repr(transparent)]
pub(crate) struct Vm(Opaque<bindings::kvm>);

/// A VM that nobody refers to any more but the task that destroys it.
#[repr(transparent)]
pub(crate) struct DyingVm(Opaque<bindings::kvm>);

argument!(Vcpu);
argument!(Vm);
argument!(DyingVm);

// SAFETY: What can be done with a shared one, any task may do at any time.
unsafe impl Sync for Vcpu {}
// SAFETY: As above.
unsafe impl Sync for Vm {}

impl Vcpu {
    /// The VM it belongs to.
    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: A vCPU's `kvm` is set when it is made, and the VM outlives it.
        unsafe { Vm::from_raw((*self.0.get()).kvm.cast()) }
    }

    /// Whether it was ever run, by KVM's own measure: the condition for cache maintenance at
    /// re-init. The vCPU's mutex must be held for an answer that lasts.
    pub(crate) fn has_run(&self) -> bool {
        // SAFETY: `self` is alive; other tasks may write the pointer, hence one volatile read.
        !unsafe { (&raw const (*self.0.get()).pid).read_volatile() }.is_null()
    }

    /// Whether it is in a KVM_RUN that may enter the guest.
    pub(crate) fn wants_to_run(&self) -> bool {
        // SAFETY: `self` is alive; KVM writes 0 or 1, possibly meanwhile: one volatile read.
        unsafe { (&raw const (*self.0.get()).wants_to_run).read_volatile() }
    }

    /// Whether another vCPU of its VM is in such a KVM_RUN.
    pub(crate) fn another_wants_to_run(&self) -> bool {
        // SAFETY: The VM's vCPUs live as long as the VM.
        unsafe { bindings::vcpu_another_wants_to_run(self.0.get()) }
    }
}

impl Vm {
    /// The name of the VM's directory in KVM's debugfs, `<pid>-<fd>`; `None` where it has none.
    pub(crate) fn debugfs_name(&self) -> Option<&CStr> {
        // SAFETY: The VM is alive.
        let name = unsafe { bindings::vm_debugfs_name(self.0.get()) };
        // SAFETY: The name of a dentry, which lives as long as the VM and is never renamed.
        (!name.is_null()).then(|| unsafe { CStr::from_char_ptr(name) })
    }

    /// The id of the thread that made the VM, as seen from the initial namespace.
    pub(crate) fn pid(&self) -> i32 {
        // SAFETY: The VM is alive, and this never changes.
        unsafe { (*self.0.get()).userspace_pid }
    }

    /// How many vCPUs it has now.
    pub(crate) fn vcpus(&self) -> i32 {
        // SAFETY: The VM is alive.
        unsafe { bindings::vm_vcpus(self.0.get()) }
    }

    /// The size of all its memory slots now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        // SAFETY: The VM is alive.
        unsafe { bindings::vm_memory(self.0.get()) }
    }
}

/// The name of the current process, up to a NUL: that of its main thread.
pub(crate) type ProcessName = [u8; bindings::PROCESS_NAME_LEN as usize];

/// The name of the current process.
pub(crate) fn process_name() -> ProcessName {
    let mut name = ProcessName::default();
    // SAFETY: It has room for the longest name.
    unsafe { bindings::current_process_name(name.as_mut_ptr()) };
    name
}

/// Whether KVM works on this host (the CPUs started at EL2, and nothing failed).
pub(crate) fn is_initialised() -> Result<bool> {
    let function = Symbol::find(c"is_kvm_arm_initialised")?;
    // SAFETY: The function of that name takes nothing and returns a `bool`.
    Ok(unsafe { bindings::kvm_initialised(function.address()) })
}

/// Whether the current task is inside `ioctl(KVM_ARM_VCPU_INIT)`.
pub(crate) fn current_in_vcpu_init() -> bool {
    // SAFETY: Reads the current task's own saved registers.
    unsafe { bindings::current_in_vcpu_init() }
}

// SPDX-License-Identifier: GPL-2.0

//! KVM's VMs and vCPUs, as far as the hooks need to look at them.

use super::{bindings, symbol::Symbol};
use core::ffi::c_void;
use kernel::prelude::*;
use kernel::types::Opaque;

/// A type that the kernel hands to a redirected function by pointer.
///
/// # Safety
///
/// `as_raw` gives back the pointer that `from_raw` was given.
pub(crate) unsafe trait Argument {
    /// # Safety
    ///
    /// `raw` points to what `Self` stands for, and stays valid for `'a`.
    unsafe fn from_raw<'a>(raw: *mut c_void) -> &'a Self;

    /// The pointer that `from_raw` was given.
    fn as_raw(&self) -> *mut c_void;
}

macro_rules! argument {
    ($type:ident) => {
        // SAFETY: A transparent view of what the pointer points to.
        unsafe impl Argument for $type {
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

/// A VM (`struct kvm`) that has a user: somebody holds a reference to it, so nothing of it has been
/// taken down.
#[repr(transparent)]
pub(crate) struct Vm(Opaque<bindings::kvm>);

/// A VM that nobody refers to any more but the task that destroys it.
#[repr(transparent)]
pub(crate) struct DyingVm(Opaque<bindings::kvm>);

/// What `struct kvm` itself says of a VM's size: plain numbers in it, which are there until it is
/// freed, and that is behind `kvm_arch_destroy_vm`. What it points to goes earlier (`kvm_destroy_vm`
/// in `virt/kvm/kvm_main.c`), and cannot be reached from here.
#[repr(transparent)]
pub(crate) struct VmSize(Opaque<bindings::kvm>);

argument!(Vcpu);
argument!(Vm);
argument!(DyingVm);

// SAFETY: What can be done with a shared one, any task may do at any time.
unsafe impl Sync for Vcpu {}
// SAFETY: As for `Vcpu`.
unsafe impl Sync for Vm {}
// SAFETY: As for `Vcpu`.
unsafe impl Sync for VmSize {}

impl Vcpu {
    /// The VM it belongs to.
    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: A vCPU's `kvm` is set when it is made, and the vCPU holds a reference to it.
        unsafe { Vm::from_raw(bindings::vcpu_vm(self.0.get()).cast()) }
    }

    /// The vCPU's id, as user space chose it.
    pub(crate) fn id(&self) -> i32 {
        // SAFETY: `self` is alive, and this never changes.
        unsafe { bindings::vcpu_id(self.0.get()) }
    }

    /// Whether the vCPU is its VM's first, which boots.
    pub(crate) fn is_first(&self) -> bool {
        // SAFETY: As in `id`.
        unsafe { bindings::vcpu_is_first(self.0.get()) }
    }

    /// Whether the vCPU was ever run, by KVM's own measure: the condition for cache maintenance at
    /// re-init. The vCPU's mutex must be held for an answer that lasts.
    pub(crate) fn has_run(&self) -> bool {
        // SAFETY: `self` is alive.
        unsafe { bindings::vcpu_has_run(self.0.get()) }
    }

    /// Whether the vCPU is in a KVM_RUN that may enter the guest.
    pub(crate) fn wants_to_run(&self) -> bool {
        // SAFETY: `self` is alive.
        unsafe { bindings::vcpu_wants_to_run(self.0.get()) }
    }

    /// Whether another vCPU of its VM is in a KVM_RUN that may enter the guest.
    pub(crate) fn another_wants_to_run(&self) -> bool {
        // SAFETY: The VM's vCPUs live as long as the VM.
        unsafe { bindings::vcpu_another_wants_to_run(self.0.get()) }
    }
}

impl Vm {
    /// The name of the VM's directory in KVM's debugfs, `<pid>-<fd>`; `None` where it has none.
    pub(crate) fn debugfs_name<const SIZE: usize>(&self) -> Option<[u8; SIZE]> {
        let mut name = [0; SIZE];
        // SAFETY: The VM has a user, so its directory is there. `name` has room for `SIZE` bytes.
        let named =
            unsafe { bindings::vm_copy_debugfs_name(self.0.get(), name.as_mut_ptr(), SIZE) };
        named.then_some(name)
    }

    /// The id of the thread that made the VM, as seen from the initial namespace.
    pub(crate) fn pid(&self) -> i32 {
        // SAFETY: The VM is alive.
        unsafe { bindings::vm_pid(self.0.get()) }
    }

    /// Where the VM's size can be read later.
    pub(crate) fn size(&self) -> &VmSize {
        // SAFETY: A view of the same structure, which is alive.
        unsafe { &*self.0.get().cast() }
    }

    /// Whether `stage2_unmap_vm`, called by the current task, gets at all RAM that may be mapped: no
    /// memory of guest_memfd, which it finds only while the VMM maps it, too; no hole in what the
    /// VMM maps; and not a protected VM, which it leaves alone.
    ///
    /// It looks at the task's own mappings: `false` to tasks that are none of the VM's process.
    pub(crate) fn unmap_reaches_all(&self) -> bool {
        // SAFETY: The VM has a user. Callers may sleep.
        unsafe { bindings::vm_unmap_reaches_all(self.0.get()) }
    }
}

impl VmSize {
    /// How many vCPUs the VM has now.
    pub(crate) fn vcpus(&self) -> i32 {
        // SAFETY: The structure is there.
        unsafe { bindings::vm_vcpus(self.0.get()) }
    }

    /// The size of all its memory slots now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        // SAFETY: As in `vcpus`.
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

/// Whether KVM works on this host (the CPUs started at EL2, and nothing failed). Refusals are logged.
pub(crate) fn is_initialised() -> Result<bool> {
    let function = Symbol::require(c"is_kvm_arm_initialised")?;
    // SAFETY: The function of that name takes nothing and returns a `bool`.
    Ok(unsafe { bindings::kvm_initialised(function.address()) })
}

/// Whether the current task is inside `ioctl(KVM_ARM_VCPU_INIT)`.
pub(crate) fn current_in_vcpu_init() -> bool {
    // SAFETY: Reads the current task's own saved registers.
    unsafe { bindings::current_in_vcpu_init() }
}

// SPDX-License-Identifier: GPL-2.0

//! The trace events of the system `kvm_fwb_reset`; `trace.h` says what is in them. Durations are in
//! ns. While an event is off, it costs a call and a branch that is not taken.

use crate::policy::{Maintenance, Policy, Remedy};
use core::ffi::{c_char, CStr};
use kernel::prelude::*;

// trace.c has them, with arguments of the same types. A VM goes by its name.
//
// # Safety
//
// Names end with a NUL.
unsafe extern "C" {
    fn emit_vcpu_reset(vm: *const c_char, vcpu: i32, policy: u8, remedy: u8, busy: bool, ns: u64);
    fn emit_busy(vm: *const c_char, vcpu: i32);
    fn emit_icache_invalidate(vm: *const c_char, native: bool, ns: u64);
    fn emit_stage2_unmap(vm: *const c_char, ns: u64);
    fn emit_pay(vm: *const c_char, ns: u64);
    fn emit_stage2_flush(vm: *const c_char, ns: u64);
    fn emit_clean_elide(vm: *const c_char, bytes: u64, tlbi: u64);
}

/// A re-init is over, its cache maintenance done or owed.
pub(crate) fn vcpu_reset(
    vm: &CStr,
    vcpu: i32,
    policy: Policy,
    remedy: Remedy,
    busy: bool,
    ns: u64,
) {
    // trace.h has the names.
    let remedy = match remedy {
        Remedy::Native => 0,
        Remedy::Now(Maintenance::None) => 1,
        Remedy::Now(Maintenance::Icache) => 2,
        Remedy::Now(Maintenance::Unmap) => 3,
        Remedy::IcacheOwed => 4,
        Remedy::UnmapOnce => 5,
        Remedy::UnmapLazily => 6,
    };
    // SAFETY: A C string, which the event copies.
    unsafe { emit_vcpu_reset(vm.as_char_ptr(), vcpu, policy as u8, remedy, busy, ns) };
}

/// A re-init found another vCPU running.
pub(crate) fn busy(vm: &CStr, vcpu: i32) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_busy(vm.as_char_ptr(), vcpu) };
}

/// All instruction caches were invalidated, by the kernel itself, if `native`, or by this module.
pub(crate) fn icache_invalidate(vm: &CStr, native: bool, ns: u64) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_icache_invalidate(vm.as_char_ptr(), native, ns) };
}

/// All of the VM's RAM was unmapped.
pub(crate) fn stage2_unmap(vm: &CStr, ns: u64) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_stage2_unmap(vm.as_char_ptr(), ns) };
}

/// A KVM_RUN had to wait for a debt to be paid.
pub(crate) fn pay(vm: &CStr, ns: u64) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_pay(vm.as_char_ptr(), ns) };
}

/// All that is mapped of the VM was cleaned, for a vCPU turned its MMU on.
pub(crate) fn stage2_flush(vm: &CStr, ns: u64) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_stage2_flush(vm.as_char_ptr(), ns) };
}

/// An unmap of the VM cleaned nothing, and made one TLB invalidation of many.
pub(crate) fn clean_elide(vm: &CStr, bytes: u64, tlbi: u64) {
    // SAFETY: A C string, which the event copies.
    unsafe { emit_clean_elide(vm.as_char_ptr(), bytes, tlbi) };
}

// SPDX-License-Identifier: GPL-2.0

//! The trace events of the system `kvm_fwb_reset`; `trace.h` says what is in them. Durations are in
//! ns. While an event is off, it costs a call and a branch that is not taken.

use crate::{
    policy::{Maintenance, Policy, Remedy},
    rust::kvm::{Vcpu, Vm},
};

// trace.c has them, with arguments of the same types.
#[allow(improper_ctypes)] // Both sides get pointers to what only the kernel looks into.
unsafe extern "C" {
    safe fn emit_vcpu_reset(vcpu: &Vcpu, policy: u8, remedy: u8, busy: bool, ns: u64);

    /// A re-init found another vCPU running.
    #[link_name = "emit_busy"]
    pub(crate) safe fn busy(vcpu: &Vcpu);

    /// All instruction caches were invalidated, by the kernel's `own` instruction or by this module.
    #[link_name = "emit_icache_invalidate"]
    pub(crate) safe fn icache_invalidate(vm: &Vm, own: bool, ns: u64);

    /// All of the VM's RAM was unmapped.
    #[link_name = "emit_stage2_unmap"]
    pub(crate) safe fn stage2_unmap(vm: &Vm, ns: u64);

    /// A KVM_RUN had to wait for a debt to be paid.
    #[link_name = "emit_pay"]
    pub(crate) safe fn pay(vm: &Vm, ns: u64);
}

/// A re-init is over, its cache maintenance done or owed.
pub(crate) fn vcpu_reset(vcpu: &Vcpu, policy: Policy, remedy: Remedy, busy: bool, ns: u64) {
    // trace.h has the names.
    let remedy = match remedy {
        Remedy::Native => 0,
        Remedy::Now(Maintenance::None) => 1,
        Remedy::Now(Maintenance::Icache) => 2,
        Remedy::Now(Maintenance::Unmap) => 3,
        Remedy::IcacheOwed => 4,
        Remedy::UnmapOnce => 5,
    };
    emit_vcpu_reset(vcpu, policy as u8, remedy, busy, ns);
}

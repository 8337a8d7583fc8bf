// SPDX-License-Identifier: GPL-2.0

//! Trace events, which nobody listens to.

use crate::{
    policy::{Policy, Remedy},
    rust::kvm::{Vcpu, Vm},
};

pub(crate) fn vcpu_reset(_: &Vcpu, _: Policy, _: Remedy, _: bool, _: u64) {}
pub(crate) fn busy(_: &Vcpu) {}
pub(crate) fn icache_invalidate(_: &Vm, _: bool, _: u64) {}
pub(crate) fn stage2_unmap(_: &Vm, _: u64) {}
pub(crate) fn pay(_: &Vm, _: u64) {}

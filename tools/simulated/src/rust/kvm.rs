// SPDX-License-Identifier: GPL-2.0

//! VMs and vCPUs as the module sees them.

pub(crate) use crate::machine::{in_vcpu_init as current_in_vcpu_init, DyingVm, Vcpu, Vm, VmSize};

pub(crate) type ProcessName = [u8; 16];

pub(crate) fn process_name() -> ProcessName {
    ProcessName::default()
}

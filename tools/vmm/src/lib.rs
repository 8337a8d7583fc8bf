// SPDX-License-Identifier: GPL-2.0
//! A VMM whose guests report what code they ran, and kvm_fwb_reset as an operator meets it.
//!
//! A `Vm` has vCPUs, RAM and no devices. Whatever it does that the module may count it tells an
//! [`Observer`]. In the `lab` that is what the contract expects, and the module's files are held against
//! it; nothing else here knows of the contract. `()` observes nothing, for a plain VMM.
//!
//! What needs no KVM is there on any host, with unit tests.

mod a64;
pub mod affinity;
pub mod boot;
pub mod btf;
pub mod guest;
pub mod kmsg;
pub mod limit;
pub mod module;
mod observer;
pub mod symbols;
pub mod threads;

#[cfg(target_arch = "aarch64")]
mod extra;
#[cfg(target_arch = "aarch64")]
pub mod lab;
#[cfg(target_arch = "aarch64")]
pub mod marker;
#[cfg(target_arch = "aarch64")]
mod memory;
#[cfg(target_arch = "aarch64")]
mod slot;
#[cfg(target_arch = "aarch64")]
mod spinner;
#[cfg(target_arch = "aarch64")]
mod vcpu;
#[cfg(target_arch = "aarch64")]
mod vm;

pub use observer::Observer;
#[cfg(target_arch = "aarch64")]
pub use {
    extra::{Extra, Pages, huge_page},
    spinner::Spinner,
    vcpu::{Exit, Vcpu},
    vm::{Code, Vm, kvm},
};

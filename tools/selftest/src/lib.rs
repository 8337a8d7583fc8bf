// SPDX-License-Identifier: GPL-2.0
//! A VMM whose guests report what code they ran, the module as an operator meets it, and a model of
//! what it must count. What needs no KVM has unit tests on any host.

#[cfg(target_arch = "aarch64")]
pub mod affinity;
pub mod boot;
pub mod guest;
#[cfg(target_arch = "aarch64")]
pub mod kmsg;
#[cfg(target_arch = "aarch64")]
pub mod lab;
#[cfg(target_arch = "aarch64")]
pub mod marker;
pub mod module;
#[cfg(target_arch = "aarch64")]
pub mod poison;
#[cfg(target_arch = "aarch64")]
pub mod vm;

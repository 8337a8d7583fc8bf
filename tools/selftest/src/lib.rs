// SPDX-License-Identifier: GPL-2.0
//! The parts of the selftest that need no KVM, and so have unit tests on any host.

pub mod expect;
pub mod guest;
pub mod ktap;
pub mod module;

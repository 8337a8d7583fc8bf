// SPDX-License-Identifier: GPL-2.0

//! Trace events, which nobody listens to.

use crate::policy::{Policy, Remedy};
use std::ffi::CStr;

pub(crate) fn vcpu_reset(_: &CStr, _: i32, _: Policy, _: Remedy, _: bool, _: u64) {}
pub(crate) fn busy(_: &CStr, _: i32) {}
pub(crate) fn icache_invalidate(_: &CStr, _: bool, _: u64) {}
pub(crate) fn stage2_unmap(_: &CStr, _: u64) {}
pub(crate) fn pay(_: &CStr, _: u64) {}
pub(crate) fn stage2_flush(_: &CStr, _: u64) {}
pub(crate) fn clean_elide(_: &CStr, _: u64, _: u64) {}

// SPDX-License-Identifier: GPL-2.0
//! Schedules of guest resets, made from seeds: any order of re-inits, runs, writes to code, policy
//! switches, loads and unloads, with VMs that come and go. The same schedule is played on the module's
//! own files on the build host, and on the module in the lab; both are held against one contract.

pub mod event;
pub mod generate;
#[cfg(target_arch = "aarch64")]
pub mod lab;
pub mod play;
pub mod shrink;
#[cfg(not(target_arch = "aarch64"))]
pub mod simulated;
pub mod verdict;

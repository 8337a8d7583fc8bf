// SPDX-License-Identifier: GPL-2.0

//! The module's own files, from its hooks to its counters, compiled for the build host: below them is
//! not Linux but a simulated kernel, with KVM's paths, ftrace, kprobes, and caches that lose nothing
//! and fetch everything as early as they may.
//!
//! `rust/` and the crate `kernel` are what is replaced; the module does not notice. Operations of the
//! module and of KVM are interleaved at every atomic operation that they make. What is not simulated:
//! weak memory order (that is loom's and herd7's part), and code of the kernel that is not named here.

// The module's files name the kernel's crate; here it is this one.
extern crate self as kernel;

// From the bottom: which thread goes on; what the kernel's crate has; `rust`, what the module's own
// `rust/` offers it; the module; KVM's ioctls, which lead through it; the machine.
mod ioctls;
mod linux;
mod machine;
pub mod names;
mod race;
#[cfg(test)]
mod tests;

use linux::{alloc, prelude, sync, task, time};

pub use ioctls::{make, RunError};
pub use machine::{Change, Machine};
pub use race::Job;
pub use rust::kvm::Vm;

// The module. Not here: its entry, its files in debugfs, its look at the kernel's code, its trace events.
#[allow(dead_code)]
#[path = "../../../src/counters.rs"]
mod counters;
#[path = "../../../src/handoff.rs"]
mod handoff;
#[allow(dead_code)]
#[path = "../../../src/hooks.rs"]
mod hooks;
#[allow(dead_code)]
#[path = "../../../src/in_force.rs"]
mod in_force;
#[allow(dead_code)]
#[path = "../../../src/latency.rs"]
mod latency;
#[allow(dead_code)]
#[path = "../../../src/lazy.rs"]
mod lazy;
#[allow(dead_code)]
#[path = "../../../src/policy.rs"]
mod policy;
#[allow(dead_code)]
#[path = "../../../src/protocol.rs"]
mod protocol;
#[path = "../../../src/reinit.rs"]
mod reinit;
#[allow(dead_code)]
#[path = "../../../src/vm.rs"]
mod vm;
#[path = "../../../src/vm_name.rs"]
mod vm_name;

mod files;
mod path;
mod rust;
mod trace;

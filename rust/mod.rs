// SPDX-License-Identifier: GPL-2.0

//! What Rust for Linux lacks for this module: redirected functions, instruction probes, and views
//! of KVM's types. Each registration is a value, made by registering and dropped by unregistering,
//! and its drop returns only when no handler of it runs any more. Nothing here knows of resets.

pub(crate) mod atomic;
mod bindings;
pub(crate) mod built_for;
pub(crate) mod cpu;
pub(crate) mod debugfs;
pub(crate) mod ftrace;
pub(crate) mod insn;
pub(crate) mod kprobe;
pub(crate) mod kvm;
pub(crate) mod lock;
pub(crate) mod stage2;
pub(crate) mod symbol;
pub(crate) mod vm_table;

/// EOPNOTSUPP, which `kernel::error::code` has since 7.3 only.
pub(crate) fn unsupported() -> kernel::error::Error {
    kernel::error::Error::from_errno(-(kernel::bindings::EOPNOTSUPP as i32))
}

// SPDX-License-Identifier: GPL-2.0

//! What `rust/` offers the module, on the simulated machine.

pub(crate) mod atomic;
pub(crate) mod cpu;
pub(crate) mod debugfs;
pub(crate) mod ftrace;
pub(crate) mod kprobe;
pub(crate) mod kvm;
pub(crate) mod lock;
pub(crate) mod stage2;
pub(crate) mod symbol;

/// EOPNOTSUPP.
pub(crate) fn unsupported() -> crate::prelude::Error {
    crate::prelude::Error
}

pub(crate) mod vm_table;

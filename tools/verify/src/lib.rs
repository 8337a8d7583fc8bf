// SPDX-License-Identifier: GPL-2.0
//! Holds what guests' resets did to the caches against what is due.
//!
//! In the lab the workload resets guests and says what the module and the kernel counted
//! ([`record`]); below it the oracle, a QEMU plugin, sees what became of the caches
//! ([`coherence::verdict`]).
//! [`judge`] joins both and compares them with what is due by policy, host and kernel ([`due`]).

pub mod due;
pub mod judge;
pub mod record;
pub mod table;

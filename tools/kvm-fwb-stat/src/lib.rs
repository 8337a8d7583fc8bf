// SPDX-License-Identifier: GPL-2.0

//! What every guest reset cost an arm64 KVM host, from the counters of the module kvm_fwb_reset.
//!
//! `counters` is the table of what there is; `snapshot` reads it; `render` and `live` show it to
//! people, `dump` to machines; `doctor` looks at the host itself.

pub mod cli;
pub mod counters;
pub mod doctor;
pub mod dump;
pub mod error;
pub mod live;
pub mod manual;
pub mod output;
pub mod render;
pub mod snapshot;

// SPDX-License-Identifier: GPL-2.0

//! A [`Snapshot`](crate::snapshot::Snapshot) for machines.

pub mod csv;
pub mod json;
pub mod metrics;

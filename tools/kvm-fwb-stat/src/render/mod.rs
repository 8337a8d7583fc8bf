// SPDX-License-Identifier: GPL-2.0

//! A [`Snapshot`](crate::snapshot::Snapshot) for people: on paper (`--once`) and on the live screen.

pub mod column;
pub mod once;
pub mod summary;
pub mod units;

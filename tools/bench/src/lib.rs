// SPDX-License-Identifier: GPL-2.0
//! What is measured, as rows: what of, in which state of the host, and the figures.
#![deny(missing_docs)]

pub mod row;

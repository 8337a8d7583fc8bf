// SPDX-License-Identifier: GPL-2.0

//! The coherence oracle: QEMU's view of a machine, told to the model in `coherence`.
//!
//! Loaded with `-plugin liboracle.so,verdict=FILE`; the verdict is written to FILE as QEMU ends.

mod machine;
mod plugin;
mod qemu;
mod ram;
mod registers;

// SPDX-License-Identifier: GPL-2.0

//! The coherence oracle: QEMU's view of a machine, told to the caches in `coherence`.
//!
//! Loaded with `-plugin liboracle.so,verdict=FILE`; the verdict is written to FILE as QEMU ends. With
//! `counts=FILE` in its place no caches are kept, and it is only counted what the host executes.
//!
//! From the bottom: [`qemu`] is QEMU's interface; [`ram`] and [`registers`] are what it shows of a
//! machine, [`machine`] and [`counting`] are that machine, and [`plugin`] has QEMU call one of them.

mod counting;
mod machine;
mod plugin;
mod qemu;
mod ram;
mod registers;

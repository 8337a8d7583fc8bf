// SPDX-License-Identifier: GPL-2.0

//! The live screen.

mod app;
mod draw;
mod terminal;
#[cfg(test)]
mod tests;

pub use app::{App, INTERVAL};
pub use terminal::run;

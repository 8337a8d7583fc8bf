// SPDX-License-Identifier: GPL-2.0

//! What this host does at a guest reset, whether that is right, what the module changes, and what
//! stops it: `facts` are gathered, `report` judges them.

mod candidate;
mod cpu;
mod facts;
mod report;
#[cfg(test)]
mod tests;

pub use facts::Facts;
pub use report::Report;

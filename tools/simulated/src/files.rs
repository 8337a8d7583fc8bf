// SPDX-License-Identifier: GPL-2.0

//! Which VMs have files.

use crate::{
    rust::debugfs::{self, Directory},
    vm::Record,
};

/// Gives a VM its name and its directory.
pub(crate) fn show(record: &Record) {
    record.introduce(|name| !debugfs::has(name), Directory::new);
}

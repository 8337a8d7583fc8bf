// SPDX-License-Identifier: GPL-2.0

//! The instruction caches of all PEs.

use crate::{linux::step, machine};

pub(crate) fn has_fwb() -> bool {
    crate::machine::has_fwb()
}

pub(crate) fn invalidate_icache_all() {
    step();
    machine::invalidate();
    step();
}

pub(crate) fn complete_maintenance() {}

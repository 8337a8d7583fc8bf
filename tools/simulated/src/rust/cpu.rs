// SPDX-License-Identifier: GPL-2.0

//! The host's CPUs, and the instruction caches of all PEs.
//!
//! Without FEAT_S2FWB an invalidation brings nothing: what user space wrote may not have left the data
//! cache.

use super::kvm;
use crate::{
    policy::{Host, Maintenance},
    race::step,
};
use std::sync::{Mutex, PoisonError};

static HOST: Mutex<Host> = Mutex::new(Host {
    fwb: false,
    dic: false,
    native: Maintenance::Unmap,
    lazy: false,
});

/// Not for the module.
pub(crate) fn host() -> Host {
    *HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not for the module.
pub(crate) fn set_host(host: Host) {
    *HOST.lock().unwrap_or_else(PoisonError::into_inner) = host;
}

pub(crate) fn has_fwb() -> bool {
    host().fwb
}

/// Not for the module: `ic ialluis; dsb ish`, wherever it stands.
pub(crate) fn invalidate() {
    if host().fwb {
        kvm::look_all();
    }
}

pub(crate) fn invalidate_icache_all() {
    step();
    invalidate();
    step();
}

pub(crate) fn complete_maintenance() {}

// SPDX-License-Identifier: GPL-2.0

//! What this kernel's own KVM_ARM_VCPU_INIT does, as the machine was made.

use crate::{
    lazy::Lazy,
    policy::Host,
    rust::{kprobe, symbol::IcacheInvalidation},
};

pub(crate) struct ResetPath {
    pub(crate) host: Host,
    pub(crate) icache: Option<IcacheInvalidation>,
    pub(crate) lazy: Lazy,
    pub(crate) has_flush: bool,
}

impl ResetPath {
    /// Nobody takes these functions here.
    pub(crate) fn do_without_fwb_redirects(&mut self) {
        unreachable!()
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.icache.is_none() || kprobe::is_armed()
    }
}

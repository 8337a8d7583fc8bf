// SPDX-License-Identifier: GPL-2.0

//! What this kernel's own KVM_ARM_VCPU_INIT does, as the machine was made.

use crate::{policy::Host, rust::kprobe};

pub(crate) struct ResetPath {
    pub(crate) host: Host,
    pub(crate) icache: Option<Icache>,
}

/// The `ic ialluis` of the path.
pub(crate) struct Icache {
    pub(crate) address: usize,
    pub(crate) bytes: usize,
}

impl ResetPath {
    pub(crate) fn is_armed(&self) -> bool {
        self.icache.is_none() || kprobe::is_armed()
    }
}

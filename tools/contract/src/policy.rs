// SPDX-License-Identifier: GPL-2.0
//! The policies, as everybody outside of the module spells them.

/// What the module does at re-inits. Its number is that of the parameter `policy=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The kernel's own way, only counted.
    Native,
    /// No unmap where there is FEAT_S2FWB, and an invalidation at each re-init.
    Fwb,
    /// One invalidation, or one unmap, for each VM reset.
    Once,
    /// An unmap at each re-init.
    Unmap,
    /// One unmap for each VM reset, which cleans nothing.
    Lazy,
}

impl Policy {
    /// All of them, by number.
    pub const ALL: [Policy; 5] = [
        Policy::Native,
        Policy::Fwb,
        Policy::Once,
        Policy::Unmap,
        Policy::Lazy,
    ];

    /// As debugfs spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Native => "native",
            Policy::Fwb => "fwb",
            Policy::Once => "once",
            Policy::Unmap => "unmap",
            Policy::Lazy => "lazy",
        }
    }

    /// Whether what is due is done once for all vCPUs of a VM.
    pub const fn is_per_vm(self) -> bool {
        matches!(self, Policy::Once | Policy::Lazy)
    }
}

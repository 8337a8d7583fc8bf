// SPDX-License-Identifier: GPL-2.0

//! What a re-init has to do, by policy and host. Plain code: tested on the build host.

/// How guest resets are made coherent. The numbers are those of the module parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// The kernel's own way; only counted.
    Native = 0,
    /// With FEAT_S2FWB no unmap, but an invalidation of all instruction caches at each re-init;
    /// without, an unmap at each re-init.
    Fwb = 1,
    /// One invalidation per VM reset, owed at re-init and paid at KVM_RUN; without FEAT_S2FWB one
    /// unmap.
    Once = 2,
    /// An unmap at each re-init, as before Linux 5.8.
    Unmap = 3,
    /// As `Once`; but without FEAT_S2FWB the one unmap cleans nothing, and pages are cleaned as they
    /// fault in again.
    Lazy = 4,
}

impl Policy {
    pub(crate) const ALL: [Self; 5] =
        [Self::Native, Self::Fwb, Self::Once, Self::Unmap, Self::Lazy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Fwb => "fwb",
            Self::Once => "once",
            Self::Unmap => "unmap",
            Self::Lazy => "lazy",
        }
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|&policy| policy as u64 == number)
    }

    /// The policy that `text` names, one newline behind it allowed.
    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let name = text.strip_suffix(b"\n").unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|policy| policy.name().as_bytes() == name)
    }
}

/// Cache maintenance at a re-init.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Maintenance {
    /// No maintenance.
    None,
    /// All PEs' instruction caches are invalidated.
    Icache,
    /// All RAM is unmapped at stage 2, to be cleaned and invalidated as it faults in again.
    Unmap,
}

/// What matters of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// FEAT_S2FWB: data is coherent whatever the guest's attributes are.
    pub(crate) fwb: bool,
    /// CTR_EL0.DIC: instructions are coherent with data.
    pub(crate) dic: bool,
    /// What this kernel's own path does on these CPUs.
    pub(crate) native: Maintenance,
    /// An unmap can leave the cleaning to the faults that follow.
    pub(crate) lazy: bool,
}

/// What is to be done about one re-init.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// What the kernel does anyway, whatever that is.
    Native,
    /// The given maintenance, before the re-init ends.
    Now(Maintenance),
    /// An invalidation, before any vCPU of the VM enters the guest.
    IcacheOwed,
    /// An unmap, unless one was made since a vCPU of the VM last ran.
    UnmapOnce,
    /// An unmap that cleans nothing, unless one was made since a vCPU of the VM last ran.
    UnmapLazily,
}

impl Host {
    /// The remedy for a re-init under `policy`. With `doubt` (another vCPU is running, no memory
    /// for the VM's record, a probe that is not in place) nothing may be put off or shared.
    pub(crate) fn remedy(&self, policy: Policy, doubt: bool) -> Remedy {
        match (policy, self.fwb) {
            (Policy::Native, _) => Remedy::Native,
            (Policy::Unmap, _) => Remedy::Now(Maintenance::Unmap),
            (Policy::Lazy, false) if !doubt && self.lazy => Remedy::UnmapLazily,
            (Policy::Once | Policy::Lazy, false) if !doubt => Remedy::UnmapOnce,
            (_, false) => Remedy::Now(Maintenance::Unmap),
            (_, true) if self.dic => Remedy::Now(Maintenance::None),
            (Policy::Once | Policy::Lazy, true) if !doubt => Remedy::IcacheOwed,
            (_, true) => Remedy::Now(Maintenance::Icache),
        }
    }
}

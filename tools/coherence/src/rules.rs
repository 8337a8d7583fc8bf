// SPDX-License-Identifier: GPL-2.0

//! The rules by name, so that a test can leave one out.

/// What the oracle takes from the architecture, or from the worst that it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What a PE has fetched it keeps until it is invalidated.
    NeverEvicts,
    /// `ic ialluis` reaches the caches of all PEs.
    IalluisReachesAll,
    /// `ic iallu` reaches those of the PE that executes it, and no other.
    IalluIsLocal,
    /// With HCR_EL2.FB a guest's `ic iallu` is an `ic ialluis`.
    FbBroadcasts,
    /// `ic ivau` is about one line.
    IvauIsOneLine,
    /// An invalidation counts when a `dsb` of the same PE has completed it.
    DsbCompletes,
    /// That `dsb` has to be for a domain as wide as the invalidation's.
    DsbReachesAsFar,
    /// An invalidation is about what was written before it: what came later may have been fetched
    /// before it was written.
    OnlyWritesBefore,
    /// Without CTR_EL0.IDC a line has to be cleaned to the PoU before the invalidation: what is still
    /// in a data cache then is not what a fetch gets.
    PouBeforeInvalidation,
    /// With CTR_EL0.DIC instruction fetch is coherent by itself.
    DicIsCoherent,
    /// What a guest itself wrote last it has to invalidate itself.
    GuestsOwnCode,
    /// A store through a cacheable mapping leaves its lines dirty.
    StoresDirty,
    /// A guest's, too, once its MMU is on.
    GuestStoresDirty,
    /// `dc cvau` does not clean to the PoC.
    PocIsBeyondPou,
    /// A clean counts when a `dsb` of the same PE has completed it.
    DsbCompletesClean,
    /// A guest's data accesses bypass the caches while its MMU is off.
    MmuOffBypasses,
    /// Its instruction fetches do, as long as SCTLR_EL1.I is clear.
    FetchBypasses,
    /// With HCR_EL2.FWB they do not: the second stage of translation has the last word.
    FwbIsCacheable,
}

#[cfg(test)]
impl Rule {
    pub(crate) const ALL: [Self; 18] = [
        Self::NeverEvicts,
        Self::IalluisReachesAll,
        Self::IalluIsLocal,
        Self::FbBroadcasts,
        Self::IvauIsOneLine,
        Self::DsbCompletes,
        Self::DsbReachesAsFar,
        Self::OnlyWritesBefore,
        Self::PouBeforeInvalidation,
        Self::DicIsCoherent,
        Self::GuestsOwnCode,
        Self::StoresDirty,
        Self::GuestStoresDirty,
        Self::PocIsBeyondPou,
        Self::DsbCompletesClean,
        Self::MmuOffBypasses,
        Self::FetchBypasses,
        Self::FwbIsCacheable,
    ];
}

/// The rules in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    #[cfg(test)]
    pub(crate) without: Option<Rule>,
}

impl Rules {
    /// Whether `rule` is in force: always, but in tests of what it is good for.
    pub(crate) fn holds(self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.without != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}

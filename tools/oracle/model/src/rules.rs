// SPDX-License-Identifier: GPL-2.0

//! The rules by name, so that a test can leave one out.

/// What the model takes from the architecture, or from the worst that it allows.
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
    /// With CTR_EL0.DIC instruction fetch is coherent by itself.
    DicIsCoherent,
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

// SPDX-License-Identifier: GPL-2.0
//! The counters: their names, their text, and how they differ.

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

/// One list of names gives the structure, its parser and its arithmetic.
macro_rules! counters {
    ($($name:ident),*) => {
        /// What a `stats` file reads; see docs/counters.md.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $(
            #[doc = concat!("`", stringify!($name), "` of the file.")]
            pub $name: u64
        ),* }

        const NOTHING: Counters = Counters { $($name: 0),* };

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)* }
        }

        impl Counters {
            fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Each counter made by `combine` from both values.
            pub(crate) fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
                Self { $($name: combine(self.$name, other.$name)),* }
            }

            fn row(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

counters!(
    vcpu_init,
    vcpu_reset,
    vm_reset,
    icache_invalidate,
    icache_elide,
    icache_dic,
    stage2_unmap,
    stage2_unmap_elide,
    busy,
    dcache_clean_elide_bytes,
    tlbi_elide,
    stage2_flush,
    pending
);

/// The smallest page of any arm64 host.
pub(crate) const PAGE: u64 = 4096;

/// How much one unmap under `lazy` may leave out: nobody here knows how much of a VM was mapped, and
/// in pages of what size.
pub(crate) const ANY_ELIDED: Counters = Counters {
    dcache_clean_elide_bytes: 1 << 40,
    tlbi_elide: 1 << 40,
    ..NOTHING
};

impl Counters {
    /// With what `got` says that unmaps under `lazy` left out, which is not known beforehand.
    pub fn with_elided_of(self, got: &Self) -> Self {
        Self {
            dcache_clean_elide_bytes: got.dcache_clean_elide_bytes,
            tlbi_elide: got.tlbi_elide,
            ..self
        }
    }

    /// What in them contradicts itself.
    pub fn contradictions(&self) -> Option<String> {
        let (bytes, tlbi) = (self.dcache_clean_elide_bytes, self.tlbi_elide);
        let agree = bytes % PAGE == 0 && bytes / PAGE >= tlbi && (bytes == 0) == (tlbi == 0);
        (!agree).then(|| format!("{bytes} bytes not cleaned of {tlbi} pages"))
    }

    /// The counters that differ, as `name: want 1, got 2`.
    pub fn difference(&self, got: &Self) -> Vec<String> {
        let pairs = self.rows().into_iter().zip(got.rows());
        pairs
            .filter(|(want, got)| want != got)
            .map(|((name, want), (_, got))| format!("{name}: want {want}, got {got}"))
            .collect()
    }
}

/// The `stats` file: every counter once, and nothing else.
impl FromStr for Counters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut counters = Self::default();
        let mut seen = Vec::new();
        for line in text.lines() {
            let (name, value) = line
                .split_once(' ')
                .ok_or_else(|| format!("stats: not `name value`: {line}"))?;
            let row = counters
                .row(name)
                .ok_or_else(|| format!("stats: unknown counter {name}"))?;
            *row = value
                .parse()
                .map_err(|_| format!("stats: not a number: {line}"))?;
            if seen.contains(&name) {
                return Err(format!("stats: {name} twice"));
            }
            seen.push(name);
        }
        match counters
            .rows()
            .iter()
            .find(|(name, _)| !seen.contains(name))
        {
            Some((name, _)) => Err(format!("stats: {name} is missing")),
            None => Ok(counters),
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows()
            .iter()
            .try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_text() {
        let counters = Counters {
            busy: 3,
            pending: 1,
            ..Counters::default()
        };
        assert_eq!(counters.to_string().parse(), Ok(counters));
        let bad = |text: &str| text.parse::<Counters>().is_err();
        assert!(bad("busy 1\n"));
        assert!(bad(&format!("{counters}busy 1\n")));
        assert!(bad(&format!("{counters}more 1\n")));
        assert!(bad(&counters.to_string().replace("busy 3", "busy x")));
    }
}

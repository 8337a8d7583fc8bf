// SPDX-License-Identifier: GPL-2.0

use std::collections::BTreeMap;

/// How often each duration was seen, in buckets of powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many durations.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum_ns: u64,
    /// By the lower end of the bucket, in nanoseconds; those that are empty are left out.
    pub(super) buckets: BTreeMap<u64, u64>,
}

/// Durations of at least `from_ns` and less than `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// 0 or a power of two.
    pub from_ns: u64,
    /// The next one.
    pub to_ns: u64,
    /// How many durations.
    pub count: u64,
}

impl Histogram {
    /// The buckets that are not empty, shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.buckets.iter().map(|(&from_ns, &count)| Bucket {
            from_ns,
            to_ns: from_ns.saturating_mul(2).max(1),
            count,
        })
    }

    /// The same with the empty ones between the first and the last, to draw.
    pub fn span(&self) -> Vec<Bucket> {
        let Some((&last, _)) = self.buckets.last_key_value() else {
            return Vec::new();
        };
        let mut span = Vec::new();
        let mut from_ns = self.buckets.keys().next().copied().unwrap_or(last);
        loop {
            let to_ns = from_ns.saturating_mul(2).max(1);
            let count = self.buckets.get(&from_ns).copied().unwrap_or(0);
            span.push(Bucket {
                from_ns,
                to_ns,
                count,
            });
            if from_ns >= last {
                return span;
            }
            from_ns = to_ns;
        }
    }

    /// How many durations were less than `ns`, a power of two.
    pub fn below(&self, ns: u64) -> u64 {
        self.buckets
            .range(..ns)
            .map(|(_, count)| count)
            .fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The mean, in nanoseconds; `None` of nothing.
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }

    /// Takes the durations of `part` out.
    pub(super) fn subtract(&mut self, part: &Self) {
        self.count = self.count.saturating_sub(part.count);
        self.sum_ns = self.sum_ns.saturating_sub(part.sum_ns);
        for (from_ns, count) in &mut self.buckets {
            *count = count.saturating_sub(part.buckets.get(from_ns).copied().unwrap_or(0));
        }
        self.buckets.retain(|_, count| *count > 0);
    }

    /// Puts `count` durations in the bucket from `from_ns`.
    pub(super) fn add(&mut self, from_ns: u64, count: u64) {
        if count > 0 {
            self.buckets.insert(from_ns, count);
        }
    }
}

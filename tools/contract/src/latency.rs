// SPDX-License-Identifier: GPL-2.0
//! The module's `latency` files.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Counters;

/// Everything that is timed, in the file's order.
const NAMES: [&str; 5] = [
    "vcpu_reset",
    "stage2_unmap",
    "icache_invalidate",
    "pay",
    "stage2_flush",
];

/// Durations, in ns.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub sum_ns: u64,
    /// Where each bucket begins, and what is in it.
    pub buckets: Vec<(u64, u64)>,
}

/// A whole file, by name.
#[derive(Debug)]
pub struct Latency(pub BTreeMap<String, Histogram>);

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names: Vec<&str> = Vec::new();
        let mut found: BTreeMap<String, Histogram> = BTreeMap::new();
        for line in text.lines() {
            let wrong = || format!("latency: not `name key value`: {line}");
            let mut words = line.split(' ');
            let (Some(name), Some(key), Some(value), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(wrong());
            };
            let value = value.parse().map_err(|_| wrong())?;
            if names.last() != Some(&name) {
                names.push(name);
            }
            let histogram = found.entry(name.to_owned()).or_default();
            match key {
                "count" => histogram.count = value,
                "sum_ns" => histogram.sum_ns = value,
                begin => histogram
                    .buckets
                    .push((begin.parse().map_err(|_| wrong())?, value)),
            }
        }
        if names != NAMES {
            return Err(format!("latency: wrong names: {names:?}"));
        }
        Ok(Self(found))
    }
}

impl Latency {
    /// What in it contradicts itself or `counters`, of whose re-inits so many were `untimed`.
    pub fn contradictions(&self, counters: &Counters, untimed: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, histogram) in &self.0 {
            let Histogram {
                count,
                sum_ns,
                buckets,
            } = histogram;
            let wanted = match name.as_str() {
                "vcpu_reset" => counters.vcpu_reset.checked_sub(untimed),
                "icache_invalidate" => counters.icache_invalidate.checked_sub(untimed),
                "stage2_unmap" => Some(counters.stage2_unmap),
                "stage2_flush" => Some(counters.stage2_flush),
                // As many KVM_RUNs as happened to wait.
                _ => Some(*count),
            };
            if wanted != Some(*count) {
                wrong.push(format!("{name}: want {wanted:?} timed, got {count}"));
            }
            let in_buckets: u64 = buckets.iter().map(|&(_, number)| number).sum();
            if in_buckets != *count || buckets.iter().any(|&(_, number)| number == 0) {
                wrong.push(format!("{name}: {count} in all, but {buckets:?}"));
            }
            let least: u64 = buckets.iter().map(|&(begin, number)| begin * number).sum();
            if !(least..=2 * least).contains(sum_ns) {
                wrong.push(format!("{name}: {sum_ns} ns in all, but {buckets:?}"));
            }
            let is_order = |begin: u64| begin == 0 || begin.is_power_of_two();
            if !buckets.iter().all(|&(begin, _)| is_order(begin))
                || !buckets.is_sorted_by(|a, b| a.0 < b.0)
            {
                wrong.push(format!("{name}: no orders of magnitude: {buckets:?}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "vcpu_reset 1024 1\nvcpu_reset 2048 2\nvcpu_reset count 3\nvcpu_reset sum_ns 6000\n\
        stage2_unmap count 0\nstage2_unmap sum_ns 0\n\
        icache_invalidate 512 1\nicache_invalidate count 1\nicache_invalidate sum_ns 600\n\
        pay 512 1\npay count 1\npay sum_ns 700\n\
        stage2_flush count 0\nstage2_flush sum_ns 0\n";

    fn counters() -> Counters {
        Counters {
            vcpu_reset: 3,
            icache_invalidate: 1,
            ..Counters::default()
        }
    }

    #[test]
    fn agrees() {
        let latency: Latency = TEXT.parse().unwrap();
        assert!(latency.contradictions(&counters(), 0).is_empty());
    }

    #[test]
    fn each_difference_is_seen() {
        for (from, to) in [
            ("vcpu_reset count 3", "vcpu_reset count 2"),
            ("icache_invalidate 512 1", "icache_invalidate 512 2"),
            ("vcpu_reset sum_ns 6000", "vcpu_reset sum_ns 5000"),
            ("vcpu_reset sum_ns 6000", "vcpu_reset sum_ns 12000"),
            ("pay 512 1", "pay 500 1"),
            ("flush count 0", "flush 64 1\nstage2_flush count 1"),
        ] {
            let latency: Latency = TEXT.replace(from, to).parse().unwrap();
            assert!(!latency.contradictions(&counters(), 0).is_empty(), "{to}");
        }
        let latency: Latency = TEXT.parse().unwrap();
        assert!(!latency.contradictions(&counters(), 1).is_empty());
        assert!(!latency.contradictions(&Counters::default(), 0).is_empty());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for text in [
            "",
            "vcpu_reset count 3\n",
            &TEXT.replace("count", "count 1"),
            &TEXT.replace("1024", "x"),
            &TEXT.replace("pay", "paid"),
        ] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }
}

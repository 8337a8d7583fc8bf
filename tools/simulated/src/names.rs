// SPDX-License-Identifier: GPL-2.0

//! What the module calls things, in the order of its files.

use crate::{counters::Counters, latency::Latency, lazy::Lazy, policy::Policy};

/// The lines of `stats`, but for the gauge.
pub fn counters() -> Vec<&'static str> {
    Counters::new().iter().map(|(_, name, _)| name).collect()
}

/// The histograms of `latency`.
pub fn timings() -> Vec<&'static str> {
    Latency::new().iter().map(|(_, name, _)| name).collect()
}

/// The policies.
pub fn policies() -> Vec<&'static str> {
    Policy::ALL.iter().map(|policy| policy.name()).collect()
}

/// What `host` says of the policy `lazy`.
pub fn lazy() -> Vec<&'static str> {
    [Lazy::Unmaps, Lazy::AsOnce, Lazy::Refused]
        .map(Lazy::name)
        .to_vec()
}

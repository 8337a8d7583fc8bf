// SPDX-License-Identifier: GPL-2.0
//! What the workload says: lines of JSON on the lab's console, each behind [`PREFIX`].

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use contract::Policy;
use serde::{Deserialize, Serialize};

/// What the workload's lines begin with; all others are the kernel's or the lab's.
pub const PREFIX: &str = "verify: ";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The first line.
    Boot(Boot),
    /// Behind it.
    Code(Code),
    /// As each begins.
    Section(Section),
}

/// Where this is, and all that the workload means to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's release.
    pub release: String,
    /// `stock`, or how it was made wrong: see tools/wrong-kernel.
    pub kernel: String,
    /// QEMU's CPU model.
    pub cpu: String,
    /// What is known of both: see [`contract::facts`].
    pub facts: String,
    /// With the module and without, in this order.
    pub states: Vec<State>,
    /// vCPUs of the VMs that are reset, a VM of each in each state.
    pub vcpus: Vec<usize>,
    /// How often each VM is reset.
    pub resets: usize,
}

/// Host code that invalidates the I-caches of all PEs on account of re-inits, and never else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Whose it is.
    pub name: String,
    /// Its address.
    pub start: u64,
    /// The address behind it.
    pub end: u64,
}

/// A VM was reset, or made and run for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// By which the oracle knows it.
    pub number: u64,
    /// With the module or without.
    pub state: State,
    /// The VM's vCPUs.
    pub vcpus: usize,
    /// Which of this VM, from 1; 0 when it was made.
    pub reset: usize,
    /// Runs of `stage2_unmap_vm`, as the kernel's own tracing counted them.
    pub unmaps: u64,
    /// The module's `stats` if it is loaded, cleared before the section.
    pub stats: Option<String>,
}

/// Whether the module is loaded, and with which policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct State(pub Option<Policy>);

impl State {
    /// As the table has them.
    pub const ALL: [Self; 6] = [
        Self(None),
        Self(Some(Policy::Native)),
        Self(Some(Policy::Fwb)),
        Self(Some(Policy::Once)),
        Self(Some(Policy::Unmap)),
        Self(Some(Policy::Lazy)),
    ];

    /// The policy's, or `none`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            None => "none",
            Some(policy) => policy.name(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let state = Self::ALL.into_iter().find(|state| state.name() == name);
        state.ok_or_else(|| {
            format!("a state is none, native, fwb, once, unmap or lazy, not `{name}`")
        })
    }
}

impl TryFrom<String> for State {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        state.name().to_owned()
    }
}

impl Record {
    /// The line, without its end.
    pub fn line(&self) -> Result<String> {
        Ok(format!("{PREFIX}{}", serde_json::to_string(self)?))
    }

    /// All of a console's log.
    pub fn all(log: &str) -> Result<Vec<Self>> {
        log.lines()
            .filter_map(|line| line.trim_end().strip_prefix(PREFIX))
            .map(|text| serde_json::from_str(text).with_context(|| format!("bad record `{text}`")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() -> Result<()> {
        let section = Record::Section(Section {
            number: 7,
            state: State(Some(Policy::Once)),
            vcpus: 8,
            reset: 2,
            unmaps: 1,
            stats: Some("vcpu_init 8\n".to_owned()),
        });
        let log = format!(
            "[ 1.0] Booting\r\n{}\r\nlab: verify ended\r\n",
            section.line()?
        );
        assert_eq!(Record::all(&log)?, [section]);
        assert!(Record::all("verify: {\"section\":{}}").is_err());
        assert!(Record::all("verify: {\"section\":{\"numb\n").is_err());
        assert!("twice".parse::<State>().is_err());
        Ok(())
    }
}

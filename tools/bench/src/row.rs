// SPDX-License-Identifier: GPL-2.0
//! Rows of figures. Who measures tells them as JSON, a line each; who keeps, draws and compares them reads
//! these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Single calls on a VM with one vCPU.
    Call,
    /// One reset of a VM, until it has touched its memory again.
    Reset,
    /// A reboot of Debian's kernel as a guest of Debian's QEMU, until it is up again.
    Guest,
    /// A reader of one of the module's files.
    Read,
    /// The module itself.
    Module,
}

/// Which row it is: no two have the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What is measured.
    pub what: What,
    /// The host's CPU model.
    #[serde(default)]
    pub cpu: String,
    /// The host's kernel: `stock`, or one that resets guests in another way.
    #[serde(default)]
    pub kernel: String,
    /// `none` without the module, or who else looks on, or the module's policy.
    pub state: String,
    /// vCPUs of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// MiB that it has touched beside a few pages of code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mib: Option<u32>,
    /// In pages of which size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<String>,
    /// What the guest starts with: `kernel`, or `edk2` that loads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Which file is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How many other VMs there are, all of which were reset, or are in reset; or of how many one is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<u32>,
    /// Whether these, or without a number one other VM, are in the middle of a reset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside_reset: bool,
}

impl Key {
    /// Of nothing but this.
    pub fn new(what: What, state: &str) -> Self {
        Self {
            what,
            cpu: String::new(),
            kernel: String::new(),
            state: state.to_owned(),
            vcpus: None,
            mib: None,
            pages: None,
            start: None,
            file: None,
            vms: None,
            beside_reset: false,
        }
    }
}

/// Figures by name, such as `reinit.instructions`.
pub type Figures = BTreeMap<String, u64>;

/// A row as it is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Which it is.
    #[serde(flatten)]
    pub key: Key,
    /// What was found by looking at the clock and into the module's files.
    pub figures: Figures,
    /// The parts of it that the oracle counts in: a section's number, by the part's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sections: BTreeMap<String, u64>,
}

/// A line of a console for who gathers the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A row.
    Told(Told),
    /// Where the kernel has the functions that counts are told apart by: the first address, and the first
    /// behind.
    Functions(BTreeMap<String, (u64, u64)>),
    /// What the module says that the host is.
    Host(BTreeMap<String, String>),
}

impl Line {
    /// What it begins with, in the midst of others.
    pub const PREFIX: &'static str = "bench: ";
}

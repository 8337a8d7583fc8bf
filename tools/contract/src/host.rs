// SPDX-License-Identifier: GPL-2.0
//! What a machine is, as far as the contract depends on it.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What the kernel's own path does at a re-init on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeReset {
    /// It invalidates the I-caches of all PEs.
    Icache,
    /// It unmaps all RAM at stage 2.
    Unmap,
    /// It does neither.
    None,
}

/// The facts that the `host` file states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// FEAT_S2FWB: stage 2 makes all of a guest's accesses cacheable.
    pub fwb: bool,
    /// CTR_EL0.DIC: instruction fetch needs no invalidation to see what was written.
    pub dic: bool,
    /// What the kernel does by itself.
    pub native_reset: NativeReset,
}

impl Host {
    /// Whether a re-init calls for an invalidation of the I-cache, and so for a skip of the kernel's.
    pub fn needs_icache(self) -> bool {
        self.fwb && !self.dic
    }
}

/// Facts on a machine, `name:value,name:value` with the names and values of the `host` file, as a map.
pub fn facts(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = text.split(',').map(|fact| fact.split_once(':'));
    pairs
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("facts are given as name:value,name:value, not as `{text}`"))
}

/// Out of [`facts`]: `fwb` and `dic` at least.
impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let facts = facts(text)?;
        let fact = |name: &str| {
            let value = facts.get(name).map(|value| value == "1");
            value.ok_or_else(|| format!("the fact `{name}` is missing"))
        };
        let (fwb, dic) = (fact("fwb")?, fact("dic")?);
        let native_reset = match facts.get("native_reset").map(String::as_str) {
            Some("icache") => NativeReset::Icache,
            Some("unmap") => NativeReset::Unmap,
            Some("none") => NativeReset::None,
            Some(other) => {
                return Err(format!(
                    "native_reset is icache, unmap or none, not {other}"
                ));
            }
            // Since 5.8.
            None if !fwb => NativeReset::Unmap,
            None if dic => NativeReset::None,
            None => NativeReset::Icache,
        };
        Ok(Self {
            fwb,
            dic,
            native_reset,
        })
    }
}

/// The machines of this crate's tests.
#[cfg(test)]
pub(crate) mod machines {
    use super::{Host, NativeReset};

    pub(crate) const ICACHE: Host = Host {
        fwb: true,
        dic: false,
        native_reset: NativeReset::Icache,
    };
    pub(crate) const DIC: Host = Host {
        fwb: true,
        dic: true,
        native_reset: NativeReset::None,
    };
    pub(crate) const NO_FWB: Host = Host {
        fwb: false,
        dic: false,
        native_reset: NativeReset::Unmap,
    };
}

#[cfg(test)]
mod tests {
    use super::Host;
    use super::machines::{DIC, ICACHE, NO_FWB};

    #[test]
    fn facts_text() {
        let text = "fwb:1,dic:0,idc:1,vhe:1,native_reset:icache";
        assert_eq!(text.parse(), Ok(ICACHE));
        assert_eq!("fwb:1,dic:0".parse(), Ok(ICACHE));
        assert_eq!("fwb:1,dic:1".parse(), Ok(DIC));
        assert_eq!("fwb:0,dic:0".parse(), Ok(NO_FWB));
        let bad = |text: &str| text.parse::<Host>().is_err();
        assert!(bad("fwb:1"));
        assert!(bad("fwb 1,dic 0"));
        assert!(bad("fwb:1,dic:0,native_reset:perhaps"));
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Where the kernel has its code, by /proc/kallsyms.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, ensure};

/// The kernel's symbols, and behind them those of modules and of pages that it makes for code.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Those of this kernel.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or are hidden from who is not root.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok()?;
                Some((address, words.nth(1)?.to_owned()))
            })
            .collect();
        ensure!(
            symbols.iter().any(|&(address, _)| address != 0),
            "/proc/kallsyms hides addresses: run as root"
        );
        Ok(Self(symbols))
    }

    /// Where something lies, if the kernel has it. Of several of one name it is the first.
    pub fn address(&self, name: &str) -> Option<u64> {
        let found = self.0.iter().find(|(_, symbol)| symbol == name);
        found.map(|&(address, _)| address)
    }

    /// Where a function lies, up to what comes next, if the kernel has it.
    pub fn function(&self, name: &str) -> Option<Range<u64>> {
        let start = self.address(name)?;
        let later = self.0.iter().map(|&(address, _)| address);
        let end = later.filter(|&address| address > start).min()?;
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_where_the_next_symbol_begins() {
        let text = "ffff8000 T last\nffff1000 t a_function\nffff1000 T its_alias\n\
                    ffff2000 t a_page\t[__builtin__kprobes]\n";
        let symbols = Symbols::parse(text).unwrap();
        assert_eq!(
            symbols.function("a_function"),
            Some(0xffff_1000..0xffff_2000)
        );
        assert_eq!(symbols.address("a_page"), Some(0xffff_2000));
        assert_eq!(symbols.function("last"), None);
        assert_eq!(symbols.address("last"), Some(0xffff_8000));
    }

    #[test]
    fn hidden_addresses_are_told() {
        let hidden = Symbols::parse("0 T a\n0 T b\n").err().unwrap();
        assert!(hidden.to_string().contains("run as root"));
    }
}

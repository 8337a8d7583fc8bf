// SPDX-License-Identifier: GPL-2.0

//! Whose code a PE runs at EL1 and EL0, and whether that goes through the caches.

use crate::{
    rules::{Rule, Rules},
    walk::{HCR_DC, HCR_FWB, SCTLR_C, SCTLR_I, SCTLR_M, is_guest},
};

/// As few bits as can be kept in an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View(u8);

impl View {
    /// Not known; everything else is.
    pub const UNKNOWN: Self = Self(0);
    /// The host's code.
    pub const HOST: Self = Self(Self::KNOWN);

    const KNOWN: u8 = 1;
    const GUEST: u8 = 2;
    const DATA: u8 = 4;
    const FETCH: u8 = 8;

    /// By HCR_EL2 and SCTLR_EL1. With the MMU off, data accesses are to Device memory, and without
    /// SCTLR_EL1.C to Non-cacheable memory; so are fetches without SCTLR_EL1.I (DDI 0487, D8.2, The
    /// effects of disabling an address translation stage, and D24.2, SCTLR_EL1). HCR_EL2.FWB has the
    /// second stage decide, and HCR_EL2.DC stands in for the first.
    pub(crate) fn new(hcr_el2: u64, sctlr_el1: u64, rules: Rules) -> Self {
        if !is_guest(hcr_el2) {
            return Self::HOST;
        }
        let mut bits = Self::KNOWN | Self::GUEST;
        let cacheable = if rules.holds(Rule::FwbIsCacheable) {
            HCR_DC | HCR_FWB
        } else {
            HCR_DC
        };
        if hcr_el2 & cacheable != 0 {
            return Self(bits);
        }
        const CACHED: u64 = SCTLR_M | SCTLR_C;
        if sctlr_el1 & CACHED != CACHED && rules.holds(Rule::MmuOffBypasses) {
            bits |= Self::DATA;
        }
        if sctlr_el1 & SCTLR_I == 0 && rules.holds(Rule::FetchBypasses) {
            bits |= Self::FETCH;
        }
        Self(bits)
    }

    /// For an atomic.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From what `bits` gave.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether the PE is in a guest.
    pub fn is_guest(self) -> bool {
        self.0 & Self::GUEST != 0
    }

    /// Whether loads and stores go around the caches.
    pub fn data_bypasses(self) -> bool {
        self.0 & Self::DATA != 0
    }

    /// Whether fetches do.
    pub fn fetch_bypasses(self) -> bool {
        self.0 & Self::FETCH != 0
    }
}

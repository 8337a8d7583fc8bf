// SPDX-License-Identifier: GPL-2.0

//! What every reset did, in numbers.

use crate::rust::atomic::AtomicU64;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// What is counted, per VM and in all.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All counters, with their names in `stats`, in its order.
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)+];
        }
    };
}

counters! {
    /// KVM_ARM_VCPU_INIT on any vCPU, past validation.
    VcpuInit => "vcpu_init",
    /// KVM_ARM_VCPU_INIT on a vCPU that has run.
    VcpuReset => "vcpu_reset",
    /// Runs of `vcpu_reset` of one VM with no KVM_RUN between.
    VmReset => "vm_reset",
    /// Invalidations of all PEs' instruction caches on account of re-inits, by the kernel or by
    /// this module.
    IcacheInvalidate => "icache_invalidate",
    /// The kernel's own invalidations of all PEs' instruction caches that were left out.
    IcacheElide => "icache_elide",
    /// `vcpu_reset` that needed no invalidation, by CTR_EL0.DIC.
    IcacheDic => "icache_dic",
    /// Runs of `stage2_unmap_vm` that took place.
    Stage2Unmap => "stage2_unmap",
    /// Runs of `stage2_unmap_vm` that were left out.
    Stage2UnmapElide => "stage2_unmap_elide",
    /// `vcpu_reset` while another vCPU of the VM was in KVM_RUN.
    Busy => "busy",
    /// Bytes that unmaps would have cleaned to the point of coherency, and left to the faults that map
    /// them again.
    DcacheCleanElideBytes => "dcache_clean_elide_bytes",
    /// TLB invalidations of one entry that unmaps left out, for they make one for all.
    TlbiElide => "tlbi_elide",
    /// Runs of `stage2_flush_vm`: all RAM that is mapped is cleaned as a vCPU turns its MMU on, or
    /// cleans by set and way, without FEAT_S2FWB.
    Stage2Flush => "stage2_flush",
}

/// A number for each [`Counter`].
pub(crate) struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Counter::ALL.len()])
    }

    pub(crate) fn add(&self, counter: Counter, number: u64) {
        self.0[counter as usize].add(number);
    }

    pub(crate) fn clear(&self) {
        for counter in &self.0 {
            counter.store(0);
        }
    }

    /// Counters, with their names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Counter, &'static str, u64)> + '_ {
        Counter::ALL
            .iter()
            .map(|&(counter, name)| (counter, name, self.0[counter as usize].load()))
    }
}

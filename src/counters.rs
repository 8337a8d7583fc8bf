// SPDX-License-Identifier: GPL-2.0

//! What every reset did, in numbers.

use crate::rust::atomic::AtomicU64;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// What is counted, per VM and in all.
        #[derive(Clone, Copy)]
        pub(crate) enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All of them, with their names in `stats`, in its order.
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)+];
        }
    };
}

counters! {
    /// KVM_ARM_VCPU_INIT on any vCPU, past validation.
    VcpuInit => "vcpu_init",
    /// Those on a vCPU that has run.
    VcpuReset => "vcpu_reset",
    /// Runs of `vcpu_reset` of one VM with no KVM_RUN between.
    VmReset => "vm_reset",
    /// Invalidations of all PEs' instruction caches on account of re-inits, by the kernel or by
    /// this module.
    IcacheInvalidate => "icache_invalidate",
    /// The kernel's own that were left out.
    IcacheElide => "icache_elide",
    /// `vcpu_reset` that needed none, by CTR_EL0.DIC.
    IcacheDic => "icache_dic",
    /// Runs of `stage2_unmap_vm` that took place.
    Stage2Unmap => "stage2_unmap",
    /// Those left out.
    Stage2UnmapElide => "stage2_unmap_elide",
    /// `vcpu_reset` while another vCPU of the VM was in KVM_RUN.
    Busy => "busy",
}

/// One of each.
pub(crate) struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Counter::ALL.len()])
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.0[counter as usize].add(1);
    }

    pub(crate) fn clear(&self) {
        for counter in &self.0 {
            counter.store(0);
        }
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL
            .iter()
            .map(|&(counter, name)| (name, self.0[counter as usize].load()))
    }
}

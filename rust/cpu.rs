// SPDX-License-Identifier: GPL-2.0

//! What the host's CPUs can do, as the kernel found it for all of them, and the one instruction
//! that this module issues.

use super::bindings;

/// FEAT_S2FWB: stage 2 can force guest accesses to be cacheable (Arm ARM, ID_AA64MMFR2_EL1.FWB).
pub(crate) fn has_fwb() -> bool {
    // SAFETY: Reads a bitmap that is final once modules can be loaded.
    unsafe { bindings::cpu_has_fwb() }
}

/// CTR_EL0.DIC: no instruction cache invalidation is needed for data to instruction coherence.
pub(crate) fn has_dic() -> bool {
    // SAFETY: As in `has_fwb`.
    unsafe { bindings::cpu_has_dic() }
}

/// CTR_EL0.IDC: no data cache clean is needed for data to instruction coherence.
pub(crate) fn has_idc() -> bool {
    // SAFETY: As in `has_fwb`.
    unsafe { bindings::cpu_has_idc() }
}

/// FEAT_VHE, in use: the host kernel runs at EL2.
pub(crate) fn has_vhe() -> bool {
    // SAFETY: As in `has_fwb`.
    unsafe { bindings::cpu_has_vhe() }
}

/// Invalidates the instruction caches of all PEs to the point of unification, and waits until it is
/// done on each: `ic ialluis; dsb ish` (Arm ARM, "IC IALLUIS"). Covers all writes that happened
/// before.
pub(crate) fn invalidate_icache_all() {
    // SAFETY: Cache maintenance loses nothing: instruction caches hold copies only.
    unsafe { bindings::icache_invalidate_all() }
}

/// Waits until the cache maintenance that this PE has begun is complete on all PEs: `dsb ish`.
pub(crate) fn complete_maintenance() {
    // SAFETY: A barrier has no preconditions.
    unsafe { bindings::maintenance_complete() };
}

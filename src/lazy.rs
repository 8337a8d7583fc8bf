// SPDX-License-Identifier: GPL-2.0

//! An unmap that cleans nothing: each page is cleaned when it is mapped again, by the fault that maps
//! it, and one that is not mapped again need not be.
//!
//! `stage2_unmap_vm` itself runs as ever, with its locks and its look at the VMM's mappings. Only what
//! it calls for each range, `kvm_pgtable_stage2_unmap`, does another thing while the task that calls
//! it is in such an unmap, and for the tables of the VM that it is about.

use crate::{
    handoff::{Handoff, Lent},
    rust::{
        atomic::AtomicI32,
        cpu,
        kvm::Vm,
        stage2::{self, Done, Functions, LeftOut, Range, UnmapRange},
    },
};
use kernel::sync::SetOnce;

/// What the policy `lazy` comes to on this host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lazy {
    /// Unmaps that clean nothing.
    Unmaps,
    /// What `once` does: with FEAT_S2FWB nothing is unmapped; and under pKVM the hypervisor unmaps.
    AsOnce,
    /// Nothing: this kernel does not have what `lazy` needs.
    Refused,
}

/// The kernel's functions that a lazy unmap takes, where they are to be had.
static FUNCTIONS: SetOnce<Functions> = SetOnce::new();
/// How many lazy unmaps are under way, host-wide.
static GATE: AtomicI32 = AtomicI32::new(0);
/// The lazy unmap that a task is in.
///
/// A VM has one at a time: only its first vCPU's re-init unmaps so. With no room for it the unmap goes the
/// kernel's own way.
static UNDER_WAY: Handoff<UnderWay, 64> = Handoff::new();

#[derive(Clone, Copy)]
struct UnderWay {
    vm: Lent<Vm>,
    left_out: LeftOut,
}

impl Lazy {
    /// The word for it in `host`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unmaps => "unmaps",
            Self::AsOnce => "as_once",
            Self::Refused => "refused",
        }
    }

    /// Looks what this host and kernel allow. Refusals are logged.
    pub(crate) fn find() -> Self {
        if cpu::has_fwb() || stage2::is_protected() {
            return Self::AsOnce;
        }
        match Functions::find("the policy lazy") {
            Some(functions) => {
                FUNCTIONS.populate(functions);
                Self::Unmaps
            }
            None => Self::Refused,
        }
    }
}

/// Lets `unmap`, a call of `stage2_unmap_vm` for `vm`, clean nothing. Returns what it left out.
pub(crate) fn unmap(vm: &Vm, unmap: impl FnOnce()) -> LeftOut {
    // Without room for it the kernel's own way is gone.
    UNDER_WAY.put(UnderWay {
        vm: Lent::new(vm),
        left_out: LeftOut::default(),
    });
    GATE.fetch_add(1);
    unmap();
    GATE.fetch_add(-1);
    let over = UNDER_WAY.take();
    over.map(|over| over.left_out).unwrap_or_default()
}

/// `kvm_pgtable_stage2_unmap`, which many call: an MMU notifier, too, while this VM's unmap has let go
/// of `mmu_lock`, and has to clean.
pub(crate) struct Unmap;

impl UnmapRange for Unmap {
    fn gate() -> &'static AtomicI32 {
        &GATE
    }

    fn unmap(range: Range<'_>) -> Done {
        // SAFETY: Put there by this task, which is in `unmap` still and has borrowed the VM for it.
        let is_ours = |under_way: &mut UnderWay| range.is_of(unsafe { under_way.vm.get() });
        match FUNCTIONS.as_ref() {
            Some(functions) if UNDER_WAY.change(is_ours) == Some(true) => {
                let mut left_out = LeftOut::default();
                let done = range.drop_leaves(functions, &mut left_out);
                UNDER_WAY.change(|under_way| {
                    under_way.left_out.bytes += left_out.bytes;
                    under_way.left_out.invalidations += left_out.invalidations;
                });
                done
            }
            _ => range.unmap(),
        }
    }
}

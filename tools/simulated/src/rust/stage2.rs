// SPDX-License-Identifier: GPL-2.0

//! How the simulated KVM unmaps the one place of memory that a VM has.

use super::{atomic::AtomicI32, ftrace::Plan, kvm::Vm};
use crate::{prelude::Result, race::step};
use std::sync::{Mutex, PoisonError};

#[derive(Clone, Copy, Default)]
pub(crate) struct LeftOut {
    pub(crate) bytes: u64,
    pub(crate) invalidations: u64,
}

/// This kernel has them.
pub(crate) struct Functions;

impl Functions {
    pub(crate) fn find(_: &str) -> Option<Self> {
        Some(Self)
    }
}

pub(crate) fn is_protected() -> bool {
    false
}

/// The place, to be unmapped.
pub(crate) struct Range<'a>(&'a Vm);

pub(crate) struct Done(());

impl Range<'_> {
    pub(crate) fn is_of(&self, vm: &Vm) -> bool {
        self.0.number() == vm.number()
    }

    pub(crate) fn unmap(self) -> Done {
        self.0.unmap_range();
        Done(())
    }

    pub(crate) fn drop_leaves(self, _: &Functions, left_out: &mut LeftOut) -> Done {
        if self.0.unmap_range() {
            left_out.bytes += 4096;
            left_out.invalidations += 1;
        }
        Done(())
    }
}

pub(crate) trait UnmapRange {
    fn gate() -> &'static AtomicI32;
    fn unmap(range: Range<'_>) -> Done;
}

type Unmap = (&'static AtomicI32, fn(Range<'_>) -> Done);

static UNMAP: Mutex<Option<Unmap>> = Mutex::new(None);

fn led_to() -> std::sync::MutexGuard<'static, Option<Unmap>> {
    UNMAP.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn redirect<U: UnmapRange>(plan: Plan) -> Result<Plan> {
    Ok(plan.add(
        |_| *led_to() = Some((U::gate(), U::unmap)),
        |_| *led_to() = None,
    ))
}

/// KVM unmaps a range.
pub(crate) fn call(vm: &Vm) {
    step();
    let redirect = *led_to();
    let Done(()) = match redirect.filter(|(gate, _)| gate.load() != 0) {
        Some((_, unmap)) => super::ftrace::in_flight(|| unmap(Range(vm))),
        None => Range(vm).unmap(),
    };
}

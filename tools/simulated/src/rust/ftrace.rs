// SPDX-License-Identifier: GPL-2.0

//! Functions of the simulated KVM that lead through the module.

use super::{
    atomic::AtomicI32,
    kvm::{DyingVm, Vcpu, Vm},
};
use crate::{
    prelude::*,
    race::{step, wait},
};
use core::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use std::sync::Mutex;

/// # Safety
///
/// None here.
pub(crate) unsafe trait Replacement: Sized + 'static {
    type Argument: Argument;
    #[allow(dead_code)]
    const FUNCTION: &'static CStr;
    #[allow(dead_code)]
    fn entry() -> &'static Entry<Self>;
    fn call(argument: &Self::Argument, original: Original<'_, Self>);
}

/// A function is told by its argument: no two take the same.
pub(crate) trait Argument: Sized + 'static {
    /// Where its replacement is kept.
    fn replacement(redirects: &mut Table) -> &mut Option<fn(&Self)>;

    /// The function itself.
    fn original(&self);
}

/// Nothing: the functions know their originals.
pub(crate) struct Entry<R>(PhantomData<fn() -> R>);

impl<R> Entry<R> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

/// A call of the function that `R` replaces.
pub(crate) struct Original<'a, R: Replacement>(&'a R::Argument);

impl<R: Replacement> Original<'_, R> {
    pub(crate) fn call(self) {
        self.0.original();
    }
}

/// # Safety
///
/// None here.
pub(crate) unsafe fn call_original<R: Replacement>(argument: &R::Argument) {
    argument.original();
}

/// What redirects `R` calls.
fn replace<R: Replacement>(argument: &R::Argument) {
    R::call(argument, Original(argument));
}

/// As few as make VMs share them.
pub(crate) struct RunGates([AtomicI32; 2]);

impl RunGates {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicI32::new(0) }; 2])
    }

    pub(crate) fn of(&self, vm: &Vm) -> &AtomicI32 {
        &self.0[vm.number() % 2]
    }

    /// Not for the module.
    pub(crate) fn close(&self) {
        self.0.iter().for_each(|gate| gate.set(0));
    }

    /// Not for the module: how many VMs are in reset.
    pub(crate) fn sum(&self) -> i32 {
        self.0.iter().map(AtomicI32::load).sum()
    }
}

pub(crate) trait RunEntry {
    fn gates() -> &'static RunGates;
    fn enter(vcpu: &Vcpu);
}

type Enter = (&'static RunGates, fn(&Vcpu));

/// Where calls of each function are led.
pub(crate) struct Table {
    run: Option<Enter>,
    pub(crate) reset: Option<fn(&Vcpu)>,
    pub(crate) unmap: Option<fn(&Vm)>,
    pub(crate) destroy: Option<fn(&DyingVm)>,
}

impl Table {
    const EMPTY: Self = Self {
        run: None,
        reset: None,
        unmap: None,
        destroy: None,
    };
}

static REDIRECTS: Mutex<Table> = Mutex::new(Table::EMPTY);

fn redirects<R>(work: impl FnOnce(&mut Table) -> R) -> R {
    work(&mut REDIRECTS.lock().unwrap_or_else(|error| error.into_inner()))
}

/// Calls a function of KVM's.
pub(crate) fn call<A: Argument>(argument: &A) {
    step();
    match redirects(|redirects| *A::replacement(redirects)) {
        Some(call) => in_flight(|| call(argument)),
        None => argument.original(),
    }
}

/// A vCPU enters `kvm_arch_vcpu_ioctl_run`.
pub(crate) fn enter_run(vcpu: &Vcpu) {
    step();
    if let Some((gates, enter)) = redirects(|redirects| redirects.run) {
        if gates.of(vcpu.vm()).load() != 0 {
            in_flight(|| enter(vcpu));
        }
    }
}

/// Calls in the module, by the epoch in which they began: what SRCU counts.
static IN_FLIGHT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static EPOCH: AtomicUsize = AtomicUsize::new(0);

pub(super) fn in_flight<R>(work: impl FnOnce() -> R) -> R {
    let calls = &IN_FLIGHT[EPOCH.load(SeqCst) % 2];
    calls.fetch_add(1, SeqCst);
    let result = work();
    calls.fetch_sub(1, SeqCst);
    result
}

pub(crate) fn wait_in_flight() {
    for _ in 0..2 {
        let epoch = EPOCH.fetch_add(1, SeqCst);
        while IN_FLIGHT[epoch % 2].load(SeqCst) != 0 {
            wait();
        }
    }
}

/// How one redirect comes, and how it goes.
pub(super) type Change = fn(&mut Table);

/// A set of redirects that is being put together.
pub(crate) struct Plan(Vec<(Change, Change)>);

impl Plan {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn replace<R: Replacement>(self) -> Result<Self> {
        Ok(self.add(
            |redirects| *R::Argument::replacement(redirects) = Some(replace::<R>),
            |redirects| *R::Argument::replacement(redirects) = None,
        ))
    }

    pub(super) fn add(mut self, come: Change, go: Change) -> Self {
        self.0.push((come, go));
        self
    }

    pub(crate) fn run_entry<H: RunEntry>(self) -> Result<Self> {
        Ok(self.add(
            |redirects| redirects.run = Some((H::gates(), H::enter)),
            |redirects| redirects.run = None,
        ))
    }
}

/// Redirects in place. As with ftrace, one comes, and goes, after the other.
pub(crate) struct Redirects(Vec<Change>);

impl Redirects {
    pub(crate) fn new(plan: Plan) -> Result<Self> {
        Self::register(plan)
    }

    pub(crate) fn register(plan: Plan) -> Result<Self> {
        let change = |(come, go): (Change, Change)| {
            step();
            redirects(come);
            go
        };
        Ok(Self(plan.0.into_iter().map(change).collect()))
    }
}

impl Drop for Redirects {
    fn drop(&mut self) {
        for go in self.0.drain(..) {
            step();
            redirects(go);
        }
        wait_in_flight();
    }
}

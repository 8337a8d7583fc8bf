// SPDX-License-Identifier: GPL-2.0

//! Functions of the kernel that are led through this module, by ftrace.

use super::{
    atomic::AtomicI32,
    bindings, insn,
    kvm::{Argument, Vcpu, Vm},
    symbol::Symbol,
    unsupported,
};
use core::{
    ffi::{c_void, CStr},
    marker::PhantomData,
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        SetOnce,
    },
    types::Opaque,
};

/// Runs `work` as a call of a redirected function that is in this module.
pub(super) fn in_flight<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: Callers may sleep, and so may readers of SRCU. The cookie goes back below.
    let cookie = unsafe { bindings::in_flight_enter() };
    let result = work();
    // SAFETY: Entered above, by this task.
    unsafe { bindings::in_flight_exit(cookie) };
    result
}

/// Waits for all replacements and handlers that were at work when this was called.
pub(crate) fn wait_in_flight() {
    // SAFETY: Called from process context, where sleeping is allowed, and from no handler.
    unsafe { bindings::in_flight_wait() };
}

/// What is done in place of a function that takes one pointer and returns nothing.
///
/// # Safety
///
/// The kernel's function `FUNCTION` takes one argument, a pointer to what `Argument` stands for, and
/// returns nothing. `helpers/ftrace.c` holds each against its prototype when it is compiled.
pub(crate) unsafe trait Replacement: Sized + 'static {
    /// What the function's argument points to.
    type Argument: Argument;

    /// The function's name.
    const FUNCTION: &'static CStr;

    /// Where this replacement keeps the way to the function itself.
    fn entry() -> &'static Entry<Self>;

    /// Runs in the caller's context, with what the caller holds. The function itself runs only if
    /// this calls `original`.
    fn call(argument: &Self::Argument, original: Original<'_, Self>);
}

/// Where the function that `R` replaces goes on behind its patched entry; 0 before it was first
/// redirected.
pub(crate) struct Entry<R>(Atomic<usize>, PhantomData<fn() -> R>);

impl<R: Replacement> Entry<R> {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0), PhantomData)
    }
}

/// A call of the function that `R` replaces, as its caller meant it: to be made once, or not at all.
pub(crate) struct Original<'a, R: Replacement>(&'a R::Argument);

impl<R: Replacement> Original<'_, R> {
    /// Makes the call.
    pub(crate) fn call(self) {
        // SAFETY: The caller meant to make this very call, in this context, and there is no second
        // one, for `self` is gone.
        unsafe { call_original::<R>(self.0) };
    }
}

/// Runs the function that `R` replaces, and not the replacement. Does nothing where `R` never was
/// registered.
///
/// # Safety
///
/// The function may be called with that argument here and now.
pub(crate) unsafe fn call_original<R: Replacement>(argument: &R::Argument) {
    let entry = R::entry().0.load(Relaxed);
    if entry != 0 {
        // SAFETY: `entry` is where a function of the kernel's text that takes an `R::Argument` goes
        // on behind its patched entry; `argument` is one. The rest is the caller's word.
        unsafe { bindings::redirect_call_original(argument.as_raw(), entry) };
    }
}

/// # Safety
///
/// Called by ftrace in place of `R::FUNCTION`, so `argument` is what that takes, valid for the
/// call.
unsafe extern "C" fn replace<R: Replacement>(argument: *mut c_void) {
    in_flight(|| {
        // SAFETY: By this function's requirements.
        let argument = unsafe { R::Argument::from_raw(argument) };
        R::call(argument, Original(argument));
    });
}

/// The gates of `kvm_arch_vcpu_ioctl_run`: what one VM's resets write, hardly another's KVM_RUN reads.
#[repr(transparent)]
pub(crate) struct RunGates([RunGate; RUN_GATES]);

/// A gate on a cache line of its own.
#[repr(C, align(64))]
struct RunGate(AtomicI32);

const RUN_GATES: usize = bindings::RUN_GATES as usize;
// What the callback in `helpers/ftrace.c` takes it for.
const _: () = assert!(size_of::<RunGate>() == size_of::<bindings::run_gate>());

impl RunGates {
    /// All closed.
    pub(crate) const fn new() -> Self {
        Self([const { RunGate(AtomicI32::new(0)) }; RUN_GATES])
    }

    /// The gate of `vm`, which it may share with others, for as long as it lives.
    pub(crate) fn of(&self, vm: &Vm) -> &AtomicI32 {
        // SAFETY: Looks at the address only.
        let index = unsafe { bindings::vm_run_gate(vm.as_raw().cast()) };
        &self.0[index as usize % RUN_GATES].0
    }
}

/// Work to be done when a vCPU enters `kvm_arch_vcpu_ioctl_run`, before it does anything else.
pub(crate) trait RunEntry {
    /// While its VM's gate is zero no handler is wanted, and an entry costs one load. Opening it must
    /// be followed by a full barrier before looking for vCPUs that have entered.
    fn gates() -> &'static RunGates;

    /// May sleep. The vCPU's mutex is held; `wants_to_run` is set unless the guest will not be
    /// entered.
    fn enter(vcpu: &Vcpu);
}

/// The [`RunEntry::enter`] that the trampoline leads to.
static RUN_ENTRY: SetOnce<fn(&Vcpu)> = SetOnce::new();

/// # Safety
///
/// Called by the trampoline with the argument of `kvm_arch_vcpu_ioctl_run`.
#[no_mangle]
unsafe extern "C" fn run_entry_handler(vcpu: *mut bindings::kvm_vcpu) {
    in_flight(|| {
        if let Some(enter) = RUN_ENTRY.as_ref() {
            // SAFETY: `vcpu` is valid for the call, which its file keeps alive.
            enter(unsafe { Vcpu::from_raw(vcpu.cast()) });
        }
    });
}

/// Whether the kernel has a function of that name, with an entry that ftrace can patch. [`ENOMEM`] where
/// there is no memory to find out.
pub(crate) fn can_redirect(name: &'static CStr) -> Result<bool> {
    match Symbol::find(name).and_then(|function| function.patched_entry()) {
        Err(error) if error == ENOMEM => Err(error),
        entry => Ok(entry.is_ok_and(|entry| entry.is_some())),
    }
}

/// A set of redirects that is being put together.
pub(crate) struct Plan {
    raw: bindings::redirects,
    count: usize,
}

impl Plan {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        // SAFETY: All zeroes is a `struct redirects` before registration.
        let raw = unsafe { core::mem::zeroed() };
        Self { raw, count: 0 }
    }

    /// Adds: calls of `R::FUNCTION` go to `R::call`. Refusals are logged.
    pub(crate) fn replace<R: Replacement>(self) -> Result<Self> {
        let to = replace::<R> as unsafe extern "C" fn(*mut c_void) as usize;
        let (plan, original) = self.add(R::FUNCTION, to, None)?;
        R::entry().0.store(original, Relaxed);
        Ok(plan)
    }

    /// Adds: calls of `kvm_arch_vcpu_ioctl_run` go by a trampoline to `H::enter` first, while the
    /// gate is open. The trampoline leaves nothing on the stack, so that a vCPU may stay in the
    /// guest as long as it likes. One module can have one. Refusals are logged.
    pub(crate) fn run_entry<H: RunEntry>(mut self) -> Result<Self> {
        let (site, original) = Self::site(c"kvm_arch_vcpu_ioctl_run")?;
        self.raw.run = bindings::run_entry {
            site,
            to: (&raw const bindings::run_entry_trampoline) as usize,
            gates: core::ptr::from_ref(H::gates()).cast(),
        };
        if !RUN_ENTRY.populate(H::enter) {
            return Err(EBUSY);
        }
        // SAFETY: Only the trampoline reads this word, and nothing leads there yet.
        unsafe { (&raw mut bindings::run_entry_original).write(original) };
        Ok(self)
    }

    /// Adds: calls of the function `name` go to `to`, or do while `gate` is open, with all that they
    /// were made with. Returns where the function goes on behind its patched entry, too. Refusals are
    /// logged.
    pub(super) fn add(
        mut self,
        name: &'static CStr,
        to: usize,
        gate: Option<&'static AtomicI32>,
    ) -> Result<(Self, usize)> {
        let (_, original) = Self::site(name)?;
        *self.raw.redirects.get_mut(self.count).ok_or(ENOSPC)? = bindings::redirect {
            original,
            to,
            gate: gate.map_or(core::ptr::null(), AtomicI32::as_ptr),
        };
        self.count += 1;
        Ok((self, original))
    }

    /// The instruction that ftrace patches at the entry of the function `name`, and where the function
    /// goes on behind it. Refusals are logged.
    fn site(name: &'static CStr) -> Result<(usize, usize)> {
        let function = Symbol::require(name)?;
        let Some(entry) = function.patched_entry()? else {
            pr_err!(
                "ftrace cannot patch the entry of {}: not supported\n",
                Symbol::display(name)
            );
            return Err(unsupported());
        };
        let original = function.address() + entry;
        Ok((original - insn::SIZE, original))
    }
}

/// Redirects that are in place while this lives. ftrace patches one function after the other: until
/// this is made, and while it is dropped, some may be redirected and some not.
///
/// # Invariants
///
/// Registered with ftrace.
pub(crate) struct Redirects(KBox<Opaque<bindings::redirects>>);

// SAFETY: ftrace does its own locking; between registration and drop nothing here touches the
// value.
unsafe impl Send for Redirects {}
// SAFETY: As above.
unsafe impl Sync for Redirects {}

impl Redirects {
    /// Puts `plan` into effect. Refusals are logged.
    pub(crate) fn new(plan: Plan) -> Result<Self> {
        Self::register(plan).inspect_err(|&error| {
            if error == EBUSY {
                pr_err!("KVM's functions are redirected already (by a livepatch? a second copy of this module?), or kernel.ftrace_enabled is 0: undo that first\n");
            } else {
                pr_err!("ftrace refuses to redirect KVM's functions: {:?}\n", error);
            }
        })
    }

    /// As [`Self::new`], for what can be done without; the caller logs a refusal.
    pub(crate) fn register(plan: Plan) -> Result<Self> {
        let raw = KBox::new(Opaque::new(plan.raw), GFP_KERNEL)?;
        // SAFETY: `raw` is boxed and lives until `drop` unregisters it; `plan` has led each
        // function to code that takes its calls, under gates that are static.
        to_result(unsafe { bindings::redirects_register(raw.get()) })?;
        // INVARIANT: Registered above.
        Ok(Self(raw))
    }
}

impl Drop for Redirects {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant.
        unsafe { bindings::redirects_unregister(self.0.get()) };
        // ftrace has waited for every task to pass a voluntary context switch, so whoever was sent
        // here has entered by now. Handlers may sleep: wait for them to leave.
        wait_in_flight();
        // Whoever has left still has some instructions of this module before it, but none that sleeps.
        // SAFETY: Called from process context, where sleeping is allowed.
        unsafe { bindings::synchronize_rcu_tasks() };
    }
}

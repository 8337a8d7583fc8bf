// SPDX-License-Identifier: GPL-2.0

//! Functions of the kernel that are led through this module, by ftrace.

use super::{
    atomic::AtomicI32,
    bindings, insn,
    kvm::{Argument, Vcpu},
    symbol::Symbol,
};
use core::{ffi::c_void, marker::PhantomData};
use kernel::{
    error::to_result,
    prelude::*,
    sync::atomic::{Atomic, Full, Relaxed},
    time::{delay::fsleep, Delta},
    types::Opaque,
};

/// Code behind a redirected function that something of this module runs in, and its original.
pub(crate) struct Site {
    /// Calls that are in this module now.
    in_flight: AtomicI32,
    /// Where the function goes on behind its patched entry; 0 before the first registration.
    original: Atomic<usize>,
}

impl Site {
    pub(crate) const fn new() -> Self {
        Self { in_flight: AtomicI32::new(0), original: Atomic::new(0) }
    }

    /// Counts `work` as in flight.
    fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        self.in_flight.fetch_add(1);
        let result = work();
        self.in_flight.fetch_add(-1);
        result
    }

    /// Waits until no call is in this module any more, and none that ftrace has sent here already can
    /// arrive. The redirection must be gone.
    fn drain(&self) {
        // Unregistering waited for every task to pass a voluntary context switch, so whoever was sent
        // here has counted itself by now. Handlers may sleep: wait for the count. Who has counted itself
        // out still has some instructions of this module before it, but no sleep: wait as before.
        while self.in_flight.load() != 0 {
            fsleep(Delta::from_millis(1));
        }
        // SAFETY: Called from process context, where sleeping is allowed.
        unsafe { bindings::synchronize_rcu_tasks() };
    }
}

/// What a `struct redirect` needs to stay registered: to stay where it is.
///
/// # Invariants
///
/// `raw` is registered with ftrace.
struct Registration {
    raw: KBox<Opaque<bindings::redirect>>,
    site: &'static Site,
}

// SAFETY: ftrace does its own locking; between registration and drop nothing here touches `raw`.
unsafe impl Send for Registration {}
// SAFETY: As above.
unsafe impl Sync for Registration {}

impl Registration {
    fn new(
        name: &'static CStr,
        to: usize,
        gate: Option<&'static AtomicI32>,
        site: &'static Site,
    ) -> Result<Self> {
        let function = Symbol::find(name).inspect_err(|_| {
            pr_err!("this kernel has no function {}: nothing to hook\n", Name(name));
        })?;
        let Some(entry) = insn::patched_entry(function.code()) else {
            pr_err!("{} has no entry that ftrace can patch: is it notrace?\n", Name(name));
            return Err(EOPNOTSUPP);
        };
        site.original.store(function.address() + entry, Relaxed);

        // SAFETY: All zeroes is a `struct redirect` before registration.
        let mut redirect = unsafe { core::mem::zeroed::<bindings::redirect>() };
        redirect.to = to as _;
        redirect.gate = gate.map_or(core::ptr::null(), AtomicI32::as_ptr);
        let raw = KBox::new(Opaque::new(redirect), GFP_KERNEL)?;

        // SAFETY: `raw` is boxed and lives until `drop` unregisters it; `to` is code that takes the calls
        // of the function, by the callers below; `gate` is static.
        to_result(unsafe { bindings::redirect_register(raw.get(), function.address() as _) })
            .inspect_err(|&error| match error {
                EBUSY => pr_err!(
                    "{} is redirected already (a livepatch, a second copy of this module) or kernel.ftrace_enabled is 0: undo that first\n",
                    Name(name)
                ),
                _ => pr_err!("ftrace refuses to redirect {}: {:?}\n", Name(name), error),
            })?;
        // INVARIANT: Registered above.
        Ok(Self { raw, site })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariant.
        let error = unsafe { bindings::redirect_unregister(self.raw.get()) };
        if error != 0 {
            pr_err!("ftrace does not let go of a function: {}\n", error);
        }
        self.site.drain();
    }
}

struct Name(&'static CStr);

impl kernel::fmt::Display for Name {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("?"))
    }
}

/// What is done in place of a function that takes one pointer and returns nothing.
pub(crate) trait Replacement {
    /// What the function's argument points to.
    type Argument: Argument;

    /// The function's name.
    const FUNCTION: &'static CStr;

    /// This replacement's own site.
    fn site() -> &'static Site;

    /// Runs in the caller's context, with what the caller holds. The function itself runs only if this
    /// calls [`original`].
    fn call(argument: &Self::Argument);
}

/// Runs the function that `R` replaces, and not the replacement. Does nothing where `R` never was
/// registered.
pub(crate) fn original<R: Replacement>(argument: &R::Argument) {
    let original = R::site().original.load(Relaxed);
    if original != 0 {
        // SAFETY: `original` is where a function of the kernel's text that takes an `R::Argument` goes on
        // behind its patched entry; `argument` is one.
        unsafe { bindings::redirect_call_original(argument.as_raw(), original as _) };
    }
}

/// A function redirected to its replacement for as long as this lives.
pub(crate) struct Redirect<R: Replacement> {
    _registration: Registration,
    _replacement: PhantomData<fn() -> R>,
}

impl<R: Replacement> Redirect<R> {
    /// Redirects. Refusals are logged.
    pub(crate) fn new() -> Result<Self> {
        let to = Self::enter as unsafe extern "C" fn(*mut c_void) as usize;
        let _registration = Registration::new(R::FUNCTION, to, None, R::site())?;
        Ok(Self { _registration, _replacement: PhantomData })
    }

    /// # Safety
    ///
    /// Called by ftrace in place of `R::FUNCTION`, so `argument` is what that takes, valid for the call.
    unsafe extern "C" fn enter(argument: *mut c_void) {
        R::site().enter(|| {
            // SAFETY: By this function's requirements.
            R::call(unsafe { R::Argument::from_raw(argument) });
        });
    }
}

/// Work to be done when a vCPU enters `kvm_arch_vcpu_ioctl_run`, before it does anything else.
pub(crate) trait RunEntry {
    /// While this is zero, and no handler is wanted, entry costs one load. Opening it must be followed by
    /// a full barrier before looking for vCPUs that have entered.
    fn gate() -> &'static AtomicI32;

    /// May sleep. The vCPU's mutex is held; `wants_to_run` is set unless the guest will not be entered.
    fn enter(vcpu: &Vcpu);
}

/// The handler of the only [`RunEntryHook`], as a function address.
static RUN_ENTRY: Atomic<usize> = Atomic::new(0);
static RUN_ENTRY_SITE: Site = Site::new();

/// `kvm_arch_vcpu_ioctl_run` led through a trampoline while this lives and the gate is open. The
/// trampoline leaves nothing on the stack, so that a vCPU may stay in the guest as long as it likes.
pub(crate) struct RunEntryHook {
    _registration: Registration,
}

impl RunEntryHook {
    /// Hooks the entry to `H`. There can be one in a module: [`EBUSY`]. Refusals are logged.
    pub(crate) fn new<H: RunEntry>() -> Result<Self> {
        let name = c"kvm_arch_vcpu_ioctl_run";
        if RUN_ENTRY.cmpxchg(0, H::enter as fn(&Vcpu) as usize, Full).is_err() {
            return Err(EBUSY);
        }
        if let Some(entry) = Symbol::find(name).ok().and_then(|f| Some(f.address() + insn::patched_entry(f.code())?)) {
            // SAFETY: Only the trampoline reads this word, and nothing leads there yet.
            unsafe { (&raw mut bindings::run_entry_original).write(entry as _) };
        }
        let to = (&raw const bindings::run_entry_trampoline) as usize;
        Registration::new(name, to, Some(H::gate()), &RUN_ENTRY_SITE)
            .map(|_registration| Self { _registration })
            .inspect_err(|_| RUN_ENTRY.store(0, Relaxed))
    }
}

/// # Safety
///
/// Called by the trampoline with the argument of `kvm_arch_vcpu_ioctl_run`.
#[no_mangle]
unsafe extern "C" fn run_entry_handler(vcpu: *mut bindings::kvm_vcpu) {
    RUN_ENTRY_SITE.enter(|| {
        let handler = RUN_ENTRY.load(Relaxed);
        // SAFETY: Not zero, as the trampoline is only reached after the handler was set; it is set to a
        // `fn(&Vcpu)` and nothing else. `vcpu` is valid for the call, which its file keeps alive.
        unsafe { core::mem::transmute::<usize, fn(&Vcpu)>(handler)(Vcpu::from_raw(vcpu.cast())) };
    });
}

// SPDX-License-Identifier: GPL-2.0

//! A re-init, from the reset of the vCPU's registers to the end of its cache maintenance: what is
//! decided, done, owed, left out and counted.

use crate::{
    counters::Counter,
    files,
    handoff::{Handoff, Lent},
    in_force,
    latency::{Stopwatch, Work},
    lazy,
    path::ResetPath,
    policy::{Host, Maintenance, Policy, Remedy},
    protocol::Stay,
    rust::{
        cpu,
        ftrace::{self, Entry, Original, Replacement},
        kvm::{Vcpu, Vm},
        stage2::LeftOut,
    },
    trace,
    vm::{self, add, add_latency, count, invalidate, Record},
};
use kernel::prelude::*;

/// A re-init that is waiting for the kernel's own maintenance, behind it in the same ioctl.
///
/// None sleeps on that way, so there are hardly more at once than the host has CPUs. With no room for
/// one it goes the kernel's own way.
static HANDOFF: Handoff<Reinit, 256> = Handoff::new();

/// A re-init that was decided.
#[derive(Clone, Copy)]
struct Reinit {
    /// The vCPU's id.
    vcpu: i32,
    record: Option<Lent<Record>>,
    policy: Policy,
    remedy: Remedy,
    busy: bool,
    native: Native,
    stopwatch: Stopwatch,
}

/// What becomes of the kernel's own maintenance.
#[derive(Clone, Copy)]
enum Native {
    Keep,
    /// An invalidation that was reached then, and is executed.
    Reached(Stopwatch),
    Elide,
    /// An unmap: left out if one was made during this stay already, and without cleaning if `lazily`.
    Once {
        stay: Stay,
        lazily: bool,
    },
}

impl Reinit {
    fn record(&self) -> Option<&Record> {
        // SAFETY: In the handoff or on the stack of one ioctl, on a vCPU, which keeps its VM alive, and
        // that its record. Every re-init drops what its task left of others; and none that has a
        // record is left while hooks come or go, for records come after the last hook.
        self.record.map(|record| unsafe { record.get() })
    }

    fn name(&self) -> &CStr {
        vm::name(self.record())
    }

    /// Its maintenance is done or owed.
    fn end(&self) {
        let ns = self.stopwatch.ns();
        add_latency(self.record(), Work::VcpuReset, ns);
        trace::vcpu_reset(
            self.name(),
            self.vcpu,
            self.policy,
            self.remedy,
            self.busy,
            ns,
        );
    }
}

/// KVM_ARM_VCPU_INIT, past validation; `stopwatch` runs since before the registers were reset. The
/// vCPU's mutex is held, so it is not running.
pub(crate) fn vcpu_init(vcpu: &Vcpu, stopwatch: Stopwatch) {
    let record = Record::find_or_insert(vcpu.vm());
    count(record, Counter::VcpuInit);
    if let (true, Some(path)) = (vcpu.has_run(), in_force::path()) {
        vcpu_reset(vcpu, record, path, stopwatch);
    }
}

/// KVM_ARM_VCPU_INIT, past validation, on a vCPU that has run: a guest reset.
fn vcpu_reset(vcpu: &Vcpu, record: Option<&Record>, path: &ResetPath, stopwatch: Stopwatch) {
    // One that this task made before, and the kernel never came to ask for (kprobes were disarmed
    // just then), must not speak for this re-init.
    HANDOFF.take();

    // Before anything of it can be traced.
    if let Some(record) = record {
        files::show(record);
    }

    let host = &path.host;
    let policy = in_force::policy();
    let way = way(policy, vcpu);
    // Without its probe the kernel's own invalidation can neither be seen nor left out.
    let unseen = host.native == Maintenance::Icache && !path.is_armed();

    let debt = !unseen && host.remedy(way, false) == Remedy::IcacheOwed;
    let begun = record.map(|record| (record, record.begin(debt)));
    let busy = match &begun {
        Some((record, begun)) => record.is_busy(begun, vcpu),
        None => vcpu.another_wants_to_run(),
    };
    let remedy = host.remedy(way, busy || unseen || record.is_none());

    count(record, Counter::VcpuReset);
    if busy {
        count(record, Counter::Busy);
        trace::busy(vm::name(record), vcpu.id());
    }
    if host.dic {
        count(record, Counter::IcacheDic);
    }
    if unseen {
        count(record, Counter::IcacheInvalidate);
    }

    let stay = begun.map(|(record, begun)| {
        if begun.is_first() {
            count(Some(record), Counter::VmReset);
        }
        if debt && remedy != Remedy::IcacheOwed {
            record.forgive(&begun);
        }
        (record, begun.stay())
    });

    let reinit = Reinit {
        vcpu: vcpu.id(),
        record: record.map(Lent::new),
        policy,
        remedy,
        busy,
        native: apply(remedy, vcpu.vm(), stay, host),
        stopwatch,
    };
    if host.native == Maintenance::None {
        reinit.end();
    } else if !unseen {
        // Where there is no room the kernel goes its own way, on top of what was done here.
        HANDOFF.put(reinit);
    }
}

/// The policy that a re-init goes by. A reset begins with the boot vCPU; another one may be
/// re-initialised in a guest that lives on, by a VMM that switches vCPUs on by itself while the rest
/// wait: what such a guest wrote around the caches must be cleaned.
fn way(policy: Policy, vcpu: &Vcpu) -> Policy {
    if policy == Policy::Lazy && !vcpu.is_first() {
        Policy::Once
    } else {
        policy
    }
}

/// Does what `remedy` asks for and the kernel will not do by itself. Returns what becomes of what
/// it will.
fn apply(remedy: Remedy, vm: &Vm, stay: Option<(&Record, Option<Stay>)>, host: &Host) -> Native {
    let record = stay.map(|(record, _)| record);
    match remedy {
        Remedy::Native => Native::Keep,
        Remedy::Now(wanted) if wanted == host.native => Native::Keep,
        Remedy::Now(Maintenance::None) | Remedy::IcacheOwed => Native::Elide,
        Remedy::Now(Maintenance::Icache) => {
            invalidate(record);
            Native::Elide
        }
        // An unmap goes by the VMM's mappings, and leaves protected VMs alone. So it never stands for
        // the kernel's own invalidation.
        Remedy::Now(Maintenance::Unmap) => {
            unmap(record, || unmap_here(vm));
            Native::Keep
        }
        Remedy::UnmapOnce | Remedy::UnmapLazily => {
            let lazily = remedy == Remedy::UnmapLazily;
            match stay {
                Some((_, Some(stay))) if host.native == Maintenance::Unmap => {
                    return Native::Once { stay, lazily };
                }
                Some((record, Some(stay))) => {
                    unmap_once(vm, record, stay, lazily, || unmap_here(vm));
                }
                // More re-inits in one stay than can be told apart.
                _ if host.native == Maintenance::Unmap => (),
                _ => unmap(record, || unmap_here(vm)),
            }
            Native::Keep
        }
    }
}

/// `stage2_unmap_vm`, at a place where this kernel itself does not call it.
fn unmap_here(vm: &Vm) {
    // SAFETY: In KVM_ARM_VCPU_INIT, past validation and the reset of the registers, and so in a task of
    // the VM's process, with none of the MMU's locks held. Kernels that call it do so a little later;
    // for a vCPU whose target KVM has forgotten (`vcpu_mode_is_bad_32bit`) they have let go of
    // `config_lock` by then, which is held here and not taken inside.
    unsafe { ftrace::call_original::<UnmapVm>(vm) };
}

/// Lets `unmap` unmap, for a VM whose record is known, or is not.
fn unmap(record: Option<&Record>, unmap: impl FnOnce()) {
    let stopwatch = Stopwatch::start();
    unmap();
    let ns = stopwatch.ns();
    count(record, Counter::Stage2Unmap);
    add_latency(record, Work::Stage2Unmap, ns);
    trace::stage2_unmap(vm::name(record), ns);
}

/// Lets `work` unmap, unless an unmap that got at all RAM was made in this stay.
fn unmap_once(vm: &Vm, record: &Record, stay: Stay, lazily: bool, work: impl FnOnce()) {
    record.unmap_once(stay, || {
        let reaches_all = vm.unmap_reaches_all();
        unmap(Some(record), || {
            if lazily && reaches_all {
                left_out(record, lazy::unmap(vm, work));
            } else {
                work();
            }
        });
        reaches_all
    });
}

/// Counts what an unmap left out.
fn left_out(record: &Record, left_out: LeftOut) {
    let (bytes, invalidations) = (left_out.bytes, left_out.invalidations);
    add(Some(record), Counter::DcacheCleanElideBytes, bytes);
    add(Some(record), Counter::TlbiElide, invalidations);
    if invalidations != 0 {
        trace::clean_elide(record.name(), bytes, invalidations);
    }
}

/// `stage2_unmap_vm`, which only KVM_ARM_VCPU_INIT calls.
pub(crate) struct UnmapVm;

// SAFETY: `void stage2_unmap_vm(struct kvm *)`.
unsafe impl Replacement for UnmapVm {
    type Argument = Vm;
    const FUNCTION: &'static CStr = c"stage2_unmap_vm";

    fn entry() -> &'static Entry<Self> {
        static ENTRY: Entry<UnmapVm> = Entry::new();
        &ENTRY
    }

    fn call(vm: &Vm, original: Original<'_, Self>) {
        native_unmap(vm, original);
    }
}

/// The kernel's own call of `stage2_unmap_vm`: makes it, unless the re-init that it is in has decided
/// otherwise.
fn native_unmap(vm: &Vm, original: Original<'_, UnmapVm>) {
    // A re-init that began before the hooks decided nothing.
    let Some(reinit) = HANDOFF.take() else {
        unmap(None, || original.call());
        return;
    };
    match (reinit.native, reinit.record()) {
        (Native::Elide, record) => count(record, Counter::Stage2UnmapElide),
        (Native::Once { stay, lazily }, Some(record)) => {
            unmap_once(vm, record, stay, lazily, || original.call());
        }
        (_, record) => unmap(record, || original.call()),
    }
    reinit.end();
}

/// The kernel's own `ic ialluis` is reached: whether the re-init that it is in has decided to leave
/// it out. In the context of a probe.
pub(crate) fn elides_native_icache() -> bool {
    let Some(mut reinit) = HANDOFF.take() else {
        count(None, Counter::IcacheInvalidate);
        return false;
    };
    if let Native::Elide = reinit.native {
        count(reinit.record(), Counter::IcacheElide);
        reinit.end();
        return true;
    }
    count(reinit.record(), Counter::IcacheInvalidate);
    reinit.native = Native::Reached(Stopwatch::start());
    HANDOFF.put(reinit);
    false
}

/// The kernel's own `ic ialluis` was executed, and its `dsb ish` is next. In the context of a probe.
pub(crate) fn native_icache_executed() {
    let Some(reinit) = HANDOFF.take() else {
        return;
    };
    // The waiting is done here, to be timed; the kernel's own barrier then has nothing to wait for.
    cpu::complete_maintenance();
    if let Native::Reached(stopwatch) = reinit.native {
        let ns = stopwatch.ns();
        add_latency(reinit.record(), Work::IcacheInvalidate, ns);
        trace::icache_invalidate(reinit.name(), true, ns);
    }
    reinit.end();
}

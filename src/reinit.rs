// SPDX-License-Identifier: GPL-2.0

//! A re-init, from the reset of the vCPU's registers to the end of its cache maintenance: what is
//! decided, done, owed, left out and counted.

use crate::{
    counters::Counter,
    handoff::{Handoff, Lent},
    hooks::{self, UnmapVm},
    latency::{Stopwatch, Work},
    path::ResetPath,
    policy::{Host, Maintenance, Policy, Remedy},
    protocol::Stay,
    rust::{
        cpu, ftrace,
        kvm::{Vcpu, Vm},
    },
    trace,
    vm::{count, invalidate, took, Record},
};

/// A re-init that is waiting for the kernel's own maintenance, behind it in the same ioctl.
static HANDOFF: Handoff<Reinit> = Handoff::new();

/// A re-init that was decided.
#[derive(Clone, Copy)]
struct Reinit {
    vcpu: Lent<Vcpu>,
    record: Option<Lent<Record>>,
    policy: Policy,
    remedy: Remedy,
    busy: bool,
    own: Own,
    begun: Stopwatch,
    /// When the kernel's own invalidation was reached.
    invalidating: Option<Stopwatch>,
}

/// What becomes of the kernel's own maintenance.
#[derive(Clone, Copy)]
enum Own {
    Keep,
    Elide,
    /// An unmap: left out if one was made during this stay already.
    Once(Stay),
}

impl Reinit {
    fn vcpu(&self) -> &Vcpu {
        // SAFETY: In the handoff or on the stack of one ioctl, on this vCPU. Every re-init drops
        // what its task left of others.
        unsafe { self.vcpu.get() }
    }

    fn record(&self) -> Option<&Record> {
        // SAFETY: As in `vcpu`, which keeps its VM alive, and that its record.
        self.record.map(|record| unsafe { record.get() })
    }

    /// Its maintenance is done or owed.
    fn end(&self) {
        let ns = self.begun.ns();
        took(self.record(), Work::VcpuReset, ns);
        trace::vcpu_reset(self.vcpu(), self.policy, self.remedy, self.busy, ns);
    }
}

/// KVM_ARM_VCPU_INIT, past validation, `begun` before the registers were reset. The vCPU's mutex is
/// held, so it is not running.
pub(crate) fn vcpu_init(vcpu: &Vcpu, begun: Stopwatch) {
    let record = Record::of(vcpu.vm());
    count(record, Counter::VcpuInit);
    if let (true, Some(path)) = (vcpu.has_run(), hooks::path()) {
        vcpu_reset(vcpu, record, path, begun);
    }
}

/// The same on a vCPU that has run: a guest reset.
fn vcpu_reset(vcpu: &Vcpu, record: Option<&Record>, path: &ResetPath, begun: Stopwatch) {
    // One that this task made before, and the kernel never came to ask for (kprobes were disarmed
    // just then), must not speak for this re-init.
    HANDOFF.take();

    let host = &path.host;
    let policy = hooks::policy();
    // Without its probe the kernel's own invalidation can neither be seen nor left out.
    let unseen = host.native == Maintenance::Icache && !path.is_armed();

    let debt = !unseen && host.remedy(policy, false) == Remedy::IcacheOwed;
    let published = record.map(|record| (record, record.begin(debt)));
    let busy = vcpu.another_wants_to_run();
    let remedy = host.remedy(policy, busy || unseen || record.is_none());

    count(record, Counter::VcpuReset);
    if busy {
        count(record, Counter::Busy);
        trace::busy(vcpu);
    }
    if host.dic {
        count(record, Counter::IcacheDic);
    }
    if unseen {
        count(record, Counter::IcacheInvalidate);
    }

    let stay = published.map(|(record, published)| {
        if published.is_first() {
            count(Some(record), Counter::VmReset);
        }
        if debt && remedy != Remedy::IcacheOwed {
            record.forgive(&published);
        }
        record.show();
        (record, published.stay())
    });

    let reinit = Reinit {
        vcpu: Lent::new(vcpu),
        record: record.map(Lent::new),
        policy,
        remedy,
        busy,
        own: apply(remedy, vcpu.vm(), stay, host),
        begun,
        invalidating: None,
    };
    if host.native == Maintenance::None {
        reinit.end();
    } else if !unseen {
        // Where there is no room the kernel goes its own way, on top of what was done here.
        HANDOFF.put(reinit);
    }
}

/// Does what `remedy` asks for and the kernel will not do by itself. Returns what becomes of what
/// it will.
fn apply(remedy: Remedy, vm: &Vm, stay: Option<(&Record, Stay)>, host: &Host) -> Own {
    let record = stay.map(|(record, _)| record);
    match remedy {
        Remedy::Native => Own::Keep,
        Remedy::Now(wanted) if wanted == host.native => Own::Keep,
        Remedy::Now(Maintenance::None) | Remedy::IcacheOwed => Own::Elide,
        Remedy::Now(Maintenance::Icache) => {
            invalidate(vm, record);
            Own::Elide
        }
        Remedy::Now(Maintenance::Unmap) => {
            unmap(vm, record);
            Own::Elide
        }
        Remedy::UnmapOnce => match stay {
            Some((_, stay)) if host.native == Maintenance::Unmap => Own::Once(stay),
            Some((record, stay)) => {
                record.unmap_once(stay, || unmap(vm, Some(record)));
                Own::Elide
            }
            None => Own::Keep,
        },
    }
}

fn unmap(vm: &Vm, record: Option<&Record>) {
    let begun = Stopwatch::start();
    ftrace::original::<UnmapVm>(vm);
    let ns = begun.ns();
    count(record, Counter::Stage2Unmap);
    took(record, Work::Stage2Unmap, ns);
    trace::stage2_unmap(vm, ns);
}

/// The kernel's own call of `stage2_unmap_vm`: runs it, unless the re-init that it is in has decided
/// otherwise.
pub(crate) fn own_unmap(vm: &Vm) {
    // A re-init that began before the hooks decided nothing.
    let Some(reinit) = HANDOFF.take() else {
        unmap(vm, None);
        return;
    };
    match (reinit.own, reinit.record()) {
        (Own::Elide, record) => count(record, Counter::Stage2UnmapElide),
        (Own::Once(stay), Some(record)) => {
            record.unmap_once(stay, || unmap(vm, Some(record)));
        }
        (_, record) => unmap(vm, record),
    }
    reinit.end();
}

/// The kernel's own `ic ialluis` is reached: whether the re-init that it is in has decided to leave
/// it out. In the context of a probe.
pub(crate) fn elides_own_icache() -> bool {
    let Some(mut reinit) = HANDOFF.take() else {
        count(None, Counter::IcacheInvalidate);
        return false;
    };
    if let Own::Elide = reinit.own {
        count(reinit.record(), Counter::IcacheElide);
        reinit.end();
        return true;
    }
    count(reinit.record(), Counter::IcacheInvalidate);
    reinit.invalidating = Some(Stopwatch::start());
    HANDOFF.put(reinit);
    false
}

/// The kernel's own `ic ialluis` was executed, and its `dsb ish` is next. In the context of a probe.
pub(crate) fn own_icache_executed() {
    let Some(reinit) = HANDOFF.take() else {
        return;
    };
    // The waiting is done here, to be timed; the kernel's own barrier then has nothing to wait for.
    cpu::complete_maintenance();
    if let Some(invalidating) = reinit.invalidating {
        let ns = invalidating.ns();
        took(reinit.record(), Work::IcacheInvalidate, ns);
        trace::icache_invalidate(reinit.vcpu().vm(), true, ns);
    }
    reinit.end();
}

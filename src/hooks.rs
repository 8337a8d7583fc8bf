// SPDX-License-Identifier: GPL-2.0

//! The places in KVM where this module has a say, and what it says there.
//!
//! | place | when | what |
//! |---|---|---|
//! | `kvm_reset_vcpu` | (re-)init, past validation | decides what is to be done, does or owes it |
//! | the kernel's `ic ialluis` | behind it, same ioctl | leaves it out if that was decided |
//! | `stage2_unmap_vm` | behind it, same ioctl | the same |
//! | `kvm_arch_vcpu_ioctl_run` | KVM_RUN | pays what is owed, ends the reset |
//! | `kvm_arch_destroy_vm` | last reference to a VM gone | forgets it |

use crate::{
    counters::Counter,
    handoff::Handoff,
    path::ResetPath,
    policy::{Host, Maintenance, Policy, Remedy},
    protocol::Stay,
    rust::{
        atomic::AtomicI32,
        ftrace::{self, Original, Plan, Redirects, Replacement, RunEntry},
        kprobe::{InstructionProbe, Probe, Step},
        kvm::{self, DyingVm, Vcpu, Vm},
    },
    vm::{self, count, invalidate, Record, RecordRef, Records},
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        SetOnce,
    },
};

/// The policy in force, as its number: the kernel's own way until all hooks are in.
static POLICY: Atomic<u32> = Atomic::new(Policy::Native as u32);
/// What the hooks know of this host; set before the first is in.
static PATH: SetOnce<ResetPath> = SetOnce::new();
static HANDOFF: Handoff<Decision> = Handoff::new();

/// The policy in force.
pub(crate) fn policy() -> Policy {
    Policy::from_number(POLICY.load(Acquire).into()).unwrap_or(Policy::Native)
}

/// Switches. Each re-init looks once, so one under way goes by either.
pub(crate) fn set_policy(policy: Policy) {
    POLICY.store(policy as u32, Release);
}

/// What the hooks know of this host.
pub(crate) fn path() -> Option<&'static ResetPath> {
    PATH.as_ref()
}

/// What a re-init decided about the kernel's own maintenance.
#[derive(Clone, Copy)]
struct Decision {
    record: Option<RecordRef>,
    own: Own,
}

/// What becomes of the kernel's own maintenance.
#[derive(Clone, Copy)]
enum Own {
    Keep,
    Elide,
    /// An unmap: left out if one was made during this stay already.
    Once(Stay),
}

/// What the current task has decided in this re-init, for the kernel's own maintenance in it to ask.
fn decided<'a>() -> (Own, Option<&'a Record>) {
    match HANDOFF.take() {
        Some(Decision { record, own }) => {
            // SAFETY: Every re-init drops what this task decided in others. So it was in this one,
            // and the vCPU it is made on keeps the VM alive.
            (own, record.map(|record| unsafe { record.get() }))
        }
        None => (Own::Keep, None),
    }
}

/// `kvm_reset_vcpu`: the one call of a function's that every KVM_ARM_VCPU_INIT makes.
struct ResetVcpu;

impl Replacement for ResetVcpu {
    type Argument = Vcpu;
    const FUNCTION: &'static CStr = c"kvm_reset_vcpu";

    fn original() -> &'static Original {
        static ORIGINAL: Original = Original::new();
        &ORIGINAL
    }

    fn call(vcpu: &Vcpu) {
        ftrace::original::<Self>(vcpu);
        // PSCI resets come here too, from KVM_RUN and from ioctls on registers.
        if kvm::current_in_vcpu_init() {
            vcpu_init(vcpu);
        }
    }
}

/// KVM_ARM_VCPU_INIT, past validation. The vCPU's mutex is held, so it is not running.
fn vcpu_init(vcpu: &Vcpu) {
    let record = Record::of(vcpu.vm());
    count(record, Counter::VcpuInit);
    if let (true, Some(path)) = (vcpu.has_run(), path()) {
        vcpu_reset(vcpu, record, path);
    }
}

/// The same on a vCPU that has run: a guest reset.
fn vcpu_reset(vcpu: &Vcpu, record: Option<&Record>, path: &ResetPath) {
    // One that this task made before, and the kernel never came to ask for (kprobes were disarmed
    // just then), must not speak for this re-init.
    HANDOFF.take();

    let host = &path.host;
    let policy = policy();
    // Without its probe the kernel's own invalidation can neither be seen nor left out.
    let unseen = host.native == Maintenance::Icache && !path.is_armed();

    let debt = !unseen && host.remedy(policy, false) == Remedy::IcacheOwed;
    let begun = record.map(|record| (record, record.begin(debt)));
    let busy = vcpu.another_wants_to_run();
    let remedy = host.remedy(policy, busy || unseen || record.is_none());

    count(record, Counter::VcpuReset);
    if busy {
        count(record, Counter::Busy);
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
        record.show(vcpu.vm());
        (record, begun.stay())
    });

    let own = apply(remedy, vcpu.vm(), stay, host);
    if host.native != Maintenance::None && !unseen {
        // Where there is no room the kernel goes its own way, on top of what was done here.
        HANDOFF.put(Decision {
            record: record.map(RecordRef::new),
            own,
        });
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
            invalidate(record);
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
    ftrace::original::<UnmapVm>(vm);
    count(record, Counter::Stage2Unmap);
}

/// `stage2_unmap_vm`, which only KVM_ARM_VCPU_INIT calls.
struct UnmapVm;

impl Replacement for UnmapVm {
    type Argument = Vm;
    const FUNCTION: &'static CStr = c"stage2_unmap_vm";

    fn original() -> &'static Original {
        static ORIGINAL: Original = Original::new();
        &ORIGINAL
    }

    fn call(vm: &Vm) {
        match decided() {
            (Own::Elide, record) => count(record, Counter::Stage2UnmapElide),
            (Own::Once(stay), Some(record)) => {
                record.unmap_once(stay, || unmap(vm, Some(record)));
            }
            (_, record) => unmap(vm, record),
        }
    }
}

/// The kernel's own `ic ialluis` on the path of KVM_ARM_VCPU_INIT.
struct OwnIcache;

impl Probe for OwnIcache {
    fn hit() -> Step {
        match (decided(), path().and_then(|path| path.icache.as_ref())) {
            ((Own::Elide, record), Some(icache)) => {
                count(record, Counter::IcacheElide);
                Step::Over(icache.bytes)
            }
            ((_, record), _) => {
                count(record, Counter::IcacheInvalidate);
                Step::Execute
            }
        }
    }
}

/// `kvm_arch_vcpu_ioctl_run`.
struct Run;

impl RunEntry for Run {
    fn gate() -> &'static AtomicI32 {
        vm::GATE.word()
    }

    fn enter(vcpu: &Vcpu) {
        // With immediate_exit the guest is not entered: what is owed stays owed, so that what user
        // space writes until it does enter is covered.
        if vcpu.wants_to_run() {
            if let Some(record) = Record::find(vcpu.vm()) {
                record.run();
            }
        }
    }
}

/// `kvm_arch_destroy_vm`.
struct DestroyVm;

impl Replacement for DestroyVm {
    type Argument = DyingVm;
    const FUNCTION: &'static CStr = c"kvm_arch_destroy_vm";

    fn original() -> &'static Original {
        static ORIGINAL: Original = Original::new();
        &ORIGINAL
    }

    fn call(vm: &DyingVm) {
        Record::forget(vm);
        ftrace::original::<Self>(vm);
    }
}

/// All hooks, in place while this lives.
pub(crate) struct Hooks {
    /// Goes first: what is owed is paid while KVM_RUN still looks.
    _debts: Debts,
    /// Before the redirects: without them nothing would keep a task's old decision from it.
    _icache: Option<InstructionProbe<OwnIcache>>,
    _redirects: Redirects,
    _records: Records,
}

impl Hooks {
    /// Puts the hooks in, and then `policy` in force. Refusals are logged.
    pub(crate) fn new(path: ResetPath, policy: Policy) -> Result<Self> {
        let icache = path.icache.as_ref().map(|icache| icache.address);
        PATH.populate(path);

        let _records = Records::new();
        let _icache = icache
            .map(InstructionProbe::new)
            .transpose()
            .inspect_err(|error| {
                pr_err!(
                    "kprobes refuse the ic ialluis of KVM_ARM_VCPU_INIT: {:?}\n",
                    error
                );
            })?;
        let plan = Plan::new()
            .run_entry::<Run>()?
            .replace::<ResetVcpu>()?
            .replace::<UnmapVm>()?
            .replace::<DestroyVm>()?;
        let _redirects = Redirects::new(plan)?;

        // Only with all hooks in place may a re-init put anything off, or leave anything out.
        set_policy(policy);
        Ok(Self {
            _debts: Debts,
            _icache,
            _redirects,
            _records,
        })
    }
}

/// Pays on drop what all VMs owe, and sees to it that no more debts are made.
struct Debts;

impl Drop for Debts {
    fn drop(&mut self) {
        set_policy(Policy::Native);
        ftrace::wait_in_flight();
        vm::pay_all();
    }
}

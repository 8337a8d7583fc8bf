// SPDX-License-Identifier: GPL-2.0

//! The places in KVM where this module has a say.
//!
//! | place | when | what |
//! |---|---|---|
//! | `kvm_reset_vcpu` | (re-)init, past validation | decides what is to be done, does or owes it |
//! | the kernel's `ic ialluis` | behind it, same ioctl | leaves it out if that was decided |
//! | `stage2_unmap_vm` | behind it, same ioctl | the same |
//! | `kvm_pgtable_stage2_unmap` | in an unmap that is to clean nothing | drops what is mapped |
//! | `stage2_flush_vm` | a vCPU turns its MMU on, without FEAT_S2FWB | counts it |
//! | `kvm_arch_vcpu_ioctl_run` | KVM_RUN | pays what is owed, ends the reset |
//! | `kvm_arch_destroy_vm` | last reference to a VM gone | forgets it |

use crate::{
    in_force,
    latency::Stopwatch,
    lazy,
    path::ResetPath,
    policy::Policy,
    reinit,
    rust::{
        self,
        ftrace::{self, Entry, Original, Plan, Redirects, Replacement, RunEntry, RunGates},
        kprobe::{InstructionProbe, Probe, Step},
        kvm::{self, DyingVm, Vcpu, Vm},
        stage2,
    },
    vm::{self, Record, Records},
};
use kernel::prelude::*;

/// `kvm_reset_vcpu`: the one call of a function's that every KVM_ARM_VCPU_INIT makes.
struct ResetVcpu;

// SAFETY: `void kvm_reset_vcpu(struct kvm_vcpu *)`.
unsafe impl Replacement for ResetVcpu {
    type Argument = Vcpu;
    const FUNCTION: &'static CStr = c"kvm_reset_vcpu";

    fn entry() -> &'static Entry<Self> {
        static ENTRY: Entry<ResetVcpu> = Entry::new();
        &ENTRY
    }

    fn call(vcpu: &Vcpu, original: Original<'_, Self>) {
        let stopwatch = Stopwatch::start();
        original.call();
        // PSCI resets come here too, from KVM_RUN and from ioctls on registers.
        if kvm::current_in_vcpu_init() {
            reinit::vcpu_init(vcpu, stopwatch);
        }
    }
}

/// `stage2_flush_vm`: a vCPU without FEAT_S2FWB turns its MMU on, and all that is mapped is cleaned.
struct FlushVm;

// SAFETY: `void stage2_flush_vm(struct kvm *)`, which is static: no header has it.
unsafe impl Replacement for FlushVm {
    type Argument = Vm;
    const FUNCTION: &'static CStr = c"stage2_flush_vm";

    fn entry() -> &'static Entry<Self> {
        static ENTRY: Entry<FlushVm> = Entry::new();
        &ENTRY
    }

    fn call(vm: &Vm, original: Original<'_, Self>) {
        let stopwatch = Stopwatch::start();
        original.call();
        vm::flushed(Record::find(vm), stopwatch.ns());
    }
}

/// The kernel's own `ic ialluis` on the path of KVM_ARM_VCPU_INIT.
struct NativeIcache;

impl Probe for NativeIcache {
    fn hit() -> Step {
        if reinit::elides_native_icache() {
            Step::Over
        } else {
            Step::Execute
        }
    }

    fn executed() {
        reinit::native_icache_executed();
    }
}

/// `kvm_arch_vcpu_ioctl_run`.
struct Run;

impl RunEntry for Run {
    fn gates() -> &'static RunGates {
        &vm::GATES
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

// SAFETY: `void kvm_arch_destroy_vm(struct kvm *)`.
unsafe impl Replacement for DestroyVm {
    type Argument = DyingVm;
    const FUNCTION: &'static CStr = c"kvm_arch_destroy_vm";

    fn entry() -> &'static Entry<Self> {
        static ENTRY: Entry<DestroyVm> = Entry::new();
        &ENTRY
    }

    fn call(vm: &DyingVm, original: Original<'_, Self>) {
        Record::forget(vm);
        original.call();
    }
}

/// All hooks, in place while this lives.
pub(crate) struct Hooks {
    /// Goes first: what is owed is paid while KVM_RUN still looks.
    _debts: Debts,
    /// Before the redirects: without them nothing would keep a task's old decision from it.
    _icache: Option<InstructionProbe<NativeIcache>>,
    /// Before the redirects, one of which drops a dead VM's record: these look records up, too.
    _without_fwb: Option<Redirects>,
    _redirects: Redirects,
    /// Behind the redirects: without them nobody has a record in hand.
    _records: Records,
}

impl Hooks {
    /// Puts the hooks in, and then `policy`, which must be to be had here, in force. Refusals are
    /// logged.
    pub(crate) fn new(mut path: ResetPath, policy: Policy) -> Result<Self> {
        // First, for it decides what can be had.
        let (_without_fwb, lost) = without_fwb(&mut path)?;
        if !in_force::allows(policy, &path) {
            // Or it was said when the kernel was looked at.
            if let Some(lost) = &lost {
                lost.log();
            }
            return Err(rust::unsupported());
        }
        let icache = path.icache;
        in_force::set_path(path);

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
            .replace::<reinit::UnmapVm>()?
            .replace::<DestroyVm>()?;
        let _redirects = Redirects::new(plan)?;
        // Not before: where all of it is refused, as to a second copy, that is said, and in one line.
        if let Some(lost) = &lost {
            lost.log();
        }

        // Only with all hooks in place may a VM get a record, for one of them drops it, and only where
        // each runner is seen may a re-init note that it saw none; or put anything off, or leave
        // anything out.
        let _records = Records::new(&_redirects);
        in_force::begin(policy);
        Ok(Self {
            _debts: Debts,
            _icache,
            _without_fwb,
            _redirects,
            _records,
        })
    }
}

/// Redirects what is of use only without FEAT_S2FWB, and can be done without: where somebody else has one
/// of these functions, `path` says so, and the caller logs what is lost and why. Of no effect before the
/// other hooks are in: nobody unmaps lazily yet, and no VM has a record.
fn without_fwb(path: &mut ResetPath) -> Result<(Option<Redirects>, Option<Lost>)> {
    let lazy = path.host.lazy;
    let flushes = path.has_flush && !path.host.fwb;
    if !lazy && !flushes {
        return Ok((None, None));
    }
    let mut plan = Plan::new();
    if lazy {
        plan = stage2::redirect::<lazy::Unmap>(plan)?;
    }
    if flushes {
        plan = plan.replace::<FlushVm>()?;
    }
    Ok(match Redirects::register(plan) {
        Ok(redirects) => (Some(redirects), None),
        Err(error) => {
            path.do_without_fwb_redirects();
            (None, Some(Lost { lazy, error }))
        }
    })
}

/// What [`without_fwb`] could not have.
struct Lost {
    lazy: bool,
    error: Error,
}

impl Lost {
    fn log(&self) {
        let what = match self.lazy {
            true => {
                "the policy lazy is not to be had, take another, and stage2_flush is not counted"
            }
            false => "stage2_flush is not counted",
        };
        pr_warn!(
            "{what}: ftrace refuses to redirect what that needs ({:?}; does a livepatch have it?)\n",
            self.error
        );
    }
}

/// Pays on drop what all VMs owe, and sees to it that no more debts are made.
struct Debts;

impl Drop for Debts {
    fn drop(&mut self) {
        in_force::end();
        ftrace::wait_in_flight();
        vm::pay_all();
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The simulated host: KVM's ioctls as far as they pass the module, guest memory, and caches.
//!
//! All memory of a VM is one place where code lies, by version. The worst instruction caches that the
//! architecture allows hold that of the last moment at which they had to look: the last invalidation,
//! or the fault that mapped the place at stage 2, where KVM cleans and invalidates. Without S2FWB an
//! invalidation brings nothing: what user space wrote may not have left the data cache.

use crate::{
    hooks, in_force,
    lazy::Lazy,
    linux::step,
    path::ResetPath,
    policy::{Host, Maintenance, Policy},
    rust::{debugfs, ftrace, kprobe, stage2, symbol::IcacheInvalidation, vm_table},
    vm,
};
use shuttle::scheduler::RandomScheduler;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The module has statics, so there is one machine at a time.
static ONE: Mutex<()> = Mutex::new(());
static HOST: Mutex<Option<Host>> = Mutex::new(None);
static MODULE: Mutex<Option<hooks::Hooks>> = Mutex::new(None);
static VMS: Mutex<Vec<Weak<Vm>>> = Mutex::new(Vec::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);
/// The gauge that the last module left.
static PENDING_BEFORE: AtomicI32 = AtomicI32::new(0);
static RACING: AtomicBool = AtomicBool::new(false);
/// Of the race: its seed, and the places passed where threads may be switched.
static SEED: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
/// Tasks inside KVM_ARM_VCPU_INIT, by bit.
static IN_VCPU_INIT: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn is_racing() -> bool {
    RACING.load(SeqCst)
}

/// Whether threads may be switched here. Some races switch everywhere, and in some a thread goes far while
/// another stands still.
pub(crate) fn may_switch() -> bool {
    let (seed, step) = (SEED.load(SeqCst), STEP.fetch_add(1, SeqCst));
    let stride = [1, 4, 16][(seed % 3) as usize];
    // The finalizer of SplitMix64.
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % stride == 0
}

/// The number of the current task, from 1.
pub(crate) fn task() -> usize {
    if is_racing() {
        usize::from(shuttle::current::me()) + 2
    } else {
        1
    }
}

pub(crate) fn in_vcpu_init() -> bool {
    IN_VCPU_INIT.load(SeqCst) & (1 << task()) != 0
}

fn host() -> Host {
    (*lock(&HOST)).unwrap_or(Host {
        fwb: false,
        dic: false,
        native: Maintenance::Unmap,
        lazy: false,
    })
}

pub(crate) fn has_fwb() -> bool {
    host().fwb
}

/// `ic ialluis; dsb ish`.
pub(crate) fn invalidate() {
    if host().fwb {
        let vms: Vec<_> = lock(&VMS).iter().filter_map(Weak::upgrade).collect();
        vms.iter().for_each(|vm| vm.look());
    }
}

/// A VM.
pub struct Vm {
    number: usize,
    vcpus: Vec<VcpuState>,
    /// Versions of the code: as written, and as fetched.
    written: AtomicUsize,
    fetched: AtomicUsize,
    mapped: AtomicBool,
}

#[derive(Default)]
struct VcpuState {
    has_run: AtomicBool,
    wants_to_run: AtomicBool,
    spins: AtomicBool,
}

/// A vCPU of it.
pub(crate) struct Vcpu {
    vm: Arc<Vm>,
    index: usize,
}

/// How large a VM is, which nobody asks here.
pub(crate) struct VmSize;

/// A VM that nobody refers to any more.
pub(crate) struct DyingVm(pub(crate) Arc<Vm>);

impl Vcpu {
    pub(crate) fn vm(&self) -> &Vm {
        &self.vm
    }

    fn state(&self) -> &VcpuState {
        &self.vm.vcpus[self.index]
    }

    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.index).unwrap_or(i32::MAX)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.index == 0
    }

    pub(crate) fn has_run(&self) -> bool {
        self.state().has_run.load(SeqCst)
    }

    pub(crate) fn wants_to_run(&self) -> bool {
        step();
        self.state().wants_to_run.load(SeqCst)
    }

    pub(crate) fn another_wants_to_run(&self) -> bool {
        let mut others = self.vm.vcpus.iter().enumerate();
        others.any(|(index, state)| {
            step();
            index != self.index && state.wants_to_run.load(SeqCst)
        })
    }
}

/// What a vCPU ran that should have been other code.
#[derive(Debug, PartialEq, Eq)]
pub struct RunError {
    pub vcpu: usize,
    pub want: usize,
    pub got: usize,
}

impl Vm {
    /// Tells it from all others.
    pub fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn debugfs_name<const SIZE: usize>(&self) -> Option<[u8; SIZE]> {
        let mut name = [0; SIZE];
        let text = format!("1-{}", self.number);
        name[..text.len()].copy_from_slice(text.as_bytes());
        Some(name)
    }

    pub(crate) fn pid(&self) -> i32 {
        1
    }

    pub(crate) fn size(&self) -> &VmSize {
        &VmSize
    }

    pub(crate) fn unmap_reaches_all(&self) -> bool {
        step();
        true
    }

    fn look(&self) {
        self.fetched.store(self.written.load(SeqCst), SeqCst);
    }

    /// `stage2_unmap_vm`.
    pub(crate) fn unmap(&self) {
        stage2::call(self);
        // A guest that spins is back at once.
        if self.vcpus.iter().any(|vcpu| vcpu.spins.load(SeqCst)) {
            self.fault();
        }
        step();
    }

    /// `kvm_pgtable_stage2_unmap`, with the lock over the tables held. Returns whether it was mapped.
    pub(crate) fn unmap_range(&self) -> bool {
        self.mapped.swap(false, SeqCst)
    }

    /// Maps the place, unless it is mapped.
    fn fault(&self) {
        if !self.mapped.swap(true, SeqCst) {
            self.look();
        }
    }

    fn vcpu(self: &Arc<Self>, index: usize) -> Vcpu {
        Vcpu {
            vm: self.clone(),
            index,
        }
    }

    /// User space writes other code.
    pub fn write(&self) {
        self.written.fetch_add(1, SeqCst);
    }

    /// KVM_ARM_VCPU_INIT.
    pub fn init(self: &Arc<Self>, index: usize) {
        let (vcpu, bit) = (self.vcpu(index), 1 << task());
        IN_VCPU_INIT.fetch_or(bit, SeqCst);
        ftrace::call(&vcpu);
        if vcpu.has_run() {
            match host().native {
                Maintenance::None => {}
                Maintenance::Icache => kprobe::reach(|| {
                    step();
                    invalidate();
                }),
                Maintenance::Unmap => ftrace::call::<Vm>(self),
            }
        }
        IN_VCPU_INIT.fetch_and(!bit, SeqCst);
        step();
    }

    /// KVM_RUN until it leaves again. With `report` the guest calls the code.
    pub fn run(self: &Arc<Self>, index: usize, report: bool) -> Result<(), RunError> {
        let state = self.enter(index);
        self.fault();
        let (want, fetched) = (self.written.load(SeqCst), self.fetched.load(SeqCst));
        step();
        state.wants_to_run.store(false, SeqCst);
        let coherent = host().fwb && host().dic;
        if report && !coherent && fetched != want {
            return Err(RunError {
                vcpu: index,
                want,
                got: fetched,
            });
        }
        Ok(())
    }

    fn enter(self: &Arc<Self>, index: usize) -> &VcpuState {
        let state = &self.vcpus[index];
        step();
        state.wants_to_run.store(true, SeqCst);
        state.has_run.store(true, SeqCst);
        ftrace::enter_run(&self.vcpu(index));
        step();
        state
    }

    /// KVM_RUN with immediate_exit.
    pub fn immediate(self: &Arc<Self>, index: usize) {
        self.vcpus[index].has_run.store(true, SeqCst);
        ftrace::enter_run(&self.vcpu(index));
    }

    /// KVM_RUN that goes on.
    pub fn spin(self: &Arc<Self>, index: usize) {
        let state = self.enter(index);
        self.fault();
        state.spins.store(true, SeqCst);
    }

    /// The KVM_RUN of a guest that spins ends.
    pub fn stop(&self, index: usize) {
        let state = &self.vcpus[index];
        state.spins.store(false, SeqCst);
        state.wants_to_run.store(false, SeqCst);
    }

    /// A reset that PSCI left pending is carried out by an ioctl on the vCPU's registers.
    pub fn psci_reset(self: &Arc<Self>, index: usize) {
        ftrace::call(&self.vcpu(index));
    }

    /// The VM's `stats`; none before its first re-init.
    pub fn stats(&self) -> Option<String> {
        let record = vm::Record::find(self).filter(|record| debugfs::has(record.name()))?;
        let counters = record.tally.counters.iter();
        Some(stats(counters, i32::from(record.is_indebted())))
    }

    /// The last reference goes.
    pub fn destroy(self: Arc<Self>) {
        for vcpu in 0..self.vcpus.len() {
            self.stop(vcpu);
        }
        ftrace::call(&DyingVm(self));
    }
}

fn stats<C>(counters: impl Iterator<Item = (C, &'static str, u64)>, pending: i32) -> String {
    let mut text = String::new();
    for (_, name, value) in counters {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} {value}");
    }
    let _ = writeln!(text, "pending {pending}");
    text
}

/// A change of the machine, while there is one.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// insmod with this policy, by number.
    Insert(u64),
    /// rmmod.
    Remove,
    /// This is written to `policy`.
    Switch(&'static str),
    /// All kprobes are armed, or disarmed.
    Kprobes(bool),
}

impl Change {
    /// Makes it. `false`: refused.
    pub fn make(self) -> bool {
        match self {
            Change::Insert(policy) => return insert(policy),
            Change::Remove => remove(),
            Change::Switch(name) => {
                let policy = Policy::from_text(name.as_bytes());
                return policy.is_some_and(|policy| in_force::switch(policy).is_ok());
            }
            Change::Kprobes(on) => kprobe::enable(on),
        }
        true
    }
}

/// As the module's entry does it.
fn insert(policy: u64) -> bool {
    let host = host();
    let path = ResetPath {
        host,
        // On a CPU that never gets there it is in the kernel's code all the same.
        lazy: Lazy::find(),
        // Nobody turns an MMU on.
        has_flush: false,
        icache: (host.native != Maintenance::None || host.dic).then_some(IcacheInvalidation),
    };
    // A module that comes has its statics new. What the last one left is of no account: while its
    // hooks went out, re-inits of its last moments, under `native`, began resets that nobody ends.
    vm::clear();
    vm::GATES.close();
    PENDING_BEFORE.store(vm::pending(), SeqCst);
    let hooks = Policy::from_number(policy).and_then(|policy| hooks::Hooks::new(path, policy).ok());
    let loaded = hooks.is_some();
    *lock(&MODULE) = hooks;
    loaded
}

fn remove() {
    let hooks = lock(&MODULE).take();
    drop(hooks);
}

/// A VM on the machine that there is, its vCPUs initialised for the first time.
pub fn make(vcpus: usize) -> Arc<Vm> {
    let vm = Arc::new(Vm {
        number: NUMBER.fetch_add(1, SeqCst),
        vcpus: (0..vcpus).map(|_| VcpuState::default()).collect(),
        written: AtomicUsize::new(1),
        fetched: AtomicUsize::new(0),
        mapped: AtomicBool::new(false),
    });
    let mut vms = lock(&VMS);
    vms.retain(|vm| vm.strong_count() > 0);
    vms.push(Arc::downgrade(&vm));
    drop(vms);
    (0..vcpus).for_each(|vcpu| vm.init(vcpu));
    vm
}

/// What a thread of a race does.
pub type Job = Box<dyn Fn() + Send + Sync>;

/// The machine, while this lives.
pub struct Machine {
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// A host with these CPUs, and a kernel whose own way is `native`: `icache`, `unmap` or `none`.
    pub fn boot(fwb: bool, dic: bool, native: &str) -> Self {
        let machine = Self { _one: lock(&ONE) };
        remove();
        kprobe::enable(true);
        let native = match native {
            "icache" => Maintenance::Icache,
            "unmap" => Maintenance::Unmap,
            _ => Maintenance::None,
        };
        *lock(&HOST) = Some(Host {
            fwb,
            dic,
            native,
            lazy: !fwb,
        });
        machine
    }

    /// `stats` of all VMs.
    pub fn stats(&self) -> String {
        let pending = vm::pending() - PENDING_BEFORE.load(SeqCst);
        stats(vm::TOTALS.counters.iter(), pending)
    }

    /// The name of the policy in force.
    pub fn policy(&self) -> &'static str {
        in_force::policy().name()
    }

    /// How many VMs KVM_RUN takes to be in reset.
    pub fn gate(&self) -> i32 {
        vm::GATES.sum()
    }

    /// How many VMs the module has a record of.
    pub fn records(&self) -> usize {
        vm_table::ENTRIES.load(SeqCst)
    }

    /// Does all jobs at once, interleaved as `seed` says.
    pub fn race(&self, seed: u64, jobs: Vec<Job>) {
        let jobs: Arc<[Job]> = jobs.into();
        let scheduler = RandomScheduler::new_from_seed(seed, 1);
        let runner = shuttle::Runner::new(scheduler, shuttle::Config::new());
        SEED.store(seed, SeqCst);
        STEP.store(0, SeqCst);
        RACING.store(true, SeqCst);
        runner.run(move || {
            let threads: Vec<_> = (0..jobs.len())
                .map(|number| {
                    let jobs = jobs.clone();
                    shuttle::thread::spawn(move || jobs[number]())
                })
                .collect();
            for thread in threads {
                // A job that panics ends the run, and the test.
                let _ = thread.join();
            }
        });
        RACING.store(false, SeqCst);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        RACING.store(false, SeqCst);
        remove();
    }
}

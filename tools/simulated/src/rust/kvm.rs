// SPDX-License-Identifier: GPL-2.0

//! VMs and vCPUs: their state, and what the module sees of it.
//!
//! All memory of a VM is one place where code lies, by version. The worst instruction caches that the
//! architecture allows hold that of the last moment at which they had to look: the last invalidation,
//! or the fault that mapped the place at stage 2, where KVM cleans and invalidates.

use crate::race::{step, task};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static VMS: Mutex<Vec<Weak<Vm>>> = Mutex::new(Vec::new());
static NUMBER: AtomicUsize = AtomicUsize::new(0);
/// Tasks inside KVM_ARM_VCPU_INIT, by bit.
static IN_VCPU_INIT: AtomicUsize = AtomicUsize::new(0);

fn vms() -> MutexGuard<'static, Vec<Weak<Vm>>> {
    VMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All instruction caches look.
pub(crate) fn look_all() {
    let vms: Vec<_> = vms().iter().filter_map(Weak::upgrade).collect();
    vms.iter().for_each(|vm| vm.look());
}

pub(crate) fn current_in_vcpu_init() -> bool {
    IN_VCPU_INIT.load(SeqCst) & (1 << task()) != 0
}

/// Not for the module: the current task makes that ioctl.
pub(crate) fn in_vcpu_init(work: impl FnOnce()) {
    let bit = 1 << task();
    IN_VCPU_INIT.fetch_or(bit, SeqCst);
    work();
    IN_VCPU_INIT.fetch_and(!bit, SeqCst);
}

pub(crate) type ProcessName = [u8; 16];

pub(crate) fn process_name() -> ProcessName {
    ProcessName::default()
}

/// A VM.
pub struct Vm {
    number: usize,
    pub(crate) vcpus: Vec<VcpuState>,
    /// Versions of the code: as written, and as fetched.
    pub(crate) written: AtomicUsize,
    pub(crate) fetched: AtomicUsize,
    mapped: AtomicBool,
}

#[derive(Default)]
pub(crate) struct VcpuState {
    pub(crate) has_run: AtomicBool,
    pub(crate) wants_to_run: AtomicBool,
    pub(crate) spins: AtomicBool,
}

/// A vCPU of it.
pub(crate) struct Vcpu {
    pub(crate) vm: Arc<Vm>,
    pub(crate) index: usize,
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

impl Vm {
    /// A VM whose memory is not mapped, and whose vCPUs have not run.
    pub(crate) fn new(vcpus: usize) -> Arc<Self> {
        let vm = Arc::new(Self {
            number: NUMBER.fetch_add(1, SeqCst),
            vcpus: (0..vcpus).map(|_| VcpuState::default()).collect(),
            written: AtomicUsize::new(1),
            fetched: AtomicUsize::new(0),
            mapped: AtomicBool::new(false),
        });
        let mut vms = vms();
        vms.retain(|vm| vm.strong_count() > 0);
        vms.push(Arc::downgrade(&vm));
        vm
    }

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

    /// `kvm_pgtable_stage2_unmap`, with the lock over the tables held. Returns whether it was mapped.
    pub(crate) fn unmap_range(&self) -> bool {
        self.mapped.swap(false, SeqCst)
    }

    /// Maps the place, unless it is mapped.
    pub(crate) fn fault(&self) {
        if !self.mapped.swap(true, SeqCst) {
            self.look();
        }
    }
}

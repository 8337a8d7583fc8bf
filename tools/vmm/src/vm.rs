// SPDX-License-Identifier: GPL-2.0
//! A VM without devices: vCPUs, some RAM, and a hole whose stores come back to us.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{KVM_ARM_VCPU_PSCI_0_2, kvm_userspace_memory_region, kvm_vcpu_init};
use kvm_ioctls::{Kvm, VmFd};
use rustix::io::Errno;
use rustix::thread::gettid;

use crate::extra::{Extra, Pages};
use crate::guest::{self, Routine};
use crate::memory::Memory;
use crate::observer::Observer;
use crate::slot::Slot;
use crate::threads::join;
use crate::vcpu::{Vcpu, errno};

/// The slot of further RAM, behind those of other memory.
const EXTRA_SLOT: u32 = 32;

/// Without a vCPU; see [`kvm`].
static LASTING: Mutex<Option<VmFd>> = Mutex::new(None);

/// `/dev/kvm`. From here to the end of the process there is one VM at least, of which nobody hears.
///
/// For a host's first VM KVM patches its hooks into the scheduler (`preempt_notifier_inc`), and out of it after the
/// last. QEMU drops its translation of what a store changes before it stores: another CPU that translates
/// just then keeps the old instruction for good. The scheduler's are the ones that another CPU is about to need,
/// and a vCPU that is loaded and never put is the end of a boot (WARNING in `kvm_vcpu_load_debug`).
pub fn kvm() -> Result<Kvm> {
    let kvm = Kvm::new().context("/dev/kvm: this must run on an arm64 host with KVM")?;
    let mut lasting = LASTING.lock().unwrap();
    if lasting.is_none() {
        *lasting = Some(
            kvm.create_vm_with_ipa_size(guest::ADDRESS_BITS)
                .context("KVM_CREATE_VM")?,
        );
    }
    Ok(kvm)
}

/// A VM, each of whose vCPUs reports what code it runs unless it is told otherwise.
pub struct Vm {
    // Dropped in this order: RAM must outlive those who use it.
    /// The vCPUs that do not spin in a thread of their own.
    pub vcpus: Vec<Vcpu>,
    /// None once it is closed.
    fd: Option<VmFd>,
    code: Code,
    /// Memory beside RAM, and where the VMM maps it.
    slots: Vec<Slot>,
    /// Further RAM, of any size.
    extra: Option<Arc<Extra>>,
    observer: Arc<dyn Observer>,
    name: Arc<str>,
}

/// The code that user space rewrites: a function that returns a value.
pub struct Code {
    memory: Arc<Memory>,
    value: u16,
}

impl Vm {
    /// A VM whose vCPUs have been initialised for the first time and would all report.
    pub fn new(kvm: &Kvm, observer: Arc<dyn Observer>, vcpus: usize) -> Result<Self> {
        Self::with_ram(kvm, observer, vcpus, guest::ram_size(vcpus))
    }

    /// A VM with RAM of that size, of which the guest needs [`guest::ram_size`].
    pub fn with_ram(
        kvm: &Kvm,
        observer: Arc<dyn Observer>,
        vcpus: usize,
        size: usize,
    ) -> Result<Self> {
        Self::with_addresses(kvm, observer, vcpus, size, guest::ADDRESS_BITS)
    }

    /// A VM with RAM of that size, and guest physical addresses of so many bits. KVM walks all of them to
    /// destroy it: they had better be few.
    pub fn with_addresses(
        kvm: &Kvm,
        observer: Arc<dyn Observer>,
        vcpus: usize,
        size: usize,
        bits: u32,
    ) -> Result<Self> {
        let least = guest::ram_size(vcpus);
        ensure!(
            size >= least,
            "a guest of {vcpus} vCPUs needs {least} bytes of RAM, not {size}"
        );
        let fd = kvm.create_vm_with_ipa_size(bits).context("KVM_CREATE_VM")?;
        let memory = Arc::new(Memory::new(size)?);
        let region = kvm_userspace_memory_region {
            guest_phys_addr: guest::RAM,
            memory_size: size as u64,
            userspace_addr: memory.host_address(guest::RAM)? as u64,
            ..Default::default()
        };
        // SAFETY: The memory lives as long as the VM, see the order of its fields.
        unsafe { fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;

        let mut target = kvm_vcpu_init::default();
        fd.get_preferred_target(&mut target)
            .context("KVM_ARM_PREFERRED_TARGET")?;
        target.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;

        // As KVM names it in debugfs: the thread that made the VM, and the descriptor.
        let thread = gettid().as_raw_nonzero().get();
        let native = format!("{thread}-{}", fd.as_raw_fd());
        let name: Arc<str> = observer.made(&native, thread, vcpus).into();
        let mut vm = Self {
            vcpus: Vec::new(),
            fd: Some(fd),
            code: Code { memory, value: 0 },
            slots: Vec::new(),
            extra: None,
            observer,
            name,
        };
        for index in 0..vcpus {
            let fd = vm.fd()?.create_vcpu(index as u64);
            vm.vcpus.push(Vcpu {
                fd: fd.context("KVM_CREATE_VCPU")?,
                index,
                target,
                memory: vm.code.memory.clone(),
                observer: vm.observer.clone(),
                vm: vm.name.clone(),
            });
        }
        let routines = guest::routines();
        vm.code.memory.write_cached(guest::RAM, &routines)?;
        vm.rewrite()?;
        vm.reset()?;
        Ok(vm)
    }

    /// What the observer knows it by. Where nobody has the name already, KVM does, too.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn fd(&self) -> Result<&VmFd> {
        self.fd.as_ref().context("the VM's descriptor is closed")
    }

    /// Closes the VM's descriptor. Its vCPUs keep the VM, and the number is free for another.
    pub fn close(&mut self) {
        self.fd = None;
    }

    /// Gives the guest more memory than its RAM: one page of the largest size, of guest_memfd if
    /// `guest_memfd`. Where it is to be `mapped` the VMM has it in its own address space, too; else
    /// there is a hole.
    pub fn add_memory(&mut self, guest_memfd: bool, mapped: bool) -> Result<()> {
        let slot = Slot::add(self.fd()?, 1 + self.slots.len(), guest_memfd, mapped)?;
        self.slots.push(slot);
        if guest_memfd || !mapped {
            self.observer.out_of_reach(&self.name);
        }
        Ok(())
    }

    /// Gives the guest further RAM, once, which the VMM maps in pages of that kind.
    pub fn add_ram(&mut self, size: usize, pages: Pages) -> Result<Arc<Extra>> {
        ensure!(self.extra.is_none(), "the VM has further RAM already");
        let extra = Arc::new(Extra::new(size, pages)?);
        let region = kvm_userspace_memory_region {
            slot: EXTRA_SLOT,
            guest_phys_addr: guest::EXTRA,
            memory_size: size as u64,
            userspace_addr: extra.host_address() as u64,
            ..Default::default()
        };
        // SAFETY: The VM keeps what is mapped there, and it goes after the VM.
        unsafe { self.fd()?.set_user_memory_region(region) }
            .context("KVM_SET_USER_MEMORY_REGION")?;
        self.extra = Some(extra.clone());
        Ok(extra)
    }

    /// A vCPU that is never initialised: KVM must refuse to run it.
    pub fn run_uninitialised(&self) -> Result<()> {
        let number = self.vcpus.len() as u64;
        let mut fd = self.fd()?.create_vcpu(number).context("KVM_CREATE_VCPU")?;
        match fd.run().map(|exit| format!("{exit:?}")) {
            Err(error) if errno(&error) == Errno::NOEXEC => Ok(()),
            other => bail!("a vCPU that was never initialised: want ENOEXEC, got {other:?}"),
        }
    }

    /// Gives the guest other code to run.
    pub fn rewrite(&mut self) -> Result<()> {
        self.code.rewrite()
    }

    /// What the guest's code returns now.
    pub fn value(&self) -> u16 {
        self.code.value()
    }

    /// Gives each vCPU another word to read, as a VMM loads an image: through the cache, with
    /// nothing cleaned.
    pub fn rewrite_data(&mut self) -> Result<()> {
        let Code { memory, value } = &self.code;
        let word = u32::from(*value).to_le_bytes();
        (0..self.vcpus.len()).try_for_each(|vcpu| memory.write_cached(guest::data(vcpu), &word))
    }

    /// Re-initialises all vCPUs in turn.
    pub fn reset(&mut self) -> Result<()> {
        self.vcpus
            .iter_mut()
            .try_for_each(|vcpu| vcpu.reset(Routine::Report))
    }

    /// Re-initialises all vCPUs at the same time.
    pub fn reset_parallel(&mut self) -> Result<()> {
        self.parallel_if(|_| true, |vcpu| vcpu.reset(Routine::Report))
    }

    /// Lets all vCPUs run at the same time and report: each must see the code as it is now.
    pub fn report(&mut self) -> Result<()> {
        let value = self.value();
        self.parallel_if(|_| true, |vcpu| vcpu.report(value))
    }

    /// Lets one vCPU run and report: it must see the code as it is now.
    pub fn report_one(&mut self, vcpu: usize) -> Result<()> {
        self.vcpus[vcpu].report(self.code.value)
    }

    /// Does `work` with those vCPUs that are `wanted`, by index: each in a thread of its own, all let go
    /// at once.
    pub fn parallel_if(
        &mut self,
        wanted: impl Fn(usize) -> bool,
        work: impl Fn(&mut Vcpu) -> Result<()> + Sync,
    ) -> Result<()> {
        let vcpus = self.vcpus.iter_mut();
        let vcpus: Vec<_> = vcpus.filter(|vcpu| wanted(vcpu.index)).collect();
        let start = Barrier::new(vcpus.len());
        let (start, work) = (&start, &work);
        thread::scope(|scope| {
            let spawn = |vcpu| {
                scope.spawn(move || {
                    start.wait();
                    work(vcpu)
                })
            };
            let threads: Vec<_> = vcpus.into_iter().map(spawn).collect();
            threads.into_iter().try_for_each(join)
        })
    }

    /// Does `work` with the other vCPUs and the code while vCPU 0 spins in KVM_RUN.
    pub fn while_running<T>(
        &mut self,
        work: impl FnOnce(&mut [Vcpu], &mut Code) -> Result<T>,
    ) -> Result<T> {
        let spinner = self.take(0)?.into_spinner()?;
        let result = work(&mut self.vcpus, &mut self.code);
        self.vcpus.insert(0, spinner.leave()?);
        result
    }

    /// Lets a vCPU spin, and a signal end its KVM_RUN.
    pub fn interrupt(&mut self, vcpu: usize) -> Result<()> {
        self.apart(vcpu, |vcpu| vcpu.into_spinner()?.stop())
    }

    /// KVM_RUN of a vCPU with a signal pending, which ends it before the guest is entered.
    pub fn run_with_signal_pending(&mut self, vcpu: usize) -> Result<()> {
        self.apart(vcpu, Vcpu::run_with_signal_pending)
    }

    /// KVM_RUN of a vCPU that is powered off: it waits, and a signal ends that.
    pub fn run_stopped(&mut self, vcpu: usize) -> Result<()> {
        self.apart(vcpu, Vcpu::run_stopped)
    }

    /// A vCPU does `work` in a thread of its own, and comes back unless that fails.
    fn apart(&mut self, vcpu: usize, work: impl FnOnce(Vcpu) -> Result<Vcpu>) -> Result<()> {
        let apart = self.take(vcpu)?;
        self.vcpus.insert(vcpu, work(apart)?);
        Ok(())
    }

    fn take(&mut self, vcpu: usize) -> Result<Vcpu> {
        ensure!(vcpu < self.vcpus.len(), "there is no vCPU {vcpu}");
        Ok(self.vcpus.remove(vcpu))
    }
}

impl Code {
    /// The function returns another value from now on. To make that coherent is what is under test, so
    /// nothing is cleaned.
    pub fn rewrite(&mut self) -> Result<()> {
        self.value = self.value.wrapping_add(1);
        let function = guest::function(self.value);
        self.memory.write_cached(guest::FUNCTION, &function)
    }

    /// What the function returns now.
    pub fn value(&self) -> u16 {
        self.value
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.observer.goes(&self.name);
    }
}

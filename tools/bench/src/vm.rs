// SPDX-License-Identifier: GPL-2.0
//! A VM whose vCPUs do nothing but store to MMIO, all called from one thread.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use kvm_bindings::{
    KVM_ARM_VCPU_PSCI_0_2, KVM_REG_ARM_CORE, KVM_REG_ARM_FW, KVM_REG_ARM64, KVM_REG_SIZE_U64,
    kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use selftest::guest::{self, Routine};
use selftest::vm::{Extra, Pages, page};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::clock::time;

/// The first register of KVM's core registers, which are numbered in 32-bit words.
const X0: u64 = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64;
/// The program counter follows x0 to x30 and sp.
const PC: u64 = X0 | (32 * 2);
/// The version of PSCI, a register that KVM copies to user space from its own stack. From the vCPU's
/// structure, the kernel's check of such copies would take some instructions more or less by where
/// in its slab that lies.
const PSCI_VERSION: u64 = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW as u64;

pub struct Vm {
    // Dropped in this order: RAM must outlive those who use it.
    vcpus: Vec<VcpuFd>,
    fd: VmFd,
    _memory: GuestMemoryMmap,
    extra: Option<Extra>,
    target: kvm_vcpu_init,
}

impl Vm {
    /// A VM whose vCPUs have all run.
    pub fn new(kvm: &Kvm, vcpus: usize) -> Result<Self> {
        // KVM walks all of the guest's physical address space to destroy it: keep that small.
        let fd = kvm.create_vm_with_ipa_size(32).context("KVM_CREATE_VM")?;
        let ram = GuestAddress(guest::RAM);
        let memory = GuestMemoryMmap::from_ranges(&[(ram, guest::ram_size(vcpus))])?;
        memory.write_slice(&guest::routines(), ram)?;
        memory.write_slice(&guest::function(1), GuestAddress(guest::FUNCTION))?;
        let region = kvm_userspace_memory_region {
            guest_phys_addr: guest::RAM,
            memory_size: guest::ram_size(vcpus) as u64,
            userspace_addr: memory.get_host_address(ram)? as u64,
            ..Default::default()
        };
        // SAFETY: The memory lives as long as the VM, see the order of its fields.
        unsafe { fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
        let mut target = kvm_vcpu_init::default();
        fd.get_preferred_target(&mut target)
            .context("KVM_ARM_PREFERRED_TARGET")?;
        target.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;

        let mut vm = Self {
            vcpus: (0..vcpus as u64)
                .map(|index| fd.create_vcpu(index).context("KVM_CREATE_VCPU"))
                .collect::<Result<_>>()?,
            fd,
            _memory: memory,
            extra: None,
            target,
        };
        vm.reset()?;
        Ok(vm)
    }

    /// Gives the guest further RAM, all of it there already.
    pub fn add_ram(&mut self, size: usize, pages: Pages) -> Result<()> {
        let extra = Extra::new(size, pages)?;
        (0..size)
            .step_by(page())
            .try_for_each(|offset| extra.write(offset, 1))?;
        let region = kvm_userspace_memory_region {
            slot: 1,
            guest_phys_addr: guest::EXTRA,
            memory_size: size as u64,
            userspace_addr: extra.host_address() as u64,
            ..Default::default()
        };
        // SAFETY: The memory lives as long as the VM, see the order of its fields.
        unsafe { self.fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
        self.extra = Some(extra);
        Ok(())
    }

    /// A KVM_RUN of the first vCPU, in which its guest touches some pages of further RAM.
    pub fn touch(&mut self, pages: Range<usize>, size: usize) -> Result<u64> {
        let first = guest::EXTRA + (pages.start * size) as u64;
        let arguments = [first, size as u64, pages.len() as u64];
        for (number, argument) in arguments.into_iter().enumerate() {
            self.vcpus[0]
                .set_one_reg(X0 + 2 * number as u64, &argument.to_le_bytes())
                .context("KVM_SET_ONE_REG")?;
        }
        self.vcpus[0]
            .set_one_reg(PC, &Routine::Sweep.address().to_le_bytes())
            .context("KVM_SET_ONE_REG")?;
        time(|| run(&mut self.vcpus[0]))
    }

    /// KVM_ARM_VCPU_INIT of all vCPUs, then the first KVM_RUN of each. What lies between, the
    /// program counter, is the same everywhere and is not in the sum.
    pub fn reset(&mut self) -> Result<u64> {
        Ok(self.init()? + self.run()?)
    }

    /// KVM_ARM_VCPU_INIT of all vCPUs, to start anew.
    pub fn init(&mut self) -> Result<u64> {
        let taken = time(|| {
            self.vcpus
                .iter()
                .try_for_each(|vcpu| vcpu.vcpu_init(&self.target))
                .context("KVM_ARM_VCPU_INIT")
        })?;
        let start = Routine::Report.address().to_le_bytes();
        for vcpu in &self.vcpus {
            vcpu.set_one_reg(PC, &start).context("KVM_SET_ONE_REG")?;
        }
        Ok(taken)
    }

    /// KVM_RUN of all vCPUs, each until its guest stores to MMIO.
    pub fn run(&mut self) -> Result<u64> {
        time(|| self.vcpus.iter_mut().try_for_each(run))
    }

    /// KVM_GET_ONE_REG of the first vCPU.
    pub fn get_register(&self) -> Result<u64> {
        let mut value = [0; 8];
        time(|| {
            self.vcpus[0]
                .get_one_reg(PSCI_VERSION, &mut value)
                .context("KVM_GET_ONE_REG")
        })
    }
}

fn run(vcpu: &mut VcpuFd) -> Result<()> {
    match vcpu.run().context("KVM_RUN")? {
        VcpuExit::MmioWrite(guest::MMIO, _) => Ok(()),
        exit => bail!("KVM_RUN: unexpected exit {exit:?}"),
    }
}

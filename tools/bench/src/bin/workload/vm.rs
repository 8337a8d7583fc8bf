// SPDX-License-Identifier: GPL-2.0
//! A VM whose vCPUs do nothing but store to MMIO, all called from one thread, and what its calls take.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kvm_bindings::{KVM_REG_ARM_FW, KVM_REG_ARM64, KVM_REG_SIZE_U64, kvm_vcpu_init};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::param::page_size;
use vmm::guest::{self, Routine};
use vmm::{Pages, Vcpu};

use crate::clock::time;

/// The version of PSCI, a register that KVM copies to user space from its own stack. From the vCPU's
/// structure, the kernel's check of such copies would take some instructions more or less by where
/// in its slab that lies.
const PSCI_VERSION: u64 = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_FW as u64;

/// What is timed are KVM's own calls, with nothing of the VMM's around them.
pub struct Vm {
    vm: vmm::Vm,
    target: kvm_vcpu_init,
}

impl Vm {
    /// A VM whose vCPUs have all run, and that has addresses for so much further RAM.
    pub fn new(kvm: &Kvm, vcpus: usize, further: usize) -> Result<Self> {
        let size = guest::ram_size(vcpus);
        let bits = guest::address_bits(further);
        let vm = vmm::Vm::with_addresses(kvm, Arc::new(()), vcpus, size, bits)?;
        let target = vm.vcpus[0].target();
        let mut vm = Self { vm, target };
        vm.reset()?;
        Ok(vm)
    }

    /// Gives the guest further RAM, all of it there already.
    pub fn add_ram(&mut self, size: usize, pages: Pages) -> Result<()> {
        let extra = self.vm.add_ram(size, pages)?;
        (0..size)
            .step_by(page_size())
            .try_for_each(|offset| extra.write(offset, 1))
    }

    /// A KVM_RUN of the first vCPU, in which its guest touches some pages of further RAM.
    pub fn touch(&mut self, pages: Range<usize>, size: usize) -> Result<u64> {
        let first = guest::EXTRA + (pages.start * size) as u64;
        let vcpu = &mut self.vm.vcpus[0];
        vcpu.start(Routine::Sweep, &[first, size as u64, pages.len() as u64])?;
        time(|| run(vcpu))
    }

    /// KVM_ARM_VCPU_INIT of all vCPUs, then the first KVM_RUN of each. What lies between, the
    /// program counter, is the same everywhere and is not in the sum.
    pub fn reset(&mut self) -> Result<u64> {
        Ok(self.init()? + self.run()?)
    }

    /// KVM_ARM_VCPU_INIT of all vCPUs, to start anew.
    pub fn init(&mut self) -> Result<u64> {
        let taken = time(|| {
            self.vm
                .vcpus
                .iter()
                .try_for_each(|vcpu| vcpu.fd.vcpu_init(&self.target))
                .context("KVM_ARM_VCPU_INIT")
        })?;
        for vcpu in &mut self.vm.vcpus {
            vcpu.start(Routine::Report, &[])?;
        }
        Ok(taken)
    }

    /// KVM_RUN of all vCPUs, each until its guest stores to MMIO.
    pub fn run(&mut self) -> Result<u64> {
        time(|| self.vm.vcpus.iter_mut().try_for_each(run))
    }

    /// KVM_GET_ONE_REG of the first vCPU.
    pub fn get_register(&self) -> Result<u64> {
        let mut value = [0; 8];
        time(|| {
            self.vm.vcpus[0]
                .fd
                .get_one_reg(PSCI_VERSION, &mut value)
                .context("KVM_GET_ONE_REG")
        })
    }
}

fn run(vcpu: &mut Vcpu) -> Result<()> {
    match vcpu.fd.run().context("KVM_RUN")? {
        VcpuExit::MmioWrite(guest::MMIO, _) => Ok(()),
        exit => bail!("KVM_RUN: unexpected exit {exit:?}"),
    }
}

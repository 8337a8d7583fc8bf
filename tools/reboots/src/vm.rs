// SPDX-License-Identifier: GPL-2.0
//! A VM whose guest tells which code it runs, and ends its boot so.

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64, kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use selftest::guest::{self, Routine};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The program counter as a register of KVM's: it follows x0 to x30 and sp, in 32-bit words.
const PC: u64 = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (32 * 2);

pub struct Vm {
    // Dropped in this order: RAM must outlive those who use it.
    vcpus: Vec<VcpuFd>,
    _fd: VmFd,
    memory: GuestMemoryMmap,
    target: kvm_vcpu_init,
    boots: u16,
}

impl Vm {
    /// A VM that has booted once, with `memory` in MiB.
    pub fn new(vcpus: u16, memory: u32) -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm: this must run on an arm64 host with KVM")?;
        // KVM walks all of the guest's physical address space to destroy it: keep that small.
        let fd = kvm.create_vm_with_ipa_size(32).context("KVM_CREATE_VM")?;
        let ram = GuestAddress(guest::RAM);
        let size = u64::from(memory) << 20;
        let memory = GuestMemoryMmap::from_ranges(&[(ram, size as usize)])?;
        memory.write_slice(&guest::routines(), ram)?;
        let region = kvm_userspace_memory_region {
            guest_phys_addr: guest::RAM,
            memory_size: size,
            userspace_addr: memory.get_host_address(ram)? as u64,
            ..Default::default()
        };
        // SAFETY: The memory lives as long as the VM, see the order of its fields.
        unsafe { fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
        let mut target = kvm_vcpu_init::default();
        fd.get_preferred_target(&mut target)
            .context("KVM_ARM_PREFERRED_TARGET")?;

        let mut vm = Self {
            vcpus: (0..vcpus.into())
                .map(|index| fd.create_vcpu(index).context("KVM_CREATE_VCPU"))
                .collect::<Result<_>>()?,
            _fd: fd,
            memory,
            target,
            boots: 0,
        };
        vm.reboot()?;
        Ok(vm)
    }

    /// KVM_ARM_VCPU_INIT of all vCPUs, other code in memory, then KVM_RUN of each until its guest
    /// has told what it ran.
    pub fn reboot(&mut self) -> Result<()> {
        for vcpu in &self.vcpus {
            vcpu.vcpu_init(&self.target).context("KVM_ARM_VCPU_INIT")?;
        }
        self.boots = self.boots.wrapping_add(1);
        let function = guest::function(self.boots);
        self.memory
            .write_slice(&function, GuestAddress(guest::FUNCTION))?;
        let start = Routine::Report.address().to_le_bytes();
        for vcpu in &mut self.vcpus {
            vcpu.set_one_reg(PC, &start).context("KVM_SET_ONE_REG")?;
            match vcpu.run().context("KVM_RUN")? {
                VcpuExit::MmioWrite(guest::MMIO, told) => ensure!(
                    told == u32::from(self.boots).to_le_bytes(),
                    "boot {} ran the code {told:?} of another",
                    self.boots
                ),
                exit => bail!("KVM_RUN: unexpected exit {exit:?}"),
            }
        }
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0
//! A vCPU: its re-inits, and its KVM_RUNs.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, KVM_SYSTEM_EVENT_RESET, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::io::Errno;

use crate::guest::{self, Routine};
use crate::memory::Memory;
use crate::observer::Observer;

/// How a KVM_RUN ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest stored this.
    Value(u32),
    /// The guest asked for a reset.
    Reset,
    /// KVM_RUN failed.
    Error(Errno),
}

/// A vCPU of a [`Vm`](crate::Vm).
pub struct Vcpu {
    /// KVM's own. Who calls it directly is not observed.
    pub fd: VcpuFd,
    pub(crate) index: usize,
    pub(crate) target: kvm_vcpu_init,
    pub(crate) memory: Arc<Memory>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) vm: Arc<str>,
}

impl Vcpu {
    /// Its number in the VM.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it is initialised as: a type of CPU, and its features.
    pub fn target(&self) -> kvm_vcpu_init {
        self.target
    }

    /// KVM_ARM_VCPU_INIT, and the routine to begin with.
    pub fn reset(&mut self, routine: Routine) -> Result<()> {
        self.init(&self.target())
            .with_context(|| format!("KVM_ARM_VCPU_INIT of vCPU {}", self.index))?;
        self.start(routine, &[])
    }

    /// KVM_ARM_VCPU_INIT as powered off, to wait for a CPU_ON.
    pub fn reset_off(&mut self) -> Result<()> {
        let mut target = self.target;
        target.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        Ok(self.init(&target)?)
    }

    fn init(&mut self, target: &kvm_vcpu_init) -> Result<(), kvm_ioctls::Error> {
        self.fd.vcpu_init(target)?;
        self.observer.initialised(&self.vm, self.index);
        Ok(())
    }

    /// Re-inits that KVM must refuse: a CPU it does not know, and a change of features.
    pub fn init_wrongly(&mut self) -> Result<()> {
        let mut unknown = self.target;
        unknown.target = u32::MAX;
        let mut changed = self.target;
        changed.features[0] &= !(1 << KVM_ARM_VCPU_PSCI_0_2);
        for target in [unknown, changed] {
            match self.init(&target) {
                Err(error) if errno(&error) == Errno::INVAL => {}
                other => bail!("a wrong KVM_ARM_VCPU_INIT: want EINVAL, got {other:?}"),
            }
        }
        Ok(())
    }

    /// Sets the program counter to the routine, and x0 and up to the arguments.
    pub fn start(&mut self, routine: Routine, arguments: &[u64]) -> Result<()> {
        for (number, argument) in arguments.iter().enumerate() {
            self.set_register(number, *argument)?;
        }
        self.set_register(PC, routine.address())
    }

    fn set_register(&mut self, number: usize, value: u64) -> Result<()> {
        self.fd
            .set_one_reg(register(number), &value.to_le_bytes())
            .context("KVM_SET_ONE_REG")?;
        Ok(())
    }

    /// Where the vCPU would go on.
    pub fn program_counter(&self) -> Result<u64> {
        let mut value = [0; 8];
        self.fd
            .get_one_reg(register(PC), &mut value)
            .context("KVM_GET_ONE_REG")?;
        Ok(u64::from_le_bytes(value))
    }

    /// KVM_RUN.
    pub fn run(&mut self) -> Result<Exit> {
        self.observer.enters(&self.vm, self.index);
        let exit = match self.fd.run() {
            Ok(VcpuExit::MmioWrite(guest::MMIO, data)) => data
                .try_into()
                .map(|word| Exit::Value(u32::from_le_bytes(word)))
                .context("a store that is not a word"),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Ok(Exit::Reset),
            Ok(exit) => Err(anyhow!("vCPU {}: unexpected exit {exit:?}", self.index)),
            Err(error) => Ok(Exit::Error(errno(&error))),
        };
        self.observer.left(&self.vm, self.index);
        exit
    }

    /// KVM_RUN with immediate_exit.
    pub fn run_immediate(&mut self) -> Result<()> {
        self.observer.runs_immediately(&self.vm, self.index);
        self.fd.set_kvm_immediate_exit(1);
        let exit = self.fd.run().map(|exit| format!("{exit:?}"));
        self.fd.set_kvm_immediate_exit(0);
        match exit {
            Err(error) if errno(&error) == Errno::INTR => Ok(()),
            other => bail!("immediate_exit: want EINTR, got {other:?}"),
        }
    }

    /// Runs until the guest stores a value, which must be this one.
    pub fn report(&mut self, value: u16) -> Result<()> {
        let exit = self.run()?;
        ensure!(
            exit == Exit::Value(value.into()),
            "vCPU {}: want {value}, got {exit:?}: the guest ran other code than was written",
            self.index
        );
        Ok(())
    }

    /// Runs until the guest stores something.
    pub fn value(&mut self) -> Result<u32> {
        match self.run()? {
            Exit::Value(value) => Ok(value),
            exit => bail!("vCPU {}: want a value, got {exit:?}", self.index),
        }
    }

    /// Reads so many words, one in each `step` bytes of further RAM, and writes them back. Their sum.
    pub fn sweep(&mut self, step: usize, count: usize) -> Result<u32> {
        self.start(Routine::Sweep, &[guest::EXTRA, step as u64, count as u64])?;
        self.value()
    }

    /// Runs no code but the fixed routines, and leaves at once.
    pub fn touch(&mut self) -> Result<()> {
        let page = guest::data(self.index);
        self.memory.write(page, &1u64.to_le_bytes())?;
        self.start(Routine::Spin, &[page])?;
        self.value().map(|_| ())
    }
}

/// KVM's refusal.
pub(crate) fn errno(error: &kvm_ioctls::Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

/// The program counter follows x0 to x30 and sp.
const PC: usize = 32;

/// The identifier of a core register: its offset in 32-bit words.
fn register(number: usize) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (number as u64 * 2)
}

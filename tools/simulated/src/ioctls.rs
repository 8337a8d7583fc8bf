// SPDX-License-Identifier: GPL-2.0

//! KVM's ioctls, as far as they pass the module.

use crate::{
    policy::Maintenance,
    race::step,
    rust::{
        cpu::{self, host},
        ftrace::{self, Argument, Table},
        kprobe,
        kvm::{self, DyingVm, Vcpu, VcpuState, Vm},
        lock, stage2,
    },
};
use std::sync::{atomic::Ordering::SeqCst, Arc};

/// What a vCPU ran that should have been other code.
#[derive(Debug, PartialEq, Eq)]
pub struct RunError {
    /// The vCPU.
    pub vcpu: usize,
    /// The version that is written.
    pub want: usize,
    /// The version that was fetched.
    pub got: usize,
}

impl Argument for Vcpu {
    fn replacement(redirects: &mut Table) -> &mut Option<fn(&Self)> {
        &mut redirects.reset
    }

    fn original(&self) {}
}

impl Argument for Vm {
    fn replacement(redirects: &mut Table) -> &mut Option<fn(&Self)> {
        &mut redirects.unmap
    }

    fn original(&self) {
        self.unmap();
    }
}

impl Argument for DyingVm {
    fn replacement(redirects: &mut Table) -> &mut Option<fn(&Self)> {
        &mut redirects.destroy
    }

    fn original(&self) {}
}

impl Vm {
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
        let vcpu = self.vcpu(index);
        kvm::in_vcpu_init(|| {
            ftrace::call(&vcpu);
            if vcpu.has_run() {
                match host().native {
                    Maintenance::None => {}
                    Maintenance::Icache => kprobe::reach(|| {
                        step();
                        cpu::invalidate();
                    }),
                    Maintenance::Unmap => ftrace::call::<Vm>(self),
                }
            }
        });
        step();
    }

    /// KVM_ARM_VCPU_INIT of a task that was killed, and so waits for no other.
    pub fn init_killed(self: &Arc<Self>, index: usize) {
        lock::while_killed(|| self.init(index));
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

    /// The last reference goes.
    pub fn destroy(self: Arc<Self>) {
        for vcpu in 0..self.vcpus.len() {
            self.stop(vcpu);
        }
        ftrace::call(&DyingVm(self));
    }

    /// `stage2_unmap_vm`.
    fn unmap(&self) {
        stage2::call(self);
        // A guest that spins is back at once.
        if self.vcpus.iter().any(|vcpu| vcpu.spins.load(SeqCst)) {
            self.fault();
        }
        step();
    }
}

/// A VM on the machine that there is, its vCPUs initialised for the first time.
pub fn make(vcpus: usize) -> Arc<Vm> {
    let vm = Vm::new(vcpus);
    (0..vcpus).for_each(|vcpu| vm.init(vcpu));
    vm
}

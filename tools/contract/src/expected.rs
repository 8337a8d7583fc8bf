// SPDX-License-Identifier: GPL-2.0
//! What is expected of the module by the contract: plain code, told of each event as it happens.

mod coverage;
mod race;
mod reading;
#[cfg(test)]
mod tests;
mod vm;

use std::collections::BTreeMap;

pub use coverage::covers_late_writes;
pub use race::Change;
use vm::{Untimed, Vcpu, Vm};

use crate::counters::ANY_ELIDED;
use crate::{Counters, Host, NativeReset, Policy};

/// The module's view of a host: its settings, and all VMs.
pub struct Expected {
    /// What the machine is.
    pub host: Host,
    /// The policy that is in force while the module is loaded.
    pub policy: Policy,
    /// Whether the module is loaded.
    pub loaded: bool,
    /// Whether kprobes fire. Without them the kernel's own invalidation is neither seen nor left out.
    pub armed: bool,
    /// Take the kernel's own way to invalidate where it must, whatever `native_reset` says. One
    /// that trusts a kernel wrongly calls code covered that is not: the oracle must then find it.
    pub trusting: bool,
    total: Counters,
    slack: Counters,
    untimed: Untimed,
    vms: BTreeMap<String, Vm>,
    /// VMs that the module had to find a name for since it was loaded.
    own_names: usize,
}

impl Expected {
    /// A machine without VMs and without the module, kprobes armed.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            policy: Policy::Once,
            loaded: false,
            armed: true,
            trusting: false,
            total: Counters::default(),
            slack: Counters::default(),
            untimed: Untimed::default(),
            vms: BTreeMap::new(),
            own_names: 0,
        }
    }

    /// Whether an invalidation of the kernel's own is out of the module's sight.
    pub fn is_blind(&self) -> bool {
        !self.armed && self.host.native_reset == NativeReset::Icache
    }

    /// The module is loaded, with this policy.
    pub fn load(&mut self, policy: Policy) {
        self.loaded = true;
        self.policy = policy;
        self.own_names = 0;
        self.clear();
    }

    /// The module is unloaded: it pays what is owed, and every record is gone.
    pub fn unload(&mut self) {
        self.loaded = false;
        self.clear();
        for vm in self.vms.values_mut() {
            *vm = Vm {
                vcpus: std::mem::take(&mut vm.vcpus),
                racing: vm.racing.take(),
                mapped: vm.mapped,
                stale: vm.stale && !vm.owed,
                nameless: vm.nameless,
                out_of_reach: vm.out_of_reach,
                ..Vm::default()
            };
        }
    }

    /// All counters are set to 0. What is owed is still owed.
    pub fn clear(&mut self) {
        (self.total, self.slack, self.untimed) = Default::default();
        for vm in self.vms.values_mut() {
            (vm.counters, vm.slack, vm.untimed) = Default::default();
        }
    }

    /// A VM is made, with so many vCPUs that were never initialised. KVM calls it `name`, unless it is
    /// [nameless](Self::nameless).
    pub fn create(&mut self, name: &str, vcpus: usize) {
        let vm = Vm {
            vcpus: vec![Vcpu::default(); vcpus],
            ..Vm::default()
        };
        self.vms.insert(name.to_owned(), vm);
    }

    /// KVM gave this VM no name, beside another one that has it. `pid` is the thread that made it.
    pub fn nameless(&mut self, name: &str, pid: i32) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.nameless = Some(pid);
        }
    }

    /// The VM has memory that `stage2_unmap_vm` may not reach.
    pub fn out_of_reach(&mut self, name: &str) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.out_of_reach = true;
        }
    }

    /// A VM is gone.
    pub fn destroy(&mut self, name: &str) {
        self.vms.remove(name);
    }

    /// A KVM_ARM_VCPU_INIT that passed validation.
    pub fn init(&mut self, name: &str, vcpu: usize) {
        let (host, blind) = (self.host, self.is_blind());
        let (policy, trusted) = (self.way(), self.trusts(self.way()));
        let loaded = self.loaded;
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) else {
            return;
        };
        let mut add = Counters {
            vcpu_init: 1,
            ..Counters::default()
        };
        if vm.vcpus[vcpu].has_run {
            if let (true, None, Some(pid)) = (loaded, &vm.own_name, vm.nameless) {
                self.own_names += 1;
                vm.own_name = Some(format!("{pid}-vm{}", self.own_names));
            }
            let busy = vm.is_busy(vcpu);
            let done = vm.reset(busy, host, policy, blind);
            if vm.may_elide(&done, busy, host, policy) {
                vm.slack += ANY_ELIDED;
                self.slack += ANY_ELIDED;
            }
            vm.cover(&done, busy, trusted);
            add += done;
            vm.untimed.add((blind && loaded).into());
            self.untimed.add((blind && loaded).into());
        }
        if loaded {
            vm.counters += add;
            self.total += add;
        } else {
            (vm.listed, vm.in_reset) = (false, false);
        }
    }

    /// The policy in force: without the module the kernel goes the way that `native` counts.
    fn way(&self) -> Policy {
        if self.loaded {
            self.policy
        } else {
            Policy::Native
        }
    }

    /// A KVM_RUN that may enter the guest begins.
    pub fn enter(&mut self, name: &str, vcpu: usize) {
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) else {
            return;
        };
        vm.vcpus[vcpu] = Vcpu {
            has_run: true,
            running: true,
        };
        let add = Counters {
            icache_invalidate: vm.owed.into(),
            ..Counters::default()
        };
        vm.stale &= !vm.owed;
        vm.mapped = true;
        (vm.in_reset, vm.unmapped, vm.owed) = (false, false, false);
        vm.counters += add;
        self.total += add;
    }

    /// A KVM_RUN has ended.
    pub fn leave(&mut self, name: &str, vcpu: usize) {
        if let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) {
            vm.vcpus[vcpu].running = false;
        }
    }

    /// A KVM_RUN with immediate_exit: the vCPU counts as one that has run, and that is all.
    pub fn immediate(&mut self, name: &str, vcpu: usize) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.vcpus[vcpu].has_run = true;
        }
    }
}

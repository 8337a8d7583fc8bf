// SPDX-License-Identifier: GPL-2.0
//! Who is told what a VM does.

/// Is told of all that the module may count, by the VM's name and the vCPU's number, from whatever thread
/// it happens in. A KVM_RUN is told twice: before, and after.
pub trait Observer: Send + Sync {
    /// A VM is made by the thread `pid`, with so many vCPUs; KVM would call it `name`. Returns what it is
    /// called from now on, which may differ where a VM of that name is there already.
    fn made(&self, name: &str, pid: i32, vcpus: usize) -> String {
        let _ = (pid, vcpus);
        name.to_owned()
    }

    /// A VM has memory that an unmap may not reach.
    fn out_of_reach(&self, _vm: &str) {}

    /// A VM goes.
    fn goes(&self, _vm: &str) {}

    /// KVM_ARM_VCPU_INIT was done.
    fn initialised(&self, _vm: &str, _vcpu: usize) {}

    /// A KVM_RUN that may enter the guest begins.
    fn enters(&self, _vm: &str, _vcpu: usize) {}

    /// A KVM_RUN has ended.
    fn left(&self, _vm: &str, _vcpu: usize) {}

    /// A KVM_RUN with immediate_exit begins.
    fn runs_immediately(&self, _vm: &str, _vcpu: usize) {}
}

/// Nobody.
impl Observer for () {}

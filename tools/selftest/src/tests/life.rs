// SPDX-License-Identifier: GPL-2.0
//! VMs that come and go, in every state, and in numbers.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use contract::{Counters, Policy};

use super::victim::{self, Victim};
use vmm::lab::Lab;
use vmm::module;
use vmm::threads::join;

/// Nobody will pay for a VM that is gone, and the next one at its address starts anew.
pub fn destroyed_in_reset(lab: &Lab) -> Result<()> {
    for round in 0..10 * lab.reps {
        let mut vm = lab.vm(2)?;
        vm.report()?;
        vm.rewrite()?;
        vm.reset()?;
        lab.check(&format!("round {round}: in reset"))?;
        drop(vm);
        lab.check(&format!("round {round}: destroyed"))?;
    }
    Ok(())
}

/// A VMM that makes a new VM whenever its guest reboots: no VM is reset, and so none has
/// an entry.
pub fn made_anew(lab: &Lab) -> Result<()> {
    for reboot in 0..10 * lab.reps {
        let mut vm = lab.vm(4)?;
        vm.report()?;
        lab.check(&format!("reboot {reboot}: running"))?;
        let vms = module::vms()?;
        ensure!(vms.is_empty(), "reboot {reboot}: {vms:?} have an entry");
        drop(vm);
    }
    let stats: Counters = module::parse("stats")?;
    ensure!(
        stats.vcpu_init == 40 * lab.reps as u64 && stats.vcpu_reset == 0 && stats.vm_reset == 0,
        "{stats:?}"
    );
    Ok(())
}

/// SIGKILL to the VMM.
pub fn killed(lab: &Lab) -> Result<()> {
    for (state, owed) in victim::STATES {
        let mut vmm = Victim::start(state)?;
        let pending = module::parse::<Counters>("stats")?.pending;
        vmm.kill()?;
        vmm.wait()?;

        let owes = lab.host().needs_icache() && lab.policy().is_per_vm();
        let most = u64::from(owes && owed != Some(false));
        let least = u64::from(owes && owed == Some(true));
        ensure!(
            (least..=most).contains(&pending),
            "{state}: {pending} VMs pending before the kill"
        );
        // Nothing was told of that VM: only what must be gone is left to compare.
        lab.clear()?;
        lab.check(&format!("{state}: killed"))?;
    }
    Ok(())
}

/// `rmmod` while VMs die. KVM takes much of a VM down, and frees it, before the module hears of it.
pub fn unload_while_dying(lab: &Lab) -> Result<()> {
    for delay in [0, 1, 2, 5, 10, 20, 40, 80] {
        lab.load(Policy::Once)?;
        let mut vmms = Vec::new();
        for _ in 0..10 {
            vmms.push(Victim::start("in_reset")?);
        }
        vmms.iter_mut().try_for_each(Victim::kill)?;
        thread::sleep(Duration::from_millis(delay));
        lab.unload()?;
        vmms.iter_mut().try_for_each(Victim::wait)?;
    }
    Ok(())
}

/// A VM whose descriptor is closed lives as long as its vCPUs, and its name with it: KVM gives none to
/// another VM with the same descriptor, which is shown and told apart all the same.
pub fn same_name(lab: &Lab) -> Result<()> {
    let mut first = lab.vm(2)?;
    first.report()?;
    first.close();
    let mut second = lab.vm(2)?;
    second.report()?;
    first.reset()?;
    second.reset()?;
    ensure!(
        lab.shown(&second).contains("-vm"),
        "the same descriptor was not to be had again"
    );
    lab.check("both in reset")?;
    let mut third = lab.vm(1)?;
    third.report()?;
    third.reset()?;
    lab.check("a third in reset")?;
    first.report()?;
    lab.check("the first runs")?;
    drop(first);
    lab.check("the first is gone")?;
    second.report()?;
    second.reset()?;
    lab.check("the second is reset again")
}

/// Several threads make, reset and destroy VMs, so that addresses are used again.
pub fn churn(lab: &Lab) -> Result<()> {
    let churn = |_| {
        for round in 0..10 * lab.reps {
            let mut vm = lab.vm(1 + round % 3)?;
            vm.report()?;
            vm.rewrite()?;
            vm.reset_parallel()?;
            if round % 2 == 0 {
                vm.report()?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || churn(number)))
            .collect();
        threads.into_iter().try_for_each(join)
    })
}

/// As many vCPUs as KVM allows with a GICv3.
pub fn many_vcpus(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(512)?;
    for vcpu in 0..512 {
        vm.report_one(vcpu)?;
    }
    vm.rewrite()?;
    vm.reset()?;
    lab.check("in reset")?;
    vm.rewrite()?;
    vm.report()?;
    lab.check("running")
}

/// All in reset at the same time. `--reps 4` makes it a thousand, where KVM does not stop earlier.
pub fn many_vms(lab: &Lab) -> Result<()> {
    let wanted = 250 * lab.reps;
    let most = super::mode::most_vms()?.unwrap_or(usize::MAX);
    let mut vms = Vec::new();
    for _ in 0..wanted.min(most) {
        let mut vm = lab.vm(1)?;
        vm.report_one(0)?;
        vm.rewrite()?;
        vm.reset()?;
        vms.push(vm);
    }
    lab.check("all in reset")?;
    if wanted > most {
        super::mode::refuses_another(lab)?;
        lab.check("one VM too many")?;
    }
    for vm in vms.iter_mut().step_by(2) {
        vm.report_one(0)?;
    }
    lab.check("every other one runs")?;
    vms.drain(..vms.len() / 2);
    lab.check("half of them destroyed")
}

// SPDX-License-Identifier: GPL-2.0
//! Re-inits next to something else: a vCPU that runs, other VMs, another policy.

use anyhow::Result;
use contract::Policy;
use vmm::guest::Routine;

use vmm::lab::Lab;

/// User-space CPU_ON re-initialises one vCPU while another runs.
pub fn busy(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(8)?;
    vm.report()?;
    for round in 0..lab.reps {
        vm.rewrite()?;
        vm.reset()?;
        lab.check(&format!("round {round}: in reset"))?;
        vm.while_running(|others, code| {
            code.rewrite()?;
            lab.check(&format!("round {round}: one runs"))?;
            for vcpu in others.iter_mut() {
                vcpu.reset(Routine::Report)?;
            }
            lab.check(&format!(
                "round {round}: the others re-initialised while it runs"
            ))?;
            others[0].run_immediate()?;
            others[0].reset(Routine::Report)?;
            lab.check(&format!("round {round}: one again"))
        })?;
        vm.vcpus[1].reset(Routine::Report)?;
        lab.check(&format!("round {round}: all stopped, one in reset"))?;
        vm.vcpus[0].start(Routine::Report, &[])?;
        vm.report()?;
        lab.check(&format!("round {round}: all run"))?;
    }
    Ok(())
}

/// One vCPU is re-initialised over and over, and runs in between, while another runs.
pub fn busy_storm(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.while_running(|others, code| {
        for _ in 0..100 * lab.reps {
            code.rewrite()?;
            others[0].reset(Routine::Report)?;
            others[0].report(code.value())?;
        }
        lab.check("in the storm")
    })
}

/// A VM that sits in reset for ever does not concern the others.
pub fn neighbours(lab: &Lab) -> Result<()> {
    let mut sitting = lab.vm(4)?;
    sitting.report()?;
    sitting.rewrite()?;
    sitting.reset()?;
    let mut others = [lab.vm(1)?, lab.vm(4)?, lab.vm(2)?];
    for round in 0..4 * lab.reps {
        for vm in &mut others {
            vm.report()?;
            vm.rewrite()?;
            vm.reset()?;
        }
        lab.check(&format!("round {round}: four in reset"))?;
        others[0].report()?;
        others[2].report()?;
        lab.check(&format!("round {round}: two run on"))?;
    }
    sitting.report()?;
    lab.check("the one that sat runs")
}

/// A policy written while no VM is in reset holds from the next reset on.
pub fn switch_between_resets(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    for from in Policy::ALL {
        for to in Policy::ALL {
            for policy in [from, to] {
                lab.switch(policy)?;
                vm.rewrite()?;
                vm.reset()?;
                lab.check(&format!("{} to {}: in reset", from.name(), to.name()))?;
                vm.report()?;
                lab.check(&format!("{} to {}: running", from.name(), to.name()))?;
            }
        }
    }
    Ok(())
}

/// A VM that is owed an invalidation gets it, whatever the policy becomes before it runs.
pub fn switch_in_reset(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    for to in Policy::ALL {
        lab.switch(Policy::Once)?;
        vm.rewrite()?;
        vm.reset()?;
        lab.check(&format!("to {}: in reset", to.name()))?;
        lab.switch(to)?;
        lab.check(&format!("to {}: switched", to.name()))?;
        vm.report()?;
        lab.check(&format!("to {}: running", to.name()))?;
    }
    Ok(())
}

/// `clear` zeroes what was counted. What is owed is still owed.
pub fn clear_in_reset(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check("in reset")?;
    lab.clear()?;
    lab.check("cleared")?;
    vm.reset()?;
    lab.check("cleared, the same reset goes on")?;
    vm.report()?;
    lab.check("running")
}

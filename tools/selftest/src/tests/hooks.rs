// SPDX-License-Identifier: GPL-2.0
//! kprobes can be switched off for the whole host behind the module's back.

use anyhow::Result;
use selftest::expect::Policy;

use crate::lab::Lab;
use crate::vm::Vm;

/// Off and on again while the module is there.
pub fn disarmed_after_load(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    for _ in 0..lab.reps {
        lab.arm_kprobes(false)?;
        one_reset(lab, &mut vm, "disarmed")?;
        lab.arm_kprobes(true)?;
        one_reset(lab, &mut vm, "armed again")?;
    }
    Ok(())
}

/// Off when the module comes: its probe registers, but does not fire.
pub fn disarmed_before_load(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    lab.arm_kprobes(false)?;
    lab.load(Policy::Once)?;
    one_reset(lab, &mut vm, "loaded disarmed")?;
    lab.arm_kprobes(true)?;
    one_reset(lab, &mut vm, "armed after the load")?;
    lab.arm_kprobes(false)?;
    lab.unload()?;
    lab.arm_kprobes(true)
}

fn one_reset(lab: &Lab, vm: &mut Vm, when: &str) -> Result<()> {
    lab.assert_host()?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check(&format!("{when}: in reset"))?;
    vm.report()?;
    lab.check(&format!("{when}: running"))
}

// SPDX-License-Identifier: GPL-2.0
//! VMs that come and go, in every state, and in numbers.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use selftest::expect::Policy;

use super::victim;
use crate::lab::Lab;
use crate::module;
use crate::vm::join;

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

/// SIGKILL to the VMM.
pub fn killed(lab: &Lab) -> Result<()> {
    for (state, owed) in victim::STATES {
        let mut child = Command::new(env::current_exe()?)
            .args(["--victim", state])
            .stdout(Stdio::piped())
            .spawn()
            .context("start a VMM to kill")?;
        let output = child.stdout.take().context("the VMM's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let pending = module::stats("stats")?.pending;
        child.kill()?;
        child.wait()?;
        ensure!(line == "ready\n", "{state}: the VMM did not get there");

        let owes = lab.host().needs_icache() && lab.policy() == Policy::Once;
        let most = u64::from(owes && owed != Some(false));
        let least = u64::from(owes && owed == Some(true));
        ensure!(
            (least..=most).contains(&pending),
            "{state}: {pending} VMs pending before the kill"
        );
        // The model saw nothing of that VM: only what must be gone is left to compare.
        lab.clear()?;
        lab.check(&format!("{state}: killed"))?;
    }
    Ok(())
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

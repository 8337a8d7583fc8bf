// SPDX-License-Identifier: GPL-2.0
//! A VMM that gets into some state, says so, and waits to be killed in it.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vmm::guest::Routine;

use super::scale;
use vmm::Vcpu;
use vmm::lab::Lab;

/// The states, and whether the VM is owed an invalidation in them; in a storm now it is, now not.
pub const STATES: [(&str, Option<bool>); 6] = [
    ("stopped", Some(false)),
    ("in_reset", Some(true)),
    ("immediate_exit", Some(true)),
    ("running", Some(false)),
    ("busy", Some(false)),
    ("storm", None),
];

/// One in its state, which does not outlive this.
pub struct Victim(Child);

impl Victim {
    /// Starts one, and waits until it is in the state.
    pub fn start(state: &str) -> Result<Self> {
        let child = Command::new(env::current_exe()?)
            .args(["--victim", state])
            .stdout(Stdio::piped())
            .spawn()
            .context("start a VMM to kill")?;
        let mut victim = Self(child);
        let output = victim.0.stdout.take().context("the VMM's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "{state}: the VMM did not get there");
        Ok(victim)
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill().context("kill the VMM")
    }

    /// Waits until it is gone.
    pub fn wait(&mut self) -> Result<()> {
        self.0.wait().context("wait for the VMM")?;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Nobody is left to be told what is wrong with it.
        let _ = self.kill();
        let _ = self.wait();
    }
}

/// The VMM: gets into that state.
pub fn main(state: &str) -> Result<()> {
    // No module is looked at here, so that the facts do not matter.
    let lab = Lab::new("fwb:0,dic:0", 1)?;
    if state == "unmapping" {
        return scale::unmap_for_long(&lab);
    }
    let mut vm = lab.vm(4)?;
    vm.report()?;
    match state {
        "stopped" => wait(),
        "in_reset" => {
            vm.reset()?;
            wait()
        }
        "immediate_exit" => {
            vm.reset()?;
            vm.vcpus[1].run_immediate()?;
            wait()
        }
        "running" => vm.while_running(|_, _| wait()),
        "busy" => vm.while_running(|others, _| {
            restart(others)?;
            wait()
        }),
        "storm" => vm.while_running(|others, _| {
            println!("ready");
            loop {
                restart(others)?;
            }
        }),
        _ => bail!("--victim: no state is named {state}"),
    }
}

fn restart(vcpus: &mut [Vcpu]) -> Result<()> {
    vcpus
        .iter_mut()
        .try_for_each(|vcpu| vcpu.reset(Routine::Report))
}

fn wait() -> Result<()> {
    println!("ready");
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

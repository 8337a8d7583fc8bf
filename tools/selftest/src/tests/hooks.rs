// SPDX-License-Identifier: GPL-2.0
//! What else goes on at the places that the module hooks: kprobes switched off for the whole host
//! behind its back, and other tracers.

use std::fs;

use anyhow::{Context, Result, ensure};
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

/// Where tracefs is.
pub const TRACING: &str = "/sys/kernel/tracing";
const HOOKED: [&str; 4] = [
    "kvm_arch_vcpu_ioctl_run",
    "kvm_reset_vcpu",
    "stage2_unmap_vm",
    "kvm_arch_destroy_vm",
];

/// Writes one of its files.
pub fn trace(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    fs::write(&path, text).with_context(|| format!("write {text:?} to {path}"))
}

/// Others trace the very functions that the module redirects: before it came, and while it is there.
pub fn traced(lab: &Lab) -> Result<()> {
    trace("set_ftrace_filter", &HOOKED.join(" "))?;
    for tracer in ["function", "function_graph"] {
        trace("current_tracer", tracer)?;
        loaded_and_reset(lab, tracer)?;
        trace("current_tracer", "nop")?;
    }

    let probes = HOOKED.map(|function| format!("p:{function} {function}\n"));
    trace("kprobe_events", &probes.concat())?;
    trace("events/kprobes/enable", "1")?;
    loaded_and_reset(lab, "kprobes")?;
    // Not the trace: where the module's own events were on, that is emptied when the module goes.
    let profile = fs::read_to_string(format!("{TRACING}/kprobe_profile"))?;
    let hits = profile.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == HOOKED[0]).then(|| words.next())?
    });
    ensure!(
        hits.is_some_and(|hits| hits != "0"),
        "the other probes see nothing: {profile}"
    );
    trace("events/kprobes/enable", "0")?;
    trace("kprobe_events", "\n")?;
    trace("set_ftrace_filter", "\n")
}

fn loaded_and_reset(lab: &Lab, tracer: &str) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    lab.load(Policy::Once)?;
    one_reset(lab, &mut vm, tracer)?;
    lab.unload()
}

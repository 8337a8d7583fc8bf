// SPDX-License-Identifier: GPL-2.0
//! The states that a host can be in, and what is measured in each.

use std::fs;

use anyhow::{Context, Result, ensure};
use contract::Policy;
use kvm_ioctls::Kvm;
use vmm::module;

use crate::clock::{self, Samples, time};
use crate::memory;
use crate::vm::Vm;

/// How often each is measured: odd, so that there is a middle one.
const CALLS: usize = 301;
const BURST: usize = 7;
const RESETS: usize = 9;
const LOADS: usize = 5;
/// vCPUs of the VMs that are reset.
pub const VCPUS: [usize; 3] = [1, 8, 64];

pub fn measure() -> Result<()> {
    clock::check()?;
    ensure!(
        !module::is_loaded(),
        "{} is loaded: rmmod it first",
        module::NAME
    );
    let kvm = vmm::kvm()?;

    calls(&kvm, "none")?;
    resets(&kvm, "none")?;
    let mut vms = memory::vms(&kvm)?;
    println!("bench: none per_vm {}", memory::per_vm_in_reset(&mut vms)?);
    for vm in &mut vms {
        vm.run()?;
    }

    load(Policy::Once)?;
    println!("bench: idle size {}", size()?);
    println!("bench: idle per_vm {}", memory::per_vm_in_reset(&mut vms)?);
    for vm in &mut vms {
        vm.run()?;
    }
    calls(&kvm, "crowd")?;
    reads(&kvm, "crowd")?;
    drop(vms);
    calls(&kvm, "idle")?;
    reads(&kvm, "idle")?;
    let mut other = Vm::new(&kvm, 1)?;
    other.init()?;
    calls(&kvm, "other")?;
    drop(other);
    for policy in Policy::ALL {
        module::write("policy", policy.name()).context("switch policy")?;
        resets(&kvm, policy.name())?;
    }
    for (name, value) in module::host()? {
        println!("bench: host {name} {value}");
    }
    unload()?;

    Samples::take(LOADS, 1, || {
        let taken = load(Policy::Once)?;
        unload()?;
        Ok(taken)
    })?
    .tell("idle", "load");
    Samples::take(LOADS, 1, || {
        load(Policy::Once)?;
        unload()
    })?
    .tell("idle", "unload");
    Ok(())
}

/// Single calls on a VM with one vCPU. The kernel copies in more or fewer instructions as the stack
/// happens to be aligned, so each state must find the same frame.
#[inline(never)]
fn calls(kvm: &Kvm, state: &str) -> Result<()> {
    let mut vm = Vm::new(kvm, 1)?;
    Samples::take(CALLS, BURST, || vm.run())?.tell(state, "run");
    Samples::take(CALLS, BURST, || vm.get_register())?.tell(state, "get");
    Samples::take(CALLS, BURST, || {
        let taken = vm.init()?;
        vm.run()?;
        Ok(taken)
    })?
    .tell(state, "init");
    Ok(())
}

/// Readers of the module's files: of all VMs, and of one.
fn reads(kvm: &Kvm, state: &str) -> Result<()> {
    let known = module::vms()?;
    let mut vm = Vm::new(kvm, 1)?;
    vm.init()?;
    let own = module::vms()?
        .into_iter()
        .find(|name| !known.contains(name));
    let own = own.context("a VM that was reset has no files")?;
    for (what, file) in [
        ("read_stats", "stats".to_owned()),
        ("read_latency", "latency".to_owned()),
        ("read_vm", format!("vms/{own}/stats")),
    ] {
        Samples::take(CALLS, BURST, || time(|| module::read(&file)))?.tell(state, what);
    }
    Ok(())
}

/// Resets of whole VMs.
fn resets(kvm: &Kvm, state: &str) -> Result<()> {
    for vcpus in VCPUS {
        let mut vm = Vm::new(kvm, vcpus)?;
        let samples = Samples::take(RESETS, 1, || {
            clock::after_tick();
            vm.reset()
        })?;
        samples.tell(state, &format!("reset_{vcpus}"));
    }
    Ok(())
}

pub fn load(policy: Policy) -> Result<u64> {
    time(|| module::insert(&format!("policy={}", policy as u8)).context("insmod"))
}

fn unload() -> Result<u64> {
    time(|| module::remove().context("rmmod"))
}

/// What the module itself takes, in bytes.
fn size() -> Result<u64> {
    let text = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(module::NAME)).then_some(words))
        .context("the module is not in /proc/modules")?;
    words
        .next()
        .and_then(|size| size.parse().ok())
        .context("/proc/modules has no size")
}

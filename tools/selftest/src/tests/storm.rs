// SPDX-License-Identifier: GPL-2.0
//! Everything changes under a storm of re-inits. Counts mean nothing then; what the guests run does.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use contract::Policy;
use rustix::io::Errno;
use vmm::guest::Routine;

use vmm::lab::Lab;
use vmm::module;
use vmm::{Vm, threads::join};

pub fn switch_storm(lab: &Lab) -> Result<()> {
    storm(lab, 100, |change| {
        let policy = Policy::ALL[change % Policy::ALL.len()];
        lab.switch(policy)
    })?;
    calm(lab)
}

pub fn kprobe_storm(lab: &Lab) -> Result<()> {
    // Each of these stops all CPUs to change a word.
    let result = storm(lab, 20, |change| module::arm_kprobes(change % 2 == 1));
    module::arm_kprobes(true)?;
    result?;
    calm(lab)
}

pub fn load_storm(lab: &Lab) -> Result<()> {
    // Each of these waits for every task on the host.
    storm(lab, 3, |change| {
        let policy = Policy::ALL[(change + 2) % Policy::ALL.len()] as u8;
        module::insert(&format!("policy={policy}")).context("insmod")?;
        remove_between_readers()
    })?;
    // The next ones start from what the storm left behind.
    lab.load(Policy::Once)?;
    calm(lab)
}

/// Unloads as soon as no reader happens to have a file open.
fn remove_between_readers() -> Result<()> {
    let mut result = module::remove();
    for _ in 0..10_000 {
        let in_use = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::WOULDBLOCK);
        if !result.as_ref().is_err_and(in_use) {
            break;
        }
        thread::yield_now();
        result = module::remove();
    }
    result.context("rmmod")
}

/// Makes all the changes while one VM is re-initialised in turn, one in parallel, and one with a vCPU
/// that runs on; others come and go, and all files are read.
fn storm(lab: &Lab, changes: usize, change: impl Fn(usize) -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    let until_over = |round: &mut dyn FnMut() -> Result<()>| {
        while !over.load(Ordering::Relaxed) {
            round()?;
        }
        Ok(())
    };
    let on_vm = |vcpus, round: fn(&mut Vm) -> Result<()>| {
        let mut vm = lab.vm(vcpus)?;
        vm.report()?;
        until_over(&mut || round(&mut vm))
    };
    let (until_over, on_vm) = (&until_over, &on_vm);
    thread::scope(|scope| {
        let threads = [
            scope.spawn(move || on_vm(4, in_turn)),
            scope.spawn(move || on_vm(4, in_parallel)),
            scope.spawn(move || on_vm(2, next_to_one_that_runs)),
            scope.spawn(move || until_over(&mut || come_and_go(lab))),
            scope.spawn(move || until_over(&mut read_all)),
        ];
        let mut result = Ok(());
        for number in 0..changes * lab.reps {
            result = change(number).with_context(|| format!("change {number}"));
            if result.is_err() || threads.iter().any(|thread| thread.is_finished()) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        result.and(threads.into_iter().try_for_each(join))
    })
}

fn in_turn(vm: &mut Vm) -> Result<()> {
    vm.rewrite()?;
    vm.reset()?;
    vm.report()
}

fn in_parallel(vm: &mut Vm) -> Result<()> {
    vm.rewrite()?;
    vm.reset_parallel()?;
    vm.report()
}

fn next_to_one_that_runs(vm: &mut Vm) -> Result<()> {
    vm.while_running(|others, code| {
        for _ in 0..10 {
            code.rewrite()?;
            others[0].reset(Routine::Report)?;
            others[0].report(code.value())?;
        }
        Ok(())
    })
}

fn come_and_go(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(1)?;
    vm.report()?;
    vm.reset()
}

/// Reads all files that are there. They may go meanwhile, with their VM or the module.
fn read_all() -> Result<()> {
    for file in ["policy", "host", "stats", "latency"] {
        let _ = module::read(file);
    }
    for vm in module::vms().unwrap_or_default() {
        for file in ["stats", "latency", "info"] {
            let _ = module::read(&format!("vms/{vm}/{file}"));
        }
    }
    Ok(())
}

/// After the storm everything counts as ever.
fn calm(lab: &Lab) -> Result<()> {
    lab.switch(Policy::Once)?;
    lab.clear()?;
    lab.assert_host()?;
    let mut vm = lab.vm(4)?;
    vm.report()?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check("after the storm: in reset")?;
    vm.report()?;
    lab.check("after the storm: running")
}

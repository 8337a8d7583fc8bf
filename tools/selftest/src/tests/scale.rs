// SPDX-License-Identifier: GPL-2.0
//! What a large host has: a thousand VMs, 64 GiB of memory in one. The times that are printed are an
//! emulator's.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use contract::Counters;
use vmm::lab::Lab;
use vmm::threads::join;
use vmm::{Pages, Vm, module};

use super::lazy::{fill, sweep};
use super::mode;

const VMS: usize = 1000;
const THREADS: usize = 4;

/// A thousand VMs, one of which sits in reset for ever: the others run, are reset, and run on.
pub fn vms(lab: &Lab) -> Result<()> {
    let count = mode::most_vms()?.map_or(VMS, |most| most.min(VMS));
    let mut vms = Vec::new();
    for _ in 0..count {
        let mut vm = lab.vm(1)?;
        vm.report_one(0)?;
        vms.push(vm);
    }
    let (stays, others) = vms.split_first_mut().context("no VMs")?;
    let without = reset_each(others)?;
    stays.rewrite()?;
    stays.reset()?;
    let with = reset_each(others)?;
    lab.check("one in reset for ever")?;
    println!(
        "# {count} VMs, reset by {THREADS} threads: {without:?}; with one that stays in reset: {with:?}"
    );
    stays.report_one(0)?;
    lab.check("that one runs, too")
}

/// How long the longest reset took, up to the guest's report.
fn reset_each(vms: &mut [Vm]) -> Result<Duration> {
    let some = vms.len().div_ceil(THREADS);
    thread::scope(|scope| {
        let reset = |vms: &mut [Vm]| {
            let mut longest = Duration::ZERO;
            for vm in vms {
                let start = Instant::now();
                vm.rewrite()?;
                vm.reset()?;
                vm.report_one(0)?;
                longest = longest.max(start.elapsed());
            }
            Ok(longest)
        };
        let threads: Vec<_> = vms
            .chunks_mut(some)
            .map(|vms| scope.spawn(move || reset(vms)))
            .collect();
        threads
            .into_iter()
            .try_fold(Duration::ZERO, |longest, thread| {
                Ok(longest.max(join(thread)?))
            })
    })
}

/// As KVM maps it in a table of its own each.
const APART: usize = 2 << 20;

/// 64 GiB of further RAM, of which the guest has one page in each 2 MiB.
pub fn memory(lab: &Lab) -> Result<()> {
    const MEMORY: usize = 64 << 30;
    let mut vm = lab.vm_with_room(4, MEMORY)?;
    let ram = vm.add_ram(MEMORY, Pages::Small)?;
    let words: Vec<_> = (1..).take(MEMORY / APART).collect();
    fill(&ram, APART, &words)?;
    vm.report()?;
    vm.reset()?;
    sweep(&mut vm, 0, APART, &words)?;
    lab.clear()?;
    let start = Instant::now();
    vm.reset()?;
    let took = start.elapsed();
    lab.check("in reset")?;
    let stats = module::parse::<Counters>("stats")?;
    println!(
        "# 64 GiB, {} pages of it touched: {took:?} for the re-inits of 4 vCPUs, with {} unmaps that left {} bytes uncleaned",
        words.len(),
        stats.stage2_unmap,
        stats.dcache_clean_elide_bytes,
    );
    let words: Vec<_> = words.iter().map(|word| word + 1).collect();
    fill(&ram, APART, &words)?;
    sweep(&mut vm, 3, APART, &words)?;
    lab.check("running")
}

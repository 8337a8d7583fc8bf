// SPDX-License-Identifier: GPL-2.0
//! What a large host has: a thousand VMs, 64 GiB of memory in one, an unmap that goes on and on. The times
//! that are printed are an emulator's.

use std::fs;
use std::io;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::{Counters, Policy};
use vmm::guest::Routine;
use vmm::lab::Lab;
use vmm::threads::join;
use vmm::{Pages, Vm, affinity, module};

use super::lazy::{fill, sweep};
use super::{Skip, mode, victim};

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

/// Memory of the VMM that is to be killed, a page in each 2 MiB of it touched. KVM looks whether it is to give
/// way once a GiB.
pub const UNMAPPED: usize = 32 << 30;
/// The CPU that is taken from it.
pub const BUSY_CPU: usize = 1;

const HUNG: u64 = 10;

/// An unmap that takes longer than the host lets a task hang, for its CPU is taken: others of the VM wait for
/// it, other VMs do not, and its VMM can be killed.
pub fn long_unmap(lab: &Lab) -> Result<()> {
    if lab.host().fwb {
        bail!(Skip("no unmaps with FEAT_S2FWB"));
    }
    let hung = "/proc/sys/kernel/hung_task_timeout_secs";
    let before = fs::read_to_string(hung).context(hung)?;
    // A task that hangs is told, as any splat is.
    fs::write("/proc/sys/kernel/hung_task_panic", "0").context("hung_task_panic")?;
    fs::write(hung, HUNG.to_string()).context(hung)?;
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let busy = scope.spawn(|| {
            affinity::on(BUSY_CPU, || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok(())
            })
        });
        let result = kill_in_unmap(lab, &over);
        over.store(true, Ordering::Relaxed);
        result.and(join(busy))
    });
    fs::write(hung, before.trim()).context(hung)?;
    result
}

fn kill_in_unmap(lab: &Lab, over: &AtomicBool) -> Result<()> {
    let mut vm = lab.vm(1)?;
    vm.report()?;
    let alone = longest_reset(&mut vm, 5)?;
    let (mut vmm, said) = victim::start("unmapping")?;
    ensure!(said == "ready\n", "the VMM to be killed did not get there");
    // khungtaskd looks once in that time: to be sure that it did, twice, and some.
    let beside = longest_reset(&mut vm, 2 * HUNG + 5)?;
    let states = states(vmm.id())?;
    let stats = module::parse::<Counters>("stats")?;
    let under_way = stats.vcpu_reset - stats.stage2_unmap - stats.stage2_unmap_elide;
    vmm.kill()?;
    let dying = longest_reset(&mut vm, 5)?;
    let gone = vmm.try_wait()?.is_some();
    over.store(true, Ordering::Relaxed);
    let start = Instant::now();
    vmm.wait()?;
    println!(
        "# {under_way} re-inits under way in a VMM with threads {states}; another VM's took {alone:?} alone, {beside:?} beside it, {dying:?} as it died{}",
        match gone {
            true => String::new(),
            false => format!(", for {:?} more once it had its CPU", start.elapsed()),
        },
    );
    // Under native nobody waits for another: each unmap goes as far as `mmu_lock` lets it.
    ensure!(
        under_way > 0 || lab.policy() == Policy::Native,
        "the unmap was over before its VMM was killed"
    );
    ensure!(
        beside.max(dying) < Duration::from_secs(HUNG / 2),
        "another VM's reset took {beside:?} beside the unmap, {dying:?} as its VMM died, and {alone:?} alone"
    );
    // Nothing was told of that VM: only what must be gone is left to compare.
    lab.clear()?;
    lab.check("killed")
}

/// The longest of the resets in so many seconds, up to the guest's report.
fn longest_reset(vm: &mut Vm, seconds: u64) -> Result<Duration> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        longest = longest.max(reset_each(slice::from_mut(vm))?);
    }
    Ok(longest)
}

/// A letter for each thread of a process.
fn states(pid: u32) -> Result<String> {
    let mut states = String::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // PID (NAME) STATE: a name may hold anything.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        states.push(state.context("no state")?);
    }
    Ok(states)
}

/// Of the VMM that is to be killed in it.
pub fn unmap_for_long(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm_with_room(2, UNMAPPED)?;
    vm.add_ram(UNMAPPED, Pages::Small)?;
    vm.report()?;
    vm.vcpus[0].sweep(APART, UNMAPPED / APART)?;
    println!("ready");
    vm.parallel_if(
        |_| true,
        |vcpu| {
            if vcpu.index() == 0 {
                return affinity::on(BUSY_CPU, || {
                    be_idle()?;
                    vcpu.reset(Routine::Report)
                });
            }
            // Once the other one is in it.
            thread::sleep(Duration::from_secs(2));
            vcpu.reset(Routine::Report)
        },
    )?;
    bail!("the unmap is over")
}

/// The current thread runs where nobody else wants to, and hardly else.
fn be_idle() -> Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: The kernel only reads the parameter.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &none) };
    ensure!(set == 0, "SCHED_IDLE: {}", io::Error::last_os_error());
    Ok(())
}

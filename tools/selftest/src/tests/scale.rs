// SPDX-License-Identifier: GPL-2.0
//! What a large host has: a thousand VMs, 64 GiB of memory in one, a long unmap. The times that
//! are printed are an emulator's.

use std::fs;
use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::{Counters, Policy};
use vmm::guest::Routine;
use vmm::lab::Lab;
use vmm::threads::join;
use vmm::{Pages, Vm, affinity, module};

use super::lazy::{fill, sweep};
use super::victim::Victim;
use super::{Skip, mode};

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
const UNMAPPED: usize = 32 << 30;
/// The CPU that is taken from it.
const BUSY_CPU: usize = 1;

const HUNG: u64 = 10;

/// An unmap that takes longer than the host lets a task hang, for its CPU is taken: another re-init of the VM
/// waits for it, other VMs do not, and its VMM can be killed. Then both have unmapped.
pub fn long_unmap(lab: &Lab) -> Result<()> {
    if lab.host().fwb {
        bail!(Skip("no unmaps with FEAT_S2FWB"));
    }
    let _told = hung_tasks_are_told()?;
    let mut vm = lab.vm(1)?;
    vm.report()?;
    let alone = longest_reset(&mut vm, 5)?;
    let mut vmm;
    // Gone before the VMM is waited for, whatever comes.
    let busy = Busy::on(BUSY_CPU);
    vmm = Victim::start("unmapping")?;
    // khungtaskd looks once in that time: to be sure that it did, twice, and some.
    let beside = longest_reset(&mut vm, 2 * HUNG + 10)?;
    let under_way = under_way()?;
    vmm.kill()?;
    let dying = longest_reset(&mut vm, 5)?;
    let start = Instant::now();
    drop(busy);
    vmm.wait()?;
    println!(
        "# {under_way} re-inits under way; another VM's took {alone:?} alone, {beside:?} beside it, {dying:?} as it died, for {:?} more once it had its CPU",
        start.elapsed(),
    );
    ensure!(
        under_way == 2,
        "when the VMM was killed, {under_way} re-inits were under way instead of one that unmaps and one that waits"
    );
    ensure!(
        beside.max(dying) < Duration::from_secs(HUNG / 2),
        "another VM's reset took {beside:?} beside the unmap, {dying:?} as its VMM died, and {alone:?} alone"
    );
    let stats = module::parse::<Counters>("stats")?;
    ensure!(
        stats.stage2_unmap == stats.vcpu_reset,
        "{} unmaps of {} re-inits, none of which had another's to share",
        stats.stage2_unmap,
        stats.vcpu_reset
    );
    // Nothing was told of that VM: only what must be gone is left to compare.
    lab.clear()?;
    lab.check("killed")
}

/// `rmmod` beside such an unmap waits for it, and is no task that hangs.
pub fn unload_beside_unmap(lab: &Lab) -> Result<()> {
    if lab.host().fwb {
        bail!(Skip("no unmaps with FEAT_S2FWB"));
    }
    let _told = hung_tasks_are_told()?;
    lab.load(Policy::Once)?;
    let mut vmm;
    // Half as much for it as one of them would leave.
    let busy = [BUSY_CPU; 2].map(Busy::on);
    vmm = Victim::start("unmapping")?;
    let start = Instant::now();
    while under_way()? < 2 {
        ensure!(
            start.elapsed() < Duration::from_secs(60),
            "the VMM's re-inits are not under way, or over already"
        );
        thread::sleep(Duration::from_millis(100));
    }
    thread::scope(|scope| {
        let start = Instant::now();
        let rmmod = scope.spawn(move || lab.unload().map(|()| start.elapsed()));
        thread::sleep(Duration::from_secs(2 * HUNG + 2));
        vmm.kill()?;
        drop(busy);
        vmm.wait()?;
        let took = join(rmmod)?;
        ensure!(
            took > Duration::from_secs(2 * HUNG),
            "the unmap took {took:?}, in which nothing hangs"
        );
        Ok(())
    })
}

/// Re-inits that have not unmapped, nor found that they need not, yet.
fn under_way() -> Result<u64> {
    let stats = module::parse::<Counters>("stats")?;
    stats
        .vcpu_reset
        .checked_sub(stats.stage2_unmap + stats.stage2_unmap_elide)
        .context("more unmaps than re-inits")
}

/// A task that hangs is told, as any splat is, and ends nothing.
fn hung_tasks_are_told() -> Result<[Setting; 4]> {
    let file = |name, value| Setting::set(format!("/proc/sys/kernel/hung_task_{name}"), value);
    Ok([
        file("panic", "0")?,
        // However many were told before.
        file("warnings", "-1")?,
        // 0 is the timeout.
        file("check_interval_secs", "0")?,
        file("timeout_secs", &HUNG.to_string())?,
    ])
}

/// A number in /proc, which is put back in the end.
struct Setting {
    file: String,
    before: String,
}

impl Setting {
    fn set(file: String, value: &str) -> Result<Self> {
        let before = fs::read_to_string(&file).context(file.clone())?;
        fs::write(&file, value).context(file.clone())?;
        Ok(Self { file, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, self.before.trim());
    }
}

/// Somebody who uses all of a CPU, until it is dropped.
struct Busy {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Busy {
    fn on(cpu: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let spin = move || {
            while !until.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            Ok(())
        };
        let thread = Some(thread::spawn(move || affinity::on(cpu, spin)));
        Self { over, thread }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
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

/// Of the VMM that is to be killed in it.
pub fn unmap_for_long(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm_with_room(2, UNMAPPED)?;
    vm.add_ram(UNMAPPED, Pages::Small)?;
    vm.report()?;
    vm.vcpus[0].sweep(APART, UNMAPPED / APART)?;
    let stats = format!("vms/{}/stats", vm.name());
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
            while !module::parse(&stats).is_ok_and(|stats: Counters| stats.vcpu_reset > 0) {
                thread::sleep(Duration::from_millis(100));
            }
            // From there to its unmap are some instructions, of a task that hardly gets to run.
            thread::sleep(Duration::from_secs(3));
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

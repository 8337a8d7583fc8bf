// SPDX-License-Identifier: GPL-2.0
//! Everything changes under a storm of re-inits. Counts mean nothing then; what the guests run does.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::{Counters, Policy};
use rustix::io::Errno;
use rustix::process::nice;
use vmm::guest::Routine;
use vmm::{boot, btf};

use super::Skip;
use super::faults::hooks;
use super::hooks::{HOOKED, TRACING, trace};
use super::telling::KMEMLEAK;
use super::victim::Victim;
use crate::bpf::{At, Program};
use vmm::lab::Lab;
use vmm::module;
use vmm::{Vm, threads::join};

pub fn switch_storm(lab: &Lab) -> Result<()> {
    storm(lab, up_to(100 * lab.reps), |change| {
        let policy = Policy::ALL[change % Policy::ALL.len()];
        lab.switch(policy)
    })?;
    calm(lab)
}

pub fn kprobe_storm(lab: &Lab) -> Result<()> {
    // Each of these stops all CPUs to change a word.
    let result = storm(lab, up_to(20 * lab.reps), |change| {
        module::arm_kprobes(change % 2 == 1)
    });
    module::arm_kprobes(true)?;
    result?;
    calm(lab)
}

pub fn load_storm(lab: &Lab) -> Result<()> {
    // Each of these waits for every task on the host.
    storm(lab, up_to(3 * lab.reps), |change| {
        let policy = Policy::ALL[(change + 2) % Policy::ALL.len()] as u8;
        module::insert(&format!("policy={policy}")).context("insmod")?;
        remove_between_readers()
    })?;
    // The next ones start from what the storm left behind.
    lab.load(Policy::Once)?;
    calm(lab)
}

/// All that can come and go on a host does, beside the module, which is loaded and unloaded all the time:
/// for `fwb.storm=MINUTES`.
pub fn host_storm(lab: &Lab) -> Result<()> {
    let Some(minutes) = boot::word("fwb.storm")? else {
        bail!(Skip("no fwb.storm=MINUTES on the kernel's command line"));
    };
    let time = Duration::from_secs(60 * minutes.parse::<u64>().context("fwb.storm")?);
    // What is made once for all is there then.
    weather(lab, |round| round < 2)?;
    let before = Left::now()?;
    let end = Instant::now() + time;
    let (loads, changes) = weather(lab, |round| round == 0 || Instant::now() < end)?;
    let grown = before.grown()?;
    println!(
        "# {loads} loads, {changes} changes beside them; {grown} kB of the kernel's memory more"
    );
    // What goes to and fro is less than that; a page left by each load shows with a thousand of them. kmemleak
    // sees it with the first (the test `leaks`), and keeps what was freed for a while, as KASAN does.
    ensure!(
        grown < 4096 || Path::new(KMEMLEAK).exists(),
        "{grown} kB of the kernel's memory more"
    );
    lab.load(Policy::Once)?;
    calm(lab)
}

/// How often the module was loaded, and how often something else was changed.
fn weather(lab: &Lab, more: impl Fn(usize) -> bool) -> Result<(usize, usize)> {
    let loads = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let changes = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut changes = 0;
            let mut programs = Vec::new();
            while !over.load(Ordering::Relaxed) {
                host_change(changes, &mut programs)
                    .with_context(|| format!("change {changes} of the host"))?;
                changes += 1;
            }
            Ok(changes)
        });
        let result = storm(
            lab,
            |round| more(round) && !beside.is_finished(),
            |round| {
                // The last one is still there when the storm is over.
                if module::is_loaded() {
                    remove_between_readers()?;
                }
                let policy = Policy::ALL[round % Policy::ALL.len()] as u8;
                module::insert(&format!("policy={policy}")).context("insmod")?;
                loads.fetch_add(1, Ordering::Relaxed);
                Ok(())
            },
        );
        over.store(true, Ordering::Relaxed);
        let changes = join(beside);
        result.and(changes)
    });
    let calmed = calm_host();
    let changes = changes?;
    calmed?;
    let (pending, vms) = (module::parse::<Counters>("stats")?.pending, module::vms()?);
    ensure!(
        pending == 0 && vms.is_empty(),
        "all VMs are gone, but {pending} owe something, and {vms:?} are known"
    );
    remove_between_readers()?;
    Ok((loads.into_inner(), changes))
}

/// In rounds of their own: the module comes and goes before, between and behind them.
fn host_change(change: usize, programs: &mut Vec<Program>) -> Result<()> {
    const CHANGES: usize = 15;
    match change % CHANGES {
        0 => trace_hooked("function"),
        1 => write_policy(change / CHANGES),
        2 => program_hooked(At::Entry, programs),
        3 => trace_hooked("function_graph"),
        4 => online(false),
        5 => online(true),
        6 => probe_hooked(),
        7 => program_hooked(At::Exit, programs),
        8 => hold_files(),
        9 => module::arm_kprobes(false),
        10 => {
            let mut vmm = Victim::start("storm")?;
            vmm.kill()?;
            vmm.wait()
        }
        11 => module::arm_kprobes(true),
        12 => {
            programs.clear();
            Ok(())
        }
        13 => {
            // Gone with the module, perhaps.
            let _ = module::write("clear", "1");
            let _ = trace(EVENTS, if change / CHANGES % 2 == 0 { "1" } else { "0" });
            Ok(())
        }
        _ => calm_host(),
    }
}

const EVENTS: &str = "events/kvm_fwb_reset/enable";

/// Refused where `lazy` is not to be had, or gone with the module.
fn write_policy(round: usize) -> Result<()> {
    for policy in [round, round + 2] {
        let _ = module::write("policy", Policy::ALL[policy % Policy::ALL.len()].name());
    }
    Ok(())
}

/// Files of the module's and of VMs', open while VMs go, and the module would.
fn hold_files() -> Result<()> {
    let vms = module::vms().unwrap_or_default();
    let names = vms.iter().map(|vm| format!("vms/{vm}/stats"));
    let files: Vec<_> = names
        .chain(["stats".to_owned()])
        .filter_map(|name| fs::File::open(module::path(&name)).ok())
        .collect();
    thread::sleep(Duration::from_millis(100));
    for mut file in files {
        // Those of VMs that are gone say nothing any more.
        let _ = io::copy(&mut file, &mut io::sink());
    }
    Ok(())
}

/// Puts the host back as it was.
fn calm_host() -> Result<()> {
    online(true)?;
    trace("current_tracer", "nop")?;
    trace("set_ftrace_filter", "\n")?;
    if Path::new(TRACING).join("events/storm").exists() {
        trace("events/storm/enable", "0")?;
        trace("kprobe_events", "\n")?;
    }
    module::arm_kprobes(true)
}

fn trace_hooked(tracer: &str) -> Result<()> {
    trace("set_ftrace_filter", &HOOKED.join(" "))?;
    trace("current_tracer", tracer)
}

fn probe_hooked() -> Result<()> {
    let probes = HOOKED.map(|function| format!("p:storm/{function} {function}\n"));
    trace("kprobe_events", &probes.concat())?;
    trace("events/storm/enable", "1")
}

fn program_hooked(at: At, programs: &mut Vec<Program>) -> Result<()> {
    // Kernels without it take no such programs.
    if Path::new(btf::FILE).exists() {
        programs.extend(Program::on_each(&btf::functions(&HOOKED)?, at)?);
    }
    Ok(())
}

/// Takes CPU 1 away, and all threads from it, or gives it back.
fn online(on: bool) -> Result<()> {
    let file = "/sys/devices/system/cpu/cpu1/online";
    fs::write(file, if on { "1" } else { "0" }).context(file)
}

/// What a host has when all is calm, and the module not loaded.
struct Left {
    hooks: [String; 2],
    /// Of the kernel's memory, in kB.
    memory: i64,
}

impl Left {
    fn now() -> Result<Self> {
        // What goes a grace period later.
        thread::sleep(Duration::from_secs(2));
        fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")?;
        let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let lines = meminfo.lines().filter_map(|line| line.split_once(':'));
        let mut memory = 0;
        for (_, value) in lines.filter(|(name, _)| GROWS.contains(name)) {
            let kb = value.trim().trim_end_matches(" kB");
            memory += kb.parse::<i64>().context("/proc/meminfo")?;
        }
        Ok(Self {
            hooks: hooks()?,
            memory,
        })
    }

    /// By how many kB memory has grown. No hook may be left.
    fn grown(&self) -> Result<i64> {
        let now = Self::now()?;
        let (was, is) = (&self.hooks, &now.hooks);
        ensure!(is == was, "the hooks are {is:?}, and were {was:?}");
        Ok(now.memory - self.memory)
    }
}

/// Of /proc/meminfo: where memory is that nobody can be asked to give back.
const GROWS: [&str; 4] = ["SUnreclaim", "VmallocUsed", "Percpu", "KernelStack"];

/// Unloads as soon as no reader happens to have a file open.
fn remove_between_readers() -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    let mut result = module::remove();
    let in_use = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::WOULDBLOCK);
    while result.as_ref().is_err_and(in_use) && Instant::now() < end {
        thread::yield_now();
        result = module::remove();
    }
    result.context("rmmod")
}

fn up_to(changes: usize) -> impl Fn(usize) -> bool {
    move |change| change < changes
}

/// Makes changes, as long as there are `more`, while one VM is re-initialised in turn, one in parallel, and
/// one with a vCPU that runs on; others come and go, and all files are read.
fn storm(
    lab: &Lab,
    more: impl Fn(usize) -> bool,
    change: impl Fn(usize) -> Result<()>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let until_over = |round: &mut dyn FnMut() -> Result<()>| {
        // Whoever changes something waits for all of these as it is, and shall not wait for a CPU, too.
        nice(10).context("nice")?;
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
        for number in (0..).take_while(|&number| more(number)) {
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

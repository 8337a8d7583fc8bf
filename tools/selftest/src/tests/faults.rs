// SPDX-License-Identifier: GPL-2.0
//! Each allocation and each registration of the module's, and of what it asks the kernel for, fails once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use contract::{Counters, NativeReset, Policy};
use vmm::lab::Lab;
use vmm::{Vm, module};

use super::hooks::{IC, PROBE, Probes, TRACING, function};
use crate::faults::{ANYWHERE, Allocations, Calls, Faults};

/// What an operator sees of the module, but for what changes by itself.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    files: Vec<String>,
    host: Option<String>,
    counters: usize,
}

impl Shown {
    fn now() -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(module::path("")).into_iter().flatten() {
            files.push(entry?.file_name().to_string_lossy().into_owned());
        }
        files.sort();
        Ok(Self {
            files,
            host: module::read("host").ok(),
            counters: module::read("stats").map_or(0, |stats| stats.lines().count()),
        })
    }
}

/// What leads from the kernel's text to modules.
pub fn hooks() -> Result<[String; 2]> {
    let kprobes = Path::new("/sys/kernel/debug/kprobes/list");
    let functions = Path::new(TRACING).join("enabled_functions");
    Ok([
        fs::read_to_string(kprobes).context("kprobes/list")?,
        fs::read_to_string(functions).context("enabled_functions")?,
    ])
}

/// `insmod` without memory for something: it fails and leaves nothing behind, or what is missing is said in
/// the log. The next one knows nothing of it.
pub fn load(lab: &Lab) -> Result<()> {
    // What the kernel itself does to load a module, before and behind, is not looked at.
    let mut faults = Allocations::below(function("do_init_module")?)?;
    loads(lab, &mut faults.0, "allocations").map(drop)
}

/// With others' kprobes on the invalidation that the module looks for: to look below them takes memory, too.
pub fn load_probed(lab: &Lab) -> Result<()> {
    let mut faults = Allocations::below(function("do_init_module")?)?;
    let _probes = Probes::on(lab, |word| [IC, PROBE].contains(&word))?;
    loads(lab, &mut faults.0, "allocations").map(drop)
}

/// All that the module registers with, or makes, as it is loaded.
const REGISTERS: [&str; 5] = [
    "register_kprobe",
    "ftrace_set_filter_ip",
    "register_ftrace_function",
    "debugfs_create_dir",
    "debugfs_create_file_full",
];

/// `insmod` where something cannot be registered.
pub fn load_calls(lab: &Lab) -> Result<()> {
    for function in REGISTERS {
        let mut faults = Calls::of(function)?;
        let unsaid = loads(lab, &mut faults.0, function).context(function)?;
        ensure!(unsaid == 0, "{function}: {unsaid} failures went unsaid");
    }
    Ok(())
}

/// Loads with each fault there is, `of` one kind. How many left no trace: the load was whole.
fn loads(lab: &Lab, faults: &mut Faults, of: &str) -> Result<usize> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    let before = hooks()?;
    lab.load(Policy::Once)?;
    let whole = Shown::now()?;
    lab.unload()?;
    let [mut refused, mut reduced] = [0; 2];
    let ours = format!(";{}: ", module::NAME);
    let count = faults.each(
        || module::insert_another(Path::new(module::IMAGE), "policy=2"),
        |loaded, said| {
            if loaded.is_err() {
                refused += 1;
            } else {
                let shown = Shown::now()?;
                let mut said = said.iter().filter(|record| record.contains(&ours));
                if shown != whole {
                    reduced += 1;
                    ensure!(
                        said.any(|record| !record.contains("taint")),
                        "{shown:?} instead of {whole:?}, and not a word in the log"
                    );
                }
                reset(&mut vm)?;
                // Without files nobody is told, and the reset went well all the same.
                if module::path("stats").exists() {
                    // Without a hook there is no counter of what it would see.
                    let stats = module::read("stats")?;
                    for wanted in ["vcpu_reset 2", "pending 0"] {
                        ensure!(
                            stats.lines().any(|line| line == wanted),
                            "loaded, and after the reset of 2 vCPUs no {wanted}: {stats}"
                        );
                    }
                }
                module::remove().context("rmmod")?;
            }
            let after = hooks()?;
            ensure!(after == before, "{loaded:?}: {after:?}, not {before:?}");
            ensure!(!module::is_loaded(), "{loaded:?}, but the module is there");
            ensure!(
                !module::path("").exists(),
                "{loaded:?}, but files are there"
            );
            reset(&mut vm)
        },
    )?;
    println!("# {count} {of} failed: {refused} loads refused, {reduced} that said what is missing");
    ensure!(count > 0, "no {of} there");
    lab.load(Policy::Once)?;
    reset(&mut vm)?;
    lab.check("loaded again")?;
    lab.unload()?;
    Ok(count - refused - reduced)
}

/// A guest reset, whatever can be counted of it.
fn reset(vm: &mut Vm) -> Result<()> {
    vm.rewrite()?;
    vm.reset()?;
    vm.report()
}

/// VMs that KVM cannot make, or not all of: KVM takes them down by ways that it seldom goes.
pub fn new_vm(lab: &Lab) -> Result<()> {
    let mut faults = Allocations::below(ANYWHERE)?;
    let kvm = vmm::kvm()?;
    let target = lab.vm(1)?.vcpus[0].target();
    let create = || {
        let vm = kvm.create_vm_with_ipa_size(32)?;
        let vcpu = vm.create_vcpu(0)?;
        vcpu.vcpu_init(&target)?;
        vcpu.vcpu_init(&target)?;
        Ok::<_, kvm_ioctls::Error>((vcpu, vm))
    };
    let mut refused = 0;
    let count = faults.0.each(create, |made, _| {
        refused += usize::from(made.is_err());
        drop(made);
        gone(lab)
    })?;
    println!("# {count} faults: {refused} VMs refused");
    ensure!(refused > 0, "KVM allocated nothing");
    counts(lab)
}

/// Nobody knows anything of VMs that are gone.
fn gone(lab: &Lab) -> Result<()> {
    lab.clear()?;
    lab.check("the VM is gone")
}

fn counts(lab: &Lab) -> Result<()> {
    lab.clear()?;
    let mut vm = lab.vm(2)?;
    vm.report()?;
    reset(&mut vm)?;
    lab.check("a VM with memory for all")
}

/// Re-inits without memory for what the module knows or shows of the VM: guests run what was written.
pub fn reinit(lab: &Lab) -> Result<()> {
    let mut faults = Allocations::below(module::code()?)?;
    let work = || {
        let mut vm = lab.vm(2)?;
        vm.report()?;
        vm.rewrite()?;
        vm.reset()?;
        Ok::<_, anyhow::Error>(vm)
    };
    let count = faults.0.each(work, |vm, _| {
        let mut vm = vm?;
        vm.report()?;
        reset(&mut vm)?;
        drop(vm);
        gone(lab)
    })?;
    println!("# {count} faults");
    ensure!(count > 0, "the module allocated nothing");

    // Without a record each re-init is done at once and in full, under any policy.
    lab.clear()?;
    let mut vm = faults.all(|| {
        let mut vm = lab.vm(2)?;
        vm.report()?;
        reset(&mut vm)?;
        reset(&mut vm)?;
        Ok::<_, anyhow::Error>(vm)
    })??;
    let stats = module::parse::<Counters>("stats")?;
    let host = lab.host();
    let done = match (lab.policy(), host.fwb) {
        (Policy::Native, _) if host.native_reset == NativeReset::Icache => stats.icache_invalidate,
        (Policy::Native, _) if host.native_reset == NativeReset::None => 4,
        (Policy::Native | Policy::Unmap, _) | (_, false) => stats.stage2_unmap,
        (_, true) if host.dic => 4,
        (_, true) => stats.icache_invalidate,
    };
    ensure!(
        (stats.vcpu_reset, stats.pending, done) == (4, 0, 4),
        "without memory: want 4 re-inits, each in full, got {stats:?}"
    );
    let vms = module::vms()?;
    ensure!(vms.is_empty(), "without memory: {vms:?} are known");
    reset(&mut vm)?;
    drop(vm);
    gone(lab)?;
    counts(lab)
}

/// Files that cannot be opened, read or written: an error, or all of it.
pub fn files(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    reset(&mut vm)?;
    let mut faults = Allocations::below(ANYWHERE)?;
    let of_vm = ["stats", "latency", "info"].map(|file| format!("vms/{}/{file}", vm.name()));
    let of_all = ["policy", "host", "stats", "latency"].map(str::to_owned);
    let mut count = 0;
    for file in of_all.iter().chain(&of_vm) {
        let whole = module::read(file)?;
        count += faults.0.each(
            || module::read(file),
            |text, _| {
                let got = text.unwrap_or_else(|_| whole.clone());
                ensure!(got == whole, "{file}: {got} instead of {whole}");
                Ok(())
            },
        )?;
    }
    let policy = module::read("policy")?;
    count += faults.0.each(
        || module::write("policy", Policy::Native.name()),
        |written, _| {
            let is = module::read("policy")?;
            ensure!(
                (is == policy) == written.is_err(),
                "{written:?}, and it is {is}"
            );
            module::write("policy", lab.policy().name()).context("policy")
        },
    )?;
    count += faults.0.each(
        || module::write("clear", "1"),
        |written, _| {
            let stats = module::parse::<Counters>("stats")?;
            ensure!(
                (stats.vcpu_reset > 0) == written.is_err(),
                "{written:?}: {stats:?}"
            );
            reset(&mut vm)
        },
    )?;
    println!("# {count} faults");
    ensure!(count > 0, "nothing was allocated");
    drop(vm);
    gone(lab)?;
    counts(lab)
}

// SPDX-License-Identifier: GPL-2.0
//! What else goes on at the places that the module hooks: kprobes switched off for the whole host
//! behind its back, and other tracers.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contract::{NativeReset, Policy};
use elf::{ElfStream, endian::AnyEndian};
use vmm::guest::Routine;

use vmm::Vm;
use vmm::btf;
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::module;
use vmm::symbols::Symbols;
use vmm::threads::join;

use crate::bpf::{At, Program};

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
/// What the module redirects on all hosts.
pub const HOOKED: [&str; 4] = [
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

/// Others' BPF programs at both ends of the functions that the module redirects: attached before it came,
/// while it is there, and coming and going as it does.
pub fn programmed(lab: &Lab) -> Result<()> {
    let functions = btf::functions(&HOOKED)?;
    let attach = || {
        let [entry, exit] = [At::Entry, At::Exit].map(|at| Program::on_each(&functions, at));
        Ok::<_, anyhow::Error>((entry?, exit?))
    };
    let programs = attach()?;
    loaded_and_reset(lab, "programs before the load")?;
    drop(programs);
    let mut vm = lab.vm(4)?;
    vm.report()?;
    lab.load(Policy::Once)?;
    let programs = attach()?;
    one_reset(lab, &mut vm, "programs after the load")?;
    lab.unload()?;
    drop(programs);

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                attach()?;
            }
            Ok(())
        });
        let result =
            (0..2 * lab.reps).try_for_each(|_| loaded_and_reset(lab, "programs that come and go"));
        over.store(true, Ordering::Relaxed);
        result.and(join(beside))
    })
}

/// ftrace stops for a bug of its own, and takes no redirect back: the module's text goes on being
/// called. Unloading must not return then, and guests must not notice. Leaves a host to be switched off.
pub fn ftrace_stopped(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    lab.load(Policy::Once)?;
    module::insert_from(Path::new("/stop_ftrace.ko"), "").context("insmod stop_ftrace")?;
    one_reset(lab, &mut vm, "ftrace stopped")?;

    let mut log = Kmsg::open().context("/dev/kmsg")?;
    // For good: a process of its own, which nobody waits for.
    let mut rmmod = Command::new("rmmod")
        .arg(module::NAME)
        .spawn()
        .context("rmmod")?;
    thread::sleep(Duration::from_secs(5));
    ensure!(
        rmmod.try_wait()?.is_none() && module::is_loaded(),
        "rmmod returned, though KVM's functions lead to the module"
    );
    let mut said = log.records()?;
    said.retain(|record| record.contains(module::NAME));
    ensure!(
        said.len() == 1 && said[0].contains("this task does not return"),
        "want one line in the log, got {said:?}"
    );
    // Nothing can be read of it any more. Guests are reset as ever.
    for _ in 0..lab.reps {
        vm.rewrite()?;
        vm.reset()?;
        vm.report()?;
    }
    vm.while_running(|others, _| others[0].reset(Routine::Report))?;
    drop(vm);
    // As far as it ever will be.
    lab.expected().unload();
    Ok(())
}

/// The function that KVM_ARM_VCPU_INIT goes through, whose code the module reads when it is loaded.
const PATH: &str = "kvm_arch_vcpu_ioctl";

/// Other people's kprobes on the very instructions that the module reads: it finds what is under them,
/// and both work, whoever comes first.
pub fn probed(lab: &Lab) -> Result<()> {
    let probes = Probes::everywhere(lab)?;
    loaded_and_reset(lab, "probed before the load")?;
    drop(probes);
    let mut vm = lab.vm(4)?;
    vm.report()?;
    lab.load(Policy::Once)?;
    let probes = Probes::everywhere(lab)?;
    one_reset(lab, &mut vm, "probed after the load")?;
    lab.unload()?;
    drop(probes);
    vm.reset()?;
    vm.report()
}

/// Kprobe events on instructions of [`PATH`]: these.
pub struct Probes(Vec<u32>);

impl Probes {
    /// On each call, `ic ialluis` and `dsb ish`: what the module looks for.
    fn everywhere(lab: &Lab) -> Result<Self> {
        let is_call = |word: u32| word & 0xfc00_0000 == 0x9400_0000;
        let probes = Self::on(lab, |word| {
            is_call(word) || [IC, PROBE, DSB].contains(&word)
        })?;
        ensure!(
            probes.0.iter().any(|&word| is_call(word)),
            "{PATH} has no call that can be probed: {:x?}",
            probes.0
        );
        Ok(probes)
    }

    /// On what `is_wanted` takes.
    pub fn on(lab: &Lab, is_wanted: impl Fn(u32) -> bool) -> Result<Self> {
        let mut probes = Self(Vec::new());
        for (at, word) in code(PATH)?.into_iter().enumerate() {
            let offset = at * 4;
            let probe = format!("p:path/at{offset} {PATH}+{offset}\n");
            // The call that belongs to ftrace cannot be probed.
            if is_wanted(word) && append("kprobe_events", &probe).is_ok() {
                probes.0.push(word);
            }
        }
        // Wrong kernels lack the invalidation.
        let invalidates = probes.0.iter().any(|word| [IC, PROBE].contains(word));
        ensure!(
            invalidates || lab.host().native_reset != NativeReset::Icache,
            "{PATH} has no ic ialluis that can be probed: {:x?}",
            probes.0
        );
        trace("events/path/enable", "1")?;
        Ok(probes)
    }
}

pub const IC: u32 = 0xd508_711f;
/// Of a kprobe: the module's own is on the `ic ialluis`.
pub const PROBE: u32 = 0xd420_0080;
const DSB: u32 = 0xd503_3b9f;

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = trace("events/path/enable", "0");
        let _ = trace("kprobe_events", "\n");
    }
}

fn append(file: &str, text: &str) -> std::io::Result<()> {
    let path = format!("{TRACING}/{file}");
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Where a function of the kernel's lies.
pub fn function(name: &str) -> Result<Range<u64>> {
    let range = Symbols::read()?.function(name);
    range.with_context(|| format!("/proc/kallsyms has no {name}"))
}

/// The code of a function of the kernel's, up to the next one.
fn code(name: &str) -> Result<Vec<u32>> {
    let Range { start, end } = function(name)?;
    let length = end - start;
    let memory = File::open("/proc/kcore").context("/proc/kcore")?;
    let core = ElfStream::<AnyEndian, _>::open_stream(memory.try_clone()?)?;
    let mut segments = core.segments().iter();
    let segment = segments
        .find(|segment| (segment.p_vaddr..segment.p_vaddr + segment.p_memsz).contains(&start))
        .context("/proc/kcore has no kernel text")?;
    let mut code = vec![0; length as usize];
    memory.read_exact_at(&mut code, segment.p_offset + (start - segment.p_vaddr))?;
    let words = code.chunks_exact(4);
    Ok(words
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect())
}

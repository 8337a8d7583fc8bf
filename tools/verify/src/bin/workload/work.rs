// SPDX-License-Identifier: GPL-2.0
//! The resets, and the order in which all is done.

use std::env;
use std::fs;
use std::str::FromStr;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Error, Result, ensure};
use contract::Host;
use rustix::thread::{CpuSet, sched_setaffinity};
use verify::record::{Boot, Record, Section, State};
use vmm::guest::{self, Routine};
use vmm::lab::Lab;
use vmm::marker;
use vmm::module;
use vmm::threads::join;
use vmm::{Vcpu, Vm};

use crate::code;
use crate::unmaps::Unmaps;

struct Work {
    lab: Lab,
    host: Host,
    unmaps: Unmaps,
    /// CPUs of this host.
    pes: usize,
    /// Of the oracle's section that is next.
    number: u64,
}

/// All that the environment asks for.
pub fn all() -> Result<()> {
    let boot = boot()?;
    let host = boot.facts.parse().map_err(Error::msg)?;
    ensure!(
        !module::is_loaded(),
        "{} is loaded: rmmod it first",
        module::NAME
    );
    let mut work = Work {
        lab: Lab::new(&boot.facts, boot.resets)?,
        host,
        unmaps: Unmaps::watch()?,
        pes: thread::available_parallelism()?.get(),
        number: 1,
    };
    let (states, vcpus) = (boot.states.clone(), boot.vcpus.clone());
    tell(Record::Boot(boot))?;
    for code in code::kernel()? {
        tell(Record::Code(code))?;
    }
    for state in states {
        work.enter(state)?;
        for &vcpus in &vcpus {
            work.cell(state, vcpus)
                .with_context(|| format!("{state}, {vcpus} vCPUs"))?;
        }
    }
    work.enter(State(None))
}

fn boot() -> Result<Boot> {
    fn word(name: &str) -> Result<String> {
        let name = format!("fwb_{name}");
        env::var(&name).with_context(|| format!("{name} is not in the environment"))
    }
    fn list<T: FromStr<Err: std::fmt::Display>>(name: &str) -> Result<Vec<T>> {
        let item = |text: &str| {
            let item = text.parse::<T>();
            item.map_err(|error| Error::msg(format!("fwb_{name}: `{text}`: {error}")))
        };
        word(name)?.split(',').map(item).collect()
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    Ok(Boot {
        release: release.trim().to_owned(),
        kernel: word("kernel")?,
        cpu: word("cpu")?,
        facts: word("expect")?,
        states: list("states")?,
        vcpus: list("vcpus")?,
        resets: word("resets")?.parse().context("fwb_resets")?,
    })
}

fn tell(record: Record) -> Result<()> {
    println!("{}", record.line()?);
    Ok(())
}

impl Work {
    /// A section of the oracle's; its number.
    fn section(&mut self, name: &str) -> u64 {
        let number = self.number;
        self.number += 1;
        marker::section(number, name);
        number
    }

    /// Loads or unloads the module.
    fn enter(&mut self, state: State) -> Result<()> {
        self.section(&format!("to {state}"));
        if module::is_loaded() {
            self.lab.unload()?;
        }
        if let Some(policy) = state.0 {
            self.lab.load(policy)?;
            tell(Record::Code(code::module()?))?;
        }
        Ok(())
    }

    /// A VM from its beginning to its end.
    fn cell(&mut self, state: State, vcpus: usize) -> Result<()> {
        let late = contract::covers_late_writes(self.host, state.0);
        let mut vm = None;
        for reset in 0..=self.lab.reps {
            if module::is_loaded() {
                self.lab.clear()?;
            }
            let before = self.unmaps.count()?;
            let number = self.section(&format!("{state}, {vcpus} vCPUs, reset {reset}"));

            let vm = match &mut vm {
                Some(vm) => vm,
                None => vm.insert(self.lab.vm(vcpus)?),
            };
            if reset > 0 {
                write(vm)?;
                for vcpu in &mut vm.vcpus {
                    vcpu.reset(Routine::Work)?;
                }
            }
            if reset == 0 || late {
                write(vm)?;
            }
            run(vm, self.pes)?;

            self.section("between resets");
            let stats = module::is_loaded().then(|| module::read("stats"));
            tell(Record::Section(Section {
                number,
                state,
                vcpus,
                reset,
                unmaps: self.unmaps.count()? - before,
                stats: stats.transpose()?,
            }))?;
        }
        Ok(())
    }
}

/// Other code and other data for the guest: in place, through the cache, and nothing is cleaned, as a
/// VMM loads an image.
fn write(vm: &mut Vm) -> Result<()> {
    vm.rewrite()?;
    vm.rewrite_data()
}

/// Lets all vCPUs run at the same time, until each has reported what code it ran.
fn run(vm: &mut Vm, pes: usize) -> Result<()> {
    let value = vm.value();
    let start = Barrier::new(vm.vcpus.len());
    let start = &start;
    thread::scope(|scope| {
        let spawn = |(index, vcpu)| {
            scope.spawn(move || {
                let vcpu: &mut Vcpu = vcpu;
                // KVM throws away a PE's I-cache when another vCPU of the VM comes to it than was
                // there last (`__kvm_flush_cpu_context`), which makes up for much that a reset
                // leaves out. So each PE but the last has one vCPU to itself.
                let mut pe = CpuSet::new();
                pe.set(usize::min(index, pes - 1));
                sched_setaffinity(None, &pe).context("sched_setaffinity")?;
                vcpu.start(Routine::Work, &[guest::data(index)])?;
                start.wait();
                vcpu.report(value)
            })
        };
        let threads: Vec<_> = vm.vcpus.iter_mut().enumerate().map(spawn).collect();
        threads.into_iter().try_for_each(join)
    })
}

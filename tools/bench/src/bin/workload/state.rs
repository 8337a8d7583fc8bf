// SPDX-License-Identifier: GPL-2.0
//! The states that a host can be in: without the module, with somebody else looking at the same functions,
//! or with the module under one of its policies.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use contract::Policy;
use rustix::process::{Pid, Signal, kill_process};
use vmm::module;

use crate::clock::time;

/// What who looks on would look at: re-inits, unmaps, and the flushes as vCPUs turn their MMUs on. The
/// kernel's invalidation of I-caches is no function, and is not to be seen.
const SEEN: [&str; 3] = ["kvm_reset_vcpu", "stage2_unmap_vm", "stage2_flush_vm"];
const TRACING: &str = "/sys/kernel/tracing";

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing but KVM.
    Plain,
    /// kprobe events.
    Kprobe,
    /// The function tracer.
    Function,
    /// bpftrace counts, by fentry.
    Bpftrace,
    /// The module.
    Loaded(Policy),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Plain => "none",
            State::Kprobe => "kprobe",
            State::Function => "function",
            State::Bpftrace => "bpftrace",
            State::Loaded(policy) => policy.name(),
        })
    }
}

impl FromStr for State {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let policies = Policy::ALL.map(State::Loaded);
        let others = [
            State::Plain,
            State::Kprobe,
            State::Function,
            State::Bpftrace,
        ];
        let mut all = others.into_iter().chain(policies);
        all.find(|state| state.to_string() == text)
            .ok_or("no such state")
    }
}

/// Stays in a state until it is left.
#[must_use]
pub struct Inside {
    state: State,
    bpftrace: Option<Child>,
}

impl State {
    /// From a host that is in none.
    pub fn enter(self) -> Result<Inside> {
        let mut bpftrace = None;
        match self {
            State::Plain => {}
            State::Kprobe => {
                for function in SEEN {
                    append("kprobe_events", &format!("p:bench/{function} {function}\n"))?;
                }
                write("events/bench/enable", "1")?;
            }
            State::Function => {
                write("set_ftrace_filter", "")?;
                for function in SEEN {
                    append("set_ftrace_filter", &format!("{function}\n"))?;
                }
                write("current_tracer", "function")?;
            }
            State::Bpftrace => bpftrace = Some(start_bpftrace()?),
            State::Loaded(policy) => {
                load(policy)?;
            }
        }
        Ok(Inside {
            state: self,
            bpftrace,
        })
    }
}

impl Inside {
    /// Back to a host that is in no state.
    pub fn leave(self) -> Result<()> {
        match self.state {
            State::Plain => {}
            State::Kprobe => {
                write("events/bench/enable", "0")?;
                write("kprobe_events", "")?;
            }
            State::Function => {
                write("current_tracer", "nop")?;
                write("set_ftrace_filter", "")?;
            }
            State::Bpftrace => {
                let mut child = self.bpftrace.context("there is no bpftrace")?;
                let pid = Pid::from_child(&child);
                kill_process(pid, Signal::INT).context("end bpftrace")?;
                child.wait().context("wait for bpftrace")?;
            }
            State::Loaded(_) => {
                unload()?;
            }
        }
        Ok(())
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    fs::write(format!("{TRACING}/{file}"), text).with_context(|| format!("write {file}"))
}

fn append(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    let opened = OpenOptions::new().append(true).open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("append to {file}"))
}

fn start_bpftrace() -> Result<Child> {
    let probes = SEEN.map(|function| format!("fentry:{function}"));
    let program = format!(
        "BEGIN {{ printf(\"attached\\n\"); }} {} {{ @[probe] = count(); }}",
        probes.join(", ")
    );
    let mut child = Command::new("bpftrace")
        .args(["-e", &program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("bpftrace")?;
    let output = child.stdout.take().context("bpftrace's output")?;
    let mut lines = BufReader::new(output).lines();
    let attached = lines.any(|line| line.is_ok_and(|line| line.contains("attached")));
    ensure!(attached, "bpftrace never attached");
    // What it prints at its end goes nowhere.
    std::thread::spawn(move || lines.count());
    Ok(child)
}

/// `insmod`, and what it takes.
pub fn load(policy: Policy) -> Result<u64> {
    time(|| module::insert(&format!("policy={}", policy as u8)).context("insmod"))
}

/// `rmmod`, and what it takes.
pub fn unload() -> Result<u64> {
    time(|| module::remove().context("rmmod"))
}

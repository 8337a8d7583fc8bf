// SPDX-License-Identifier: GPL-2.0
//! What happens in a schedule, and its text: events with `; ` between them. `0.2,1` are vCPUs 2 and 1
//! of VM 0, in that order.
//!
//! | event | text |
//! |---|---|
//! | the module comes, goes, or is told a policy | `load once`, `unload`, `policy fwb` |
//! | kprobes are disarmed on the whole host, or armed | `kprobes off`, `kprobes on` |
//! | VM 0 is made, with 4 vCPUs; or destroyed | `make 0 4`, `destroy 0` |
//! | its code is rewritten in place | `write 0` |
//! | vCPUs are (re-)initialised in turn, or all at once from threads | `init 0.2,1`, `init 0.2,1 together` |
//! | they run until they report what code they found | `run 0.1,3`, `run 0.1,3 together` |
//! | KVM_RUN with immediate_exit | `immediate 0.1` |
//! | a vCPU spins in KVM_RUN, or is stopped | `spin 0.1`, `stop 0.1` |
//! | one is re-initialised as powered off, and others turn it on by PSCI | `cpu_on 0.1 by 0` |
//! | some are re-initialised and run, each in its thread, while others run and the host changes | `race 0.1,2 against 3`, `race 0.1,2 against 3 while policy fwb` |
//!
//! Any list of events is a schedule: what is not possible when its turn comes is left out, such as a
//! run of a vCPU that spins. So a schedule without one of its events is one, too.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use contract::{Change, Policy};

/// Some vCPUs of a VM, in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vcpus {
    /// The VM's number.
    pub vm: usize,
    /// Theirs.
    pub vcpus: Vec<usize>,
}

/// See the [module](self). A `vm`, and a `vcpu` of it, go by number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's table has each field")]
pub enum Event {
    /// The host changes.
    Change(Change),
    /// A VM is made.
    Make { vm: usize, vcpus: usize },
    /// It is destroyed.
    Destroy(usize),
    /// User space rewrites its code.
    Write(usize),
    /// KVM_ARM_VCPU_INIT.
    Init { of: Vcpus, together: bool },
    /// KVM_RUN, until the guest reports.
    Run { of: Vcpus, together: bool },
    /// KVM_RUN with immediate_exit.
    Immediate { vm: usize, vcpu: usize },
    /// KVM_RUN that goes on.
    Spin { vm: usize, vcpu: usize },
    /// The end of that.
    Stop { vm: usize, vcpu: usize },
    /// KVM_ARM_VCPU_INIT as powered off, PSCI CPU_ON by another, KVM_GET_ONE_REG to carry it out.
    CpuOn { vm: usize, vcpu: usize, by: usize },
    /// KVM_ARM_VCPU_INIT and KVM_RUN of some, KVM_RUN of others, and a change of the host, at once.
    Race {
        inits: Vcpus,
        runs: Vec<usize>,
        change: Option<Change>,
    },
}

/// Events one after the other. Begins on a host without the module, kprobes armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(pub Vec<Event>);

struct List<'a>(&'a [usize]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{number}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Vcpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vm, List(&self.vcpus))
    }
}

/// A change as an event's text.
struct Words<'a>(&'a Change);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Change::Load(policy) => write!(f, "load {}", policy.name()),
            Change::Unload => write!(f, "unload"),
            Change::Switch(policy) => write!(f, "policy {}", policy.name()),
            Change::Kprobes(armed) => write!(f, "kprobes {}", if *armed { "on" } else { "off" }),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = |together: &bool| if *together { " together" } else { "" };
        match self {
            Event::Change(change) => Words(change).fmt(f),
            Event::Make { vm, vcpus } => write!(f, "make {vm} {vcpus}"),
            Event::Destroy(vm) => write!(f, "destroy {vm}"),
            Event::Write(vm) => write!(f, "write {vm}"),
            Event::Init { of, together } => write!(f, "init {of}{}", threads(together)),
            Event::Run { of, together } => write!(f, "run {of}{}", threads(together)),
            Event::Immediate { vm, vcpu } => write!(f, "immediate {vm}.{vcpu}"),
            Event::Spin { vm, vcpu } => write!(f, "spin {vm}.{vcpu}"),
            Event::Stop { vm, vcpu } => write!(f, "stop {vm}.{vcpu}"),
            Event::CpuOn { vm, vcpu, by } => write!(f, "cpu_on {vm}.{vcpu} by {by}"),
            Event::Race {
                inits,
                runs,
                change,
            } => {
                write!(f, "race {inits}")?;
                if !runs.is_empty() {
                    write!(f, " against {}", List(runs))?;
                }
                change
                    .as_ref()
                    .map_or(Ok(()), |change| write!(f, " while {}", Words(change)))
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in self.0.iter().enumerate() {
            let gap = if at > 0 { "; " } else { "" };
            write!(f, "{gap}{event}")?;
        }
        Ok(())
    }
}

/// Numbers above this are no VMs or vCPUs of a lab.
const MOST: usize = 512;

fn number(text: &str) -> Result<usize> {
    text.parse()
        .ok()
        .filter(|&number| number <= MOST)
        .with_context(|| format!("want a number up to {MOST}, got `{text}`"))
}

fn list(text: &str) -> Result<Vec<usize>> {
    text.split(',').map(number).collect()
}

fn vcpus(text: &str) -> Result<Vcpus> {
    let (vm, vcpus) = text
        .split_once('.')
        .with_context(|| format!("want VM.VCPU,VCPU, got `{text}`"))?;
    Ok(Vcpus {
        vm: number(vm)?,
        vcpus: list(vcpus)?,
    })
}

fn one(text: &str) -> Result<(usize, usize)> {
    match vcpus(text)? {
        Vcpus { vm, vcpus } if vcpus.len() == 1 => Ok((vm, vcpus[0])),
        _ => bail!("want one vCPU, as VM.VCPU, got `{text}`"),
    }
}

fn policy(text: &str) -> Result<Policy> {
    Policy::ALL
        .into_iter()
        .find(|policy| policy.name() == text)
        .with_context(|| format!("no policy is named `{text}`"))
}

fn change(words: &[&str]) -> Result<Change> {
    Ok(match words {
        ["load", name] => Change::Load(policy(name)?),
        ["unload"] => Change::Unload,
        ["policy", name] => Change::Switch(policy(name)?),
        ["kprobes", "on"] => Change::Kprobes(true),
        ["kprobes", "off"] => Change::Kprobes(false),
        _ => bail!("no such event"),
    })
}

impl FromStr for Event {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let together = words.last() == Some(&"together");
        let event = match words.as_slice() {
            ["make", vm, vcpus] => Event::Make {
                vm: number(vm)?,
                vcpus: number(vcpus)?,
            },
            ["destroy", vm] => Event::Destroy(number(vm)?),
            ["write", vm] => Event::Write(number(vm)?),
            ["init", of] | ["init", of, "together"] => Event::Init {
                of: vcpus(of)?,
                together,
            },
            ["run", of] | ["run", of, "together"] => Event::Run {
                of: vcpus(of)?,
                together,
            },
            ["immediate", of] => one(of).map(|(vm, vcpu)| Event::Immediate { vm, vcpu })?,
            ["spin", of] => one(of).map(|(vm, vcpu)| Event::Spin { vm, vcpu })?,
            ["stop", of] => one(of).map(|(vm, vcpu)| Event::Stop { vm, vcpu })?,
            ["cpu_on", of, "by", by] => {
                let (vm, vcpu) = one(of)?;
                let by = number(by)?;
                Event::CpuOn { vm, vcpu, by }
            }
            ["race", of, rest @ ..] => {
                let (runs, rest) = match rest {
                    ["against", runs, rest @ ..] => (list(runs)?, rest),
                    _ => (Vec::new(), rest),
                };
                let change = match rest {
                    [] => None,
                    ["while", rest @ ..] => Some(change(rest)?),
                    _ => bail!("no such event"),
                };
                Event::Race {
                    inits: vcpus(of)?,
                    runs,
                    change,
                }
            }
            words => Event::Change(change(words)?),
        };
        Ok(event)
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let texts = text
            .split(';')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let events: Result<Vec<_>> = texts
            .map(|text| text.parse().with_context(|| format!("event `{text}`")))
            .collect();
        let schedule = Self(events?);
        if schedule.0.is_empty() {
            bail!("a schedule without events");
        }
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_event_is_refused() {
        for text in [
            "",
            ";",
            "jump",
            "load",
            "load never",
            "make 0",
            "make 0 -1",
            "init 0",
            "init 0.",
            "spin 0.1,2",
            "run 0.1 apart",
            "run 0.1 together now",
            "race 0.1 against",
            "race 0.1 while",
            "race 0.1 while write 0",
            "make 0 100000",
            "cpu_on 0.1 by",
            "kprobes",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}

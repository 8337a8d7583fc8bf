// SPDX-License-Identifier: GPL-2.0
//! Plays a schedule on a host, and holds what happens against the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;

use anyhow::{Context, Result};
use contract::{Change, Expected, Policy};

use crate::event::{Event, Schedule, Vcpus};

/// What vCPUs do when they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Call the code that user space rewrites: they must find it as it was written last.
    Report,
    /// Anything else: that code is not covered, so nobody may call it.
    Touch,
}

/// A race, of vCPUs that are there and do not spin.
pub struct Race {
    /// Who is re-initialised, and then works.
    pub inits: Vec<usize>,
    /// What guests do then.
    pub work: Work,
    /// Who runs meanwhile, over and over.
    pub runs: Vec<usize>,
    /// What changes meanwhile.
    pub change: Option<Change>,
}

/// A host with the module. It tells its contract of all that it does, but for changes and races, of
/// which the contract knows already.
pub trait Host {
    /// A VM on it.
    type Vm: Vm;

    /// The contract of this host.
    fn expected(&self) -> MutexGuard<'_, Expected>;

    /// A host without VMs, with kprobes armed and no counts: with the module and this policy, or
    /// without it.
    fn begin(&self, policy: Option<Policy>) -> Result<()>;

    /// Changes the host. The contract is told.
    fn change(&self, change: Change) -> Result<()>;

    /// Makes a VM, its vCPUs initialised for the first time.
    fn make(&self, vcpus: usize) -> Result<Self::Vm>;

    /// Runs the race; the contract knows of its change. Returns how many inits there were.
    fn race(&self, vm: &mut Self::Vm, race: &Race) -> Result<usize>;

    /// Whether all counters are what the contract says.
    fn check(&self) -> Result<()>;
}

/// A VM of such a host. Its destruction ends all that runs in it.
pub trait Vm {
    /// As the contract knows it.
    fn name(&self) -> &str;

    /// Rewrites the code. The contract is told by who calls this.
    fn write(&mut self) -> Result<()>;

    /// Initialises vCPUs, each in its thread if `together`.
    fn init(&mut self, vcpus: &[usize], together: bool) -> Result<()>;

    /// Lets vCPUs do that work, each in its thread if `together`.
    fn run(&mut self, vcpus: &[usize], together: bool, work: Work) -> Result<()>;

    /// KVM_RUN with immediate_exit.
    fn immediate(&mut self, vcpu: usize) -> Result<()>;

    /// A vCPU goes to spin in KVM_RUN.
    fn spin(&mut self, vcpu: usize) -> Result<()>;

    /// It stops.
    fn stop(&mut self, vcpu: usize) -> Result<()>;

    /// Initialises `vcpu` as powered off; `by` turns it on, and user space looks at its registers.
    fn cpu_on(&mut self, vcpu: usize, by: usize) -> Result<()>;
}

/// A VM, and which of its vCPUs can be used.
struct Slot<V> {
    vm: V,
    vcpus: usize,
    spinning: BTreeSet<usize>,
}

impl<V> Slot<V> {
    /// Whether the vCPU is there, and stopped.
    fn has(&self, vcpu: usize) -> bool {
        vcpu < self.vcpus && !self.spinning.contains(&vcpu)
    }

    fn these(&self, vcpus: &[usize]) -> Vec<usize> {
        let these = vcpus.iter().copied().filter(|&vcpu| self.has(vcpu));
        these.collect()
    }
}

struct Play<'a, H: Host> {
    host: &'a H,
    slots: BTreeMap<usize, Slot<H::Vm>>,
}

/// Plays a schedule. An error says which event failed, and how.
pub fn play<H: Host>(host: &H, schedule: &Schedule) -> Result<()> {
    // The host may be spared a load.
    let (policy, events) = match schedule.0.as_slice() {
        [Event::Change(Change::Load(policy)), events @ ..] => (Some(*policy), events),
        events => (None, events),
    };
    host.begin(policy).context("begin")?;
    let mut play = Play {
        host,
        slots: BTreeMap::new(),
    };
    for (at, event) in events.iter().enumerate() {
        let step = play.step(event).and_then(|()| play.check());
        step.with_context(|| {
            format!(
                "event {}, `{event}`",
                at + 1 + usize::from(policy.is_some())
            )
        })?;
    }
    play.slots.clear();
    play.check().context("after all VMs are gone")
}

impl<H: Host> Play<'_, H> {
    fn check(&self) -> Result<()> {
        // Without the module there is nothing to read.
        let loaded = self.host.expected().loaded;
        if loaded { self.host.check() } else { Ok(()) }
    }

    fn step(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Change(change) => match self.possible(*change) {
                Some(change) => self.host.change(change),
                None => Ok(()),
            },
            Event::Make { vm, vcpus } => {
                if !self.slots.contains_key(vm) && *vcpus > 0 {
                    let slot = Slot {
                        vm: self.host.make(*vcpus)?,
                        vcpus: *vcpus,
                        spinning: BTreeSet::new(),
                    };
                    self.slots.insert(*vm, slot);
                }
                Ok(())
            }
            Event::Destroy(vm) => {
                self.slots.remove(vm);
                Ok(())
            }
            Event::Write(vm) => self.slots.get_mut(vm).map_or(Ok(()), |slot| {
                slot.vm.write()?;
                self.host.expected().write(slot.vm.name());
                Ok(())
            }),
            Event::Init { of, together } => {
                let host = self.host;
                self.with(of, |slot, vcpus| {
                    slot.vm.init(vcpus, *together)?;
                    if *together && !slot.spinning.is_empty() {
                        host.expected().contended(slot.vm.name());
                    }
                    Ok(())
                })
            }
            Event::Run { of, together } => {
                let host = self.host;
                self.with(of, |slot, vcpus| {
                    let work = work(host.expected().covers(slot.vm.name()));
                    slot.vm.run(vcpus, *together, work)
                })
            }
            Event::Immediate { vm, vcpu } => {
                self.with_one(*vm, *vcpu, |slot| slot.vm.immediate(*vcpu))
            }
            Event::Spin { vm, vcpu } => self.with_one(*vm, *vcpu, |slot| {
                slot.vm.spin(*vcpu)?;
                slot.spinning.insert(*vcpu);
                Ok(())
            }),
            Event::Stop { vm, vcpu } => self.slots.get_mut(vm).map_or(Ok(()), |slot| {
                if slot.spinning.remove(vcpu) {
                    slot.vm.stop(*vcpu)?;
                }
                Ok(())
            }),
            Event::CpuOn { vm, vcpu, by } => self.with_one(*vm, *vcpu, |slot| {
                if vcpu == by || !slot.has(*by) {
                    return Ok(());
                }
                slot.vm.cpu_on(*vcpu, *by)
            }),
            Event::Race {
                inits,
                runs,
                change,
            } => self.race(inits, runs, *change),
        }
    }

    fn race(&mut self, inits: &Vcpus, runs: &[usize], change: Option<Change>) -> Result<()> {
        let change = change.and_then(|change| self.possible(change));
        let host = self.host;
        self.with(inits, |slot, inits| {
            let mut runs = slot.these(runs);
            runs.retain(|vcpu| !inits.contains(vcpu));
            let covers = host.expected().race(slot.vm.name(), inits, &runs, change);
            let race = Race {
                inits: inits.to_vec(),
                work: work(covers),
                runs,
                change,
            };
            let inits = host.race(&mut slot.vm, &race)?;
            host.expected().race_over(slot.vm.name(), inits);
            if let Some(Change::Load(_)) = change {
                // The race may have been over before.
                slot.vm.init(&race.inits[..1], false)?;
            }
            Ok(())
        })
    }

    /// The change, if it is one now.
    fn possible(&self, change: Change) -> Option<Change> {
        let contract = self.host.expected();
        let possible = match change {
            Change::Load(_) => !contract.loaded,
            Change::Unload | Change::Switch(_) => contract.loaded,
            Change::Kprobes(armed) => contract.armed != armed,
        };
        possible.then_some(change)
    }

    /// Does `work` with those of the vCPUs that are there and do not spin, if there are any.
    fn with(
        &mut self,
        of: &Vcpus,
        work: impl FnOnce(&mut Slot<H::Vm>, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = self.slots.get_mut(&of.vm) else {
            return Ok(());
        };
        let vcpus = slot.these(&of.vcpus);
        if vcpus.is_empty() {
            return Ok(());
        }
        work(slot, &vcpus)
    }

    fn with_one(
        &mut self,
        vm: usize,
        vcpu: usize,
        work: impl FnOnce(&mut Slot<H::Vm>) -> Result<()>,
    ) -> Result<()> {
        let vcpus = vec![vcpu];
        self.with(&Vcpus { vm, vcpus }, |slot, _| work(slot))
    }
}

fn work(covered: bool) -> Work {
    if covered { Work::Report } else { Work::Touch }
}

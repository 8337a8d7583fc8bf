// SPDX-License-Identifier: GPL-2.0
//! Schedules on the module's files in a simulated kernel; see the crate `simulated`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Error, Result, anyhow, bail, ensure};
use contract::{Change, Counters, Expected, Host as HostFacts, NativeReset, Policy};
use simulated::{Job, Machine, RunError};

use crate::event::Schedule;
use crate::play::{self, Host, Race, Vm, Work};

/// A simulated host. There is one at a time: others wait for it to go.
pub struct SimulatedHost(Rc<Inner>);

struct Inner {
    machine: Machine,
    contract: Mutex<Expected>,
    vms: RefCell<BTreeMap<String, Arc<simulated::Vm>>>,
    /// How the next threads are interleaved.
    interleaving: Cell<u64>,
}

/// A VM of it.
pub struct SimulatedVm {
    host: Rc<Inner>,
    vm: Arc<simulated::Vm>,
    name: String,
}

/// In place of a VM's name.
const ALL: &str = "all VMs";

/// What went wrong in a thread.
type Wrong = Arc<Mutex<Option<RunError>>>;

impl SimulatedHost {
    /// `facts` as for the lab's host; with `trusting`, its kernel is taken to be right.
    pub fn new(facts: &str, trusting: bool) -> Result<Self> {
        let host = facts.parse::<HostFacts>().map_err(Error::msg)?;
        let native = match host.native_reset {
            NativeReset::Icache => "icache",
            NativeReset::Unmap => "unmap",
            NativeReset::None => "none",
        };
        let mut contract = Expected::new(host);
        contract.trusting = trusting;
        Ok(Self(Rc::new(Inner {
            machine: Machine::boot(host.fwb, host.dic, native),
            contract: Mutex::new(contract),
            vms: RefCell::default(),
            interleaving: Cell::new(0),
        })))
    }

    /// Plays one schedule. Whatever becomes of it, the next one finds the host in order.
    pub fn play(&self, schedule: &Schedule) -> Result<()> {
        // The same whenever it is played again.
        let mut hasher = DefaultHasher::new();
        schedule.to_string().hash(&mut hasher);
        self.0.interleaving.set(hasher.finish());
        let result = play::play(self, schedule);
        if result.is_err() {
            make(Change::Unload);
            self.expected().unload();
        }
        result
    }

    /// No oracle looks on here.
    pub fn section(&self, _number: u64, _name: &str) {}

    /// Takes the module out, if it is there.
    pub fn end(&self) -> Result<()> {
        self.begin(None)
    }
}

impl Inner {
    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.contract
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    /// Does all jobs at once, never interleaved in the same way.
    fn together(&self, jobs: Vec<Job>) {
        let seed = self.interleaving.get();
        self.interleaving.set(seed.wrapping_add(1));
        self.machine.race(seed, jobs);
    }

    fn difference(&self, name: &str, got: &str) -> Result<Vec<String>> {
        let got: Counters = got.parse().map_err(|error| anyhow!("{name}: {error}"))?;
        let mut contract = self.expected();
        let of_vm = (name != ALL).then_some(name);
        contract.adopt(of_vm, &got);
        let want = match of_vm {
            None => contract.total(),
            Some(name) => contract.per_vm().get(name).copied().unwrap_or_default(),
        };
        let lines = want.difference(&got).into_iter();
        let lines = lines.chain(got.contradictions());
        Ok(lines.map(|line| format!("{name}: {line}")).collect())
    }
}

impl Host for SimulatedHost {
    type Vm = SimulatedVm;

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.0.expected()
    }

    fn begin(&self, policy: Option<Policy>) -> Result<()> {
        if !self.expected().armed {
            self.change(Change::Kprobes(true))?;
        }
        if self.expected().loaded {
            self.change(Change::Unload)?;
        }
        policy.map_or(Ok(()), |policy| self.change(Change::Load(policy)))
    }

    fn change(&self, change: Change) -> Result<()> {
        ensure!(make(change), "refused: {change:?}");
        let mut contract = self.expected();
        match change {
            Change::Load(policy) => contract.load(policy),
            Change::Unload => contract.unload(),
            Change::Switch(policy) => contract.policy = policy,
            Change::Kprobes(on) => contract.armed = on,
        }
        let open = self.0.machine.gate();
        ensure!(
            change != Change::Unload || open == 0,
            "unloaded, but the gate says {open}"
        );
        Ok(())
    }

    fn make(&self, vcpus: usize) -> Result<SimulatedVm> {
        let vm = simulated::make(vcpus);
        let name = vm.number().to_string();
        let mut contract = self.expected();
        contract.create(&name, vcpus);
        (0..vcpus).for_each(|vcpu| contract.init(&name, vcpu));
        self.0.vms.borrow_mut().insert(name.clone(), vm.clone());
        Ok(SimulatedVm {
            host: self.0.clone(),
            vm,
            name,
        })
    }

    fn race(&self, vm: &mut SimulatedVm, race: &Race) -> Result<usize> {
        let over = Arc::new(AtomicBool::new(race.change.is_none()));
        let inits = Arc::new(AtomicUsize::new(0));
        let wrong = Wrong::default();
        let report = race.work == Work::Report;
        let mut jobs: Vec<Job> = Vec::new();
        for &vcpu in race.inits.iter().chain(&race.runs) {
            let (vm, inits, over, wrong) =
                (vm.vm.clone(), inits.clone(), over.clone(), wrong.clone());
            let is_init = race.inits.contains(&vcpu);
            jobs.push(Box::new(move || {
                loop {
                    let last = over.load(Ordering::SeqCst);
                    if is_init {
                        vm.init(vcpu);
                        inits.fetch_add(1, Ordering::SeqCst);
                    }
                    note(&wrong, vm.run(vcpu, is_init && report));
                    if last {
                        break;
                    }
                }
            }));
        }
        let done = Arc::new(AtomicBool::new(true));
        if let Some(change) = race.change {
            let done = done.clone();
            jobs.push(Box::new(move || {
                done.store(make(change), Ordering::SeqCst);
                over.store(true, Ordering::SeqCst);
            }));
        }
        self.0.together(jobs);
        ensure!(done.load(Ordering::SeqCst), "refused: {:?}", race.change);
        told(&wrong)?;
        Ok(inits.load(Ordering::SeqCst))
    }

    fn check(&self) -> Result<()> {
        let host = &self.0;
        let mut wrong = Vec::new();
        for (name, vm) in host.vms.borrow().iter() {
            let listed = host.expected().per_vm().contains_key(name.as_str());
            match vm.stats() {
                Some(got) => wrong.extend(host.difference(name, &got)?),
                None if listed => wrong.push(format!("VM {name} has no files")),
                None => {}
            }
        }
        wrong.extend(host.difference(ALL, &host.machine.stats())?);
        let (open, in_reset) = (host.machine.gate(), host.expected().in_reset());
        if usize::try_from(open) != Ok(in_reset) {
            wrong.push(format!("{in_reset} VMs in reset, but the gate says {open}"));
        }
        ensure!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
        Ok(())
    }
}

/// A change of which the contract knows already, or is told after. Returns whether the host took it.
fn make(change: Change) -> bool {
    match change {
        Change::Load(policy) => simulated::Change::Insert(policy as u64),
        Change::Unload => simulated::Change::Remove,
        Change::Switch(policy) => simulated::Change::Switch(policy.name()),
        Change::Kprobes(on) => simulated::Change::Kprobes(on),
    }
    .make()
}

/// Notes the first thing that goes wrong.
fn note(wrong: &Wrong, result: Result<(), RunError>) {
    if let Err(error) = result {
        let mut wrong = wrong.lock().unwrap_or_else(|error| error.into_inner());
        wrong.get_or_insert(error);
    }
}

fn told(wrong: &Wrong) -> Result<()> {
    let wrong = wrong.lock().unwrap_or_else(|error| error.into_inner());
    match &*wrong {
        None => Ok(()),
        Some(RunError { vcpu, want, got }) => {
            bail!("vCPU {vcpu} ran version {got} of the code, and {want} was written")
        }
    }
}

impl SimulatedVm {
    /// Does `work` with each of the vCPUs, in turn or all at once.
    fn each(
        &self,
        vcpus: &[usize],
        together: bool,
        work: impl Fn(&Arc<simulated::Vm>, usize) -> Result<(), RunError> + Send + Sync + 'static,
    ) -> Result<()> {
        let wrong = Wrong::default();
        if !together || vcpus.len() == 1 {
            vcpus
                .iter()
                .for_each(|&vcpu| note(&wrong, work(&self.vm, vcpu)));
            return told(&wrong);
        }
        let work = Arc::new(work);
        let job = |&vcpu| {
            let (vm, work, wrong) = (self.vm.clone(), work.clone(), wrong.clone());
            Box::new(move || note(&wrong, work(&vm, vcpu))) as Job
        };
        self.host.together(vcpus.iter().map(job).collect());
        told(&wrong)
    }
}

impl Vm for SimulatedVm {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self) -> Result<()> {
        self.vm.write();
        Ok(())
    }

    fn init(&mut self, vcpus: &[usize], together: bool) -> Result<()> {
        self.each(vcpus, together, |vm, vcpu| {
            vm.init(vcpu);
            Ok(())
        })?;
        let mut contract = self.host.expected();
        vcpus
            .iter()
            .for_each(|&vcpu| contract.init(&self.name, vcpu));
        Ok(())
    }

    fn run(&mut self, vcpus: &[usize], together: bool, work: Work) -> Result<()> {
        let report = work == Work::Report;
        self.each(vcpus, together, move |vm, vcpu| vm.run(vcpu, report))?;
        let mut contract = self.host.expected();
        for &vcpu in vcpus {
            contract.enter(&self.name, vcpu);
            contract.leave(&self.name, vcpu);
        }
        Ok(())
    }

    fn immediate(&mut self, vcpu: usize) -> Result<()> {
        self.vm.immediate(vcpu);
        self.host.expected().immediate(&self.name, vcpu);
        Ok(())
    }

    fn spin(&mut self, vcpu: usize) -> Result<()> {
        self.vm.spin(vcpu);
        self.host.expected().enter(&self.name, vcpu);
        Ok(())
    }

    fn stop(&mut self, vcpu: usize) -> Result<()> {
        self.vm.stop(vcpu);
        self.host.expected().leave(&self.name, vcpu);
        Ok(())
    }

    fn cpu_on(&mut self, vcpu: usize, by: usize) -> Result<()> {
        self.init(&[vcpu], false)?;
        self.run(&[by], false, Work::Touch)?;
        self.vm.psci_reset(vcpu);
        Ok(())
    }
}

impl Drop for SimulatedVm {
    fn drop(&mut self) {
        self.host.vms.borrow_mut().remove(&self.name);
        self.vm.clone().destroy();
        self.host.expected().destroy(&self.name);
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Schedules on the module itself, in a kernel with KVM, with guests that run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use contract::{Change, Expected, Policy};
use vmm::affinity;
use vmm::guest::{PSCI_CPU_ON, Routine};
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::marker;
use vmm::module;
use vmm::threads::{join, lock};
use vmm::{Spinner, Vcpu};

use crate::event::Schedule;
use crate::play::{self, Host, Race, Vm, Work};

/// The host that this runs on.
pub struct LabHost {
    lab: Lab,
    kmsg: Mutex<Kmsg>,
}

/// A VM of that host.
pub struct LabVm {
    // Goes first: the VM's RAM must outlive who runs in it.
    spinners: BTreeMap<usize, Spinner>,
    vm: vmm::Vm,
}

impl LabHost {
    /// `facts` are what is known of the machine; with `trusting`, its kernel is taken to be right.
    /// The module must not be loaded.
    pub fn new(facts: &str, trusting: bool) -> Result<Self> {
        ensure!(
            !module::is_loaded(),
            "{} is loaded: rmmod it first",
            module::NAME
        );
        let lab = Lab::new(facts, 1)?;
        lab.expected().trusting = trusting;
        let kmsg = Mutex::new(Kmsg::open().context("/dev/kmsg")?);
        Ok(Self { lab, kmsg })
    }

    /// Plays one schedule. Whatever becomes of it, the next one finds the host in order.
    pub fn play(&self, schedule: &Schedule) -> Result<()> {
        let result = play::play(self, schedule);
        // The kernel's own complaints come first: they explain the rest.
        let splats = lock(&self.kmsg).splats()?;
        if result.is_err() {
            self.lab.recover().context("cannot go on after a failure")?;
        }
        if !splats.is_empty() {
            let splats = splats.join("\n");
            bail!("the kernel complains:\n{splats}\n{:?}", result.err());
        }
        result
    }

    /// Tells the oracle that what follows belongs to section `number`, of that name.
    pub fn section(&self, number: u64, name: &str) {
        marker::section(number, name);
    }

    /// Takes the module out, if it is there.
    pub fn end(&self) -> Result<()> {
        self.begin(None)
    }
}

impl Host for LabHost {
    type Vm = LabVm;

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.lab.expected()
    }

    fn begin(&self, policy: Option<Policy>) -> Result<()> {
        if !self.lab.expected().armed {
            self.lab.arm_kprobes(true)?;
        }
        match policy {
            Some(policy) => self.lab.prepare(policy),
            None if self.lab.expected().loaded => self.lab.unload(),
            None => Ok(()),
        }
    }

    fn change(&self, change: Change) -> Result<()> {
        match change {
            Change::Load(policy) => self.lab.load(policy),
            Change::Unload => self.lab.unload(),
            Change::Switch(policy) => self.lab.switch(policy),
            Change::Kprobes(on) => {
                self.lab.arm_kprobes(on)?;
                let loaded = self.lab.expected().loaded;
                if loaded {
                    self.lab.assert_host()
                } else {
                    Ok(())
                }
            }
        }
    }

    fn make(&self, vcpus: usize) -> Result<LabVm> {
        Ok(LabVm {
            spinners: BTreeMap::new(),
            vm: self.lab.vm(vcpus)?,
        })
    }

    fn race(&self, LabVm { vm, .. }: &mut LabVm, race: &Race) -> Result<usize> {
        let (over, inits) = (AtomicBool::new(race.change.is_none()), AtomicUsize::new(0));
        let value = vm.value();
        let rounds = |vcpu: &mut Vcpu| {
            loop {
                let last = over.load(Ordering::Relaxed);
                if race.inits.contains(&vcpu.index()) {
                    vcpu.reset(Routine::Report)?;
                    inits.fetch_add(1, Ordering::Relaxed);
                    work(vcpu, race.work, value)?;
                } else {
                    vcpu.touch()?;
                }
                if last {
                    return Ok(());
                }
            }
        };
        thread::scope(|scope| {
            let changer = scope.spawn(|| {
                let result = race.change.map_or(Ok(()), change_only);
                over.store(true, Ordering::Relaxed);
                result
            });
            let racing = |vcpu| race.inits.contains(&vcpu) || race.runs.contains(&vcpu);
            vm.parallel_if(racing, rounds).and(join(changer))
        })?;
        Ok(inits.into_inner())
    }

    fn check(&self) -> Result<()> {
        self.lab.check("counters")
    }
}

/// A change of which the contract knows already.
fn change_only(change: Change) -> Result<()> {
    match change {
        Change::Load(policy) => {
            module::insert(&format!("policy={}", policy as u8)).context("insmod")
        }
        Change::Unload => module::remove().context("rmmod"),
        Change::Switch(policy) => module::write("policy", policy.name()).context("switch"),
        Change::Kprobes(on) => module::arm_kprobes(on),
    }
}

/// On each CPU of the host: vCPUs migrate, and each PE has an instruction cache of its own.
fn work(vcpu: &mut Vcpu, work: Work, value: u16) -> Result<()> {
    let cpus = thread::available_parallelism()?.get();
    (0..cpus).try_for_each(|number| {
        affinity::on((vcpu.index() + number) % cpus, || match work {
            Work::Report => {
                vcpu.start(Routine::Report, &[])?;
                vcpu.report(value)
            }
            Work::Touch => vcpu.touch(),
        })
    })
}

impl LabVm {
    /// The vCPU of that index. Those that spin are elsewhere.
    fn vcpu(&mut self, index: usize) -> Result<&mut Vcpu> {
        let mut vcpus = self.vm.vcpus.iter_mut();
        vcpus
            .find(|vcpu| vcpu.index() == index)
            .with_context(|| format!("vCPU {index} is not there, or spins"))
    }

    fn each(
        &mut self,
        vcpus: &[usize],
        together: bool,
        work: impl Fn(&mut Vcpu) -> Result<()> + Sync,
    ) -> Result<()> {
        if together {
            return self.vm.parallel_if(|vcpu| vcpus.contains(&vcpu), work);
        }
        vcpus.iter().try_for_each(|&vcpu| work(self.vcpu(vcpu)?))
    }
}

impl Vm for LabVm {
    fn name(&self) -> &str {
        self.vm.name()
    }

    fn write(&mut self) -> Result<()> {
        self.vm.rewrite()
    }

    fn init(&mut self, vcpus: &[usize], together: bool) -> Result<()> {
        self.each(vcpus, together, |vcpu| vcpu.reset(Routine::Report))
    }

    fn run(&mut self, vcpus: &[usize], together: bool, what: Work) -> Result<()> {
        let value = self.vm.value();
        self.each(vcpus, together, |vcpu| work(vcpu, what, value))
    }

    fn immediate(&mut self, vcpu: usize) -> Result<()> {
        self.vcpu(vcpu)?.run_immediate()
    }

    fn spin(&mut self, vcpu: usize) -> Result<()> {
        let mut vcpus = self.vm.vcpus.iter();
        let at = vcpus
            .position(|other| other.index() == vcpu)
            .with_context(|| format!("vCPU {vcpu} is not there, or spins"))?;
        let spinner = self.vm.vcpus.remove(at).into_spinner()?;
        self.spinners.insert(vcpu, spinner);
        Ok(())
    }

    fn stop(&mut self, vcpu: usize) -> Result<()> {
        if let Some(spinner) = self.spinners.remove(&vcpu) {
            self.vm.vcpus.push(spinner.stop()?);
        }
        Ok(())
    }

    fn cpu_on(&mut self, vcpu: usize, by: usize) -> Result<()> {
        self.vcpu(vcpu)?.reset_off()?;
        let entry = Routine::Report.address();
        let caller = self.vcpu(by)?;
        caller.start(Routine::Hvc, &[PSCI_CPU_ON, vcpu as u64, entry, 0])?;
        let answer = caller.value()?;
        ensure!(answer == 0, "CPU_ON of vCPU {vcpu}: {answer:#x}");
        let counter = self.vcpu(vcpu)?.program_counter()?;
        ensure!(counter == entry, "CPU_ON: vCPU {vcpu} is at {counter:#x}");
        Ok(())
    }
}

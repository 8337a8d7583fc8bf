// SPDX-License-Identifier: GPL-2.0
//! A host with KVM, the module loaded or not, and what is expected to be read there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Error, Result, ensure};
use contract::latency::Latency;
use contract::{Counters, Expected, Host, Policy};
use kvm_ioctls::Kvm;

use crate::boot;
use crate::guest;
use crate::module;
use crate::observer::Observer;
use crate::threads::lock;
use crate::vm::{self, Vm};

/// This host, and what is known of it.
pub struct Lab {
    /// How often each test repeats what it does.
    pub reps: usize,
    kvm: Kvm,
    expected: Arc<Mutex<Expected>>,
    /// What the `host` file must say.
    facts: BTreeMap<String, String>,
}

/// What is expected follows from what VMs do.
impl Observer for Mutex<Expected> {
    fn made(&self, name: &str, pid: i32, vcpus: usize) -> String {
        let mut expected = lock(self);
        if expected.shown(name).is_none() {
            expected.create(name, vcpus);
            return name.to_owned();
        }
        let again = format!("{name} again");
        expected.create(&again, vcpus);
        expected.nameless(&again, pid);
        again
    }

    fn out_of_reach(&self, vm: &str) {
        lock(self).out_of_reach(vm);
    }

    fn goes(&self, vm: &str) {
        lock(self).destroy(vm);
    }

    fn initialised(&self, vm: &str, vcpu: usize) {
        lock(self).init(vm, vcpu);
    }

    fn enters(&self, vm: &str, vcpu: usize) {
        lock(self).enter(vm, vcpu);
    }

    fn left(&self, vm: &str, vcpu: usize) {
        lock(self).leave(vm, vcpu);
    }

    fn runs_immediately(&self, vm: &str, vcpu: usize) {
        lock(self).immediate(vm, vcpu);
    }
}

impl Lab {
    /// `facts` are what is known of the machine: `fwb:1,dic:0,...`.
    pub fn new(facts: &str, reps: usize) -> Result<Self> {
        let host = facts.parse().map_err(Error::msg)?;
        let facts = contract::facts(facts).map_err(Error::msg)?;
        Ok(Self {
            reps,
            kvm: vm::kvm()?,
            expected: Arc::new(Mutex::new(Expected::new(host))),
            facts,
        })
    }

    /// A VM that is watched.
    pub fn vm(&self, vcpus: usize) -> Result<Vm> {
        Vm::new(&self.kvm, self.expected.clone(), vcpus)
    }

    /// A VM that is watched, with addresses for so much further RAM.
    pub fn vm_with_room(&self, vcpus: usize, further: usize) -> Result<Vm> {
        let (size, bits) = (guest::ram_size(vcpus), guest::address_bits(further));
        Vm::with_addresses(&self.kvm, self.expected.clone(), vcpus, size, bits)
    }

    /// The VM's directory in `vms`, once it is there.
    pub fn shown(&self, vm: &Vm) -> String {
        let expected = self.expected();
        expected.shown(vm.name()).unwrap_or(vm.name()).to_owned()
    }

    /// What is expected on this host.
    pub fn expected(&self) -> MutexGuard<'_, Expected> {
        lock(&self.expected)
    }

    /// What the machine is.
    pub fn host(&self) -> Host {
        self.expected().host
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.expected().policy
    }

    /// Whether code written between the re-init and the KVM_RUN must be seen.
    pub fn covers_late_writes(&self) -> bool {
        let expected = self.expected();
        contract::covers_late_writes(expected.host, expected.loaded.then_some(expected.policy))
    }

    /// Loads the module and asserts that it sees the machine that we were told of.
    pub fn load(&self, policy: Policy) -> Result<()> {
        module::insert(&format!("policy={}", policy as u8)).context("insmod")?;
        self.expected().load(policy);
        self.assert_host()
    }

    /// Unloads the module.
    pub fn unload(&self) -> Result<()> {
        module::remove().context("rmmod")?;
        self.expected().unload();
        ensure!(
            !module::is_loaded(),
            "rmmod returned, but the module is there"
        );
        Ok(())
    }

    /// Has the module loaded, with this policy and no counts.
    pub fn prepare(&self, policy: Policy) -> Result<()> {
        if !self.expected().loaded {
            self.load(policy)?;
        }
        self.switch(policy)?;
        self.clear()
    }

    /// Writes another policy.
    pub fn switch(&self, policy: Policy) -> Result<()> {
        module::write("policy", policy.name())
            .with_context(|| format!("switch to {}", policy.name()))?;
        self.expected().policy = policy;
        Ok(())
    }

    /// Sets all counters to 0.
    pub fn clear(&self) -> Result<()> {
        // Any write will do, however long.
        module::write("clear", &"x".repeat(100)).context("clear")?;
        self.expected().clear();
        Ok(())
    }

    /// Lets kprobes fire, or not, on the whole host.
    pub fn arm_kprobes(&self, on: bool) -> Result<()> {
        module::arm_kprobes(on)?;
        self.expected().armed = on;
        Ok(())
    }

    /// The `host` file says what is known of the machine.
    pub fn assert_host(&self) -> Result<()> {
        let host = module::host()?;
        let names: Vec<_> = host.keys().map(String::as_str).collect();
        ensure!(
            names == ["dic", "fwb", "hooks", "idc", "lazy", "native_reset", "vhe"],
            "host: wrong names: {names:?}"
        );
        for (name, want) in &self.facts {
            let got = host.get(name).map_or("nothing", String::as_str);
            ensure!(got == want, "host: {name}: want {want}, got {got}");
        }
        let (want, got) = (self.lazy()?, host["lazy"].as_str());
        ensure!(got == want, "host: lazy: want {want}, got {got}");
        // Where the kernel would not invalidate anyway, a probe that does not fire may or may not be told.
        let expected = self.expected();
        let want: &[_] = match (expected.is_blind(), expected.armed) {
            (true, _) => &["degraded"],
            (false, true) => &["armed"],
            (false, false) => &["armed", "degraded"],
        };
        let got = host["hooks"].as_str();
        ensure!(want.contains(&got), "host: hooks: want {want:?}, got {got}");
        Ok(())
    }

    /// What the `host` file must say of `lazy`: it does something of its own where there is an unmap to
    /// make cheaper, and where that is not EL2's.
    pub fn lazy(&self) -> Result<&str> {
        if let Some(fact) = self.facts.get("lazy") {
            return Ok(fact);
        }
        let protected = boot::word("kvm-arm.mode")?.as_deref() == Some("protected");
        let as_once = self.host().fwb || protected;
        Ok(if as_once { "as_once" } else { "unmaps" })
    }

    /// Compares every counter there is with what is expected.
    pub fn check(&self, when: &str) -> Result<()> {
        let mut expected = self.expected();
        let mut wrong = Vec::new();
        let names: Vec<_> = expected
            .per_vm()
            .keys()
            .map(|name| name.to_string())
            .collect();
        let listed = module::vms()?;
        if names != listed {
            wrong.push(format!("vms: want {names:?}, got {listed:?}"));
        }
        for name in names.iter().filter(|name| listed.contains(name)) {
            wrong.extend(difference(
                &format!("vms/{name}/"),
                &mut expected,
                Some(name),
            )?);
        }
        wrong.extend(difference("", &mut expected, None)?);
        ensure!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Puts the host back as it was, whatever a failed test left behind.
    pub fn recover(&self) -> Result<()> {
        self.arm_kprobes(true)?;
        if module::is_loaded() {
            module::remove().context("rmmod after a failed test")?;
        }
        self.expected().unload();
        Ok(())
    }
}

/// What the files in `directory`, of one VM or of all, say otherwise than expected.
fn difference(directory: &str, expected: &mut Expected, name: Option<&str>) -> Result<Vec<String>> {
    let (stats, latency) = (format!("{directory}stats"), format!("{directory}latency"));
    let mut wrong = Vec::new();
    let got = module::parse::<Counters>(&stats)?;
    expected.adopt(name, &got);
    let (want, untimed) = match name {
        None => (expected.total(), expected.untimed()),
        Some(shown) => (expected.per_vm()[shown], expected.untimed_of(shown)),
    };
    for line in want
        .difference(&got)
        .into_iter()
        .chain(got.contradictions())
    {
        wrong.push(format!("{stats}: {line}"));
    }
    if let Some(untimed) = untimed {
        for line in module::parse::<Latency>(&latency)?.contradictions(&want, untimed) {
            wrong.push(format!("{latency}: {line}"));
        }
    }
    Ok(wrong)
}

// SPDX-License-Identifier: GPL-2.0
//! What every counter must read: a plain model of the contract, told of each event as it happens.
//!
//! Events of one VM may come from several threads as long as their order does not matter to the
//! counters: parallel re-inits, or parallel KVM_RUNs. Where both happen at once, [`Model::race`] says
//! between what bounds the counters lie.
//!
//! The model also knows what the contract says of instruction fetch: whether code that user space
//! wrote is what a vCPU that enters the guest now is sure to run ([`Model::covers`]).

mod race;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

pub use race::Change;
use race::Race;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Native,
    Fwb,
    Once,
    Unmap,
    Lazy,
}

impl Policy {
    pub const ALL: [Policy; 5] = [
        Policy::Native,
        Policy::Fwb,
        Policy::Once,
        Policy::Unmap,
        Policy::Lazy,
    ];

    /// As debugfs spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Native => "native",
            Policy::Fwb => "fwb",
            Policy::Once => "once",
            Policy::Unmap => "unmap",
            Policy::Lazy => "lazy",
        }
    }

    /// Whether what is due is done once for all vCPUs of a VM.
    pub const fn is_per_vm(self) -> bool {
        matches!(self, Policy::Once | Policy::Lazy)
    }
}

/// What the kernel's own path does at a re-init on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeReset {
    Icache,
    Unmap,
    None,
}

/// The facts that the `host` file states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    pub fwb: bool,
    pub dic: bool,
    pub native_reset: NativeReset,
}

impl Host {
    /// Whether a re-init calls for an invalidation of the I-cache, and so for a skip of the kernel's.
    pub fn needs_icache(self) -> bool {
        self.fwb && !self.dic
    }
}

/// Facts on a machine, `name:value,name:value` with the names and values of the `host` file, as a map.
pub fn facts(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pairs = text.split(',').map(|fact| fact.split_once(':'));
    pairs
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("facts are given as name:value,name:value, not as `{text}`"))
}

/// Out of [`facts`]: `fwb` and `dic` at least.
impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let facts = facts(text)?;
        let fact = |name: &str| {
            let value = facts.get(name).map(|value| value == "1");
            value.ok_or_else(|| format!("the fact `{name}` is missing"))
        };
        let (fwb, dic) = (fact("fwb")?, fact("dic")?);
        let native_reset = match facts.get("native_reset").map(String::as_str) {
            Some("icache") => NativeReset::Icache,
            Some("unmap") => NativeReset::Unmap,
            Some("none") => NativeReset::None,
            Some(other) => {
                return Err(format!(
                    "native_reset is icache, unmap or none, not {other}"
                ));
            }
            // Since 5.8.
            None if !fwb => NativeReset::Unmap,
            None if dic => NativeReset::None,
            None => NativeReset::Icache,
        };
        Ok(Self {
            fwb,
            dic,
            native_reset,
        })
    }
}

/// One list of names gives the structure, its parser and its arithmetic.
macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $(pub $name: u64),* }

        const NOTHING: Counters = Counters { $($name: 0),* };

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)* }
        }

        impl Counters {
            fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Each counter made by `combine` from both values.
            fn zip(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
                Self { $($name: combine(self.$name, other.$name)),* }
            }

            fn row(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

counters!(
    vcpu_init,
    vcpu_reset,
    vm_reset,
    icache_invalidate,
    icache_elide,
    icache_dic,
    stage2_unmap,
    stage2_unmap_elide,
    busy,
    dcache_clean_elide_bytes,
    tlbi_elide,
    stage2_flush,
    pending
);

/// The smallest page of any arm64 host.
const PAGE: u64 = 4096;

/// How much one unmap under `lazy` may leave out: nobody here knows how much of a VM was mapped, and
/// in pages of what size.
const ANY_ELIDED: Counters = Counters {
    dcache_clean_elide_bytes: 1 << 40,
    tlbi_elide: 1 << 40,
    ..NOTHING
};

impl Counters {
    /// With what `got` says that unmaps under `lazy` left out, which is not known beforehand.
    pub fn with_elided_of(self, got: &Self) -> Self {
        Self {
            dcache_clean_elide_bytes: got.dcache_clean_elide_bytes,
            tlbi_elide: got.tlbi_elide,
            ..self
        }
    }

    /// What in them contradicts itself.
    pub fn contradictions(&self) -> Option<String> {
        let (bytes, tlbi) = (self.dcache_clean_elide_bytes, self.tlbi_elide);
        let agree = bytes % PAGE == 0 && bytes / PAGE >= tlbi && (bytes == 0) == (tlbi == 0);
        (!agree).then(|| format!("{bytes} bytes not cleaned of {tlbi} pages"))
    }

    /// The counters that differ, as `name: want 1, got 2`.
    pub fn difference(&self, got: &Self) -> Vec<String> {
        let pairs = self.rows().into_iter().zip(got.rows());
        pairs
            .filter(|(want, got)| want != got)
            .map(|((name, want), (_, got))| format!("{name}: want {want}, got {got}"))
            .collect()
    }
}

/// The `stats` file: every counter once, and nothing else.
impl FromStr for Counters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut counters = Self::default();
        let mut seen = Vec::new();
        for line in text.lines() {
            let (name, value) = line
                .split_once(' ')
                .ok_or_else(|| format!("stats: not `name value`: {line}"))?;
            let row = counters
                .row(name)
                .ok_or_else(|| format!("stats: unknown counter {name}"))?;
            *row = value
                .parse()
                .map_err(|_| format!("stats: not a number: {line}"))?;
            if seen.contains(&name) {
                return Err(format!("stats: {name} twice"));
            }
            seen.push(name);
        }
        match counters
            .rows()
            .iter()
            .find(|(name, _)| !seen.contains(name))
        {
            Some((name, _)) => Err(format!("stats: {name} is missing")),
            None => Ok(counters),
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows()
            .iter()
            .try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}

#[derive(Clone, Copy, Default)]
struct Vcpu {
    has_run: bool,
    running: bool,
}

/// Re-inits whose end the module could not see; nobody knows how many if a race was with a change.
#[derive(Clone, Copy)]
struct Untimed(Option<u64>);

impl Default for Untimed {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Untimed {
    fn add(&mut self, count: u64) {
        self.0 = self.0.map(|untimed| untimed + count);
    }
}

/// One VM, as the module should see it.
#[derive(Clone, Default)]
struct Vm {
    vcpus: Vec<Vcpu>,
    counters: Counters,
    /// By how much more the counters may have moved in races.
    slack: Counters,
    racing: Option<Race>,
    untimed: Untimed,
    /// KVM gave it no name, for another VM has it: the thread that made it.
    nameless: Option<i32>,
    /// What it is called if not by KVM's name.
    own_name: Option<String>,
    /// Re-initialised since the module was loaded, so that it has files of its own.
    listed: bool,
    /// Has memory that an unmap may not reach.
    out_of_reach: bool,
    /// Re-initialised since the last KVM_RUN.
    in_reset: bool,
    /// All RAM unmapped under `once` or `lazy` since the last KVM_RUN.
    unmapped: bool,
    /// An invalidation is due before the next KVM_RUN.
    owed: bool,
    /// Or perhaps one is.
    may_owe: bool,
    /// A vCPU may have mapped RAM at stage 2, which makes it coherent, since all was unmapped.
    mapped: bool,
    /// Code was written that instruction caches may hold an older version of.
    stale: bool,
}

/// The module's view of a host: its settings, and all VMs.
pub struct Model {
    pub host: Host,
    pub policy: Policy,
    pub loaded: bool,
    /// Whether kprobes fire. Without them the kernel's own invalidation is neither seen nor left out.
    pub armed: bool,
    /// Take the kernel's own way to invalidate where it must, whatever `native_reset` says. A model
    /// that trusts a kernel wrongly calls code covered that is not: the oracle must then find it.
    pub trusting: bool,
    total: Counters,
    slack: Counters,
    untimed: Untimed,
    vms: BTreeMap<String, Vm>,
    /// VMs that the module had to find a name for since it was loaded.
    own_names: usize,
}

impl Model {
    pub fn new(host: Host) -> Self {
        Self {
            host,
            policy: Policy::Once,
            loaded: false,
            armed: true,
            trusting: false,
            total: Counters::default(),
            slack: Counters::default(),
            untimed: Untimed::default(),
            vms: BTreeMap::new(),
            own_names: 0,
        }
    }

    /// Whether an invalidation of the kernel's own is out of the module's sight.
    pub fn is_blind(&self) -> bool {
        !self.armed && self.host.native_reset == NativeReset::Icache
    }

    pub fn load(&mut self, policy: Policy) {
        self.loaded = true;
        self.policy = policy;
        self.own_names = 0;
        self.clear();
    }

    /// Unloading pays what is owed, and every record is gone.
    pub fn unload(&mut self) {
        self.loaded = false;
        self.clear();
        for vm in self.vms.values_mut() {
            *vm = Vm {
                vcpus: std::mem::take(&mut vm.vcpus),
                racing: vm.racing.take(),
                mapped: vm.mapped,
                stale: vm.stale && !vm.owed,
                nameless: vm.nameless,
                out_of_reach: vm.out_of_reach,
                ..Vm::default()
            };
        }
    }

    pub fn clear(&mut self) {
        (self.total, self.slack, self.untimed) = Default::default();
        for vm in self.vms.values_mut() {
            (vm.counters, vm.slack, vm.untimed) = Default::default();
        }
    }

    pub fn create(&mut self, name: &str, vcpus: usize) {
        let vm = Vm {
            vcpus: vec![Vcpu::default(); vcpus],
            ..Vm::default()
        };
        self.vms.insert(name.to_owned(), vm);
    }

    /// KVM gave this VM no name, beside another one that has it. `pid` is the thread that made it.
    pub fn nameless(&mut self, name: &str, pid: i32) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.nameless = Some(pid);
        }
    }

    /// The VM has memory that `stage2_unmap_vm` may not reach.
    pub fn out_of_reach(&mut self, name: &str) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.out_of_reach = true;
        }
    }

    /// What a VM is called in `vms` once it is there.
    pub fn shown<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let vm = self.vms.get(name)?;
        Some(vm.shown(name))
    }

    pub fn destroy(&mut self, name: &str) {
        self.vms.remove(name);
    }

    /// A KVM_ARM_VCPU_INIT that passed validation.
    pub fn init(&mut self, name: &str, vcpu: usize) {
        let (host, blind) = (self.host, self.is_blind());
        let (policy, trusted) = (self.way(), self.trusts(self.way()));
        let loaded = self.loaded;
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) else {
            return;
        };
        let mut add = Counters {
            vcpu_init: 1,
            ..Counters::default()
        };
        if vm.vcpus[vcpu].has_run {
            if let (true, None, Some(pid)) = (loaded, &vm.own_name, vm.nameless) {
                self.own_names += 1;
                vm.own_name = Some(format!("{pid}-vm{}", self.own_names));
            }
            let busy = vm.is_busy(vcpu);
            let done = vm.reset(busy, host, policy, blind);
            if vm.may_elide(&done, busy, host, policy) {
                vm.slack += ANY_ELIDED;
                self.slack += ANY_ELIDED;
            }
            vm.cover(&done, busy, trusted);
            add += done;
            vm.untimed.add((blind && loaded).into());
            self.untimed.add((blind && loaded).into());
        }
        if loaded {
            vm.counters += add;
            self.total += add;
        } else {
            (vm.listed, vm.in_reset) = (false, false);
        }
    }

    /// The policy in force: without the module the kernel goes the way that `native` counts.
    fn way(&self) -> Policy {
        if self.loaded {
            self.policy
        } else {
            Policy::Native
        }
    }

    /// Whether a re-init under that policy is taken to invalidate, though nothing says so.
    fn trusts(&self, policy: Policy) -> bool {
        self.trusting && policy == Policy::Native
    }

    /// User space wrote other code.
    pub fn write(&mut self, name: &str) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.stale |= vm.mapped;
        }
    }

    /// Whether all code written so far is what a vCPU runs that enters the guest now.
    pub fn covers(&self, name: &str) -> bool {
        let never_stale = self.host.fwb && self.host.dic;
        self.vms
            .get(name)
            .is_some_and(|vm| never_stale || !vm.stale || vm.owed)
    }

    /// A KVM_RUN that may enter the guest begins.
    pub fn enter(&mut self, name: &str, vcpu: usize) {
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) else {
            return;
        };
        vm.vcpus[vcpu] = Vcpu {
            has_run: true,
            running: true,
        };
        let add = Counters {
            icache_invalidate: vm.owed.into(),
            ..Counters::default()
        };
        vm.stale &= !vm.owed;
        vm.mapped = true;
        (vm.in_reset, vm.unmapped, vm.owed) = (false, false, false);
        vm.counters += add;
        self.total += add;
    }

    /// It has ended.
    pub fn leave(&mut self, name: &str, vcpu: usize) {
        if let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.racing.is_none()) {
            vm.vcpus[vcpu].running = false;
        }
    }

    /// A KVM_RUN with immediate_exit: the vCPU counts as one that has run, and that is all.
    pub fn immediate(&mut self, name: &str, vcpu: usize) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.vcpus[vcpu].has_run = true;
        }
    }

    /// How many VMs are in reset, as far as the module knows.
    pub fn in_reset(&self) -> usize {
        self.vms.values().filter(|vm| vm.in_reset).count()
    }

    /// What `stats` must read.
    pub fn total(&self) -> Counters {
        let pending = self.vms.values().filter(|vm| vm.owed).count();
        Counters {
            pending: pending as u64,
            ..self.total
        }
    }

    /// How many re-inits of all are not in `latency`, if that is known.
    pub fn untimed(&self) -> Option<u64> {
        self.untimed.0
    }

    /// The same of one VM.
    pub fn untimed_of(&self, shown: &str) -> Option<u64> {
        let mut vms = self.vms.iter();
        let (_, vm) = vms.find(|(name, vm)| vm.shown(name) == shown)?;
        vm.untimed.0
    }

    /// What each directory in `vms` must read.
    pub fn per_vm(&self) -> BTreeMap<&str, Counters> {
        let listed = self.vms.iter().filter(|(_, vm)| vm.listed);
        listed
            .map(|(name, vm)| {
                (
                    vm.shown(name),
                    Counters {
                        pending: vm.owed.into(),
                        ..vm.counters
                    },
                )
            })
            .collect()
    }
}

impl Vm {
    /// What it is called in `vms`, which KVM calls `name` if it may.
    fn shown<'a>(&'a self, name: &'a str) -> &'a str {
        self.own_name.as_deref().unwrap_or(name)
    }

    /// Whether another vCPU is in KVM_RUN.
    fn is_busy(&self, vcpu: usize) -> bool {
        let mut others = self.vcpus.iter().enumerate();
        others.any(|(other, state)| other != vcpu && state.running)
    }

    /// What a re-init `did` makes coherent; one that is trusted invalidates in any case.
    fn cover(&mut self, did: &Counters, busy: bool, trusted: bool) {
        if did.stage2_unmap > 0 {
            // Who runs on maps it again at once, and code written from then on is not covered.
            (self.stale, self.mapped) = (false, busy);
        }
        self.stale &= did.icache_invalidate == 0 && !trusted;
    }

    /// Whether what a re-init `did` was an unmap that cleans nothing. Where anything is in doubt it is one
    /// in full.
    fn may_elide(&self, did: &Counters, busy: bool, host: Host, policy: Policy) -> bool {
        policy == Policy::Lazy && !host.fwb && did.stage2_unmap > 0 && !busy && !self.out_of_reach
    }

    fn reset(&mut self, busy: bool, host: Host, policy: Policy, blind: bool) -> Counters {
        let mut add = Counters {
            vcpu_reset: 1,
            busy: busy.into(),
            ..Counters::default()
        };
        add.vm_reset = (!self.in_reset).into();
        (self.listed, self.in_reset) = (true, true);

        let native_icache = u64::from(host.native_reset == NativeReset::Icache);
        let native_unmap = u64::from(host.native_reset == NativeReset::Unmap);
        add.icache_dic = (host.fwb && host.dic).into();
        match policy {
            // Without S2FWB data may be stale too: only an unmap will do.
            _ if policy.is_per_vm() && !host.fwb && self.unmapped && !busy => {
                add.stage2_unmap_elide = 1;
            }
            _ if !host.fwb || policy == Policy::Unmap => {
                // A vCPU that runs may have mapped pages again by now; and what an unmap does not
                // reach the next one might.
                self.unmapped |= policy.is_per_vm() && !busy && !self.out_of_reach;
                add.stage2_unmap = 1;
                // It does not stand for the kernel's own invalidation either.
                add.icache_invalidate = native_icache;
            }
            Policy::Native => {
                add.icache_invalidate = native_icache;
                add.stage2_unmap = native_unmap;
            }
            _ if host.dic => add.stage2_unmap_elide = native_unmap,
            Policy::Once | Policy::Lazy if !blind && !busy => {
                self.owed = true;
                add.icache_elide = native_icache;
                add.stage2_unmap_elide = native_unmap;
            }
            _ => {
                add.icache_invalidate = 1;
                add.stage2_unmap_elide = native_unmap;
            }
        }
        add
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICACHE: Host = Host {
        fwb: true,
        dic: false,
        native_reset: NativeReset::Icache,
    };
    const DIC: Host = Host {
        fwb: true,
        dic: true,
        native_reset: NativeReset::None,
    };
    const NO_FWB: Host = Host {
        fwb: false,
        dic: false,
        native_reset: NativeReset::Unmap,
    };

    /// A VM of four vCPUs that has run, is re-initialised, and runs again.
    fn reset(host: Host, policy: Policy, armed: bool) -> Counters {
        let mut model = Model::new(host);
        model.load(policy);
        model.armed = armed;
        model.create("vm", 4);
        let mut pending = 0;
        for _ in 0..2 {
            (0..4).for_each(|vcpu| model.init("vm", vcpu));
            pending = model.total().pending;
            (0..4).for_each(|vcpu| model.enter("vm", vcpu));
            (0..4).for_each(|vcpu| model.leave("vm", vcpu));
        }
        assert_eq!(model.total().pending, 0);
        assert_eq!(model.per_vm()["vm"], model.total());
        Counters {
            pending,
            ..model.total()
        }
    }

    #[test]
    fn one_reset_of_four_vcpus() {
        let base = Counters {
            vcpu_init: 8,
            vcpu_reset: 4,
            vm_reset: 1,
            ..Counters::default()
        };
        let icache = |icache_invalidate| Counters {
            icache_invalidate,
            ..base
        };
        let unmap = |stage2_unmap, stage2_unmap_elide| Counters {
            stage2_unmap,
            stage2_unmap_elide,
            ..base
        };
        let dic = Counters {
            icache_dic: 4,
            ..base
        };

        assert_eq!(reset(ICACHE, Policy::Native, true), icache(4));
        assert_eq!(reset(ICACHE, Policy::Fwb, true), icache(4));
        assert_eq!(
            reset(ICACHE, Policy::Once, true),
            Counters {
                icache_elide: 4,
                pending: 1,
                ..icache(1)
            }
        );
        assert_eq!(reset(ICACHE, Policy::Once, false), icache(4));
        assert_eq!(
            reset(ICACHE, Policy::Lazy, true),
            reset(ICACHE, Policy::Once, true)
        );
        assert_eq!(
            reset(ICACHE, Policy::Unmap, true),
            Counters {
                icache_invalidate: 4,
                ..unmap(4, 0)
            }
        );

        for policy in [Policy::Native, Policy::Fwb, Policy::Once, Policy::Lazy] {
            assert_eq!(reset(DIC, policy, true), dic);
        }
        assert_eq!(
            reset(DIC, Policy::Unmap, true),
            Counters {
                stage2_unmap: 4,
                ..dic
            }
        );

        for policy in [Policy::Native, Policy::Fwb, Policy::Unmap] {
            assert_eq!(reset(NO_FWB, policy, true), unmap(4, 0));
        }
        for policy in [Policy::Once, Policy::Lazy] {
            assert_eq!(reset(NO_FWB, policy, true), unmap(1, 3));
        }
    }

    /// Whether so many bytes and pages may be left out at a reset of a VM of two vCPUs that have run, and
    /// no more at the next look.
    fn may_elide(host: Host, policy: Policy, bytes: u64, tlbi: u64) -> bool {
        let mut model = Model::new(host);
        model.load(policy);
        model.create("vm", 2);
        (0..2).for_each(|vcpu| model.enter("vm", vcpu));
        (0..2).for_each(|vcpu| model.leave("vm", vcpu));
        (0..2).for_each(|vcpu| model.init("vm", vcpu));
        let mut got = model.total();
        (got.dcache_clean_elide_bytes, got.tlbi_elide) = (bytes, tlbi);
        let agrees = |model: &mut Model, got: &Counters| {
            model.adopt(None, got);
            model.adopt(Some("vm"), got);
            let agrees = model.total() == *got && got.contradictions().is_none();
            assert_eq!(model.per_vm()["vm"], model.total());
            agrees
        };
        let agreed = agrees(&mut model, &got);
        got.dcache_clean_elide_bytes += PAGE;
        got.tlbi_elide += 1;
        assert!(!agrees(&mut model, &got), "nothing was unmapped since");
        agreed
    }

    #[test]
    fn what_lazy_may_leave_out() {
        for (bytes, tlbi, agree) in [
            (0, 0, true),
            (PAGE, 1, true),
            (512 * PAGE, 1, true),
            (PAGE, 0, false),
            (0, 1, false),
            (PAGE, 2, false),
            (PAGE + 1, 1, false),
        ] {
            assert_eq!(may_elide(NO_FWB, Policy::Lazy, bytes, tlbi), agree);
        }
        assert!(!may_elide(NO_FWB, Policy::Once, PAGE, 1));
        assert!(!may_elide(ICACHE, Policy::Lazy, PAGE, 1));
    }

    #[test]
    fn in_doubt_lazy_leaves_nothing_out() {
        let mut model = Model::new(NO_FWB);
        model.load(Policy::Lazy);
        for name in ["busy", "hole"] {
            model.create(name, 2);
            model.immediate(name, 1);
        }
        model.enter("busy", 0);
        model.out_of_reach("hole");
        for name in ["busy", "hole"] {
            model.init(name, 1);
        }
        let want = model.total();
        assert_eq!(want.stage2_unmap, 2);
        let got = Counters {
            dcache_clean_elide_bytes: PAGE,
            tlbi_elide: 1,
            ..want
        };
        model.adopt(None, &got);
        assert_eq!(model.total(), want);
    }

    #[test]
    fn what_an_unmap_may_not_reach_is_unmapped_each_time() {
        for policy in [Policy::Once, Policy::Lazy] {
            let mut model = Model::new(NO_FWB);
            model.load(policy);
            model.create("vm", 2);
            model.out_of_reach("vm");
            (0..2).for_each(|vcpu| model.immediate("vm", vcpu));
            (0..2).for_each(|vcpu| model.init("vm", vcpu));
            let total = model.total();
            assert_eq!((total.stage2_unmap, total.stage2_unmap_elide), (2, 0));
        }
    }

    #[test]
    fn a_vm_without_a_name_gets_one() {
        let mut model = Model::new(ICACHE);
        model.load(Policy::Once);
        model.create("7-3", 1);
        model.create("7-3 again", 1);
        model.nameless("7-3 again", 7);
        for vm in ["7-3", "7-3 again"] {
            model.immediate(vm, 0);
            model.init(vm, 0);
        }
        let names: Vec<_> = model.per_vm().into_keys().collect();
        assert_eq!(names, ["7-3", "7-vm1"]);
    }

    /// A kernel whose own path is wrong is put right under `fwb` and `once`.
    #[test]
    fn wrong_kernels() {
        let nothing = Host {
            native_reset: NativeReset::None,
            ..ICACHE
        };
        assert_eq!(reset(nothing, Policy::Native, true).icache_invalidate, 0);
        assert_eq!(reset(nothing, Policy::Fwb, true).icache_invalidate, 4);
        assert_eq!(reset(nothing, Policy::Once, true).icache_invalidate, 1);

        let unmaps = Host {
            native_reset: NativeReset::Unmap,
            ..ICACHE
        };
        assert_eq!(reset(unmaps, Policy::Native, true).stage2_unmap, 4);
        assert_eq!(reset(unmaps, Policy::Fwb, true).stage2_unmap_elide, 4);
        assert_eq!(reset(unmaps, Policy::Once, true).icache_invalidate, 1);
    }

    #[test]
    fn a_running_vcpu_makes_the_others_busy() {
        for (host, icache_invalidate, stage2_unmap) in [(ICACHE, 2, 0), (NO_FWB, 0, 2)] {
            let mut model = Model::new(host);
            model.load(Policy::Once);
            model.create("vm", 2);
            model.immediate("vm", 1);
            model.enter("vm", 0);
            model.init("vm", 1);
            model.init("vm", 1);
            let want = Counters {
                vcpu_init: 2,
                vcpu_reset: 2,
                vm_reset: 1,
                busy: 2,
                icache_invalidate,
                stage2_unmap,
                ..Counters::default()
            };
            assert_eq!(model.total(), want);
        }
    }

    #[test]
    fn immediate_exit_neither_pays_nor_ends_the_reset() {
        let mut model = Model::new(ICACHE);
        model.load(Policy::Once);
        model.create("vm", 2);
        model.immediate("vm", 0);
        model.immediate("vm", 1);
        model.init("vm", 0);
        model.immediate("vm", 0);
        model.init("vm", 1);
        let total = model.total();
        assert_eq!(
            (total.vm_reset, total.pending, total.icache_invalidate),
            (1, 1, 0)
        );
    }

    #[test]
    fn facts_text() {
        let text = "fwb:1,dic:0,idc:1,vhe:1,native_reset:icache";
        assert_eq!(text.parse(), Ok(ICACHE));
        assert_eq!("fwb:1,dic:0".parse(), Ok(ICACHE));
        assert_eq!("fwb:1,dic:1".parse(), Ok(DIC));
        assert_eq!("fwb:0,dic:0".parse(), Ok(NO_FWB));
        let bad = |text: &str| text.parse::<Host>().is_err();
        assert!(bad("fwb:1"));
        assert!(bad("fwb 1,dic 0"));
        assert!(bad("fwb:1,dic:0,native_reset:perhaps"));
    }

    /// A vCPU that has run; then code written before its re-init, code written after it, and code written
    /// once it runs again: whether each is covered.
    fn covered(host: Host, policy: Policy, trusting: bool) -> [bool; 3] {
        let mut model = Model::new(host);
        model.trusting = trusting;
        model.load(policy);
        model.create("vm", 2);
        model.write("vm");
        assert!(model.covers("vm"), "the first fault makes it coherent");
        model.enter("vm", 0);
        model.leave("vm", 0);
        model.write("vm");
        model.init("vm", 0);
        let before = model.covers("vm");
        model.write("vm");
        let after = model.covers("vm");
        model.enter("vm", 1);
        model.write("vm");
        [before, after, model.covers("vm")]
    }

    #[test]
    fn which_code_is_covered() {
        for policy in [Policy::Native, Policy::Fwb] {
            assert_eq!(covered(ICACHE, policy, false), [true, false, false]);
        }
        for policy in [Policy::Once, Policy::Unmap, Policy::Lazy] {
            assert_eq!(covered(ICACHE, policy, false), [true, true, false]);
        }
        for policy in Policy::ALL {
            assert_eq!(covered(NO_FWB, policy, false), [true, true, false]);
            assert_eq!(covered(DIC, policy, false), [true, true, true]);
        }
        let rfc = Host {
            native_reset: NativeReset::None,
            ..ICACHE
        };
        assert_eq!(covered(rfc, Policy::Native, false), [false; 3]);
        assert_eq!(covered(rfc, Policy::Native, true), [true, false, false]);
        assert_eq!(covered(rfc, Policy::Once, false), [true, true, false]);
    }

    #[test]
    fn stats_text() {
        let counters = Counters {
            busy: 3,
            pending: 1,
            ..Counters::default()
        };
        assert_eq!(counters.to_string().parse(), Ok(counters));
        let bad = |text: &str| text.parse::<Counters>().is_err();
        assert!(bad("busy 1\n"));
        assert!(bad(&format!("{counters}busy 1\n")));
        assert!(bad(&format!("{counters}more 1\n")));
        assert!(bad(&counters.to_string().replace("busy 3", "busy x")));
    }
}

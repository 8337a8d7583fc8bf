// SPDX-License-Identifier: GPL-2.0

//! A host with one VM, as far as resets are concerned: what user space and KVM do, what the module's hooks do around
//! the protocol, and what the hardware remembers.
//!
//! There is a page of guest code for each vCPU, with a version that user space raises. An invalidation makes the
//! version that it finds in memory what guests fetch from then on; so does a stage-2 fault for what guests read.
//! Nothing here is ordered more than it is there: what only a barrier orders is relaxed.

use crate::{
    policy::{self, Maintenance, Policy, Remedy},
    protocol::{Gate, Reset, Stay},
    rust::atomic::AtomicI32,
};
use loom::sync::{
    atomic::{
        fence, AtomicBool, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
        Ordering::SeqCst,
    },
    Arc, Mutex,
};

pub const VCPUS: usize = 3;

/// Where the module comes in. Each place is patched by itself, one after the other.
#[derive(Clone, Copy)]
pub enum Place {
    /// The kprobe on the kernel's own `ic ialluis`.
    Icache,
    /// `kvm_arch_vcpu_ioctl_run`.
    Run,
    /// `kvm_reset_vcpu`.
    Reset,
    /// `stage2_unmap_vm`.
    Unmap,
}

pub struct Host {
    host: policy::Host,

    gate: AtomicI32,
    /// The VM's record, once it may have one.
    reset: Reset,
    has_record: AtomicBool,
    /// The module's mutex over maintenance.
    maintenance: Mutex<()>,
    policy: AtomicU32,
    /// The vCPU whose task was killed, so that it waits for no other's unmap.
    killed: Option<usize>,
    /// The kernel's text, by place. Whoever patches it has completed what it did before by a DSB, and whoever runs it passes a
    /// context synchronization event on the way to the guest: hence Release here, and the Acquire of [`Host::run`].
    patched: [AtomicBool; 4],
    /// SRCU. Each vCPU's ioctls hold theirs while they are in the module; there is one at a time. Whoever waits for
    /// readers takes one after the other, and holds up nobody.
    in_flight: [Mutex<()>; VCPUS],
    /// What an IPI to all CPUs waits for, in the same way: KVM_RUN from its store to `wants_to_run` on, until the entry
    /// of `kvm_arch_vcpu_ioctl_run` is fetched.
    entering: [Mutex<()>; VCPUS],

    wants_to_run: [AtomicBool; VCPUS],

    /// The versions in memory.
    written: [AtomicU32; VCPUS],
    /// The versions behind which a re-init has ended.
    told: [AtomicU32; VCPUS],
    /// The versions that all instruction caches hold nothing older than.
    fetched: [AtomicU32; VCPUS],
    /// The versions that were in memory when the pages were mapped; `None` while they are not.
    mapped: Mutex<[Option<u32>; VCPUS]>,
}

/// What becomes of the kernel's own maintenance; see `src/reinit.rs`.
#[derive(Clone, Copy)]
enum Native {
    Keep,
    Elide,
    Once(Stay),
}

impl Host {
    /// With FEAT_S2FWB and without CTR_EL0.DIC, the module loaded and `once` in force.
    pub fn fwb() -> Arc<Self> {
        Arc::new(Self::new(true, Maintenance::Icache, true))
    }

    /// With FEAT_S2FWB, `once` in force, and a kernel that has no invalidation of its own.
    pub fn fwb_rfc() -> Arc<Self> {
        Arc::new(Self::new(true, Maintenance::None, true))
    }

    /// Without FEAT_S2FWB, the module loaded and `once` in force.
    pub fn unmap() -> Arc<Self> {
        Arc::new(Self::new(false, Maintenance::Unmap, true))
    }

    /// As [`Host::unmap`], with the task of vCPU 1 killed in its re-init.
    pub fn unmap_killed() -> Arc<Self> {
        Arc::new(Self {
            killed: Some(1),
            ..Self::new(false, Maintenance::Unmap, true)
        })
    }

    /// As [`Host::fwb`], before the module is loaded.
    pub fn fwb_without_module() -> Arc<Self> {
        Arc::new(Self::new(true, Maintenance::Icache, false))
    }

    /// As [`Host::unmap`], before the module is loaded.
    pub fn unmap_without_module() -> Arc<Self> {
        Arc::new(Self::new(false, Maintenance::Unmap, false))
    }

    fn new(fwb: bool, native: Maintenance, loaded: bool) -> Self {
        let policy = if loaded { Policy::Once } else { Policy::Native };
        let host = Self {
            host: policy::Host {
                fwb,
                dic: false,
                native,
                lazy: false,
            },
            gate: AtomicI32::new(0),
            reset: Reset::new(),
            has_record: AtomicBool::new(loaded),
            maintenance: Mutex::new(()),
            killed: None,
            policy: AtomicU32::new(policy as u32),
            patched: [loaded; 4].map(AtomicBool::new),
            in_flight: [(); VCPUS].map(Mutex::new),
            entering: [(); VCPUS].map(Mutex::new),
            wants_to_run: [false; VCPUS].map(AtomicBool::new),
            written: [0; VCPUS].map(AtomicU32::new),
            told: [0; VCPUS].map(AtomicU32::new),
            fetched: [0; VCPUS].map(AtomicU32::new),
            mapped: Mutex::new([Some(0); VCPUS]),
        };
        // loom's atomics are made when first used, and that must be by one thread alone.
        host.settled();
        host.reset.is_unmapped(Stay(0));
        host.reset.is_seen_alone(Stay(0));
        host
    }

    /// User space changes the code that a vCPU is to run.
    pub fn write(&self, page: usize, version: u32) {
        self.written[page].store(version, Relaxed);
    }

    /// User space tells running guests that a re-init behind that change has ended.
    pub fn tell(&self, page: usize, version: u32) {
        self.told[page].store(version, Release);
    }

    /// What a running guest was told of a page.
    pub fn told(&self, page: usize) -> u32 {
        self.told[page].load(Acquire)
    }

    /// KVM_ARM_VCPU_INIT on a vCPU that has run.
    pub fn reinit(&self, vcpu: usize) {
        let native = match self.is_patched(Place::Reset) {
            true => self.vcpu_reset(vcpu),
            false => Native::Keep,
        };
        match (self.host.native, native) {
            (Maintenance::None, _) => (),
            (Maintenance::Icache, Native::Elide) if self.is_patched(Place::Icache) => (),
            (Maintenance::Icache, _) => self.invalidate(),
            (Maintenance::Unmap, _) if self.is_patched(Place::Unmap) => self.unmap_vm(vcpu, native),
            (Maintenance::Unmap, _) => self.unmap_all(),
        }
    }

    /// KVM_RUN, which lets `guest` run.
    pub fn run(&self, vcpu: usize, guest: impl FnOnce()) {
        let patched = {
            let _entering = self.entering[vcpu].lock();
            self.wants_to_run[vcpu].store(true, Relaxed);
            self.is_patched(Place::Run)
        };
        if patched {
            fence(SeqCst);
            if self.gate.load() != 0 {
                let _in_flight = self.in_flight[vcpu].lock();
                self.enter();
            }
        }
        // The guest is entered by a context synchronization event: what it fetches, and what it reads, comes after
        // the loads that the entry depended on.
        fence(Acquire);
        guest();
        self.wants_to_run[vcpu].store(false, Relaxed);
    }

    /// The version of a page that a guest gets: from an instruction cache, or from memory behind it.
    pub fn guest_gets(&self, page: usize) -> u32 {
        if self.host.fwb {
            return self.fetched[page].load(Relaxed);
        }
        let written = || self.written[page].load(Relaxed);
        *self.mapped.lock().unwrap()[page].get_or_insert_with(written)
    }

    /// The policy file.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(policy as u32, Release);
    }

    /// `insmod`: the hooks go in; then VMs may have records, and the policy is in force.
    pub fn load(&self, order: [Place; 4]) {
        order.into_iter().for_each(|place| self.patch(place, true));
        wait_for(&self.entering);
        self.has_record.store(true, Release);
        self.set_policy(Policy::Once);
    }

    /// `rmmod`: what `Debts` does on drop, then the hooks go out, the probe first.
    pub fn unload(&self, order: [Place; 4]) {
        self.set_policy(Policy::Native);
        wait_for(&self.in_flight);
        self.enter();
        order.into_iter().for_each(|place| self.patch(place, false));
    }

    /// Puts a hook in or out. For the probe this is, too, what the global switch of kprobes does.
    pub fn patch(&self, place: Place, on: bool) {
        self.patched[place as usize].store(on, Release);
    }

    /// What must be so once nobody is at work any more, and all vCPUs have run since their re-init, seen by the module.
    pub fn settled(&self) {
        assert!(!self.reset.is_indebted());
        assert_eq!(self.gate.load(), 0);
    }

    fn is_patched(&self, place: Place) -> bool {
        self.patched[place as usize].load(Relaxed)
    }

    /// `vcpu_reset` of `src/reinit.rs`.
    fn vcpu_reset(&self, vcpu: usize) -> Native {
        let _in_flight = self.in_flight[vcpu].lock();
        let policy = Policy::from_number(self.policy.load(Acquire).into()).unwrap();
        let unseen = self.host.native == Maintenance::Icache && !self.is_patched(Place::Icache);

        let debt = !unseen && self.host.remedy(policy, false) == Remedy::IcacheOwed;
        let record = self.has_record.load(Acquire).then_some(&self.reset);
        let begun = record.map(|reset| (reset, reset.begin(Gate::of(&self.gate), debt)));
        let runs = |v: usize| v != vcpu && self.wants_to_run[v].load(Relaxed);
        let looks_alone = || !(0..VCPUS).any(runs);
        let busy = !match &begun {
            Some((reset, begun)) => reset.is_alone(begun, looks_alone),
            None => looks_alone(),
        };
        let remedy = self.host.remedy(policy, busy || unseen || record.is_none());
        if let Some((reset, begun)) = &begun {
            if debt && remedy != Remedy::IcacheOwed {
                reset.forgive(begun);
            }
        }

        let native = match remedy {
            Remedy::Native => Native::Keep,
            Remedy::Now(wanted) if wanted == self.host.native => Native::Keep,
            Remedy::Now(Maintenance::Icache) => {
                self.invalidate();
                Native::Elide
            }
            Remedy::IcacheOwed => Native::Elide,
            Remedy::UnmapOnce => {
                let stay = begun.and_then(|(_, begun)| begun.stay());
                stay.map_or(Native::Keep, Native::Once)
            }
            Remedy::Now(_) | Remedy::UnmapLazily => {
                unreachable!("no host here has DIC, a kernel before 5.8, or lazy unmaps")
            }
        };
        if unseen {
            Native::Keep
        } else {
            native
        }
    }

    /// `stage2_unmap_vm`, replaced.
    fn unmap_vm(&self, vcpu: usize, native: Native) {
        let _in_flight = self.in_flight[vcpu].lock();
        let Native::Once(stay) = native else {
            return self.unmap_all();
        };
        // `Record::unmap_once` of `src/vm.rs`.
        let waits = self.killed != Some(vcpu);
        let _maintenance = waits.then(|| self.maintenance.lock().unwrap());
        if !(waits && self.reset.is_unmapped(stay)) {
            self.unmap_all();
            self.reset.set_unmapped(stay);
        }
    }

    /// `Record::run` of `src/vm.rs`.
    fn enter(&self) {
        let _payer = self
            .reset
            .is_indebted()
            .then(|| self.maintenance.lock().unwrap());
        self.reset.run(Gate::of(&self.gate), || self.invalidate());
    }

    /// `stage2_unmap_vm` itself, under KVM's lock.
    fn unmap_all(&self) {
        *self.mapped.lock().unwrap() = [None; VCPUS];
    }

    /// `ic ialluis; dsb ish`: covers what this CPU has seen written. That it is done is for this CPU alone to know.
    fn invalidate(&self) {
        for (written, fetched) in self.written.iter().zip(&self.fetched) {
            fetched.fetch_max(written.load(Relaxed), Relaxed);
        }
    }
}

fn wait_for(readers: &[Mutex<()>]) {
    for reader in readers {
        drop(reader.lock());
    }
}

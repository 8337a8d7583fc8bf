// SPDX-License-Identifier: GPL-2.0

//! The simulated host as tests see it: booted, changed, asked.

use crate::{
    alloc, hooks, in_force,
    lazy::Lazy,
    path::ResetPath,
    policy::{Host, Maintenance, Policy},
    race::{self, Job},
    rust::{
        cpu::{host, set_host},
        debugfs, kprobe,
        kvm::Vm,
        symbol::IcacheInvalidation,
        vm_table,
    },
    vm,
};
use std::fmt::Write;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The module has statics, so there is one machine at a time.
static ONE: Mutex<()> = Mutex::new(());
static MODULE: Mutex<Option<hooks::Hooks>> = Mutex::new(None);
/// The gauge that the last module left.
static PENDING_BEFORE: AtomicI32 = AtomicI32::new(0);

impl Vm {
    /// The VM's `stats`; none before its first re-init.
    pub fn stats(&self) -> Option<String> {
        let record = vm::Record::find(self).filter(|record| debugfs::has(record.name()))?;
        let counters = record.tally.counters.iter();
        Some(stats(counters, i32::from(record.is_indebted())))
    }
}

fn stats<C>(counters: impl Iterator<Item = (C, &'static str, u64)>, pending: i32) -> String {
    let mut text = String::new();
    for (_, name, value) in counters {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} {value}");
    }
    let _ = writeln!(text, "pending {pending}");
    text
}

/// A change of the machine, while there is one.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// insmod with this policy, by number.
    Insert(u64),
    /// rmmod.
    Remove,
    /// This is written to `policy`.
    Switch(&'static str),
    /// All kprobes are armed, or disarmed.
    Kprobes(bool),
    /// There is memory for what the module allocates, or there is none.
    Memory(bool),
}

impl Change {
    /// Makes it. `false`: refused.
    pub fn make(self) -> bool {
        match self {
            Change::Insert(policy) => return insert(policy),
            Change::Remove => remove(),
            Change::Switch(name) => {
                let policy = Policy::from_text(name.as_bytes());
                return policy.is_some_and(|policy| in_force::switch(policy).is_ok());
            }
            Change::Kprobes(on) => kprobe::enable(on),
            Change::Memory(on) => alloc::enable(on),
        }
        true
    }
}

/// As the module's entry does it.
fn insert(policy: u64) -> bool {
    let host = host();
    let path = ResetPath {
        host,
        // On a CPU that never gets there it is in the kernel's code all the same.
        lazy: Lazy::find(),
        // Nobody turns an MMU on.
        has_flush: false,
        icache: (host.native != Maintenance::None || host.dic).then_some(IcacheInvalidation),
    };
    // A module that comes has its statics new. What the last one left is of no account: while its
    // hooks went out, re-inits of its last moments, under `native`, began resets that nobody ends.
    vm::clear();
    vm::GATES.close();
    PENDING_BEFORE.store(vm::pending(), SeqCst);
    let hooks = Policy::from_number(policy).and_then(|policy| hooks::Hooks::new(path, policy).ok());
    let loaded = hooks.is_some();
    *lock(&MODULE) = hooks;
    loaded
}

fn remove() {
    let hooks = lock(&MODULE).take();
    drop(hooks);
}

/// The machine, while this lives.
pub struct Machine {
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// A host with these CPUs, and a kernel whose own way is `native`: `icache`, `unmap` or `none`.
    pub fn boot(fwb: bool, dic: bool, native: &str) -> Self {
        let machine = Self { _one: lock(&ONE) };
        remove();
        kprobe::enable(true);
        alloc::enable(true);
        let native = match native {
            "icache" => Maintenance::Icache,
            "unmap" => Maintenance::Unmap,
            _ => Maintenance::None,
        };
        set_host(Host {
            fwb,
            dic,
            native,
            lazy: !fwb,
        });
        machine
    }

    /// `stats` of all VMs.
    pub fn stats(&self) -> String {
        let pending = vm::pending() - PENDING_BEFORE.load(SeqCst);
        stats(vm::TOTALS.counters.iter(), pending)
    }

    /// The name of the policy in force.
    pub fn policy(&self) -> &'static str {
        in_force::policy().name()
    }

    /// How many VMs KVM_RUN takes to be in reset.
    pub fn gate(&self) -> i32 {
        vm::GATES.sum()
    }

    /// How many VMs the module has a record of.
    pub fn records(&self) -> usize {
        vm_table::ENTRIES.load(SeqCst)
    }

    /// Does all jobs at once, interleaved as `seed` says.
    pub fn race(&self, seed: u64, jobs: Vec<Job>) {
        race::race(seed, jobs);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        race::end();
        remove();
    }
}

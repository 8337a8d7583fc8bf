// SPDX-License-Identifier: GPL-2.0

//! What is known of each VM, from the first KVM_ARM_VCPU_INIT of any of its vCPUs until it is
//! destroyed.

use crate::{
    counters::{Counter, Counters},
    files,
    handoff::Lent,
    latency::{Latency, Stopwatch, Work},
    protocol::{Begun, Gate, Reset, Stay},
    rust::{
        atomic::AtomicI32,
        cpu,
        kvm::{self, DyingVm, ProcessName, Vm},
        vm_table::{OpenTable, VmTable},
    },
    trace,
};
use kernel::{alloc::flags::GFP_KERNEL_ACCOUNT, new_mutex, prelude::*, sync::Mutex};

/// VMs in reset.
pub(crate) static GATE: Gate = Gate::new();
/// Of all VMs since load.
pub(crate) static TOTALS: Tally = Tally::new();
/// VMs that owe an invalidation.
static PENDING: AtomicI32 = AtomicI32::new(0);
static VMS: VmTable<Record> = VmTable::new();

/// What resets did, and how long it took.
pub(crate) struct Tally {
    pub(crate) counters: Counters,
    pub(crate) latency: Latency,
}

impl Tally {
    const fn new() -> Self {
        Self {
            counters: Counters::new(),
            latency: Latency::new(),
        }
    }

    fn clear(&self) {
        self.counters.clear();
        self.latency.clear();
    }
}

/// A VM's record.
#[pin_data]
pub(crate) struct Record {
    /// A record is dropped before its VM is.
    vm: Lent<Vm>,
    /// The name of its process when this record was made.
    pub(crate) process: ProcessName,
    reset: Reset,
    pub(crate) tally: Tally,
    /// Held over maintenance that others may wait for instead of doing it again.
    #[pin]
    maintenance: Mutex<()>,
    /// There from the VM's first re-init on.
    #[pin]
    files: Mutex<Option<files::VmFiles>>,
}

impl Record {
    /// The record of `vm`; `None` where there is no memory for it.
    pub(crate) fn of(vm: &Vm) -> Option<&Self> {
        VMS.get_or_insert(vm, || {
            KBox::pin_init(
                pin_init!(Self {
                    vm: Lent::new(vm),
                    process: kvm::process_name(),
                    reset: Reset::new(),
                    tally: Tally::new(),
                    maintenance <- new_mutex!((), "kvm_fwb_reset::maintenance"),
                    files <- new_mutex!(None, "kvm_fwb_reset::files"),
                }),
                GFP_KERNEL_ACCOUNT,
            )
        })
    }

    /// The record of `vm`, if it has one. Takes no lock.
    pub(crate) fn find(vm: &Vm) -> Option<&Self> {
        VMS.get(vm)
    }

    /// The VM.
    pub(crate) fn vm(&self) -> &Vm {
        // SAFETY: By the field: it lives as long as this record does.
        unsafe { self.vm.get() }
    }

    /// Publishes a re-init; see [`Reset::begin`].
    pub(crate) fn begin(&self, debt: bool) -> Begun {
        let begun = self.reset.begin(&GATE, debt);
        if begun.is_new_debt() {
            PENDING.fetch_add(1);
        }
        begun
    }

    /// See [`Reset::forgive`].
    pub(crate) fn forgive(&self, begun: &Begun) {
        if self.reset.forgive(begun) {
            PENDING.fetch_add(-1);
        }
    }

    /// A vCPU is about to enter the guest: pays and ends the reset.
    pub(crate) fn run(&self) {
        // Without a debt nobody has to wait: an unmap under way must not hold up vCPUs that never
        // stopped.
        if !self.reset.is_indebted() {
            self.settle(|| invalidate(self.vm(), Some(self)));
            return;
        }
        let arrived = Stopwatch::start();
        {
            // Makes payers wait for one payment rather than each making their own.
            let _payer = self.maintenance.lock();
            self.settle(|| invalidate(self.vm(), Some(self)));
        }
        let ns = arrived.ns();
        took(Some(self), Work::Pay, ns);
        trace::pay(self.vm(), ns);
    }

    fn settle(&self, pay: impl FnOnce()) {
        if self.reset.run(&GATE, pay) {
            PENDING.fetch_add(-1);
        }
    }

    /// Calls `unmap`, unless one of this stay serves already. Those who come meanwhile wait for it.
    pub(crate) fn unmap_once(&self, stay: Stay, unmap: impl FnOnce()) {
        let _maintenance = self.maintenance.lock();
        if self.reset.is_unmapped(stay) {
            count(Some(self), Counter::Stage2UnmapElide);
        } else {
            unmap();
            self.reset.set_unmapped(stay);
        }
    }

    /// Whether the VM owes an invalidation.
    pub(crate) fn is_indebted(&self) -> bool {
        self.reset.is_indebted()
    }

    /// Makes the VM's files, if it has none yet.
    pub(crate) fn show(&self) {
        let mut files = self.files.lock();
        if files.is_none() {
            // SAFETY: The record owns them.
            *files = unsafe { files::VmFiles::new(self) };
        }
    }

    /// A VM is being destroyed.
    pub(crate) fn forget(vm: &DyingVm) {
        // Its files go with the record, and readers inside are waited for.
        if let Some(record) = VMS.remove(vm) {
            record.settle(|| ());
        }
    }
}

/// Counts for the VM, if its record is known, and in all.
pub(crate) fn count(record: Option<&Record>, counter: Counter) {
    TOTALS.counters.count(counter);
    if let Some(record) = record {
        record.tally.counters.count(counter);
    }
}

/// Notes how long some work took, for the VM, if its record is known, and in all.
pub(crate) fn took(record: Option<&Record>, work: Work, ns: u64) {
    TOTALS.latency.add(work, ns);
    if let Some(record) = record {
        record.tally.latency.add(work, ns);
    }
}

/// Invalidates all PEs' instruction caches, on account of that VM.
pub(crate) fn invalidate(vm: &Vm, record: Option<&Record>) {
    let begun = Stopwatch::start();
    cpu::invalidate_icache_all();
    let ns = begun.ns();
    count(record, Counter::IcacheInvalidate);
    took(record, Work::IcacheInvalidate, ns);
    trace::icache_invalidate(vm, false, ns);
}

/// VMs that owe an invalidation now.
pub(crate) fn pending() -> i32 {
    PENDING.load()
}

/// Sets all counters and histograms to 0.
pub(crate) fn clear() {
    TOTALS.clear();
    VMS.for_each(|record| record.tally.clear());
}

/// Pays what all VMs owe.
pub(crate) fn pay_all() {
    VMS.for_each(Record::run);
}

/// All records, while this lives.
pub(crate) struct Records(#[allow(dead_code)] OpenTable<Record>);

impl Records {
    pub(crate) fn new() -> Self {
        Self(VMS.open())
    }
}

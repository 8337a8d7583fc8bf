// SPDX-License-Identifier: GPL-2.0

//! What is known of each VM, from the first KVM_ARM_VCPU_INIT of any of its vCPUs until it is
//! destroyed.

use crate::{
    counters::{Counter, Counters},
    files,
    protocol::{Begun, Gate, Reset, Stay},
    rust::{
        atomic::AtomicI32,
        cpu,
        kvm::{DyingVm, Vm},
        vm_table::{OpenTable, VmTable},
    },
};
use core::ptr::NonNull;
use kernel::{alloc::flags::GFP_KERNEL_ACCOUNT, new_mutex, prelude::*, sync::Mutex};

/// VMs in reset.
pub(crate) static GATE: Gate = Gate::new();
/// Counters of all VMs since load.
pub(crate) static TOTALS: Counters = Counters::new();
/// VMs that owe an invalidation.
static PENDING: AtomicI32 = AtomicI32::new(0);
static VMS: VmTable<Record> = VmTable::new();

/// A VM's record.
#[pin_data]
pub(crate) struct Record {
    reset: Reset,
    pub(crate) counters: Counters,
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
                    reset: Reset::new(),
                    counters: Counters::new(),
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
        // The mutex makes payers wait for one payment rather than each making their own. Without a
        // debt nobody has to wait: an unmap under way must not hold up vCPUs that never stopped.
        let _payer = self.reset.is_indebted().then(|| self.maintenance.lock());
        self.settle(|| invalidate(Some(self)));
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
    pub(crate) fn show(&self, vm: &Vm) {
        let mut files = self.files.lock();
        if files.is_none() {
            // SAFETY: The record owns them.
            *files = unsafe { files::VmFiles::new(self, vm) };
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

/// A record that is known to outlive its use, though no borrow says so.
#[derive(Clone, Copy)]
pub(crate) struct RecordRef(NonNull<Record>);

// SAFETY: Records are shared between threads.
unsafe impl Send for RecordRef {}

impl RecordRef {
    pub(crate) fn new(record: &Record) -> Self {
        Self(NonNull::from(record))
    }

    /// # Safety
    ///
    /// The record's VM must be alive for `'a`.
    pub(crate) unsafe fn get<'a>(self) -> &'a Record {
        // SAFETY: By the caller: a record lives as long as its VM.
        unsafe { self.0.as_ref() }
    }
}

/// Counts for the VM, if its record is known, and in all.
pub(crate) fn count(record: Option<&Record>, counter: Counter) {
    TOTALS.count(counter);
    if let Some(record) = record {
        record.counters.count(counter);
    }
}

/// Invalidates all PEs' instruction caches, on account of that VM.
pub(crate) fn invalidate(record: Option<&Record>) {
    cpu::invalidate_icache_all();
    count(record, Counter::IcacheInvalidate);
}

/// VMs that owe an invalidation now.
pub(crate) fn pending() -> i32 {
    PENDING.load()
}

/// Sets all counters to 0.
pub(crate) fn clear() {
    TOTALS.clear();
    VMS.for_each(|record| record.counters.clear());
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

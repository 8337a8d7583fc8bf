// SPDX-License-Identifier: GPL-2.0

//! What is known of each VM, from the first KVM_ARM_VCPU_INIT of any of its vCPUs until it is
//! destroyed.

use crate::{
    counters::{Counter, Counters},
    handoff::Lent,
    latency::{Latency, Stopwatch, Work},
    protocol::{Begun, Gate, Reset, Stay},
    rust::{
        atomic::AtomicI32,
        cpu,
        debugfs::Directory,
        ftrace::{Redirects, RunGates},
        kvm::{self, DyingVm, ProcessName, Vcpu, Vm, VmSize},
        lock::lock_unless_killed,
        vm_table::VmTable,
    },
    trace,
    vm_name::VmName,
};
use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    sync::{Mutex, SetOnce},
};

/// VMs in reset.
pub(crate) static GATES: RunGates = RunGates::new();
/// Counters and histograms of all VMs since load.
pub(crate) static TOTALS: Tally = Tally::new();
/// VMs that owe an invalidation; re-inits may count theirs twice for a moment, never zero times.
static PENDING: AtomicI32 = AtomicI32::new(0);
// SAFETY: The only one.
static VMS: VmTable<Record> = unsafe { VmTable::new() };

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

/// What is known of a VM. Made by an ioctl on it, dropped at the start of `kvm_arch_destroy_vm`.
///
/// # Invariants
///
/// Between its last reference and `kvm_arch_destroy_vm` KVM takes much of a VM down, its directory in
/// debugfs first (`kvm_destroy_vm` in `virt/kvm/kvm_main.c`), and this record may be read all that
/// time: by readers of its files, and when the module is unloaded. So what is shown of the VM was
/// copied when the record was made, and of `struct kvm` only `size` may be looked at, numbers in the
/// structure itself, which is freed behind `kvm_arch_destroy_vm`.
#[pin_data]
pub(crate) struct Record {
    /// There from the VM's first re-init on. Dropped first: they show the rest.
    #[pin]
    files: Mutex<Option<Directory<3>>>,
    /// Set at the first re-init, before anything is shown or traced of it.
    name: SetOnce<VmName>,
    /// The name of the VM's directory in KVM's debugfs, where it has one.
    native_name: Option<VmName>,
    /// The thread that made the VM.
    pub(crate) pid: i32,
    /// The name of its process when this record was made.
    pub(crate) process: ProcessName,
    size: Lent<VmSize>,
    gate: Gate<'static>,
    reset: Reset,
    pub(crate) tally: Tally,
    /// Held over maintenance that others may wait for instead of doing it again.
    #[pin]
    maintenance: Mutex<()>,
}

impl Record {
    /// The record of `vm`, made if there is none yet; `None` where there is no memory for it, or hooks
    /// are missing.
    pub(crate) fn find_or_insert(vm: &Vm) -> Option<&Self> {
        VMS.find_or_insert(vm, || {
            KBox::pin_init(
                pin_init!(Self {
                    files <- new_mutex!(None, "kvm_fwb_reset::files"),
                    name: SetOnce::new(),
                    native_name: VmName::native(vm),
                    pid: vm.pid(),
                    process: kvm::process_name(),
                    size: Lent::new(vm.size()),
                    gate: Gate::of(GATES.of(vm)),
                    reset: Reset::new(),
                    tally: Tally::new(),
                    maintenance <- new_mutex!((), "kvm_fwb_reset::maintenance"),
                }),
                GFP_KERNEL_ACCOUNT,
            )
        })
    }

    /// The record of `vm`, if it has one. Takes no lock.
    pub(crate) fn find(vm: &Vm) -> Option<&Self> {
        VMS.find(vm)
    }

    /// Says how large the VM is now.
    pub(crate) fn size(&self) -> &VmSize {
        // SAFETY: By the type invariant the structure outlives this record.
        unsafe { self.size.get() }
    }

    /// The VM's name in `vms/` and in events; `?` before its first re-init.
    pub(crate) fn name(&self) -> &CStr {
        self.name.as_ref().map_or(VmName::UNKNOWN, VmName::as_c_str)
    }

    /// Publishes a re-init; see [`Reset::begin`].
    pub(crate) fn begin(&self, debt: bool) -> Begun {
        // Counted before it shows: whoever pays it then takes off what is there.
        if debt {
            PENDING.fetch_add(1);
        }
        let begun = self.reset.begin(self.gate, debt);
        if debt && !begun.is_new_debt() {
            PENDING.fetch_add(-1);
        }
        begun
    }

    /// Whether another vCPU than `vcpu`, whose re-init `begun` is, may be running; see
    /// [`Reset::is_alone`].
    pub(crate) fn is_busy(&self, begun: &Begun, vcpu: &Vcpu) -> bool {
        !self.reset.is_alone(begun, || !vcpu.another_wants_to_run())
    }

    /// Takes back the debt that `begun` left; see [`Reset::forgive`].
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
            self.settle(|| invalidate(Some(self)));
            return;
        }
        let stopwatch = Stopwatch::start();
        {
            // Makes payers wait for one payment rather than each making their own.
            let _payer = self.maintenance.lock();
            self.settle(|| invalidate(Some(self)));
        }
        let ns = stopwatch.ns();
        add_latency(Some(self), Work::Pay, ns);
        trace::pay(self.name(), ns);
    }

    fn settle(&self, pay: impl FnMut()) {
        if self.reset.run(self.gate, pay) {
            PENDING.fetch_add(-1);
        }
    }

    /// Calls `unmap`, which says whether it got at all RAM, unless one that did was made in this stay.
    /// Callers that come meanwhile wait for it; one that is killed makes its own instead.
    pub(crate) fn unmap_once(&self, stay: Stay, unmap: impl FnOnce() -> bool) {
        // Of much memory an unmap may take minutes.
        let maintenance = lock_unless_killed(&self.maintenance);
        if maintenance.is_some() && self.reset.is_unmapped(stay) {
            count(Some(self), Counter::Stage2UnmapElide);
        } else if unmap() {
            self.reset.set_unmapped(stay);
        }
    }

    /// Whether the VM owes an invalidation.
    pub(crate) fn is_indebted(&self) -> bool {
        self.reset.is_indebted()
    }

    /// Gives the VM its name, KVM's if that `is_free`, and the files that `make` makes under it. What
    /// cannot be made the first time is not tried again.
    pub(crate) fn introduce(
        &self,
        is_free: impl FnOnce(&CStr) -> bool,
        make: impl FnOnce(&CStr) -> Option<Directory<3>>,
    ) {
        if self.name.as_ref().is_some() {
            return;
        }
        let mut files = self.files.lock();
        if self.name.as_ref().is_none() {
            let name = self
                .native_name
                .filter(|name| is_free(name.as_c_str()))
                .unwrap_or_else(|| VmName::ours(self.pid));
            *files = make(name.as_c_str());
            self.name.populate(name);
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
    add(record, counter, 1);
}

/// Adds for the VM, if its record is known, and in all.
pub(crate) fn add(record: Option<&Record>, counter: Counter, number: u64) {
    TOTALS.counters.add(counter, number);
    if let Some(record) = record {
        record.tally.counters.add(counter, number);
    }
}

/// Adds how long some work took to the histograms, for the VM, if its record is known, and in all.
pub(crate) fn add_latency(record: Option<&Record>, work: Work, ns: u64) {
    TOTALS.latency.add(work, ns);
    if let Some(record) = record {
        record.tally.latency.add(work, ns);
    }
}

/// The name in events of a VM whose record is known, or is not.
pub(crate) fn name(record: Option<&Record>) -> &CStr {
    record.map_or(VmName::UNKNOWN, Record::name)
}

/// All that is mapped of that VM was cleaned, for a vCPU turned its MMU on.
pub(crate) fn flushed(record: Option<&Record>, ns: u64) {
    count(record, Counter::Stage2Flush);
    add_latency(record, Work::Stage2Flush, ns);
    trace::stage2_flush(name(record), ns);
}

/// Invalidates all PEs' instruction caches, on account of that VM.
pub(crate) fn invalidate(record: Option<&Record>) {
    let stopwatch = Stopwatch::start();
    cpu::invalidate_icache_all();
    let ns = stopwatch.ns();
    count(record, Counter::IcacheInvalidate);
    add_latency(record, Work::IcacheInvalidate, ns);
    trace::icache_invalidate(name(record), false, ns);
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
pub(crate) struct Records(());

impl Records {
    /// Lets VMs have records from now on. Needs the redirects to be in: one of them is on
    /// `kvm_arch_destroy_vm`, and forgets each VM that is destroyed.
    pub(crate) fn new(_: &Redirects) -> Self {
        // SAFETY: `Record::forget`, which that redirect leads to. Those that destroy a VM and were
        // past it before it came are not to be feared: no ioctl can be on such a VM any more.
        unsafe { VMS.open() };
        Self(())
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: `Hooks` drops the redirects before: nobody of them is in this module any more. The
        // files of all VMs are looked at through records, which drop them and wait for readers.
        unsafe { VMS.close() };
    }
}

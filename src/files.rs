// SPDX-License-Identifier: GPL-2.0

//! The files under `/sys/kernel/debug/kvm_fwb_reset`.

use crate::{
    counters::Counter,
    in_force,
    latency::Work,
    policy::{Maintenance, Policy},
    rust::{
        cpu,
        debugfs::{Dir, Directory, File, Parent, View},
    },
    vm::{self, Record, Tally},
};
use kernel::{prelude::*, seq_file::SeqFile, seq_print, sync::SetOnce};

/// `policy`: reads as all names, the one in force in brackets; a name written switches.
struct PolicyFile;

impl File for PolicyFile {
    type Subject = ();

    fn show((): &(), m: &SeqFile) {
        let current = in_force::policy();
        for (i, policy) in Policy::ALL.into_iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            if policy == current {
                seq_print!(m, "{}[{}]", gap, policy.name());
            } else {
                seq_print!(m, "{}{}", gap, policy.name());
            }
        }
        seq_print!(m, "\n");
    }

    fn write((): &(), text: &[u8]) -> Result {
        in_force::switch(Policy::from_text(text).ok_or(EINVAL)?)
    }
}

/// `host`: what matters of the CPUs and the kernel, as `name value` lines.
struct HostFile;

impl File for HostFile {
    type Subject = ();

    fn show((): &(), m: &SeqFile) {
        for (name, value) in [
            ("fwb", cpu::has_fwb()),
            ("dic", cpu::has_dic()),
            ("idc", cpu::has_idc()),
            ("vhe", cpu::has_vhe()),
        ] {
            seq_print!(m, "{} {}\n", name, u8::from(value));
        }
        if let Some(path) = in_force::path() {
            let native = match path.host.native {
                Maintenance::None => "none",
                Maintenance::Icache => "icache",
                Maintenance::Unmap => "unmap",
            };
            let hooks = if path.is_armed() { "armed" } else { "degraded" };
            seq_print!(
                m,
                "native_reset {}\nhooks {}\nlazy {}\n",
                native,
                hooks,
                path.lazy.name()
            );
        }
    }
}

/// `stats` of all VMs: counters and gauge as `name value` lines.
struct TotalStats;

impl File for TotalStats {
    type Subject = ();

    fn show((): &(), m: &SeqFile) {
        show_stats(m, &vm::TOTALS, vm::pending());
    }
}

/// `stats` of one VM.
struct VmStats;

impl File for VmStats {
    type Subject = Record;

    fn show(record: &Record, m: &SeqFile) {
        show_stats(m, &record.tally, i32::from(record.is_indebted()));
    }
}

fn show_stats(m: &SeqFile, tally: &Tally, pending: i32) {
    for (counter, name, value) in tally.counters.iter() {
        if counter == Counter::Stage2Flush && !counts_flushes() {
            continue;
        }
        seq_print!(m, "{} {}\n", name, value);
    }
    seq_print!(m, "pending {}\n", pending);
}

/// Whether this kernel's flushes can be counted.
fn counts_flushes() -> bool {
    in_force::path().is_some_and(|path| path.has_flush)
}

/// `latency`, of all VMs or of one: histograms as `name key value` lines. The keys are `count`,
/// `sum_ns`, and for each bucket that is not empty the ns that it begins at; it ends at their double.
struct Latency;

impl File for Latency {
    type Subject = Tally;

    fn show(tally: &Tally, m: &SeqFile) {
        for (work, name, histogram) in tally.latency.iter() {
            if work == Work::Stage2Flush && !counts_flushes() {
                continue;
            }
            let mut count = 0;
            for (begins, number) in histogram.iter().filter(|&(_, number)| number != 0) {
                seq_print!(m, "{} {} {}\n", name, begins, number);
                count += number;
            }
            // Behind the buckets, and the sum of what was shown of them, for they go on changing.
            seq_print!(m, "{} count {}\n", name, count);
            seq_print!(m, "{} sum_ns {}\n", name, histogram.sum());
        }
    }
}

/// `info` of one VM: what it is, as `name value` lines.
struct Info;

impl File for Info {
    type Subject = Record;

    fn show(record: &Record, m: &SeqFile) {
        let size = record.size();
        seq_print!(m, "pid {}\ncomm ", record.pid);
        for &byte in record.process.iter().take_while(|&&byte| byte != 0) {
            // A process chooses its name freely, and shall not write lines here.
            let shown = byte.is_ascii_graphic() || byte == b' ';
            seq_print!(m, "{}", char::from(if shown { byte } else { b'?' }));
        }
        let owed = if record.is_indebted() {
            "icache"
        } else {
            "none"
        };
        seq_print!(
            m,
            "\nvcpus {}\nmemory_bytes {}\n",
            size.vcpus(),
            size.memory()
        );
        seq_print!(m, "owed {}\n", owed);
    }
}

/// `clear`: a write of anything sets all counters to 0. The gauge is what it is.
struct ClearFile;

impl File for ClearFile {
    type Subject = ();

    fn show((): &(), _: &SeqFile) {}

    fn write((): &(), _: &[u8]) -> Result {
        vm::clear();
        Ok(())
    }
}

static POLICY: View = View::of::<PolicyFile>(&());
static HOST: View = View::of::<HostFile>(&());
static STATS: View = View::of::<TotalStats>(&());
static LATENCY: View = View::of::<Latency>(&vm::TOTALS);
static CLEAR: View = View::of::<ClearFile>(&());

/// The directory of VMs, while there is one.
static VMS: SetOnce<Parent> = SetOnce::new();

/// The whole directory, while this lives. Goes after all VMs' directories in it.
pub(crate) struct Files {
    _vms: Dir,
    root: Dir,
}

impl Files {
    /// Makes the directories, for VMs that are reset as soon as the hooks are in. Without debugfs there
    /// are none, and the module works all the same.
    pub(crate) fn new() -> Self {
        let root = Dir::new(c"kvm_fwb_reset", None);
        if !root.exists() {
            pr_warn!("no debugfs: nothing will be shown, and the policy stays as it is\n");
        }
        // SAFETY: Not used beyond this function, which `root` outlives.
        let vms = Dir::new(c"vms", Some(unsafe { root.as_parent() }));
        if root.exists() && !vms.exists() {
            pr_warn!("debugfs makes no directory vms: no VM will be shown by itself\n");
        }
        // SAFETY: Used by VMs' re-inits only, and in the module's drop order hooks go before files.
        VMS.populate(unsafe { vms.as_parent() });
        Self { _vms: vms, root }
    }

    /// Adds the files of the host. Once one can be opened the load may not fail any more: an open file
    /// keeps a module from being unloaded, but not one that fails to load from being freed.
    pub(crate) fn add(&self) {
        for (name, mode, view) in [
            (c"policy", 0o644, &POLICY),
            (c"host", 0o444, &HOST),
            (c"stats", 0o444, &STATS),
            (c"latency", 0o444, &LATENCY),
            (c"clear", 0o200, &CLEAR),
        ] {
            if !self.root.add_static(name, mode, view) && self.root.exists() {
                pr_warn!("debugfs makes no file {}\n", name.to_str().unwrap_or("?"));
            }
        }
    }
}

/// Gives a VM its name, and its directory in `vms`, at its first re-init.
pub(crate) fn show(record: &Record) {
    let is_free = |name: &CStr| !VMS.as_ref().is_some_and(|vms| vms.has(name));
    record.introduce(is_free, |name| {
        let vms = *VMS.as_ref()?;
        // SAFETY: The record owns its directory, and drops it before anything else of it.
        unsafe {
            let views = [
                View::new::<VmStats>(record),
                View::new::<Latency>(&record.tally),
                View::new::<Info>(record),
            ];
            Directory::new(name, vms, [c"stats", c"latency", c"info"], views)
        }
    });
}

// SPDX-License-Identifier: GPL-2.0

//! The files under `/sys/kernel/debug/kvm_fwb_reset`.

use crate::{
    counters::Counters,
    hooks,
    policy::{Maintenance, Policy},
    rust::{
        cpu,
        debugfs::{Dir, File, Parent, View},
        kvm::Vm,
    },
    vm::{self, Record},
};
use kernel::{prelude::*, seq_file::SeqFile, seq_print, sync::SetOnce};

/// `policy`: reads as all names, the one in force in brackets; a name written switches.
struct PolicyFile;

impl File for PolicyFile {
    fn show(&self, m: &SeqFile) {
        let current = hooks::policy();
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

    fn write(&self, text: &[u8]) -> Result {
        hooks::set_policy(Policy::from_text(text).ok_or(EINVAL)?);
        Ok(())
    }
}

/// `host`: what matters of the CPUs and the kernel, as `name value` lines.
struct HostFile;

impl File for HostFile {
    fn show(&self, m: &SeqFile) {
        for (name, value) in [
            ("fwb", cpu::has_fwb()),
            ("dic", cpu::has_dic()),
            ("idc", cpu::has_idc()),
            ("vhe", cpu::has_vhe()),
        ] {
            seq_print!(m, "{} {}\n", name, u8::from(value));
        }
        if let Some(path) = hooks::path() {
            let native = match path.host.native {
                Maintenance::None => "none",
                Maintenance::Icache => "icache",
                Maintenance::Unmap => "unmap",
            };
            let hooks = if path.is_armed() { "armed" } else { "degraded" };
            seq_print!(m, "native_reset {}\nhooks {}\n", native, hooks);
        }
    }
}

/// `stats` of all VMs: counters and gauge as `name value` lines.
struct TotalStats;

impl File for TotalStats {
    fn show(&self, m: &SeqFile) {
        show_stats(m, &vm::TOTALS, vm::pending());
    }
}

/// `stats` of one VM.
impl File for Record {
    fn show(&self, m: &SeqFile) {
        show_stats(m, &self.counters, i32::from(self.is_indebted()));
    }
}

fn show_stats(m: &SeqFile, counters: &Counters, pending: i32) {
    for (name, value) in counters.iter() {
        seq_print!(m, "{} {}\n", name, value);
    }
    seq_print!(m, "pending {}\n", pending);
}

/// `clear`: a write of anything sets all counters to 0. The gauge is what it is.
struct ClearFile;

impl File for ClearFile {
    fn show(&self, _: &SeqFile) {}

    fn write(&self, _: &[u8]) -> Result {
        vm::clear();
        Ok(())
    }
}

static POLICY: View = View::of(&PolicyFile);
static HOST: View = View::of(&HostFile);
static STATS: View = View::of(&TotalStats);
static CLEAR: View = View::of(&ClearFile);

/// The directory of VMs, while there is one.
static VMS: SetOnce<Parent> = SetOnce::new();

/// The whole directory, while this lives. Goes after all VMs' directories in it.
pub(crate) struct Files {
    _vms: Dir,
    _root: Dir,
}

impl Files {
    /// Makes the directory. Without debugfs there is none, and the module works all the same.
    pub(crate) fn new() -> Self {
        let root = Dir::new(c"kvm_fwb_reset", None);
        if !root.exists() {
            pr_warn!("no debugfs: nothing will be shown, and the policy stays as it is\n");
        }
        let vms = Dir::new(c"vms", Some(root.as_parent()));
        VMS.populate(vms.as_parent());
        root.add_static(c"policy", 0o644, &POLICY);
        root.add_static(c"host", 0o444, &HOST);
        root.add_static(c"stats", 0o444, &STATS);
        root.add_static(c"clear", 0o200, &CLEAR);
        Self {
            _vms: vms,
            _root: root,
        }
    }
}

/// The directory of one VM, `vms/<pid>-<fd>`.
pub(crate) struct VmFiles {
    _dir: Dir,
    /// Behind the directory, for it must outlive the files in it.
    _stats: KBox<View>,
}

impl VmFiles {
    /// Makes it. `None` where something is missing for it, or an older VM still has the name.
    ///
    /// # Safety
    ///
    /// `record` must outlive the returned value.
    pub(crate) unsafe fn new(record: &Record, vm: &Vm) -> Option<Self> {
        // SAFETY: By the caller.
        let stats = KBox::new(unsafe { View::new(record) }, GFP_KERNEL).ok()?;
        let dir = Dir::new(vm.debugfs_name()?, Some(*VMS.as_ref()?));
        if !dir.exists() {
            return None;
        }
        // SAFETY: Dropped after the directory.
        unsafe { dir.add(c"stats", 0o444, &*stats) };
        Some(Self {
            _dir: dir,
            _stats: stats,
        })
    }
}

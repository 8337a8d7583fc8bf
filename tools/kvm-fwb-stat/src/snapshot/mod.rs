// SPDX-License-Identifier: GPL-2.0

//! What the module showed at one moment.

mod change;
mod debugfs;
mod histogram;
pub mod parse;
mod read;
#[cfg(test)]
pub(crate) mod tests;

pub use change::Change;
pub use debugfs::Debugfs;
pub use histogram::{Bucket, Histogram};
pub use read::{DEFAULT_ROOT, Tree};

use crate::counters::{Shown, Size, Stat, Timing};
use std::{fmt, time::Instant};

/// All that the module showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// When, in seconds since 1970: to be shown. The clock that it is of may be set.
    pub time: f64,
    /// When, by a clock that nobody sets: to divide by.
    pub at: Instant,
    /// What this host does at a reset.
    pub host: Host,
    /// The policy in force; `None` where lockdown hides it.
    pub policy: Option<Policy>,
    /// Of all VMs since load, those that are gone included.
    pub total: Figures,
    /// The VMs that were reset and still exist, sorted by name.
    pub vms: Vec<Vm>,
    /// Files that this module lacks, being older than this tool.
    pub missing: Vec<&'static str>,
    /// What could not be read, each in a line.
    pub problems: Vec<String>,
}

impl Snapshot {
    /// The VM that cost the host most so far, and its share of what all present VMs cost, 0 to 1.
    /// `None` if none cost anything.
    pub fn costliest(&self) -> Option<(&Vm, f64)> {
        let sum = self.present_cost();
        let vm = self.vms.iter().max_by_key(|vm| self.cost(&vm.figures))?;
        (sum > 0).then(|| (vm, self.cost(&vm.figures) as f64 / sum as f64))
    }

    /// What the totals hold beyond all of [`Self::vms`]: VMs that are gone, that have no entry for
    /// lack of memory or since they were only initialised, or whose files could not be read.
    pub fn unlisted(&self) -> Figures {
        (self.vms.iter()).fold(self.total.clone(), |rest, vm| rest.without(&vm.figures))
    }

    /// What all VMs that exist now cost the host; see [`Self::cost`].
    pub fn present_cost(&self) -> u64 {
        let costs = self.vms.iter().map(|vm| self.cost(&vm.figures));
        costs.fold(0, u64::saturating_add)
    }

    /// Names of what would be counted, but is not, and which modules show the last of them.
    pub fn uncounted(&self) -> Option<(Vec<&'static str>, Shown)> {
        let stats = (Stat::ALL.into_iter())
            .filter(|&stat| self.total.stats.seen(stat).is_none())
            .map(|stat| stat.field());
        let fields: Vec<_> = stats.collect();
        // Where the module is new enough for some of them, what it lacks is the kernel's.
        let least = fields.iter().find(|field| field.shown == Shown::SinceLazy);
        let shown = least.or(fields.first())?.shown;
        Some((fields.into_iter().map(|field| field.name).collect(), shown))
    }

    /// Whether cost is known in time; otherwise it is a number of operations.
    pub fn is_timed(&self) -> bool {
        self.total.latency.is_some()
    }

    /// What this cost the host: nanoseconds if [`Self::is_timed`], operations if not.
    pub fn cost(&self, figures: &Figures) -> u64 {
        if self.is_timed() {
            figures.time_ns().unwrap_or(0)
        } else {
            figures.operations()
        }
    }
}

/// One VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// Its name.
    pub id: VmId,
    /// What an older module does not tell.
    pub info: Option<Info>,
    /// What its resets did and took.
    pub figures: Figures,
}

impl Vm {
    /// The command name of its VMM, or `?`.
    pub fn comm(&self) -> &str {
        self.info.as_ref().map_or("?", |info| &info.comm)
    }

    /// The thread that made it, by its name or by what the module tells.
    pub fn pid(&self) -> Option<u32> {
        (self.id.pid()).or_else(|| self.info.as_ref()?.pid)
    }

    /// How large it is, if the module tells.
    pub fn size(&self, size: Size) -> Option<u64> {
        let info = self.info.as_ref()?;
        Some(match size {
            Size::Vcpus => info.vcpus,
            Size::Memory => info.memory_bytes,
        })
    }

    /// What it owes now.
    pub fn owed(&self) -> &str {
        match &self.info {
            Some(info) => &info.owed,
            None if self.figures.stats.get(Stat::Pending) > 0 => "icache",
            None => "none",
        }
    }
}

/// A VM's name in debugfs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmId {
    /// As in KVM's own debugfs: `<pid>-<fd>`.
    Kvm {
        /// The thread that made the VM.
        pid: u32,
        /// The descriptor that it got.
        fd: u32,
    },
    /// The module's, where KVM gives none: `<pid>-vm<number>`.
    Module {
        /// The thread that made the VM.
        pid: u32,
        /// Of such VMs since the module was loaded.
        number: u64,
    },
    /// Anything else, as a newer module may have it.
    Other(Box<str>),
}

impl VmId {
    /// The thread that made the VM, if the name tells.
    pub fn pid(&self) -> Option<u32> {
        match *self {
            Self::Kvm { pid, .. } | Self::Module { pid, .. } => Some(pid),
            Self::Other(_) => None,
        }
    }

    /// The descriptor that the VM got, if the name tells.
    pub fn fd(&self) -> Option<u32> {
        match *self {
            Self::Kvm { fd, .. } => Some(fd),
            Self::Module { .. } | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm { pid, fd } => f.pad(&format!("{pid}-{fd}")),
            Self::Module { pid, number } => f.pad(&format!("{pid}-vm{number}")),
            // What is no text for a terminal is told in another way.
            Self::Other(name) => f.pad(&name.escape_debug().to_string()),
        }
    }
}

/// A VM's `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The thread that made it, if this module tells.
    pub pid: Option<u32>,
    /// The command name of the process that made it.
    pub comm: String,
    /// Its vCPUs.
    pub vcpus: u64,
    /// The sum of its memslots, in bytes.
    pub memory_bytes: u64,
    /// What it owes now: `icache` or `none`.
    pub owed: String,
}

/// What resets did and took: of one VM, or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// How often.
    pub stats: Stats,
    /// How long; `None` with an older module.
    pub latency: Option<Latency>,
}

impl Figures {
    /// The time that the host spent on resets, in nanoseconds: re-inits, what was paid at KVM_RUN, and
    /// the flushes as vCPUs turned their MMUs on.
    pub fn time_ns(&self) -> Option<u64> {
        let latency = self.latency.as_ref()?;
        let sum = |timing| latency.get(timing).map_or(0, |times| times.sum_ns);
        let parts = [Timing::VcpuReset, Timing::Pay, Timing::Stage2Flush];
        Some(parts.map(sum).into_iter().fold(0, u64::saturating_add))
    }

    /// What there is beyond `part`.
    fn without(mut self, part: &Self) -> Self {
        for (all, part) in self.stats.0.iter_mut().zip(part.stats.0) {
            *all = all.map(|all| all.saturating_sub(part.unwrap_or(0)));
        }
        if let (Some(all), Some(part)) = (&mut self.latency, &part.latency) {
            for pair in all.0.iter_mut().zip(&part.0) {
                if let (Some(all), Some(part)) = pair {
                    all.subtract(part);
                }
            }
        }
        self
    }

    /// Invalidations and unmaps that took place.
    pub fn operations(&self) -> u64 {
        let get = |stat| self.stats.get(stat);
        get(Stat::IcacheInvalidate).saturating_add(get(Stat::Stage2Unmap))
    }

    /// Invalidations and unmaps that the module left out.
    pub fn elided(&self) -> u64 {
        let get = |stat| self.stats.get(stat);
        get(Stat::IcacheElide).saturating_add(get(Stat::Stage2UnmapElide))
    }
}

/// The values of a `stats` file; `None` of what this module does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats([Option<u64>; Stat::ALL.len()]);

impl Stats {
    /// One value, 0 if it is not shown.
    pub fn get(&self, stat: Stat) -> u64 {
        self.seen(stat).unwrap_or(0)
    }

    /// One value, if it is shown.
    pub fn seen(&self, stat: Stat) -> Option<u64> {
        self.0[stat as usize]
    }

    /// Makes one of them another.
    #[cfg(test)]
    pub(crate) fn set(&mut self, stat: Stat, value: u64) {
        self.0[stat as usize] = Some(value);
    }

    /// All that are shown, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (Stat, u64)> + '_ {
        (Stat::ALL.into_iter()).filter_map(|stat| Some((stat, self.seen(stat)?)))
    }
}

/// The histograms of a `latency` file; `None` of what this module does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency([Option<Histogram>; Timing::ALL.len()]);

impl Latency {
    /// One of them, if it is shown.
    pub fn get(&self, timing: Timing) -> Option<&Histogram> {
        self.0[timing as usize].as_ref()
    }

    /// All that are shown, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (Timing, &Histogram)> + '_ {
        (Timing::ALL.into_iter()).filter_map(|timing| Some((timing, self.get(timing)?)))
    }
}

/// The module's `host` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// FEAT_S2FWB: data is coherent whatever the guest's attributes.
    pub fwb: bool,
    /// CTR_EL0.DIC: instructions are coherent without invalidation.
    pub dic: bool,
    /// CTR_EL0.IDC: no clean to the PoU is needed.
    pub idc: bool,
    /// The kernel runs at EL2.
    pub vhe: bool,
    /// What the kernel's own path does on these CPUs.
    pub native_reset: Maintenance,
    /// Whether the module can leave anything out.
    pub hooks: Hooks,
    /// What the policy `lazy` comes to; `None` with an older module.
    pub lazy: Option<Lazy>,
}

/// A word of a file that is one of a few.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident {
        $($(#[doc = $each:literal])+ $variant:ident = $word:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $each])+ $variant,)+
        }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As in the file.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// By its word.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|each| each.name() == name)
            }
        }
    };
}

words! {
    /// How guest resets are made coherent.
    Policy {
        /// The kernel's own way, only counted.
        Native = "native",
        /// An invalidation at each re-init.
        Fwb = "fwb",
        /// One operation for each VM reset.
        Once = "once",
        /// An unmap at each re-init.
        Unmap = "unmap",
        /// One operation for each VM reset; an unmap cleans nothing.
        Lazy = "lazy",
    }
}

words! {
    /// What the policy `lazy` comes to on a host.
    Lazy {
        /// Unmaps that clean nothing.
        Unmaps = "unmaps",
        /// The same as `once`: with FEAT_S2FWB, or under pKVM.
        AsOnce = "as_once",
        /// It is not to be had with this kernel.
        Refused = "refused",
    }
}

words! {
    /// Cache maintenance at a re-init.
    Maintenance {
        /// Nothing.
        None = "none",
        /// All PEs' I-caches are invalidated.
        Icache = "icache",
        /// All RAM is unmapped at stage 2.
        Unmap = "unmap",
    }
}

words! {
    /// Whether the module can leave anything out.
    Hooks {
        /// All in place.
        Armed = "armed",
        /// kprobes are switched off: `once` works as `fwb`.
        Degraded = "degraded",
    }
}

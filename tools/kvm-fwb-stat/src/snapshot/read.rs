// SPDX-License-Identifier: GPL-2.0

//! From the module's directory to a [`Snapshot`].

use super::{Debugfs, Figures, Host, Lazy, Policy, Snapshot, Stats, Vm, VmId, parse};
use crate::{
    counters::Stat,
    error::{Error, Result},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Where the module's files are, as a rule: debugfs may be mounted elsewhere.
pub const DEFAULT_ROOT: &str = "/sys/kernel/debug/kvm_fwb_reset";
/// Their directory in debugfs.
const NAME: &str = "kvm_fwb_reset";

/// The module's directory in debugfs, or a copy of it. Files are held open only while they are
/// read: an open one keeps the module from being unloaded.
#[derive(Clone, Debug)]
pub enum Tree {
    /// A directory that was named.
    At(PathBuf),
    /// Where a host, whose file system begins here, has debugfs.
    Of(PathBuf),
}

impl Tree {
    /// The directory `root`, which need not be there yet. [`DEFAULT_ROOT`] means wherever this host
    /// has it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        match root.into() {
            root if root == Path::new(DEFAULT_ROOT) => Self::Of("/".into()),
            root => Self::At(root),
        }
    }

    /// Whether this is where the module's files are on this host.
    pub fn is_default(&self) -> bool {
        matches!(self, Self::Of(system) if system == Path::new("/"))
    }

    /// Where it is now.
    fn dir(&self) -> Dir<'_> {
        let below = |system: &PathBuf, path: &Path| {
            let path = path.strip_prefix("/").unwrap_or(path);
            system.join(path)
        };
        match self {
            Self::At(root) => Dir {
                root: root.clone(),
                system: None,
            },
            Self::Of(system) => {
                let mut root = below(system, Path::new(DEFAULT_ROOT));
                if !root.exists() {
                    root = below(system, Debugfs::of(system).path()).join(NAME);
                }
                Dir {
                    root,
                    system: Some(system),
                }
            }
        }
    }

    /// Reads all of it. VMs that go meanwhile are left out, and so are those with a damaged file,
    /// with a note.
    ///
    /// # Errors
    ///
    /// Where there is nothing to show; see [`Error`].
    pub fn read(&self) -> Result<Snapshot> {
        let dir = self.dir();
        let mut missing = Vec::new();
        let mut problems = Vec::new();
        // Totals before VMs: what is counted meanwhile is then not taken for what VMs that are gone
        // have left in the totals.
        let total = dir.figures(&mut missing)?;
        let snapshot = Snapshot {
            time: now(),
            at: Instant::now(),
            host: dir.host(&total.stats)?,
            policy: dir.policy_if_shown()?,
            total,
            vms: dir.vms(&mut missing, &mut problems)?,
            missing,
            problems,
        };
        Ok(snapshot)
    }

    /// The policy in force.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn policy(&self) -> Result<Policy> {
        self.dir().policy()
    }

    /// What this host is.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn host(&self) -> Result<Host> {
        self.dir().parsed("host", parse::host)
    }

    /// Switches to `policy`.
    ///
    /// # Errors
    ///
    /// Where it cannot be written, is not to be had on this host, or the module stays with another.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        let dir = self.dir();
        if policy == Policy::Lazy {
            match self.host()?.lazy {
                Some(Lazy::Unmaps | Lazy::AsOnce) => (),
                Some(Lazy::Refused) => return Err(Error::LazyRefused),
                None => return Err(Error::LazyUnknown),
            }
        }
        let path = dir.root.join("policy");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| {
                io::Write::write_all(&mut file, format!("{}\n", policy.name()).as_bytes())
            })
            .map_err(|error| dir.explain(path, error))?;
        match dir.policy()? {
            now if now == policy => Ok(()),
            kept => Err(Error::PolicyKept(kept.name().into())),
        }
    }
}

/// Where the files are now, or those of one VM.
struct Dir<'a> {
    root: PathBuf,
    /// The host that it is of, if it was not named.
    system: Option<&'a Path>,
}

impl Dir<'_> {
    fn policy(&self) -> Result<Policy> {
        self.parsed("policy", parse::policy)
    }

    /// Under lockdown, debugfs files that can be written cannot even be read.
    fn policy_if_shown(&self) -> Result<Option<Policy>> {
        match self.policy() {
            Ok(policy) => Ok(Some(policy)),
            Err(Error::Lockdown(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn vms(&self, missing: &mut Vec<&'static str>, problems: &mut Vec<String>) -> Result<Vec<Vm>> {
        let path = self.root.join("vms");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) => return Err(self.explain(path, error)),
        };
        let mut vms = Vec::new();
        for entry in entries.flatten() {
            let dir = Dir {
                root: entry.path(),
                system: None,
            };
            let mut lacking = Vec::new();
            let vm = dir.vm(
                parse::vm_id(&entry.file_name().to_string_lossy()),
                &mut lacking,
            );
            // A VM's files go before its directory does, and reading them fails in many ways then.
            if !dir.root.join("stats").exists() {
                continue;
            }
            match vm {
                Ok(vm) => vms.push(vm),
                Err(Error::NotLoaded) => return Err(Error::NotLoaded),
                Err(error) => problems.push(error.to_string()),
            }
            lacking.retain(|name| !missing.contains(name));
            missing.append(&mut lacking);
        }
        vms.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        problems.sort_unstable();
        Ok(vms)
    }

    fn vm(&self, id: VmId, missing: &mut Vec<&'static str>) -> Result<Vm> {
        Ok(Vm {
            id,
            info: self.optional("info", parse::info, missing)?,
            figures: self.figures(missing)?,
        })
    }

    fn figures(&self, missing: &mut Vec<&'static str>) -> Result<Figures> {
        let stats = self.parsed("stats", parse::stats)?;
        let latency = |text: &str| parse::latency(text, &stats);
        let latency = self.optional("latency", latency, missing)?;
        Ok(Figures { stats, latency })
    }

    /// `host`, beside these `stats`: its last line is there wherever they are new enough.
    fn host(&self, stats: &Stats) -> Result<Host> {
        let is_new = stats.seen(Stat::DcacheCleanElideBytes).is_some();
        self.parsed("host", |text| match parse::host(text)? {
            host if host.lazy.is_none() && is_new => Err(parse::missing("lazy")),
            host => Ok(host),
        })
    }

    fn parsed<T>(&self, name: &str, parse: impl FnOnce(&str) -> parse::Result<T>) -> Result<T> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&String::from_utf8_lossy(&bytes))
                .map_err(|what| Error::Damaged { path, what }),
            Err(error) => Err(self.explain(path, error)),
        }
    }

    /// The same of a file that older modules lack.
    fn optional<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> parse::Result<T>,
        missing: &mut Vec<&'static str>,
    ) -> Result<Option<T>> {
        match self.root.join(name).try_exists() {
            Ok(false) => {
                missing.push(name);
                Ok(None)
            }
            _ => self.parsed(name, parse).map(Some),
        }
    }

    /// Why `path`, below the root, could not be used.
    fn explain(&self, path: PathBuf, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(EPERM) && is_root() => {
                Error::Lockdown(path)
            }
            io::ErrorKind::PermissionDenied => Error::NotRoot(path),
            // It is on its way out, and lets nobody open a file any more.
            _ if error.raw_os_error() == Some(ENXIO) => Error::NotLoaded,
            // Gone as a whole, or while it was read.
            _ if matches!(self.root.try_exists(), Ok(false)) => self.absent(),
            _ => Error::Io { path, error },
        }
    }

    /// Why there is no root.
    fn absent(&self) -> Error {
        match self.system.map(Debugfs::of) {
            None => Error::NoRoot(self.root.clone()),
            Some(Debugfs::At(_)) => Error::NotLoaded,
            Some(Debugfs::Unmounted) => Error::NoDebugfs,
            Some(Debugfs::Off) => Error::DebugfsOff,
        }
    }
}

/// EPERM and EACCES are one kind to the library; debugfs tells lockdown by the former.
const EPERM: i32 = 1;
/// What debugfs says of a file whose module is being unloaded.
const ENXIO: i32 = 6;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

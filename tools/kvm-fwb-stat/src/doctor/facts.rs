// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a host from user space. What cannot is `None`, and nothing is guessed here.

use super::{
    candidate::Candidate,
    cpu::{Ctr, Midr},
};
use crate::{
    cli,
    error::Error,
    snapshot::{Debugfs, Snapshot, Tree},
};
use flate2::read::GzDecoder;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The functions of KVM's that the module redirects.
pub const REDIRECTED: [&str; 4] = [
    "kvm_reset_vcpu",
    "stage2_unmap_vm",
    "kvm_arch_vcpu_ioctl_run",
    "kvm_arch_destroy_vm",
];
/// And those that it redirects only on CPUs without FEAT_S2FWB.
pub const REDIRECTED_WITHOUT_FWB: [&str; 2] = ["kvm_pgtable_stage2_unmap", "stage2_flush_vm"];
/// And the one it reads.
const READ: &str = "kvm_arch_vcpu_ioctl";

/// The options of a kernel that the module needs.
pub const OPTIONS: [&str; 6] = [
    "MODULES",
    "RUST",
    "KVM",
    "KPROBES",
    "DYNAMIC_FTRACE_WITH_ARGS",
    "DEBUG_FS",
];

/// What is known of a host.
#[derive(Debug)]
pub struct Facts {
    /// The kernel's release, as uname says it.
    pub release: Option<String>,
    /// Its machine, as uname says it.
    pub machine: Option<String>,
    /// The kinds of its CPUs.
    pub cpus: BTreeSet<Midr>,
    /// CTR_EL0.
    pub ctr: Option<Ctr>,
    /// Whether the kernel found FEAT_S2FWB, by its log.
    pub logged_fwb: Option<bool>,
    /// There is /dev/kvm.
    pub has_kvm: bool,
    /// The kernel was told to do without KVM.
    pub kvm_off: bool,
    /// Options of [`OPTIONS`] that are not built in.
    pub lacking: Option<Vec<&'static str>>,
    /// The kernel's own vermagic, as its configuration makes it.
    pub vermagic: Option<String>,
    /// Built with CFI.
    pub cfi: bool,
    /// Functions that the kernel does not have under their names.
    pub unnamed: Option<Vec<&'static str>>,
    /// kprobes are armed.
    pub kprobes: Option<bool>,
    /// ftrace may be used.
    pub ftrace: Option<bool>,
    /// Functions of [`REDIRECTED`] and [`REDIRECTED_WITHOUT_FWB`] that a livepatch, or another user of
    /// IPMODIFY, has.
    pub taken: Vec<&'static str>,
    /// Kernel lockdown: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Modules must be signed.
    pub must_sign: bool,
    /// No module can be loaded any more.
    pub modules_disabled: bool,
    /// The file that somebody means to load, and what it is, or why it is no module.
    pub file: Option<(PathBuf, Result<Candidate, String>)>,
    /// The module is loaded: with what it shows, or why it shows nothing.
    pub module: Option<Result<Snapshot, Error>>,
    /// Where debugfs is, or why it is not.
    pub debugfs: Debugfs,
}

impl Facts {
    /// Looks at the host, or at what `arguments` name in its place.
    pub fn gather(arguments: &cli::Doctor, tree: &Tree) -> Self {
        let system = System(arguments.system.clone());
        let is_here = arguments.system == Path::new("/");
        let module_tree = if !is_here && tree.is_default() {
            Tree::Of(arguments.system.clone())
        } else {
            tree.clone()
        };
        let debugfs = Debugfs::of(&system.0);
        let in_debugfs = |path: &str| debugfs.path().join(path).display().to_string();
        let module = match module_tree.read() {
            Err(
                Error::NotLoaded
                | Error::NoDebugfs
                | Error::DebugfsOff
                | Error::NoRoot(_)
                | Error::NotRoot(_),
            ) if !system.has("/sys/module/kvm_fwb_reset") => None,
            other => Some(other),
        };
        let cmdline = system.text("/proc/cmdline").unwrap_or_default();
        let config = system.config();
        let option = |name: &str| {
            let config = config.as_ref()?;
            Some(
                config
                    .lines()
                    .any(|line| line == format!("CONFIG_{name}=y")),
            )
        };
        Self {
            release: system.word("/proc/sys/kernel/osrelease"),
            machine: system.machine(),
            cpus: system.cpus(),
            ctr: match arguments.ctr_el0 {
                Some(value) => Some(Ctr(value)),
                None if is_here => Ctr::read(),
                None => None,
            },
            logged_fwb: system.logged_fwb(),
            has_kvm: system.has("/dev/kvm"),
            kvm_off: cmdline
                .split_whitespace()
                .any(|word| word == "kvm-arm.mode=none"),
            lacking: config.as_ref().map(|_| {
                OPTIONS
                    .into_iter()
                    .filter(|name| option(name) == Some(false))
                    .collect()
            }),
            vermagic: system.vermagic(option),
            cfi: [option("CFI"), option("CFI_CLANG")].contains(&Some(true)),
            unnamed: system.unnamed(),
            kprobes: system.flag(&in_debugfs("kprobes/enabled")),
            ftrace: system.flag("/proc/sys/kernel/ftrace_enabled"),
            taken: if module.is_some() {
                Vec::new()
            } else {
                system.taken(&in_debugfs("tracing/enabled_functions"))
            },
            lockdown: system.lockdown(),
            must_sign: option("MODULE_SIG_FORCE") == Some(true)
                || system
                    .word("/sys/module/module/parameters/sig_enforce")
                    .as_deref()
                    == Some("Y"),
            modules_disabled: system.flag("/proc/sys/kernel/modules_disabled") == Some(true),
            file: (arguments.file.clone()).map(|path| {
                let candidate = Candidate::look(&path);
                (path, candidate)
            }),
            module,
            debugfs,
        }
    }
}

/// A host's file system.
struct System(PathBuf);

impl System {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn word(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_owned())
    }

    fn flag(&self, path: &str) -> Option<bool> {
        match &*self.word(path)? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// Older kernels than 6.1 do not say; then /proc/cpuinfo does, by its form.
    fn machine(&self) -> Option<String> {
        self.word("/proc/sys/kernel/arch").or_else(|| {
            let is_arm = self.text("/proc/cpuinfo")?.contains("CPU implementer");
            is_arm.then(|| "aarch64".into())
        })
    }

    fn cpus(&self) -> BTreeSet<Midr> {
        let hex = |text: &str| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok();
        let dirs = fs::read_dir(self.path("/sys/devices/system/cpu"))
            .into_iter()
            .flatten();
        let registers: BTreeSet<_> = dirs
            .filter_map(|dir| {
                let file = dir.ok()?.path().join("regs/identification/midr_el1");
                hex(&fs::read_to_string(file).ok()?).map(Midr::new)
            })
            .collect();
        if !registers.is_empty() {
            return registers;
        }
        let cpuinfo = self.text("/proc/cpuinfo").unwrap_or_default();
        let values = |name: &'static str| {
            cpuinfo.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| hex(value))?
            })
        };
        let parts = values("CPU implementer").zip(values("CPU part"));
        parts
            .map(|(implementer, part)| Midr::of_parts(implementer, part))
            .collect()
    }

    /// The kernel names each feature that it finds, once, at boot. Its log may have lost that.
    fn logged_fwb(&self) -> Option<bool> {
        let log = self.log()?;
        let mut features = log
            .lines()
            .filter_map(|line| line.split_once("CPU features: detected: "))
            .map(|(_, feature)| feature)
            .peekable();
        features.peek()?;
        Some(features.any(|feature| feature.starts_with("Stage-2 Force Write-Back")))
    }

    /// /dev/kmsg hands out one record at a time, and fails where another would have to be waited
    /// for. One that was lost meanwhile is EPIPE.
    fn log(&self) -> Option<String> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(self.path("/dev/kmsg"))
            .ok()?;
        let mut log = Vec::new();
        let mut record = [0; 8192];
        loop {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => log.extend_from_slice(&record[..length]),
                Err(error) => match error.kind() {
                    ErrorKind::BrokenPipe | ErrorKind::Interrupted => continue,
                    _ => break,
                },
            }
        }
        Some(String::from_utf8_lossy(&log).into_owned())
    }

    fn config(&self) -> Option<String> {
        let release = self.word("/proc/sys/kernel/osrelease")?;
        let mut text = String::new();
        if let Ok(file) = File::open(self.path("/proc/config.gz")) {
            if GzDecoder::new(file).read_to_string(&mut text).is_ok() {
                return Some(text);
            }
        }
        [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/config"),
            format!("/lib/modules/{release}/build/.config"),
        ]
        .iter()
        .find_map(|path| self.text(path))
    }

    /// include/linux/vermagic.h. With structures in random order nobody can tell.
    fn vermagic(&self, option: impl Fn(&str) -> Option<bool>) -> Option<String> {
        if option("RANDSTRUCT")? {
            return None;
        }
        let mut words = vec![self.word("/proc/sys/kernel/osrelease")?];
        let mut add = |name, word: &str| {
            let is_set = option(name) == Some(true);
            words.extend(is_set.then(|| word.to_owned()));
            is_set
        };
        add("SMP", "SMP");
        let _ = add("PREEMPT_RT", "preempt_rt") || add("PREEMPT_BUILD", "preempt");
        add("MODULE_UNLOAD", "mod_unload");
        add("MODVERSIONS", "modversions");
        words.push(self.machine()?);
        Some(words.join(" "))
    }

    fn unnamed(&self) -> Option<Vec<&'static str>> {
        let symbols = self
            .text("/proc/kallsyms")
            .filter(|text| !text.is_empty())?;
        let names: BTreeSet<_> = symbols
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        let wanted = REDIRECTED.into_iter().chain([READ]);
        Some(wanted.filter(|name| !names.contains(name)).collect())
    }

    fn taken(&self, in_debugfs: &str) -> Vec<&'static str> {
        let mut taken = BTreeSet::new();
        // /sys/kernel/livepatch/PATCH/vmlinux/FUNCTION,N
        let patches = fs::read_dir(self.path("/sys/kernel/livepatch"))
            .into_iter()
            .flatten();
        for patch in patches.flatten() {
            for function in fs::read_dir(patch.path().join("vmlinux"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = function.file_name().to_string_lossy().into_owned();
                taken.insert(name.split(',').next().unwrap_or_default().to_owned());
            }
        }
        // FUNCTION (USERS) FLAGS, of which I is IPMODIFY.
        let enabled = self
            .text("/sys/kernel/tracing/enabled_functions")
            .or_else(|| self.text(in_debugfs))
            .unwrap_or_default();
        for line in enabled.lines() {
            let mut words = line.split_whitespace();
            if let Some(name) = words.next() {
                if words.any(|word| word == "I") {
                    taken.insert(name.to_owned());
                }
            }
        }
        REDIRECTED
            .into_iter()
            .chain(REDIRECTED_WITHOUT_FWB)
            .filter(|&name| taken.contains(name))
            .collect()
    }

    fn lockdown(&self) -> Option<String> {
        let text = self.text("/sys/kernel/security/lockdown")?;
        let mut words = text.split_whitespace();
        words.find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
    }
}

// SPDX-License-Identifier: GPL-2.0
//! What the module gives away, and what a VMM's user without root can make it do: docs/security.md.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use contract::Policy;
use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::{set_name, set_thread_res_uid};
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::threads::join;
use vmm::{Vm, module};

use super::{life, mixed, reset};

/// No user.
const NOBODY: u32 = 65534;

/// Whose files these are, and who may do what with them: all there are.
pub fn modes(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(1)?;
    vm.report()?;
    vm.reset()?;
    let mut got = Vec::new();
    walk(&module::path(""), &mut got)?;
    let mut want: Vec<_> = [
        "200 clear",
        "444 host",
        "444 latency",
        "644 policy",
        "444 stats",
    ]
    .map(str::to_owned)
    .into();
    want.extend(["info", "latency", "stats"].map(|file| format!("444 vms/{}/{file}", vm.name())));
    let base = module::path("");
    let mut shown = Vec::new();
    for (path, mode) in &got {
        shown.push(format!("{mode:o} {}", path.strip_prefix(&base)?.display()));
    }
    ensure!(shown == want, "debugfs: want {want:?}, got {shown:?}");
    // And all of it below a directory that root alone gets into.
    let debugfs = fs::metadata("/sys/kernel/debug")?.permissions().mode() & 0o7777;
    ensure!(debugfs == 0o700, "/sys/kernel/debug: {debugfs:o}");
    for (path, _) in &got {
        ensure!(!nobody_reads(path)?, "nobody reads {}", path.display());
    }

    // Nothing of the parameters, and nothing that could be changed but by root.
    let mut of_module = Vec::new();
    let directory = Path::new("/sys/module").join(module::NAME);
    walk(&directory, &mut of_module)?;
    for (path, mode) in &of_module {
        let writable = mode & 0o222 != 0 && !path.ends_with("uevent");
        ensure!(!writable, "{}: {mode:o}", path.display());
        ensure!(
            !path.starts_with(directory.join("parameters")),
            "{}",
            path.display()
        );
    }
    Ok(())
}

/// All files below, with their modes, by name; all are root's.
fn walk(directory: &Path, files: &mut Vec<(PathBuf, u32)>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        entries.push(entry?.path());
    }
    entries.sort();
    for path in entries {
        let data = fs::symlink_metadata(&path)?;
        ensure!(
            (data.uid(), data.gid()) == (0, 0),
            "{} is not root's",
            path.display()
        );
        if data.is_dir() {
            walk(&path, files)?;
        } else if data.is_file() {
            files.push((path, data.permissions().mode() & 0o7777));
        }
    }
    Ok(())
}

/// As a thread of no user's, with no capabilities.
fn nobody_reads(path: &Path) -> Result<bool> {
    thread::scope(|scope| {
        join(scope.spawn(|| {
            let nobody = Uid::from_raw(NOBODY);
            set_thread_res_uid(nobody, nobody, nobody).context("setresuid")?;
            Ok(fs::read(path).is_ok())
        }))
    })
}

/// A process chooses its name freely, and writes no lines of its own into `info` by that.
pub fn odd_name(lab: &Lab) -> Result<()> {
    let usual = rustix::thread::name()?;
    set_name(c"a\nvcpus 9\x1b")?;
    let made = lab.vm(1);
    set_name(&usual)?;
    let mut vm = made?;
    vm.report()?;
    vm.reset()?;
    let info = module::read(&format!("vms/{}/info", vm.name()))?;
    ensure!(
        info.contains("\ncomm a?vcpus 9?\nvcpus 1\n"),
        "the name of the process was shown as it is: {info:?}"
    );
    Ok(())
}

/// Whatever a VMM does, right or wrong, nothing of it is said in the log.
pub fn quiet(lab: &Lab) -> Result<()> {
    let mut log = Kmsg::open().context("/dev/kmsg")?;
    for test in [
        reset::sequence,
        reset::failing_run,
        reset::failing_init,
        reset::out_of_reach,
        mixed::busy_storm,
        life::same_name,
        life::killed,
    ] {
        lab.clear()?;
        test(lab)?;
    }
    let ours = format!(";{}: ", module::NAME);
    let said: Vec<_> = log
        .records()?
        .into_iter()
        .filter(|record| record.contains(&ours))
        .collect();
    ensure!(said.is_empty(), "{said:?}");
    Ok(())
}

/// How many VMs are made to see what one takes.
const VMS: usize = 64;
/// How often they are counted, until it is as it should be.
const TRIES: usize = 4;
/// What the module may take for one.
const MOST: i64 = 16 << 10;
/// What it takes at least: with a record that is charged to nobody 3.5 to 4.7 kB are left, of dentries and inodes.
const LEAST: i64 = 5 << 10;

/// What the module keeps of a VM is bounded, and charged to the VMM's memory cgroup.
pub fn memory(lab: &Lab) -> Result<()> {
    let group = Cgroup::enter()?;
    let fill = || {
        let before = group.slab()?;
        let mut vms: Vec<Vm> = Vec::new();
        for _ in 0..VMS {
            let mut vm = lab.vm(1)?;
            vm.report_one(0)?;
            vm.reset()?;
            vms.push(vm);
        }
        Ok::<_, anyhow::Error>(group.slab()? - before)
    };
    // KVM's own caches are filled first.
    fill()?;
    // What VMs before had is freed at some time, also while others are counted. Too much or too little is so
    // each time.
    let mut each = 0;
    for _ in 0..TRIES {
        let without = fill()?;
        lab.load(Policy::Once)?;
        let with = fill()?;
        lab.unload()?;
        each = (with - without) / VMS as i64;
        println!(
            "# {each} bytes for a VM, beside the {} that KVM takes",
            without / VMS as i64
        );
        if (LEAST..=MOST).contains(&each) {
            return Ok(());
        }
    }
    bail!("{each} bytes for a VM")
}

/// A memory cgroup with this process in it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn enter() -> Result<Self> {
        let root = Path::new("/tmp/cgroup");
        if !root.join("cgroup.procs").exists() {
            fs::create_dir_all(root)?;
            let mount = Command::new("mount")
                .args(["-t", "cgroup2", "cgroup2"])
                .arg(root)
                .status()?;
            ensure!(mount.success(), "mount cgroup2");
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory").context("+memory")?;
        let group = Self(root.join("vmm"));
        fs::create_dir_all(&group.0)?;
        fs::write(group.0.join("cgroup.procs"), "0").context("cgroup.procs")?;
        Ok(group)
    }

    fn slab(&self) -> Result<i64> {
        let stat = fs::read_to_string(self.0.join("memory.stat"))?;
        let line = stat.lines().find_map(|line| line.strip_prefix("slab "));
        Ok(line.context("memory.stat has no slab")?.parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write("/tmp/cgroup/cgroup.procs", "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Under lockdown=integrity debugfs opens what can only be read, and the module goes on. There is no way
/// back: on a host of its own.
pub fn locked_down(lab: &Lab) -> Result<()> {
    let lockdown = lockdown()?;
    lab.load(Policy::Once)?;
    let vm = in_reset(lab)?;
    fs::write(&lockdown, "integrity").context("lockdown")?;
    goes_on_locked(lab, vm)?;
    lab.unload()?;
    // The module is not signed, on these hosts.
    refused(module::IMAGE, Errno::PERM)
}

/// With Secure Boot the kernel is locked down, and takes the module if the machine's owner signed it, and only then. On
/// a host that was booted so, whose file of the module is signed.
pub fn secure_boot(lab: &Lab) -> Result<()> {
    let mode = fs::read_to_string(lockdown()?)?;
    ensure!(mode.contains("[integrity]"), "lockdown: {mode}");

    refused("/unsigned.ko", Errno::KEYREJECTED)?;
    refused("/signed_by_another.ko", Errno::KEYREJECTED)?;
    ensure!(!module::is_loaded());
    let must = "would not be loaded: It is not signed, and must be (kernel lockdown)";
    doctor_says("/unsigned.ko", false, must)?;
    doctor_says(module::IMAGE, true, "It is signed, as it must be")?;

    for policy in [Policy::Once, Policy::Lazy, Policy::Native] {
        lab.load(policy)?;
        let vm = in_reset(lab)?;
        goes_on_locked(lab, vm)?;
        lab.unload()?;
    }
    Ok(())
}

/// The file that tells of lockdown, and takes a stricter mode.
fn lockdown() -> Result<PathBuf> {
    let security = Path::new("/sys/kernel/security");
    let mount = Command::new("mount")
        .args(["-t", "securityfs", "none"])
        .arg(security)
        .status()?;
    ensure!(mount.success(), "mount securityfs");
    Ok(security.join("lockdown"))
}

fn in_reset(lab: &Lab) -> Result<Vm> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.reset()?;
    Ok(vm)
}

/// Of a VM in reset: what lockdown leaves of the module's files, and that the rest is as ever.
fn goes_on_locked(lab: &Lab, mut vm: Vm) -> Result<()> {
    for (file, write) in [("policy", false), ("policy", true), ("clear", true)] {
        let opened = fs::File::options()
            .read(!write)
            .write(write)
            .open(module::path(file));
        let errno = opened.as_ref().err().and_then(Errno::from_io_error);
        ensure!(
            errno == Some(Errno::PERM),
            "{file}: want EPERM, got {opened:?}"
        );
    }
    lab.assert_host()?;
    module::read(&format!("vms/{}/info", vm.name()))?;
    lab.check("in reset")?;
    vm.report()?;
    lab.check("running")
}

fn refused(image: &str, want: Errno) -> Result<()> {
    let inserted = module::insert_from(Path::new(image), "");
    let errno = inserted.as_ref().err().and_then(Errno::from_io_error);
    ensure!(
        errno == Some(want),
        "insmod {image}: want {want:?}, got {inserted:?}"
    );
    Ok(())
}

/// What kvm-fwb-stat says of a module's file, before anybody loads it: whether it would be, and why.
fn doctor_says(image: &str, loads: bool, line: &str) -> Result<()> {
    let doctor = Command::new("kvm-fwb-stat")
        .args(["doctor", image])
        .output()?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    ensure!(
        doctor.status.success() == loads && said.contains(line),
        "doctor {image}: {}, {said}",
        doctor.status
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0
//! The module as an operator meets it: insmod, rmmod and its files in debugfs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::boot;
use anyhow::{Context, Result, anyhow};
use contract::Counters;
use contract::latency::Latency;

pub const NAME: &str = "kvm_fwb_reset";
pub const IMAGE: &str = "/kvm_fwb_reset.ko";
const EVENTS: &str = "/sys/kernel/tracing/events/kvm_fwb_reset/enable";
const DEBUGFS: &str = "/sys/kernel/debug";

/// `insmod` with these parameters.
pub fn insert(parameters: &str) -> io::Result<()> {
    insert_from(Path::new(IMAGE), parameters)
}

/// The same with another file. Its trace events are switched on if the host was booted for that: what
/// only they look at is looked at in all tests.
pub fn insert_from(image: &Path, parameters: &str) -> io::Result<()> {
    let image = File::open(image)?;
    let parameters = CString::new(parameters)?;
    // SAFETY: Both arguments outlive the call, and the kernel only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            image.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    })?;
    match boot::word("fwb.events")? {
        Some(_) => fs::write(EVENTS, "1"),
        None => Ok(()),
    }
}

/// `rmmod`: refuses rather than waits while the module is in use.
pub fn remove() -> io::Result<()> {
    let name = CString::new(NAME)?;
    // SAFETY: The name outlives the call, and the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
}

fn check(ret: libc::c_long) -> io::Result<()> {
    match ret {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn is_loaded() -> bool {
    Path::new("/sys/module").join(NAME).exists()
}

/// Where a file of the module lies.
pub fn path(file: &str) -> PathBuf {
    Path::new(DEBUGFS).join(NAME).join(file)
}

pub fn read(file: &str) -> Result<String> {
    fs::read_to_string(path(file)).with_context(|| format!("read {file}"))
}

pub fn write(file: &str, text: &str) -> io::Result<()> {
    fs::write(path(file), text)
}

pub fn stats(file: &str) -> Result<Counters> {
    read(file)?
        .parse()
        .map_err(|error| anyhow!("{file}: {error}"))
}

pub fn latency(file: &str) -> Result<Latency> {
    read(file)?
        .parse()
        .map_err(|error| anyhow!("{file}: {error}"))
}

/// The `host` file as a map.
pub fn host() -> Result<BTreeMap<String, String>> {
    let text = read("host")?;
    let pairs = text.lines().map(|line| line.split_once(' '));
    pairs
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .with_context(|| format!("host: not `name value` lines: {text}"))
}

/// The names of the VMs that have files of their own.
pub fn vms() -> Result<Vec<String>> {
    let entries = fs::read_dir(path("vms")).context("read vms")?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Lets kprobes fire, or not, on the whole host.
pub fn arm_kprobes(on: bool) -> Result<()> {
    let switch = Path::new(DEBUGFS).join("kprobes/enabled");
    fs::write(switch, if on { "1" } else { "0" }).context("write kprobes/enabled")
}

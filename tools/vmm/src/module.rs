// SPDX-License-Identifier: GPL-2.0
//! The module as an operator meets it: insmod, rmmod and its files in debugfs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use rustix::fs::OFlags;
use rustix::system::{delete_module, finit_module};

use crate::boot;

/// What the kernel calls it.
pub const NAME: &str = "kvm_fwb_reset";
/// Where its file lies on the lab's hosts.
pub const IMAGE: &str = "/kvm_fwb_reset.ko";
const EVENTS: &str = "/sys/kernel/tracing/events/kvm_fwb_reset/enable";
const DEBUGFS: &str = "/sys/kernel/debug";

/// `insmod` with these parameters.
pub fn insert(parameters: &str) -> io::Result<()> {
    insert_from(Path::new(IMAGE), parameters)
}

/// `insmod` of this module from any file. The module's trace events are switched on if the host was booted for that: what
/// only they look at is looked at in all tests.
pub fn insert_from(image: &Path, parameters: &str) -> io::Result<()> {
    insert_another(image, parameters)?;
    match boot::word("fwb.events")? {
        Some(_) => fs::write(EVENTS, "1"),
        None => Ok(()),
    }
}

/// `insmod` of any module.
pub fn insert_another(image: &Path, parameters: &str) -> io::Result<()> {
    Ok(finit_module(
        File::open(image)?,
        &CString::new(parameters)?,
        0,
    )?)
}

/// `rmmod`: refuses rather than waits while the module is in use.
pub fn remove() -> io::Result<()> {
    remove_another(NAME)
}

/// `rmmod` of any module.
pub fn remove_another(name: &str) -> io::Result<()> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    Ok(delete_module(&CString::new(name)?, flags)?)
}

/// Where its code lies.
pub fn code() -> Result<Range<u64>> {
    let text = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    // NAME SIZE USERS DEPENDENCIES STATE ADDRESS: of all its parts together, and of its code.
    let place = text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [NAME, size, _, _, _, address, ..] = words[..] else {
            return None;
        };
        let start = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some(start..start + size.parse::<u64>().ok()?)
    });
    place.context("/proc/modules does not say where the module is")
}

/// Whether it is loaded.
pub fn is_loaded() -> bool {
    Path::new("/sys/module").join(NAME).exists()
}

/// Where a file of the module lies.
pub fn path(file: &str) -> PathBuf {
    Path::new(DEBUGFS).join(NAME).join(file)
}

/// The text of a file of the module.
pub fn read(file: &str) -> Result<String> {
    fs::read_to_string(path(file)).with_context(|| format!("read {file}"))
}

/// A file of the module, as what it says.
pub fn parse<T: FromStr<Err: Display>>(file: &str) -> Result<T> {
    read(file)?
        .parse()
        .map_err(|error| anyhow!("{file}: {error}"))
}

/// Writes a file of the module.
pub fn write(file: &str, text: &str) -> io::Result<()> {
    fs::write(path(file), text)
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

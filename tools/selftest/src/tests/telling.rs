// SPDX-License-Identifier: GPL-2.0
//! What a kernel that watches itself has to say in the end: nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vmm::lab::Lab;

use super::Skip;

pub const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
pub const LOCKDEP: &str = "/proc/lockdep_stats";

/// kmemleak calls nothing a leak that is younger (MSECS_MIN_AGE in mm/kmemleak.c).
const YOUNG: Duration = Duration::from_secs(6);

/// The module is gone, and all of its memory with it.
pub fn leaks(_: &Lab) -> Result<()> {
    let file = Path::new(KMEMLEAK);
    if !file.exists() {
        bail!(Skip("a kernel without CONFIG_DEBUG_KMEMLEAK"));
    }
    // What was on its way between registers and memory in one scan is found by the next.
    for _ in 0..2 {
        thread::sleep(YOUNG);
        fs::write(file, "scan").context("kmemleak: scan")?;
    }
    let leaks = fs::read_to_string(file).context("kmemleak")?;
    ensure!(leaks.is_empty(), "{leaks}");
    Ok(())
}

/// lockdep goes off for good with the first thing that it finds, before these tests even.
pub fn lockdep(_: &Lab) -> Result<()> {
    let stats = match fs::read_to_string(LOCKDEP) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(Skip("a kernel without CONFIG_PROVE_LOCKING"))
        }
        stats => stats.context(LOCKDEP)?,
    };
    let line = stats.lines().find(|line| line.contains("debug_locks:"));
    let on = line.is_some_and(|line| line.ends_with(" 1"));
    ensure!(on, "lockdep is off: {line:?}, see the kernel's log");
    Ok(())
}

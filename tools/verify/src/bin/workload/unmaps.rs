// SPDX-License-Identifier: GPL-2.0
//! Counts runs of `stage2_unmap_vm` by the kernel's own tracing, the module there or not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const TRACEFS: &str = "/sys/kernel/tracing";
/// Behind the place where ftrace redirects calls, but in front of any branch: what is left out does
/// not come here.
const EVENT: &str = "p:verify/unmap stage2_unmap_vm+16";

/// A probe on the function that nobody takes out again: this host ends with the workload.
pub struct Unmaps(());

impl Unmaps {
    pub fn watch() -> Result<Self> {
        write("kprobe_events", EVENT)?;
        write("events/verify/unmap/enable", "1")?;
        let unmaps = Self(());
        unmaps.count()?;
        Ok(unmaps)
    }

    /// How many there were so far.
    pub fn count(&self) -> Result<u64> {
        let path = Path::new(TRACEFS).join("kprobe_profile");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // EVENT HITS MISSES
        let figures = text.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let ["unmap", hits, misses] = words[..] else {
                return None;
            };
            Some((hits.parse::<u64>().ok()?, misses.parse::<u64>().ok()?))
        });
        let (hits, misses) = figures.context("kprobe_profile has no figures for the probe")?;
        ensure!(misses == 0, "{misses} unmaps were not counted");
        Ok(hits)
    }
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = Path::new(TRACEFS).join(file);
    fs::write(&path, text).with_context(|| format!("write `{text}` to {}", path.display()))
}

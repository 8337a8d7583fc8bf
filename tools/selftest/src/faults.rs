// SPDX-License-Identifier: GPL-2.0
//! Fault injection: the n-th allocation or call of a task fails, for each n there is.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::thread::gettid;
use vmm::{kmsg::Kmsg, module};

use crate::tests::Skip;

/// All code there is.
pub const ANYWHERE: Range<u64> = 0..u64::MAX;
/// More than there are allocations in anything that is tried.
const MOST: usize = 10_000;

/// What fails in turn, of what this thread does: the n-th, where `n` is written to a file, which counts
/// down to 0.
pub struct Faults {
    nth: File,
    log: Kmsg,
}

impl Faults {
    /// Does `work` with the first failing, then with the second, and so on, until there are no more to
    /// fail, and has what came of it looked at each time, with what the log said. How many failed.
    pub fn each<T>(
        &mut self,
        mut work: impl FnMut() -> T,
        mut look: impl FnMut(T, &[String]) -> Result<()>,
    ) -> Result<usize> {
        for number in 1..=MOST {
            self.log.records()?;
            self.set(number)?;
            let result = work();
            let mut left = [0; 16];
            let length = self.nth.read_at(&mut left, 0);
            self.set(0)?;
            let left = &left[..length.context("how many are left")?];
            let failed = left.trim_ascii_end() == b"0";
            let said = self.log.records()?;
            look(result, &said).with_context(|| {
                let frames = said.iter().filter_map(|record| record.split_once("; "));
                let frames: Vec<_> = frames.map(|(_, frame)| frame).collect();
                format!("number {number} failed, called by\n{}", frames.join("\n"))
            })?;
            if !failed {
                return Ok(number - 1);
            }
        }
        bail!("{MOST} to fail, and more to come")
    }

    fn open(nth: &str) -> Result<Self> {
        let nth = File::options().read(true).write(true).open(nth)?;
        let log = Kmsg::open().context("/dev/kmsg")?;
        Ok(Self { nth, log })
    }

    fn set(&self, number: usize) -> Result<()> {
        let text = number.to_string();
        let written = self.nth.write_at(text.as_bytes(), 0);
        written.map(drop).context("set what fails")
    }
}

/// Allocations that fail, on kernels with CONFIG_FAULT_INJECTION ("fail-nth" of
/// Documentation/fault-injection/fault-injection.rst). None do when this is gone.
pub struct Allocations(pub Faults);

/// Which of its own allocations fails, to a thread.
pub const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
/// Of the slab's objects, and of pages.
const KINDS: [&str; 2] = ["failslab", "fail_page_alloc"];

impl Allocations {
    /// Those that are made by `code`, or below it.
    pub fn below(code: Range<u64>) -> Result<Self> {
        if !Path::new(FAIL_NTH).exists() {
            bail!(Skip("a kernel without CONFIG_FAULT_INJECTION"));
        }
        for kind in KINDS {
            // The kernel's allocations that may wait, which is nearly all.
            set(kind, "ignore-gfp-wait", "N")?;
            set(kind, "verbose", "2")?;
            set(kind, "stacktrace-depth", "32")?;
            set(kind, "require-start", &code.start.to_string())?;
            set(kind, "require-end", &code.end.to_string())?;
        }
        set(KINDS[1], "min-order", "0")?;
        Ok(Self(Faults::open(FAIL_NTH).context(FAIL_NTH)?))
    }

    /// Does `work` with all allocations failing that any task makes there.
    pub fn all<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let probability = |percent| {
            KINDS
                .into_iter()
                .try_for_each(|kind| set(kind, "probability", percent))
        };
        for kind in KINDS {
            set(kind, "verbose", "0")?;
            set(kind, "times", "-1")?;
        }
        probability("100")?;
        let result = work();
        probability("0")?;
        Ok(result)
    }
}

impl Drop for Allocations {
    fn drop(&mut self) {
        let _ = self.0.set(0);
        for kind in KINDS {
            let _ = set(kind, "probability", "0");
            let _ = set(kind, "stacktrace-depth", "0");
        }
    }
}

fn set(kind: &str, file: &str, value: &str) -> Result<()> {
    let path = Path::new("/sys/kernel/debug").join(kind).join(file);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}

/// Calls of a function of the kernel's that fail (tools/fail-call), on any kernel. None do when this is gone.
pub struct Calls(pub Faults);

impl Calls {
    /// Those that this thread makes.
    pub fn of(function: &str) -> Result<Self> {
        let pid = gettid().as_raw_nonzero();
        module::insert_another(
            Path::new("/fail_call.ko"),
            &format!("function={function} pid={pid}"),
        )
        .with_context(|| format!("insmod fail_call, for {function}"))?;
        let nth = "/sys/module/fail_call/parameters/nth";
        Ok(Self(Faults::open(nth).context(nth)?))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // Should it stay, the next one says so.
        let _ = module::remove_another("fail_call");
    }
}

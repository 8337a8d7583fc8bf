// SPDX-License-Identifier: GPL-2.0
//! The kernel's log, read for splats.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

/// What a kernel says when something is wrong with it.
const SPLATS: [&str; 12] = [
    "WARNING:",
    "BUG:",
    // slab_debug names the cache, as in `BUG kmalloc-64 (Tainted: ...): Poison overwritten`.
    ";BUG ",
    "Oops",
    "Internal error",
    "Unable to handle",
    "kernel panic",
    "refcount_t:",
    // Hung tasks, RCU stalls, and lockdep on locks that it cannot tell.
    "INFO: ",
    "rcu_tasks stall",
    "lockup",
    "UBSAN:",
];

/// The kernel's log, read record by record.
pub struct Kmsg(File);

impl Kmsg {
    /// The log from now on.
    pub fn open() -> io::Result<Self> {
        let mut log = Self::from_boot()?;
        log.0.seek(SeekFrom::End(0))?;
        Ok(log)
    }

    /// All of the log that the kernel still has.
    pub fn from_boot() -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open("/dev/kmsg")?;
        Ok(Self(file))
    }

    /// The splats since the last call.
    pub fn splats(&mut self) -> io::Result<Vec<String>> {
        let is_splat = |record: &String| SPLATS.iter().any(|splat| record.contains(splat));
        Ok(self.records()?.into_iter().filter(is_splat).collect())
    }

    /// All records since the last call.
    pub fn records(&mut self) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    records.push(text.trim_end().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(records),
                // Records were overwritten before we read them: go on with the oldest there is.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error),
            }
        }
    }
}

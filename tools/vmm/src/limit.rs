// SPDX-License-Identifier: GPL-2.0
//! What one process may have.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Lets this process have so many descriptors: a thousand VMs take more than it gets by default.
pub fn descriptors(most: u64) -> Result<()> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, limit).with_context(|| format!("{most} descriptors"))
}

// SPDX-License-Identifier: GPL-2.0
//! Hosts booted with `slab_debug=`, which poison what is freed: who reads it finds nonsense, and who
//! writes to it is found out when the kernel looks, which else it does when the memory is used again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use vmm::boot;

/// Where the memory of the module, and of what it makes in debugfs, comes from.
fn concerns(cache: &str) -> bool {
    cache.starts_with("kmalloc-") || ["dentry", "inode_cache", "radix_tree_node"].contains(&cache)
}

/// Lets the kernel look at every object there is. What it finds it says in its log.
pub fn look() -> Result<()> {
    if boot::word("slab_debug")?.is_none() {
        return Ok(());
    }
    let caches = Path::new("/sys/kernel/slab");
    for cache in fs::read_dir(caches).context("/sys/kernel/slab")? {
        let name = cache?.file_name();
        if concerns(&name.to_string_lossy()) {
            let file = caches.join(&name).join("validate");
            fs::write(&file, "1").with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Files that are there in full or not at all.

use anyhow::{Context, Result};
use serde::Serialize;
use std::{fs, path::Path, process};

/// Writes `value` to a file, as JSON. Whoever reads it meanwhile finds what was there before.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", process::id()));
    let text = serde_json::to_string_pretty(value)?;
    fs::write(&new, text + "\n")
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

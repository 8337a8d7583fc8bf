// SPDX-License-Identifier: GPL-2.0

//! Outputs other than the live screen: once, or again and again.

use crate::{
    dump::{
        csv, json,
        metrics::{self, Dialect},
    },
    error::{Error, Result},
    model::{Snapshot, Tree},
    render::{
        column::{Column, View},
        once,
    },
};
use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What to write.
#[derive(Debug)]
pub enum Format {
    /// A table for people.
    Table,
    /// JSON.
    Json,
    /// CSV.
    Csv,
    /// Metrics, to standard output or to a file.
    Metrics(Dialect, Option<PathBuf>),
}

impl Format {
    /// Prometheus' text format.
    pub fn prometheus(file: Option<&Path>) -> Self {
        Self::Metrics(Dialect::Prometheus, file.map(Into::into))
    }

    /// OpenMetrics.
    pub fn openmetrics(file: Option<&Path>) -> Self {
        Self::Metrics(Dialect::OpenMetrics, file.map(Into::into))
    }
}

/// How the table lists VMs.
#[derive(Debug)]
pub struct List {
    /// By this column.
    pub sort: Column,
    /// The other way round.
    pub reverse: bool,
    /// Only those with this in their name or command.
    pub filter: String,
}

/// Looks and writes: once, or every `interval`, `count` times or without end. Returns what was seen
/// last.
///
/// # Errors
///
/// Where nothing can be read, or nothing written.
pub fn run(
    tree: &Tree,
    format: Format,
    list: &List,
    interval: Option<Duration>,
    count: Option<u64>,
) -> Result<Snapshot> {
    let pause = interval.unwrap_or(Duration::from_secs(1));
    if matches!(format, Format::Table) {
        return table(tree, list, interval);
    }
    // An error is one of the last look: a file of metrics is kept up to date while the module goes
    // and comes.
    let repeats = interval.is_some() || count.is_some_and(|count| count > 1);
    let mut rows = None;
    let mut left = count.unwrap_or(if interval.is_some() { u64::MAX } else { 1 });
    let mut next = Instant::now();
    loop {
        left -= 1;
        match look(tree, &format, repeats, &mut rows) {
            Err(Error::NotLoaded) if left > 0 && is_file(&format) => (),
            Err(error) => return Err(error),
            Ok(snapshot) if left == 0 => return Ok(snapshot),
            Ok(_) => (),
        }
        // Looks keep their distance, however long each takes.
        next += pause;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn is_file(format: &Format) -> bool {
    matches!(format, Format::Metrics(_, Some(_)))
}

/// One look, of several if `repeats`.
fn look(
    tree: &Tree,
    format: &Format,
    repeats: bool,
    rows: &mut Option<csv::Rows<io::Stdout>>,
) -> Result<Snapshot> {
    let snapshot = match tree.read() {
        Err(Error::NotLoaded) => {
            // Or what was true last would be scraped for ever.
            if let Format::Metrics(dialect, file) = format {
                put(file.as_deref(), &metrics::text(None, *dialect))?;
            }
            return Err(Error::NotLoaded);
        }
        other => other?,
    };
    match format {
        Format::Json if !repeats => put(None, &format!("{:#}\n", json::value(&snapshot)))?,
        Format::Json => put(None, &format!("{}\n", json::value(&snapshot)))?,
        Format::Csv => {
            if rows.is_none() {
                *rows = Some(csv::Rows::new(io::stdout())?);
            }
            if let Some(rows) = rows {
                rows.write(&snapshot)?;
            }
        }
        Format::Metrics(dialect, file) => {
            put(file.as_deref(), &metrics::text(Some(&snapshot), *dialect))?;
        }
        Format::Table => (),
    }
    Ok(snapshot)
}

fn table(tree: &Tree, list: &List, interval: Option<Duration>) -> Result<Snapshot> {
    let mut before = None;
    if let Some(interval) = interval {
        before = Some(tree.read()?);
        thread::sleep(interval);
    }
    let snapshot = tree.read()?;
    let mut text = Vec::new();
    let view = View::new(&snapshot, before.as_ref());
    once::write(&mut text, &view, list.sort, list.reverse, &list.filter)?;
    put(None, &String::from_utf8_lossy(&text))?;
    Ok(snapshot)
}

/// Writes `text` to standard output, or puts it in a file: under another name first, so that nobody
/// reads half of it.
fn put(file: Option<&Path>, text: &str) -> Result<()> {
    let Some(file) = file else {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        return Ok(out.flush()?);
    };
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        // Whoever collects *.prom must not find this one.
        .prefix(".kvm-fwb-stat-")
        .suffix(".new")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)
        .and_then(|mut new| {
            new.write_all(text.as_bytes())?;
            new.persist(file)?;
            Ok(())
        })
        .map_err(|error| Error::Io {
            path: file.into(),
            error,
        })
}

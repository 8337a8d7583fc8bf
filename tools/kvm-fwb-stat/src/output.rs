// SPDX-License-Identifier: GPL-2.0

//! Outputs other than the live screen: once, or again and again.

use crate::{
    dump::{
        csv, json,
        metrics::{self, Dialect},
    },
    error::{Error, Result},
    render::{
        column::{Column, View},
        once,
    },
    snapshot::{Snapshot, Tree},
};
use std::{
    fs::{self, Permissions},
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
/// last. A look that fails ends nothing as long as others follow, and is told by `say`; but where
/// the first finds nothing to show, only a file of metrics is kept up to date.
///
/// # Errors
///
/// Where the last look could read nothing, or nothing can be written.
pub fn run(
    tree: &Tree,
    format: Format,
    list: &List,
    interval: Option<Duration>,
    count: Option<u64>,
    say: impl Fn(&str),
) -> Result<Snapshot> {
    if matches!(format, Format::Table) {
        return table(tree, list, interval);
    }
    let mut left = count.unwrap_or(if interval.is_some() { u64::MAX } else { 1 });
    let is_file = matches!(format, Format::Metrics(_, Some(_)));
    let mut writer = Writer {
        format,
        repeats: left > 1,
        rows: None,
        last_read: None,
    };
    let mut pace = Pace {
        next: Instant::now(),
        pause: interval.unwrap_or(Duration::from_secs(1)),
    };
    let mut has_shown = is_file;
    let mut trouble = None;
    loop {
        left -= 1;
        let seen = tree.read();
        writer.write(&seen)?;
        match seen {
            Ok(snapshot) if left == 0 => return Ok(snapshot),
            Err(error) if left == 0 || !has_shown => return Err(error),
            // Once, and not at each look.
            seen => {
                let now = seen.as_ref().err().map(ToString::to_string);
                if let Some(text) = now.iter().find(|_| now != trouble) {
                    say(&format!("{text} (going on)"));
                }
                trouble = now;
                has_shown |= seen.is_ok();
            }
        }
        thread::sleep(pace.pause(Instant::now()));
    }
}

/// When to look. Looks keep their distance, however long each takes.
struct Pace {
    next: Instant,
    pause: Duration,
}

impl Pace {
    /// How long to wait for the next look, after one that ended `now`. Looks that were missed, for
    /// the process was stopped, are not made up for: they would all show the same moment.
    fn pause(&mut self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.next) >= self.pause {
            self.next = now;
        }
        self.next += self.pause;
        self.next.saturating_duration_since(now)
    }
}

/// Writes one look after the other.
struct Writer {
    format: Format,
    repeats: bool,
    rows: Option<csv::Rows<io::Stdout>>,
    /// When all could be read last, in seconds since 1970.
    last_read: Option<f64>,
}

impl Writer {
    /// Metrics tell of a failure, too: what was true last would be scraped for ever.
    fn write(&mut self, seen: &Result<Snapshot>) -> Result<()> {
        let snapshot = match (seen, &self.format) {
            (_, Format::Metrics(dialect, file)) => {
                let look = match (seen, file) {
                    (Ok(snapshot), _) => metrics::Look::Seen(snapshot),
                    (Err(Error::NotLoaded), _) => metrics::Look::NotLoaded,
                    // Whoever reads standard output sees the error.
                    (Err(_), None) => return Ok(()),
                    (Err(_), Some(file)) => metrics::Look::Unread {
                        last: self.last_read.or_else(|| last_read(file)),
                    },
                };
                if let Ok(snapshot) = seen {
                    self.last_read = Some(snapshot.time);
                }
                return put(file.as_deref(), &metrics::text(&look, *dialect));
            }
            (Err(_), _) => return Ok(()),
            (Ok(snapshot), _) => snapshot,
        };
        match &self.format {
            Format::Json if !self.repeats => put(None, &format!("{:#}\n", json::value(snapshot))),
            Format::Json => put(None, &format!("{}\n", json::value(snapshot))),
            Format::Csv => {
                let rows = match &mut self.rows {
                    Some(rows) => rows,
                    none => none.insert(csv::Rows::new(io::stdout())?),
                };
                Ok(rows.write(snapshot)?)
            }
            Format::Metrics(..) | Format::Table => Ok(()),
        }
    }
}

/// What a file of metrics says of that, as one that was made by a tool before this one.
fn last_read(file: &Path) -> Option<f64> {
    metrics::last_read(&fs::read_to_string(file).ok()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_keep_their_distance_and_missed_ones_are_left_out() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace {
            next: start,
            pause: Duration::from_millis(1000),
        };
        let mut pause_at = |ms| pace.pause(at(ms)).as_millis();
        assert_eq!(pause_at(3), 997);
        assert_eq!(pause_at(1900), 100);
        // It was stopped for 12 s.
        assert_eq!(pause_at(14_000), 1000);
        assert_eq!(pause_at(15_250), 750);
        // Looks that take longer than the pause still leave the host alone for as long.
        assert_eq!(pause_at(17_500), 1000);
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Rows as they are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::{fs, process};

use anyhow::{Context, Result, ensure};
use bench::row::{Figures, Key};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Version of the format.
const VERSION: u32 = 1;

/// How a row came about.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Made {
    /// The day
    #[arg(long)]
    pub date: String,
    /// What was typed
    #[arg(long)]
    pub command: String,
    /// The host's kernel release
    #[arg(long)]
    pub release: String,
    /// The version of its package
    #[arg(long)]
    pub package: String,
    /// The module's version
    #[arg(long)]
    pub module: String,
    /// QEMU's version
    #[arg(long)]
    pub qemu: String,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row<M = Made> {
    #[serde(flatten)]
    pub key: Key,
    /// What is not here was not seen: 0.
    pub figures: Figures,
    /// How it came about; in a file, which of those that it lists.
    pub made: M,
    /// How many runs it is the median of.
    pub runs: u32,
    /// By how many parts in a million the runs differ, in the figure that differs most.
    pub spread_ppm: u64,
}

impl<M> Row<M> {
    fn with<N>(self, made: N) -> Row<N> {
        Row {
            key: self.key,
            figures: self.figures,
            made,
            runs: self.runs,
            spread_ppm: self.spread_ppm,
        }
    }

    pub fn get(&self, figure: &str) -> u64 {
        self.figures.get(figure).copied().unwrap_or(0)
    }
}

/// All rows of a file, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept(pub BTreeMap<Key, Row>);

#[derive(Deserialize)]
struct File {
    version: u32,
    /// Many rows share one.
    made: Vec<Made>,
    rows: Vec<Row<usize>>,
}

impl Kept {
    /// # Errors
    ///
    /// If there is no such file, it is of another version, or it has a row twice.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    pub fn read_if_there(path: &Path) -> Result<Self> {
        if path.exists() {
            Self::read(path)
        } else {
            Ok(Self::default())
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).context("no rows of `make bench`")?;
        ensure!(
            file.version == VERSION,
            "rows of version {}, and this program knows {VERSION}",
            file.version
        );
        let mut kept = Self::default();
        for row in file.rows {
            let made = file.made.get(row.made).cloned();
            let made = made.with_context(|| format!("made in no way: {}", name(&row.key)))?;
            let twice = kept.0.insert(row.key.clone(), row.with(made));
            if let Some(row) = twice {
                anyhow::bail!("a row is there twice: {}", name(&row.key));
            }
        }
        Ok(kept)
    }

    pub fn text(&self) -> Result<String> {
        let made: BTreeSet<_> = self.0.values().map(|row| &row.made).collect();
        let made: Vec<_> = made.into_iter().collect();
        let rows = self.0.values().map(|row| {
            let place = made.binary_search(&&row.made);
            row.clone().with(place.unwrap_or_default())
        });
        let lines = |texts: Vec<String>| texts.join(",\n");
        let made_text = made.iter().map(serde_json::to_string);
        let rows_text = rows.map(|row| serde_json::to_string(&row));
        Ok(format!(
            "{{\"version\":{VERSION},\"made\":[\n{}\n],\"rows\":[\n{}\n]}}\n",
            lines(made_text.collect::<Result<_, _>>()?),
            lines(rows_text.collect::<Result<_, _>>()?)
        ))
    }

    /// Into a file, which is there in full or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.text()?)
    }

    /// Takes over all rows of another.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Writes a file that is there in full or not at all.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", process::id()));
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// A key for people.
pub fn name(key: &Key) -> String {
    let mut name = format!("{} {}", key.cpu, key.kernel);
    let what = match serde_json::to_value(key.what) {
        Ok(serde_json::Value::String(what)) => what,
        _ => String::new(),
    };
    let _ = write!(name, " {what} {}", key.state);
    if let Some(vcpus) = key.vcpus {
        let _ = write!(name, ", {vcpus} vCPUs");
    }
    if let Some(mib) = key.mib {
        let _ = write!(name, ", {mib} MiB");
    }
    if let Some(pages) = &key.pages {
        let _ = write!(name, " in {pages}");
    }
    if let Some(start) = &key.start {
        let _ = write!(name, " from {start}");
    }
    if let Some(file) = &key.file {
        let _ = write!(name, ", {file}");
    }
    if let Some(vms) = key.vms {
        let _ = write!(name, ", {vms} VMs");
    }
    if key.beside_reset {
        name.push_str(", beside a reset");
    }
    name
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bench::row::What;

    /// A row of resets on one CPU model.
    pub fn row(state: &str, vcpus: u32, figures: &[(&str, u64)]) -> Row {
        let mut key = Key::new(What::Reset, state);
        key.cpu = "cortex-a710".into();
        key.kernel = "stock".into();
        key.vcpus = Some(vcpus);
        key.mib = Some(64);
        key.pages = Some("4K".into());
        Row {
            key,
            figures: figures.iter().map(|&(n, f)| (n.to_owned(), f)).collect(),
            made: Made {
                release: "7.3".into(),
                ..Made::default()
            },
            runs: 1,
            spread_ppm: 0,
        }
    }

    pub fn kept(rows: impl IntoIterator<Item = Row>) -> Kept {
        Kept(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
    }

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let kept = kept([row("none", 1, &[("a", 1)]), row("once", 8, &[("b.c", 2)])]);
        let text = kept.text()?;
        assert_eq!(Kept::parse(&text)?, kept);
        assert_eq!(text.matches("\"release\"").count(), 1);
        let other = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(
            Kept::parse(&other)
                .unwrap_err()
                .to_string()
                .contains("of version 2")
        );
        let line = text.lines().nth(3).unwrap();
        let twice = text.replacen(line, &format!("{line}\n{line}"), 1);
        let error = Kept::parse(&twice).unwrap_err().to_string();
        assert_eq!(
            error,
            "a row is there twice: cortex-a710 stock reset none, 1 vCPUs, 64 MiB in 4K"
        );
        Ok(())
    }

    /// A cut run refreshes its own rows, and every other keeps its date.
    #[test]
    fn merging_replaces_by_key() {
        let mut old = kept([row("none", 1, &[("a", 1)]), row("once", 1, &[("a", 5)])]);
        let mut new = row("once", 1, &[("a", 4)]);
        new.made.date = "later".into();
        old.merge(kept([new.clone(), row("lazy", 1, &[("a", 3)])]));
        let figures: Vec<_> = old.0.values().map(|row| row.get("a")).collect();
        assert_eq!(figures, [3, 1, 4]);
        assert_eq!(old.0[&new.key].made.date, "later");
        assert_eq!(old.0.values().filter(|r| r.made.date.is_empty()).count(), 2);
    }
}

// SPDX-License-Identifier: GPL-2.0
//! What the oracle found in each section, which is a schedule.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The part of a verdict that matters here.
#[derive(Deserialize)]
struct Verdict {
    version: u64,
    sections: Vec<Section>,
}

/// What happened from one marker to the next.
#[derive(Deserialize)]
pub struct Section {
    number: u64,
    #[serde(default)]
    name: String,
    guest_instructions: u64,
    stale_fetches: u64,
    dirty_reads: u64,
    dirty_writes: u64,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            name,
            stale_fetches,
            dirty_reads,
            dirty_writes,
            ..
        } = self;
        write!(
            f,
            "{number} {name}: {stale_fetches} stale fetches, {dirty_reads} dirty reads, {dirty_writes} dirty writes"
        )
    }
}

/// The sections in which a guest ran or read what it should not have. An oracle that saw no guest at
/// all is an error: it would find nothing.
pub fn incoherent(file: &Path) -> Result<Vec<Section>> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("{name}"))?;
    judge(&text).with_context(|| format!("{name}"))
}

fn judge(text: &str) -> Result<Vec<Section>> {
    let verdict: Verdict = serde_json::from_str(text).context("no verdict of the oracle")?;
    ensure!(verdict.version == 1, "version {}: want 1", verdict.version);
    let played = verdict.sections.iter().filter(|section| section.number > 0);
    ensure!(
        played
            .map(|section| section.guest_instructions)
            .sum::<u64>()
            > 0,
        "the oracle saw no guest run in any schedule"
    );
    let incoherent = verdict.sections.into_iter().filter(|section| {
        let found = section.stale_fetches + section.dirty_reads + section.dirty_writes;
        section.number > 0 && found > 0
    });
    Ok(incoherent.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(number: u64, guest: u64, stale: u64, dirty: u64) -> String {
        format!(
            r#"{{"number":{number},"name":"seed 7","guest_instructions":{guest},"stale_fetches":{stale},
            "dirty_reads":{dirty},"dirty_writes":0,"ic_ialluis":1,"sites":[],"reports":[]}}"#
        )
    }

    fn verdict(sections: &[String]) -> String {
        let sections = sections.join(",");
        format!(r#"{{"version":1,"sections":[{sections}],"coherent":false}}"#)
    }

    #[test]
    fn names_what_is_incoherent() {
        let sections = [
            section(0, 9, 9, 9),
            section(1, 9, 0, 0),
            section(2, 9, 3, 0),
            section(3, 9, 0, 1),
        ];
        let found = judge(&verdict(&sections)).unwrap();
        let lines: Vec<_> = found.iter().map(Section::to_string).collect();
        assert_eq!(
            lines,
            [
                "2 seed 7: 3 stale fetches, 0 dirty reads, 0 dirty writes",
                "3 seed 7: 0 stale fetches, 1 dirty reads, 0 dirty writes",
            ]
        );
    }

    #[test]
    fn what_says_nothing_is_an_error() {
        assert!(judge("").is_err());
        assert!(judge("{}").is_err());
        assert!(judge(&verdict(&[])).is_err());
        assert!(judge(&verdict(&[section(0, 5, 0, 0), section(1, 0, 0, 0)])).is_err());
        assert!(
            judge(&verdict(&[section(1, 1, 0, 0)]).replace("\"version\":1", "\"version\":2"))
                .is_err()
        );
    }
}

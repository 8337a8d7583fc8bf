// SPDX-License-Identifier: GPL-2.0
//! What the oracle found in each section of its verdict, where each section is a schedule.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use coherence::verdict::{Section, Verdict};

/// A line for each section in which a guest ran or read what it should not have. An oracle that saw
/// no guest at all is an error: it would find nothing.
pub fn incoherent(file: &Path) -> Result<Vec<String>> {
    let verdict = Verdict::read(file)?;
    judge(&verdict).with_context(|| format!("{}", file.display()))
}

fn judge(verdict: &Verdict) -> Result<Vec<String>> {
    let played = || verdict.sections.iter().filter(|section| section.number > 0);
    let guests: u64 = played().map(|section| section.guest_instructions).sum();
    ensure!(guests > 0, "the oracle saw no guest run in any schedule");
    let incoherent = played().filter(|section| !section.findings().is_empty());
    Ok(incoherent.map(line).collect())
}

fn line(section: &Section) -> String {
    let Section { number, name, .. } = section;
    format!("{number} {name}: {}", section.findings())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(number: u64, guest_instructions: u64, stale: u64, dirty: u64) -> Section {
        Section {
            number,
            name: "seed 7".to_owned(),
            guest_instructions,
            stale_fetches: stale,
            dirty_reads: dirty,
            ..Section::default()
        }
    }

    #[test]
    fn names_what_is_incoherent() {
        let verdict = Verdict::new(vec![
            section(0, 9, 9, 9),
            section(1, 9, 0, 0),
            section(2, 9, 3, 0),
            section(3, 9, 0, 1),
        ]);
        assert_eq!(
            judge(&verdict).unwrap(),
            [
                "2 seed 7: 3 stale fetches, 0 dirty reads, 0 dirty writes",
                "3 seed 7: 0 stale fetches, 1 dirty reads, 0 dirty writes",
            ]
        );
    }

    #[test]
    fn what_says_nothing_is_an_error() {
        let judge = |sections| judge(&Verdict::new(sections));
        assert!(judge(vec![]).is_err());
        assert!(judge(vec![section(0, 5, 0, 0), section(1, 0, 0, 0)]).is_err());
        assert!(judge(vec![section(1, 1, 0, 0)]).is_ok());
    }
}

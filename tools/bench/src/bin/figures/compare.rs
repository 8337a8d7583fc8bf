// SPDX-License-Identifier: GPL-2.0
//! Whether figures have become worse.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, ensure};
use bench::row::What;

use crate::kept::{Kept, Made, name};

/// A few instructions are no regression, however few there were: a reader prints numbers of more digits.
const SLACK: u64 = 100;

/// Two sets of rows, held against each other.
#[derive(Debug, Default)]
pub struct Compared {
    rows: usize,
    better: usize,
    regressions: Vec<Regression>,
    /// Rows that only the first has, and those that were measured on other kernels.
    left_out: usize,
}

#[derive(Debug)]
struct Regression {
    row: String,
    figure: String,
    from: u64,
    to: u64,
}

impl Compared {
    pub fn has_regressed(&self) -> bool {
        !self.regressions.is_empty()
    }

    /// Whether there was nothing to compare.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// Where a figure is no cost, more of it is no harm: what was left out is to stay so.
fn is_cost(figure: &str) -> bool {
    !figure.starts_with("elided")
}

/// Whether something else than what KVM or the module does decides on it.
fn is_given(figure: &str) -> bool {
    figure == "mapped_bytes"
}

fn is_same_kernel(a: &Made, b: &Made) -> bool {
    (&a.release, &a.package) == (&b.release, &b.package)
}

/// What is worse in `b`: more than `bound` percent more instructions or bytes, beside what runs differ by, or any
/// operation more; of a guest's own reboots that percentage more of them. If `same_kernel`, only of rows that were
/// measured on the same build of a kernel in both.
pub fn compare(a: &Kept, b: &Kept, bound: f64, same_kernel: bool) -> Result<Compared> {
    let mut compared = Compared::default();
    for (key, before) in &a.0 {
        let after = b.0.get(key);
        let after = after.filter(|row| !same_kernel || is_same_kernel(&row.made, &before.made));
        let Some(after) = after else {
            compared.left_out += 1;
            continue;
        };
        compared.rows += 1;
        let figures: BTreeSet<_> = before.figures.keys().chain(after.figures.keys()).collect();
        for figure in figures {
            if is_given(figure) {
                continue;
            }
            let (from, to) = (before.get(figure), after.get(figure));
            let (less, more) = if is_cost(figure) {
                (from, to)
            } else {
                (to, from)
            };
            // What runs differ by anyway is no regression.
            let spread = before.spread_ppm.max(after.spread_ppm) as f64 / 1e4;
            let is_count = !figure.ends_with("instructions") && !figure.ends_with("bytes");
            let part = (less as f64 * (bound + spread) / 100.0) as u64;
            let allowed = match (is_count, key.what) {
                (false, _) => part.max(SLACK),
                // Threads that take turns do what falls between them.
                (true, What::Guest) => part,
                (true, _) => 0,
            };
            if more > less + allowed {
                compared.regressions.push(Regression {
                    row: name(key),
                    figure: figure.clone(),
                    from,
                    to,
                });
            } else if more < less {
                compared.better += 1;
            }
        }
    }
    ensure!(
        same_kernel || compared.rows > 0,
        "they have no row in common: nothing can be compared"
    );
    Ok(compared)
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.regressions.iter().map(|r| r.row.len()).max();
        for Regression {
            row,
            figure,
            from,
            to,
        } in &self.regressions
        {
            let change = match from {
                0 => "from nothing".to_owned(),
                _ => format!("{:+.2} %", (*to as f64 / *from as f64 - 1.0) * 100.0),
            };
            writeln!(
                f,
                "{row:width$}  {figure:22} {from:>14} {to:>14}  {change}",
                width = width.unwrap_or(0)
            )?;
        }
        writeln!(
            f,
            "{} rows compared, {} had no counterpart; {} figures are worse, {} better",
            self.rows,
            self.left_out,
            self.regressions.len(),
            self.better
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::tests::{kept, row};

    fn worse(from: &[(&str, u64)], to: &[(&str, u64)]) -> Vec<String> {
        let (a, b) = (kept([row("once", 1, from)]), kept([row("once", 1, to)]));
        let compared = compare(&a, &b, 2.0, false).unwrap();
        let regressions = compared.regressions.into_iter();
        regressions.map(|regression| regression.figure).collect()
    }

    #[test]
    fn a_bound_for_instructions_and_none_for_operations() {
        let instructions = |n| [("reinit.instructions", n)];
        assert!(worse(&instructions(100_000), &instructions(102_000)).is_empty());
        assert!(worse(&instructions(1_000), &instructions(1_100)).is_empty());
        assert_eq!(
            worse(&instructions(100_000), &instructions(102_001)),
            ["reinit.instructions"]
        );
        assert!(worse(&[("run.icache", 64)], &[("run.icache", 1)]).is_empty());
        assert_eq!(
            worse(&[("run.icache", 1)], &[("run.icache", 2)]),
            ["run.icache"]
        );
        assert_eq!(worse(&[], &[("run.tlbi", 1)]), ["run.tlbi"]);
        // Left out is better than done.
        assert_eq!(
            worse(&[("elided_tlbi", 5)], &[("elided_tlbi", 4)]),
            ["elided_tlbi"]
        );
        assert!(worse(&[("elided_tlbi", 4)], &[("elided_tlbi", 5)]).is_empty());
        assert!(worse(&[("mapped_bytes", 4)], &[("mapped_bytes", 500_000)]).is_empty());
    }

    #[test]
    fn what_runs_differ_by_is_allowed_besides() -> Result<()> {
        let mut before = row("once", 1, &[("instructions", 100_000)]);
        before.spread_ppm = 20_000;
        let a = kept([before]);
        for (now, regressed) in [(104_000, false), (104_001, true)] {
            let b = kept([row("once", 1, &[("instructions", now)])]);
            assert_eq!(compare(&a, &b, 2.0, false)?.has_regressed(), regressed);
        }
        Ok(())
    }

    #[test]
    fn rows_are_matched_by_key_and_release() -> Result<()> {
        let a = kept([row("none", 1, &[("x", 1)]), row("once", 1, &[("x", 1)])]);
        let mut other = row("once", 1, &[("x", 9)]);
        let b = kept([other.clone()]);
        let compared = compare(&a, &b, 2.0, true)?;
        assert!(compared.has_regressed());
        assert_eq!(
            compared.to_string().lines().last(),
            Some("1 rows compared, 1 had no counterpart; 1 figures are worse, 0 better")
        );
        other.made.release = "8.0".into();
        let b = kept([other]);
        assert!(!compare(&a, &b, 2.0, true)?.has_regressed());
        assert!(compare(&a, &b, 2.0, false)?.has_regressed());
        assert!(compare(&a, &kept([]), 2.0, false).is_err());
        Ok(())
    }
}

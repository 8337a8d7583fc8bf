// SPDX-License-Identifier: GPL-2.0
//! The table that a person reads: a block for each CPU model, a row for each kernel and state.

use std::fmt::{self, Display, Write};

use contract::Host;

use crate::judge::{Cell, Run, Seen};

/// A column of figures: its head, and what is in it.
type Column = (&'static str, fn(&Seen) -> u64);
const COLUMNS: [Column; 5] = [
    ("stale fetches", |seen| seen.stale_fetches),
    ("dirty reads", |seen| seen.dirty_reads),
    ("dirty writes", |seen| seen.dirty_writes),
    ("invalidations", |seen| seen.invalidations),
    ("unmaps", |seen| seen.unmaps),
];
const WIDTH: usize = 17;

/// All runs, CPUs and kernels in the order in which they come first.
pub fn render(runs: &[Run]) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let mut cpus: Vec<&str> = Vec::new();
    for run in runs {
        if !cpus.contains(&run.boot.cpu.as_str()) {
            cpus.push(&run.boot.cpu);
        }
    }
    for cpu in cpus {
        let runs: Vec<_> = runs.iter().filter(|run| run.boot.cpu == cpu).collect();
        block(&mut out, &runs)?;
    }
    Ok(out)
}

fn block(out: &mut String, runs: &[&Run]) -> fmt::Result {
    let Some(Run { boot, .. }) = runs.first() else {
        return Ok(());
    };
    let features = match boot.facts.parse::<Host>() {
        Ok(Host { fwb, dic, .. }) => [("FWB", fwb), ("DIC", dic)]
            .map(|(name, is_there)| format!("{}{name}", if is_there { "" } else { "no " }))
            .join(", "),
        Err(error) => error,
    };
    let vcpus = series(boot.vcpus.iter());
    writeln!(
        out,
        "\n{} ({features}), Linux {}: at each VM reset, with {vcpus} vCPUs",
        boot.cpu, boot.release
    )?;
    write!(out, "  {:<8}{:<8}", "kernel", "module")?;
    for (name, _) in COLUMNS {
        write!(out, "{name:>WIDTH$}")?;
    }
    writeln!(out)?;
    for run in runs {
        for state in &run.boot.states {
            let cells: Vec<_> = run
                .cells
                .iter()
                .filter(|cell| cell.state == *state)
                .collect();
            write!(out, "  {:<8}{state:<8}", run.boot.kernel)?;
            for (_, figure) in COLUMNS {
                let figures: Vec<_> = cells.iter().map(|cell| range(cell, figure)).collect();
                let same = figures.iter().all(|text| *text == figures[0]);
                let shown = if same { 1 } else { figures.len() };
                write!(out, "{:>WIDTH$}", series(figures.iter().take(shown)))?;
            }
            let right = cells.iter().all(|cell| cell.wrong.is_empty());
            writeln!(out, "{}", if right { "" } else { "   WRONG" })?;
        }
    }
    Ok(())
}

/// `1 / 8 / 64`
fn series<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join(" / ")
}

/// What all resets of a cell show: `8`, or `7-9`; `?` if there was none.
fn range(cell: &Cell, figure: impl Fn(&Seen) -> u64) -> String {
    let figures = || cell.resets.iter().map(&figure);
    match (figures().min(), figures().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least}-{most}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Boot, State};

    #[test]
    fn transcript() -> fmt::Result {
        let cell = |vcpus: usize, stale: &[u64], wrong: &[&str]| Cell {
            state: State(None),
            vcpus,
            resets: stale
                .iter()
                .map(|&stale_fetches| Seen {
                    stale_fetches,
                    invalidations: vcpus as u64,
                    ..Seen::default()
                })
                .collect(),
            wrong: wrong.iter().map(|&text| text.to_owned()).collect(),
        };
        let run = |kernel: &str, cells| Run {
            boot: Boot {
                release: "7.3.4".to_owned(),
                kernel: kernel.to_owned(),
                cpu: "cortex-a710".to_owned(),
                facts: "fwb:1,dic:0".to_owned(),
                states: vec![State(None)],
                vcpus: vec![1, 8],
                resets: 2,
            },
            cells,
            wrong: Vec::new(),
        };
        let runs = [
            run("stock", vec![cell(1, &[0, 0], &[]), cell(8, &[0, 0], &[])]),
            run("rfc", vec![cell(1, &[1, 3], &[]), cell(8, &[], &["lost"])]),
        ];
        let want = "
cortex-a710 (FWB, no DIC), Linux 7.3.4: at each VM reset, with 1 / 8 vCPUs
  kernel  module      stale fetches      dirty reads     dirty writes    invalidations           unmaps
  stock   none                    0                0                0            1 / 8                0
  rfc     none              1-3 / ?            0 / ?            0 / ?            1 / ?            0 / ?   WRONG
";
        assert_eq!(render(&runs)?, want);
        Ok(())
    }
}

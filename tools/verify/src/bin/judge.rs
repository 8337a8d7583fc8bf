// SPDX-License-Identifier: GPL-2.0
//! Prints the table of all boots, and what in it is not as due.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use coherence::verdict::Verdict;
use contract::ktap::{Ktap, Outcome};
use verify::judge::{Run, judge};
use verify::table;

/// Holds what the workload said and the oracle saw against what is due.
///
/// Prints a table. Ends with 0 if all is as due, with 1 otherwise.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Speak KTAP, a test for each cell
    #[arg(long)]
    ktap: bool,
    /// Boots: the console's log, with the oracle's verdict beside it as .json
    #[arg(required = true)]
    logs: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("verify-judge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let runs = arguments
        .logs
        .iter()
        .map(|log| read(log))
        .collect::<Result<Vec<_>>>()?;
    let table = table::render(&runs)?;
    if arguments.ktap {
        return tell(&runs, &table);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{table}")?;
    for run in &runs {
        let boot = format!("{} on {}", run.boot.kernel, run.boot.cpu);
        for wrong in &run.wrong {
            writeln!(out, "WRONG: {boot}: {wrong}")?;
        }
        for cell in &run.cells {
            for wrong in &cell.wrong {
                writeln!(
                    out,
                    "WRONG: {boot}, {}, {} vCPUs: {wrong}",
                    cell.state, cell.vcpus
                )?;
            }
        }
    }
    let cells = || runs.iter().flat_map(|run| &run.cells);
    let resets: usize = cells().map(|cell| cell.resets.len()).sum();
    let is_right = runs.iter().all(Run::is_right);
    let verdict = if is_right {
        "all as due"
    } else {
        "not all as due"
    };
    writeln!(out, "{} VMs, {resets} resets: {verdict}", cells().count())?;
    Ok(is_right)
}

fn read(log: &Path) -> Result<Run> {
    let of = || log.display().to_string();
    let text = fs::read(log).with_context(of)?;
    let verdict = Verdict::read(&log.with_extension("json"))?;
    judge(&String::from_utf8_lossy(&text), verdict).with_context(of)
}

/// A test for each cell, and one for the rest of each boot.
fn tell(runs: &[Run], table: &str) -> Result<bool> {
    let plan = runs.iter().map(|run| run.cells.len() + 1).sum();
    let mut ktap = Ktap::start(io::stdout(), plan)?;
    let outcome = |wrong: &[String]| match wrong {
        [] => Outcome::Pass,
        _ => Outcome::Fail(wrong.join("\n")),
    };
    for run in runs {
        let boot = format!("{} on {}", run.boot.kernel, run.boot.cpu);
        for cell in &run.cells {
            let name = format!("{boot}, {}, {} vCPUs", cell.state, cell.vcpus);
            ktap.result(&name, outcome(&cell.wrong))?;
        }
        ktap.result(&format!("{boot}, no reset"), outcome(&run.wrong))?;
    }
    ktap.diagnostic(table)?;
    Ok(ktap.finish()?)
}

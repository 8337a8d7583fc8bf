// SPDX-License-Identifier: GPL-2.0
//! From consoles and the oracle's counts to rows of figures, and from these to a page with plots, or to a
//! comparison. Rows are kept as JSON, one in each line.

mod compare;
mod gather;
mod kept;
mod page;
mod plot;
mod promises;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::kept::{Kept, Made};

/// Keeps, draws and compares what `make bench` measures
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rows from the console of a boot and from what the oracle counted in it
    Gather {
        /// The console
        #[arg(long)]
        log: PathBuf,
        /// What the oracle counted
        #[arg(long)]
        counts: PathBuf,
        /// The host's CPU model
        #[arg(long)]
        cpu: String,
        /// Its kernel: stock, or how it differs
        #[arg(long)]
        kernel: String,
        #[command(flatten)]
        made: Box<Made>,
        /// Where to write the rows
        #[arg(long)]
        out: PathBuf,
    },
    /// One file of several runs of the same, with what they differ by
    Agree {
        /// Where to write the rows
        #[arg(long)]
        out: PathBuf,
        /// The runs
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
    /// Puts rows into a file, in place of what it has under the same keys
    Merge {
        /// The file, made if it is not there
        #[arg(long)]
        into: PathBuf,
        /// Where to take rows from
        #[arg(required = true)]
        from: Vec<PathBuf>,
    },
    /// Writes benchmarks.md and its plots
    Page {
        /// The rows
        rows: PathBuf,
        /// The directory to write to
        #[arg(long)]
        to: PathBuf,
    },
    /// Fails, with a line for each, if figures are worse than others by more than a bound
    Compare {
        /// What is held for good
        a: PathBuf,
        /// What is looked at
        b: PathBuf,
        /// So many percent more instructions are no regression
        #[arg(long, default_value_t = 2.0)]
        bound: f64,
    },
    /// Tells as KTAP whether rows keep what the module promises, and whether any is worse than before
    Promises {
        /// The rows
        rows: PathBuf,
        /// Those of before; what was measured on another kernel is left out
        #[arg(long)]
        base: PathBuf,
        /// So many percent more instructions are no regression
        #[arg(long, default_value_t = 2.0)]
        bound: f64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench-figures: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Gather {
            log,
            counts,
            cpu,
            kernel,
            made,
            out,
        } => gather::rows(&log, &counts, &cpu, &kernel, &made)?.write(&out)?,
        Command::Agree { out, runs } => {
            let (kept, said) = gather::agree(&runs)?;
            kept.write(&out)?;
            print!("{said}");
        }
        Command::Merge { into, from } => {
            let mut kept = Kept::read_if_there(&into)?;
            for path in from {
                kept.merge(Kept::read(&path)?);
            }
            kept.write(&into)?;
        }
        Command::Page { rows, to } => page::write(&Kept::read(&rows)?, &to)?,
        Command::Compare { a, b, bound } => {
            let compared = compare::compare(&Kept::read(&a)?, &Kept::read(&b)?, bound, false)?;
            print!("{compared}");
            return Ok(ExitCode::from(u8::from(compared.has_regressed())));
        }
        Command::Promises { rows, base, bound } => {
            let (rows, base) = (Kept::read(&rows)?, Kept::read(&base)?);
            let well = promises::tell(&rows, &base, bound, std::io::stdout().lock())?;
            return Ok(ExitCode::from(u8::from(!well)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

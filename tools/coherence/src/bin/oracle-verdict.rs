// SPDX-License-Identifier: GPL-2.0

//! Prints a verdict of the oracle. Exit status: 0 coherent, 1 something stale or dirty was found, 2 unreadable.

use clap::Parser;
use coherence::verdict::Verdict;
use std::{path::PathBuf, process::ExitCode};

/// Prints what the oracle found. Exit status: 0 nothing, 1 something stale or dirty, 2 unreadable
#[derive(Parser)]
struct Arguments {
    /// The file that the oracle wrote
    verdict: PathBuf,
}

fn main() -> ExitCode {
    match Verdict::read(&Arguments::parse().verdict) {
        Ok(verdict) => {
            print!("{verdict}");
            ExitCode::from(u8::from(!verdict.coherent))
        }
        Err(error) => {
            eprintln!("oracle-verdict: {error:#}");
            ExitCode::from(2)
        }
    }
}

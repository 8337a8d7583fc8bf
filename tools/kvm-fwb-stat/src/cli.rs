// SPDX-License-Identifier: GPL-2.0

//! The command line. Help, man page and completions are made of this.

use crate::{
    error::STATUSES,
    render::column::Column,
    snapshot::{DEFAULT_ROOT, Policy},
};
use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum, builder::PossibleValue, error::ErrorKind,
};
use std::{path::PathBuf, time::Duration};

/// Shows what every guest reset cost this arm64 KVM host
///
/// Reads the counters of the kernel module kvm_fwb_reset from debugfs. Without an option on a
/// terminal it shows a live screen, on which ? explains the keys; elsewhere it does as with --once.
#[derive(Parser, Debug)]
#[command(name = "kvm-fwb-stat", version, after_help = statuses(), disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes them for help")]
    pub output: Output,

    /// Seconds between two looks (default 1); with --once, look twice and show rates
    #[arg(long, short = 'i', value_name = "SECONDS", value_parser = seconds)]
    pub interval: Option<Duration>,

    /// End after so many looks (default: one, or without end where --interval is given)
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Sort the VMs by this column
    #[arg(long, value_name = "COLUMN", default_value = "cost")]
    pub sort: Column,

    /// Sort the other way round
    #[arg(long)]
    pub reverse: bool,

    /// Show only VMs whose pid-fd or command name holds this
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub filter: String,

    /// The directory with the module's files, or a copy of it
    #[arg(long, global = true, value_name = "DIR")]
    #[arg(env = "KVM_FWB_STAT_ROOT", default_value = DEFAULT_ROOT)]
    pub root: PathBuf,

    #[command(subcommand)]
    #[allow(missing_docs, reason = "clap takes them for help")]
    pub command: Option<Command>,
}

/// What to print instead of the live screen.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct Output {
    /// Print a table, and end
    #[arg(long)]
    pub once: bool,

    /// Print JSON; with --interval an object a line. Its schema: kvm-fwb-stat schema
    #[arg(long)]
    pub json: bool,

    /// Print CSV, for logging; a row for all VMs together, then one for each
    #[arg(long)]
    pub csv: bool,

    /// Print metrics in Prometheus' text format, or put them in FILE, whole or not at all, for
    /// node_exporter's textfile collector
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub prometheus: Option<Option<PathBuf>>,

    /// The same in OpenMetrics
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub openmetrics: Option<Option<PathBuf>>,
}

#[derive(Subcommand, Debug)]
#[allow(missing_docs, reason = "clap takes them for help")]
pub enum Command {
    /// Say what this host does at a guest reset, whether that is right, and what stops the module
    ///
    /// Works with and without the module, as far as user space can see. The last line is the verdict,
    /// and the exit status says the same.
    Doctor(Doctor),
    /// Show the policy in force, or switch to another
    Policy {
        /// The policy to switch to
        name: Option<Policy>,
    },
    /// Explain each counter: its meaning, its unit, and what to do about it
    Counters {
        /// As Markdown tables
        #[arg(long)]
        markdown: bool,
    },
    /// Print the JSON Schema of --json
    Schema,
    /// Print the man page
    Man,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
#[allow(missing_docs, reason = "clap takes them for help")]
pub struct Doctor {
    /// A module's file: say whether this kernel would take this very one
    #[arg(value_name = "FILE.ko")]
    pub file: Option<PathBuf>,

    /// The host's file system, if it is mounted elsewhere, as in a container
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub system: PathBuf,

    /// CTR_EL0 of that host, which no file holds
    #[arg(long, value_name = "HEX", value_parser = hex, hide = true)]
    pub ctr_el0: Option<u64>,
}

impl Cli {
    /// Refuses combinations that mean nothing.
    ///
    /// # Errors
    ///
    /// As clap's own, to be printed by it.
    pub fn check(&self) -> Result<(), clap::Error> {
        let output = &self.output;
        let has_output = output.once
            || output.json
            || output.csv
            || output.prometheus.is_some()
            || output.openmetrics.is_some();
        let repeats = self.interval.is_some() || self.count.is_some();
        let to_stdout = [&output.prometheus, &output.openmetrics].contains(&&Some(None));
        let refuse = |text: &str| Err(Self::command().error(ErrorKind::ArgumentConflict, text));
        if self.command.is_some() && (has_output || repeats) {
            return refuse("a command takes no output, --interval or --count");
        }
        if to_stdout && repeats {
            return refuse("metrics are repeated only with a FILE");
        }
        if self.count.is_some() && (output.once || !has_output) {
            return refuse("--count is for --json, --csv, and metrics with a FILE");
        }
        Ok(())
    }
}

impl ValueEnum for Policy {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Native => "the kernel's own way; only counted",
            Self::Fwb => "no unmap with FEAT_S2FWB, an invalidation at each re-init",
            Self::Once => "one invalidation, or unmap, for each VM reset",
            Self::Unmap => "an unmap at each re-init, as before Linux 5.8",
            Self::Lazy => {
                "as once; without FEAT_S2FWB the unmap cleans nothing, and leaves that to the faults \
                 that follow: see lazy in docs/counters.md for what that gives up"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("should be a number of seconds from 0.1 to 86400".into()),
    }
}

fn hex(text: &str) -> Result<u64, String> {
    let digits = text.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).map_err(|_| "should be a hexadecimal number".into())
}

/// The exit statuses, as part of the help.
fn statuses() -> String {
    let lines = STATUSES
        .iter()
        .map(|(status, meaning)| format!("\n  {status:<3} {meaning}"));
    format!("Exit status:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--once --json",
            "--interval 0",
            "--interval NaN",
            "--interval many",
            "--count 0 --csv",
            "--count 3",
            "--once --count 3",
            "--prometheus --interval 1",
            "--json policy",
            "--sort size",
            "policy twice",
        ] {
            let words = std::iter::once("kvm-fwb-stat").chain(line.split(' '));
            let refused = Cli::try_parse_from(words).and_then(|cli| cli.check());
            assert!(refused.is_err(), "{line}");
        }
    }
}

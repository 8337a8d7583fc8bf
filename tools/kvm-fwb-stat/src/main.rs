// SPDX-License-Identifier: GPL-2.0

//! `kvm-fwb-stat`: what every guest reset cost an arm64 KVM host.

use clap::{CommandFactory, Parser};
use kvm_fwb_stat::{
    cli::{Cli, Command},
    doctor,
    error::{Error, Result},
    live, manual,
    output::{self, Format},
    snapshot::{Lazy, Policy, Snapshot, Tree},
};
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli.check() {
        error.exit();
    }
    match run(cli) {
        Ok(status) => status.into(),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            error.status().into()
        }
    }
}

/// Does what was asked for. Returns the exit status.
fn run(cli: Cli) -> Result<u8> {
    let tree = Tree::new(&cli.root);
    if let Some(command) = cli.command {
        return run_command(command, &tree);
    }
    let output = &cli.output;
    let format = if output.json {
        Format::Json
    } else if output.csv {
        Format::Csv
    } else if let Some(file) = &output.prometheus {
        Format::prometheus(file.as_deref())
    } else if let Some(file) = &output.openmetrics {
        Format::openmetrics(file.as_deref())
    } else if output.once || !io::stdout().is_terminal() {
        Format::Table
    } else {
        let interval = cli.interval.unwrap_or(live::INTERVAL);
        live::run(live::App::new(
            tree,
            interval,
            cli.sort,
            cli.reverse,
            cli.filter,
        ))?;
        return Ok(0);
    };
    let list = output::List {
        sort: cli.sort,
        reverse: cli.reverse,
        filter: cli.filter,
    };
    let last = output::run(&tree, format, &list, cli.interval, cli.count, say)?;
    Ok(note(&last))
}

fn run_command(command: Command, tree: &Tree) -> Result<u8> {
    // Written at once, and errors seen.
    let mut out = Vec::new();
    let mut status = 0;
    match command {
        Command::Doctor(arguments) => {
            let facts = doctor::Facts::gather(&arguments, tree);
            let report = doctor::Report::new(&facts);
            report.write(&mut out)?;
            status = report.status();
        }
        Command::Policy { name: None } => writeln!(out, "{}", tree.policy()?.name())?,
        Command::Policy { name: Some(name) } => {
            let before = tree.policy()?;
            tree.set_policy(name)?;
            writeln!(out, "{} (was {})", name.name(), before.name())?;
            if name == Policy::Lazy {
                note_lazy(tree)?;
            }
        }
        Command::Counters { markdown } => manual::counters(&mut out, markdown)?,
        Command::Schema => writeln!(out, "{:#}", kvm_fwb_stat::dump::json::schema())?,
        Command::Man => manual::man(&mut out)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kvm-fwb-stat", &mut out);
        }
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()?;
    Ok(status)
}

/// Says what was not shown. Returns the exit status.
fn note(snapshot: &Snapshot) -> u8 {
    if !snapshot.missing.is_empty() {
        say(&format!(
            "note: the module is older than this tool, and has no {}; the rest was shown",
            snapshot.missing.join(" and no ")
        ));
    }
    for problem in &snapshot.problems {
        say(&format!("{problem}; the VM was left out"));
    }
    if snapshot.problems.is_empty() {
        0
    } else {
        Error::DAMAGED
    }
}

/// Says where the policy `lazy` is no other than `once`.
fn note_lazy(tree: &Tree) -> Result<()> {
    let host = tree.host()?;
    let why = match host.fwb {
        true => "the CPUs have FEAT_S2FWB, and nothing is unmapped",
        false => "the hypervisor unmaps (pKVM), and cleans",
    };
    if host.lazy == Some(Lazy::AsOnce) {
        say(&format!("note: on this host lazy is as once: {why}"));
    }
    Ok(())
}

/// A line for people. There may be nobody left to read it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kvm-fwb-stat: {line}");
}

// SPDX-License-Identifier: GPL-2.0
//! Plays schedules: on arm64 on the module in the kernel that runs (as root, with debugfs, KVM, and
//! the module at /kvm_fwb_reset.ko, not loaded), elsewhere on its files in a simulated one. Exits with 1
//! if something failed, or was incoherent, and with 2 if it could not be tried.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser};
use schedule::event::Schedule;
use schedule::shrink::smaller;
use schedule::{generate, verdict};

#[cfg(target_arch = "aarch64")]
use schedule::lab::LabHost as Machine;
#[cfg(not(target_arch = "aarch64"))]
use schedule::simulated::SimulatedHost as Machine;

/// Plays schedules of guest resets, and holds what happens against the contract.
#[derive(Parser)]
enum Command {
    /// Play schedules that seeds make; one that fails is made as small as can be
    Play {
        #[command(flatten)]
        seeds: Seeds,
        #[command(flatten)]
        host: Facts,
    },
    /// Play these schedules
    Replay {
        #[command(flatten)]
        host: Facts,
        /// Read them from this file, one a line
        #[arg(long, conflicts_with = "schedules")]
        file: Option<PathBuf>,
        /// Events with `;` between them
        schedules: Vec<Schedule>,
    },
    /// Print what seeds make
    List {
        #[command(flatten)]
        seeds: Seeds,
    },
    /// Print schedules that are a little less than this one
    Smaller { schedule: Schedule },
    /// Print the sections of an oracle's verdict that were not coherent
    Incoherent { verdict: PathBuf },
}

#[derive(Args)]
struct Seeds {
    /// The first; each next schedule has the next seed
    #[arg(long, env = "fwb_seed", default_value_t = 1)]
    seed: u64,
    /// How many
    #[arg(long, env = "fwb_count", default_value_t = 1)]
    count: u64,
}

impl Seeds {
    fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        let seed = self.seed;
        (0..self.count).map(move |number| seed.wrapping_add(number))
    }

    /// The same on every machine that makes the same schedules of the seeds.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for seed in self.iter() {
            generate::schedule(seed).to_string().hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[derive(Args)]
struct Facts {
    /// What the machine is, as `fwb:1,dic:0`: lines of the module's `host` file
    #[arg(long, env = "fwb_expect")]
    expect: String,
    /// Take the kernel's own way to be right, whatever is known of it
    #[arg(long)]
    trusting: bool,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("schedule: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A line on standard output; an error once nobody reads it.
fn say(line: fmt::Arguments<'_>) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output")
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Play { seeds, host } => play(&seeds, &host),
        Command::Replay {
            host,
            file,
            schedules,
        } => match file {
            Some(file) => replay(&host, &read(&file)?),
            None => replay(&host, &schedules),
        },
        Command::List { seeds } => {
            for seed in seeds.iter() {
                say(format_args!("{seed}: {}", generate::schedule(seed)))?;
            }
            say(format_args!("digest {:016x}", seeds.digest()))?;
            Ok(true)
        }
        Command::Smaller { schedule } => {
            let mut smaller = smaller(&schedule).into_iter();
            smaller.try_for_each(|schedule| say(format_args!("{schedule}")))?;
            Ok(true)
        }
        Command::Incoherent { verdict } => {
            let sections = verdict::incoherent(&verdict)?;
            for section in &sections {
                say(format_args!("{section}"))?;
            }
            Ok(sections.is_empty())
        }
    }
}

/// The number of the section in which schedules are played to make them smaller. What the oracle
/// finds there is of no interest.
const SHRINKING: u64 = 0;

fn play(seeds: &Seeds, host: &Facts) -> Result<bool> {
    let machine = Machine::new(&host.expect, host.trusting)?;
    say(format_args!(
        "fuzz: {} schedules from seed {}, digest {:016x}",
        seeds.count,
        seeds.seed,
        seeds.digest()
    ))?;
    for (number, seed) in (1..).zip(seeds.iter()) {
        let section = Cell::new(number);
        let result = generate::play_and_shrink(seed, |schedule| {
            machine.section(section.replace(SHRINKING), &format!("seed {seed}"));
            machine.play(schedule)
        });
        if let Err(failure) = result {
            say(format_args!("fuzz: seed {seed} fails: {}", failure.reason))?;
            say(format_args!("fuzz: it comes down to: {}", failure.schedule))?;
            say(format_args!(
                "fuzz: either is played again, by `--seed {seed}` or by its text"
            ))?;
            return Ok(false);
        }
    }
    machine.end()?;
    say(format_args!(
        "fuzz: {} schedules played, none failed",
        seeds.count
    ))?;
    Ok(true)
}

fn replay(host: &Facts, schedules: &[Schedule]) -> Result<bool> {
    let machine = Machine::new(&host.expect, host.trusting)?;
    let mut failed = 0;
    for (number, schedule) in (1..).zip(schedules) {
        machine.section(number, &format!("schedule {number}"));
        if let Err(error) = machine.play(schedule) {
            failed += 1;
            say(format_args!("fuzz: fails: {schedule}"))?;
            say(format_args!("fuzz: {error:#}"))?;
        }
    }
    machine.end()?;
    say(format_args!(
        "fuzz: {} schedules played, {failed} failed",
        schedules.len()
    ))?;
    Ok(failed == 0)
}

fn read(file: &Path) -> Result<Vec<Schedule>> {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let lines = (1..).zip(text.lines());
    lines
        .map(|(number, line)| {
            line.parse()
                .with_context(|| format!("{}: line {number}", file.display()))
        })
        .collect()
}

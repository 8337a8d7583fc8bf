// SPDX-License-Identifier: GPL-2.0
//! The command line, and the run of the tests one after the other.

use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use contract::Policy;
use contract::ktap::{Ktap, Outcome};

use crate::boot;
use crate::kmsg::Kmsg;
use crate::lab::Lab;
use crate::module;
use crate::tests::{ON_REQUEST, Skip, TESTS, Test, refusals, victim};

const USAGE: &str = "\
usage: selftest [--reps N] [--expect FACTS] [NAME...]
       selftest --list
       selftest --without-kvm
NAME is a test, or a test and a policy: `sequence`, `sequence.once`. Without any all run, but for
those that take a host of their own: `ftrace_stopped`, `lazy_refused`.
FACTS are what the machine is known to be, as `fwb:1,dic:0,idc:1,vhe:1,native_reset:icache`: the names
and values of the module's `host` file, with fwb and dic at least. Without --expect they are taken
from `fwb.expect=FACTS` on the kernel's command line. With `fwb.events` there, the module's trace events
are on whenever it is loaded; with `slab_debug=`, each test ends in a look at what it freed. --without-kvm is for a host that was booted with
kvm-arm.mode=none: the one test there is that the module refuses it.";

struct Options {
    reps: usize,
    facts: String,
    names: Vec<String>,
}

/// A test under one policy, or one that loads the module for itself.
struct Case {
    name: String,
    test: &'static Test,
    policy: Option<Policy>,
}

pub fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("selftest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<bool> {
    match arguments.first().map(String::as_str) {
        Some("-h" | "--help") => {
            println!("{USAGE}");
            return Ok(true);
        }
        Some("--list") => {
            cases().iter().for_each(|case| println!("{}", case.name));
            return Ok(true);
        }
        Some("--without-kvm") => {
            let mut ktap = Ktap::start(io::stdout(), 1)?;
            ktap.result("without_kvm", outcome(refusals::without_kvm()))?;
            return Ok(ktap.finish()?);
        }
        // The test of killed VMMs starts these.
        Some("--victim") => return victim::main(&arguments[1..]).map(|()| true),
        _ => {}
    }
    let options = parse(arguments)?;
    let cases = select(&options.names)?;
    ensure!(
        !module::is_loaded(),
        "{} is loaded: rmmod it first",
        module::NAME
    );
    raise_file_limit()?;
    let lab = Lab::new(&options.facts, options.reps)?;
    let mut kmsg = Kmsg::open().context("/dev/kmsg")?;

    let mut ktap = Ktap::start(io::stdout(), cases.len())?;
    for case in cases {
        let start = Instant::now();
        let outcome = outcome(run_case(&lab, &case, &mut kmsg));
        let failed = matches!(outcome, Outcome::Fail(_));
        ktap.diagnostic(format_args!(
            "{}: {} ms",
            case.name,
            start.elapsed().as_millis()
        ))?;
        ktap.result(&case.name, outcome)?;
        if !failed {
            continue;
        }
        if let Err(error) = lab.recover() {
            ktap.bail_out(format_args!("cannot go on after this: {error:#}"))?;
            break;
        }
    }
    if lab.model().loaded {
        lab.unload()?;
    }
    Ok(ktap.finish()?)
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        reps: 2,
        facts: String::new(),
        names: Vec::new(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} wants a value: see --help"))
        };
        match argument.as_str() {
            "--reps" => {
                let text = value()?;
                options.reps = text
                    .parse()
                    .ok()
                    .filter(|&reps| reps > 0)
                    .with_context(|| format!("--reps: want a number above 0, got {text}"))?;
            }
            "--expect" => options.facts = value()?.clone(),
            option if option.starts_with('-') => bail!("unknown option {option}: see --help"),
            name => options.names.push(name.to_owned()),
        }
    }
    if options.facts.is_empty() {
        options.facts = boot::word("fwb.expect")?.context(
            "what machine is this? give --expect, or fwb.expect= on the kernel's command line",
        )?;
    }
    Ok(options)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for test in TESTS {
        if test.policies.is_empty() {
            cases.push(Case {
                name: test.name.to_owned(),
                test,
                policy: None,
            });
        }
        for &policy in test.policies {
            let name = format!("{}.{}", test.name, policy.name());
            cases.push(Case {
                name,
                test,
                policy: Some(policy),
            });
        }
    }
    cases
}

fn select(names: &[String]) -> Result<Vec<Case>> {
    let matches = |case: &Case, name: &str| case.name == name || case.test.name == name;
    let all = cases();
    for name in names {
        ensure!(
            all.iter().any(|case| matches(case, name)),
            "no test is named {name}: see --list"
        );
    }
    let wanted = |case: &Case| match names {
        [] => !ON_REQUEST.contains(&case.test.name),
        names => names.iter().any(|name| matches(case, name)),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// A thousand VMs take more descriptors than a process gets by default.
fn raise_file_limit() -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 16384,
        rlim_max: 16384,
    };
    // SAFETY: The kernel only reads the structure.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run_case(lab: &Lab, case: &Case, kmsg: &mut Kmsg) -> Result<()> {
    let result = catch_unwind(AssertUnwindSafe(|| match case.policy {
        Some(policy) => {
            lab.prepare(policy)?;
            (case.test.run)(lab)
        }
        None => {
            if lab.model().loaded {
                lab.unload()?;
            }
            (case.test.run)(lab)
        }
    }))
    .unwrap_or_else(|_| Err(anyhow!("the test panicked")));
    selftest::poison::look()?;
    // The kernel's own complaints come first: they explain the rest.
    let splats = kmsg.splats()?;
    ensure!(
        splats.is_empty(),
        "the kernel complains:\n{}\n{:?}",
        splats.join("\n"),
        result.err()
    );
    result?;
    // Whatever the test did, its VMs are gone now, and so must be what the module knew of them.
    if lab.model().loaded {
        lab.check("after all VMs are gone")?;
    }
    Ok(())
}

fn outcome(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Pass,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Outcome::Skip((*reason).to_owned()),
            None => Outcome::Fail(format!("{error:#}")),
        },
    }
}

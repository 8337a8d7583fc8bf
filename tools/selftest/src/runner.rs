// SPDX-License-Identifier: GPL-2.0
//! The command line, and the run of the tests one after the other.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use contract::Policy;
use contract::ktap::{Ktap, Outcome};
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::{boot, limit, module};

use crate::poison;
use crate::tests::{Skip, TESTS, Test, is_due, refusals, victim};

/// Resets guests in every way a VMM can, and checks what they ran and what kvm_fwb_reset counted
///
/// With `fwb.events` on the kernel's command line the module's trace events are on whenever it is loaded;
/// with `slab_debug=`, each test ends in a look at what it freed.
#[derive(Parser)]
#[command(name = "selftest")]
struct Options {
    /// How often each test repeats what it does
    ///
    /// Else it is taken from `fwb.reps=N` on the kernel's command line, or is 2.
    #[arg(long, value_name = "N")]
    reps: Option<NonZeroUsize>,
    /// What the machine is known to be, as `fwb:1,dic:0,idc:1,vhe:1,native_reset:icache`
    ///
    /// Names and values of the module's `host` file, with fwb and dic at least. Else they are taken from
    /// `fwb.expect=FACTS` on the kernel's command line.
    #[arg(long, value_name = "FACTS")]
    expect: Option<String>,
    /// End at the first test that fails
    ///
    /// So does `fwb.first_failure` on the kernel's command line.
    #[arg(long)]
    first_failure: bool,
    /// Print the names of all tests
    #[arg(long, exclusive = true)]
    list: bool,
    /// Test, on a host booted with kvm-arm.mode=none, that the module refuses it
    #[arg(long, exclusive = true)]
    without_kvm: bool,
    /// Be a VMM in that state, to be killed: for the tests that start one
    #[arg(long, value_name = "STATE", exclusive = true, hide = true)]
    victim: Option<String>,
    /// A test, or a test and a policy: `sequence`, `sequence.once`
    ///
    /// Without any all run that this host is made for.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// A thousand VMs, a few descriptors each.
const DESCRIPTORS: u64 = 16384;

/// A test under one policy, or one that loads the module for itself.
struct Case {
    name: String,
    test: &'static Test,
    policy: Option<Policy>,
}

pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("selftest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if options.list {
        cases().iter().for_each(|case| println!("{}", case.name));
        return Ok(true);
    }
    if options.without_kvm {
        let mut ktap = Ktap::start(io::stdout(), 1)?;
        ktap.result("without_kvm", outcome(refusals::without_kvm()))?;
        return Ok(ktap.finish()?);
    }
    if let Some(state) = &options.victim {
        return victim::main(state).map(|()| true);
    }
    let reps = match (options.reps, boot::word("fwb.reps")?) {
        (Some(reps), _) => reps.get(),
        (None, Some(word)) => word.parse::<NonZeroUsize>().context("fwb.reps")?.get(),
        (None, None) => 2,
    };
    let first_failure = options.first_failure || boot::word("fwb.first_failure")?.is_some();
    let cases = select(&options.names, reps)?;
    let facts = match &options.expect {
        Some(facts) => facts.clone(),
        None => boot::word("fwb.expect")?.context(
            "what machine is this? give --expect, or fwb.expect= on the kernel's command line",
        )?,
    };
    ensure!(
        !module::is_loaded(),
        "{} is loaded: rmmod it first",
        module::NAME
    );
    limit::descriptors(DESCRIPTORS)?;
    let lab = Lab::new(&facts, reps)?;
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
        if first_failure {
            ktap.bail_out("nothing more was asked for")?;
            break;
        }
        if let Err(error) = lab.recover() {
            ktap.bail_out(format_args!("cannot go on after this: {error:#}"))?;
            break;
        }
    }
    if lab.expected().loaded {
        lab.unload()?;
    }
    Ok(ktap.finish()?)
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

fn select(names: &[String], reps: usize) -> Result<Vec<Case>> {
    let matches = |case: &Case, name: &str| case.name == name || case.test.name == name;
    let all = cases();
    for name in names {
        ensure!(
            all.iter().any(|case| matches(case, name)),
            "no test is named {name}: see --list"
        );
    }
    let mut selected = Vec::new();
    for case in all {
        let named = names.iter().any(|name| matches(&case, name));
        if named || names.is_empty() && is_due(case.test.name, reps)? {
            selected.push(case);
        }
    }
    Ok(selected)
}

fn run_case(lab: &Lab, case: &Case, kmsg: &mut Kmsg) -> Result<()> {
    let result = catch_unwind(AssertUnwindSafe(|| match case.policy {
        Some(policy) => {
            lab.prepare(policy)?;
            (case.test.run)(lab)
        }
        None => {
            if lab.expected().loaded {
                lab.unload()?;
            }
            (case.test.run)(lab)
        }
    }))
    .unwrap_or_else(|_| Err(anyhow!("the test panicked")));
    poison::look()?;
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
    if lab.expected().loaded {
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

// SPDX-License-Identifier: GPL-2.0
//! The module comes, goes, and is asked for things it must refuse.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::Policy;
use rustix::io::Errno;
use vmm::guest::Routine;

use vmm::lab::Lab;
use vmm::module;

fn refused(what: &str, result: io::Result<()>, errno: Errno) -> Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(errno) => Ok(()),
        other => bail!("{what}: want {errno}, got {other:?}"),
    }
}

/// `insmod` refuses a number that is no policy, and takes `once` where none is given.
pub fn policy_parameter(lab: &Lab) -> Result<()> {
    for number in ["5", "255"] {
        refused(
            number,
            module::insert(&format!("policy={number}")),
            Errno::INVAL,
        )?;
        ensure!(
            !module::is_loaded(),
            "policy={number} was refused, but the module is there"
        );
    }
    module::insert("").context("insmod without a policy")?;
    lab.expected().load(Policy::Once);
    assert_policy(Policy::Once)
}

fn assert_policy(policy: Policy) -> Result<()> {
    let names = Policy::ALL.map(|other| {
        if other == policy {
            format!("[{}]", other.name())
        } else {
            other.name().to_owned()
        }
    });
    let (want, got) = (names.join(" "), module::read("policy")?);
    ensure!(got.trim_end() == want, "policy: want {want}, got {got}");
    Ok(())
}

/// A second load is refused and leaves the first as it was.
pub fn load_twice(lab: &Lab) -> Result<()> {
    lab.switch(Policy::Fwb)?;
    let mut vm = lab.vm(2)?;
    vm.report()?;
    refused("a second insmod", module::insert("policy=2"), Errno::EXIST)?;
    assert_policy(Policy::Fwb)?;
    vm.reset()?;
    lab.check("after a second insmod")
}

/// A write switches, with or without a newline; what is not a policy changes nothing.
pub fn policy_file(lab: &Lab) -> Result<()> {
    const WRONG: [&str; 8] = [
        "\n",
        "on",
        "Once",
        "2",
        "[once]",
        "once fwb",
        "once\nfwb",
        "once\0",
    ];
    let long = "once".repeat(2000);
    for policy in Policy::ALL {
        lab.switch(policy)?;
        assert_policy(policy)?;
        for wrong in WRONG.into_iter().chain([long.as_str()]) {
            refused(wrong, module::write("policy", wrong), Errno::INVAL)?;
            assert_policy(policy)?;
        }
    }
    for policy in Policy::ALL {
        module::write("policy", &format!("{}\n", policy.name()))
            .context("a policy and a newline")?;
        assert_policy(policy)?;
    }
    lab.switch(Policy::Once)
}

/// VMs that were there before the module are counted from their next re-init on.
pub fn load_while_running(lab: &Lab) -> Result<()> {
    for policy in [Policy::Native, Policy::Once] {
        let (mut vm, mut stopped) = (lab.vm(4)?, lab.vm(2)?);
        vm.report()?;
        stopped.report()?;
        stopped.rewrite()?;
        stopped.reset()?;
        vm.while_running(|others, code| {
            lab.load(policy)?;
            lab.check("loaded")?;
            code.rewrite()?;
            others[0].reset(Routine::Report)?;
            lab.check("re-initialised next to a vCPU that runs since before")?;
            others[0].report(code.value())
        })?;
        stopped.report()?;
        vm.rewrite()?;
        vm.reset()?;
        lab.check("in reset")?;
        vm.report()?;
        lab.check("running")?;
        lab.unload()?;
    }
    Ok(())
}

/// A vCPU may sit in the guest for days: unloading does not wait for it.
pub fn unload_while_running(lab: &Lab) -> Result<()> {
    lab.load(Policy::Once)?;
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.rewrite()?;
    vm.reset()?;
    vm.while_running(|others, code| {
        code.rewrite()?;
        others[0].reset(Routine::Report)?;
        quickly(lab)?;
        // vCPU 0 will come back from the guest to a host without the module.
        others[0].report(code.value())
    })
}

/// Unloading pays what is owed, and the next load knows nothing of it.
pub fn unload_in_reset(lab: &Lab) -> Result<()> {
    let mut vms = [lab.vm(4)?, lab.vm(1)?, lab.vm(2)?];
    for policy in Policy::ALL {
        lab.load(policy)?;
        assert_policy(policy)?;
        // The second one stays in reset from the last round.
        vms[1].reset()?;
        lab.check("a reset that began before the load")?;
        for vm in &mut vms {
            vm.report()?;
            vm.rewrite()?;
            vm.reset()?;
        }
        lab.check("in reset")?;
        quickly(lab)?;
        vms[0].report()?;
        vms[2].reset()?;
    }
    vms.iter_mut().try_for_each(|vm| vm.report())
}

/// Generous on an emulated machine, and yet far from for ever.
fn quickly(lab: &Lab) -> Result<()> {
    let start = Instant::now();
    lab.unload()?;
    ensure!(
        start.elapsed() < Duration::from_secs(10),
        "rmmod took {:?}",
        start.elapsed()
    );
    Ok(())
}

/// An open file holds the module; its reader finds it whole.
pub fn unload_with_open_file(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.reset()?;
    let of_vm = ["stats", "latency", "info"].map(|file| format!("vms/{}/{file}", vm.name()));
    let of_all = ["policy", "host", "stats", "latency"].map(str::to_owned);
    for file in of_all.iter().chain(&of_vm) {
        let open = File::open(module::path(file)).with_context(|| format!("open {file}"))?;
        refused(
            &format!("rmmod with {file} open"),
            module::remove(),
            Errno::WOULDBLOCK,
        )?;
        ensure!(
            !io::read_to_string(&open)?.is_empty(),
            "{file}: empty after a refused rmmod"
        );
        lab.check("after a refused rmmod")?;
    }
    // The files of a VM may outlive it, and then say nothing more.
    let open: Vec<_> = of_vm
        .iter()
        .map(|file| File::open(module::path(file)))
        .collect::<io::Result<_>>()?;
    drop(vm);
    lab.check("the VM of open files is gone")?;
    for (file, open) in of_vm.iter().zip(&open) {
        ensure!(
            io::read_to_string(open).is_err(),
            "{file}: still read after its VM was gone"
        );
    }
    drop(open);
    lab.unload()
}

// SPDX-License-Identifier: GPL-2.0
//! What the module shows beyond counters: what a VM is, and trace events.

use std::fs;

use anyhow::{Context, Result, ensure};
use contract::Counters;
use vmm::guest;

use crate::tests::hooks::{TRACING, trace};
use vmm::lab::Lab;
use vmm::module;

/// A VM's `info` says what the VM is, and what it owes at each moment.
pub fn info(lab: &Lab) -> Result<()> {
    let comm = fs::read_to_string("/proc/self/comm")?;
    let mut vm = lab.vm(3)?;
    vm.report()?;
    vm.reset()?;
    let name = vm.name().to_owned();
    let (pid, _) = name.split_once('-').context("a VM without a name")?;
    let owes = lab.policy().is_per_vm() && lab.host().fwb && !lab.host().dic;
    let text = |owed: &str| {
        format!(
            "pid {pid}\ncomm {comm}vcpus 3\nmemory_bytes {}\nowed {owed}\n",
            guest::ram_size(3)
        )
    };
    let file = format!("vms/{name}/info");
    let check = |owed: &str| {
        let (want, got) = (text(owed), module::read(&file)?);
        ensure!(got == want, "want {want}got {got}");
        Ok(())
    };
    check(if owes { "icache" } else { "none" })?;
    vm.report()?;
    check("none")
}

const EVENTS: &str = "events/kvm_fwb_reset";

/// Each event is traced as often as it is counted, with the VM's name.
pub fn trace_events(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    let before = fs::read_to_string(format!("{TRACING}/{EVENTS}/enable"))?;
    trace("trace", "")?;
    trace(&format!("{EVENTS}/enable"), "1")?;
    let result = vm
        .rewrite()
        .and_then(|()| vm.reset())
        .and_then(|()| vm.report())
        .and_then(|()| vm.while_running(|others, _| others[0].reset(guest::Routine::Report)));
    trace(&format!("{EVENTS}/enable"), &before)?;
    result?;

    let text = fs::read_to_string(format!("{TRACING}/trace"))?;
    let stats = module::parse::<Counters>("stats")?;
    let ours = format!(": vm={} ", vm.name());
    for (event, want) in [
        ("vcpu_reset", stats.vcpu_reset),
        ("busy", stats.busy),
        ("icache_invalidate", stats.icache_invalidate),
        ("stage2_unmap", stats.stage2_unmap),
        ("stage2_flush", stats.stage2_flush),
    ] {
        let start = format!(" {event}{ours}");
        let got = text.lines().filter(|line| line.contains(&start)).count();
        ensure!(
            got as u64 == want,
            "{event}: {want} counted, {got} traced:\n{text}"
        );
    }
    // Each says how much, and together that is all.
    let sum = |field: &str| -> u64 {
        let lines = text.lines().filter(|line| line.contains(" clean_elide: "));
        let values = lines.filter_map(|line| line.split(field).nth(1)?.split(' ').next());
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    let elided = (stats.dcache_clean_elide_bytes, stats.tlbi_elide);
    let got = (sum(" bytes="), sum(" tlbi="));
    ensure!(
        got == elided,
        "clean_elide: {elided:?} counted, {got:?} traced:\n{text}"
    );
    let policy = format!("policy={}", lab.policy().name());
    ensure!(
        text.lines()
            .filter(|line| line.contains(&format!(" vcpu_reset{ours}")))
            .all(|line| line.contains(&policy) && line.contains(" duration_ns=")),
        "a re-init was traced without its policy or duration:\n{text}"
    );
    let paid = text.contains(&format!(" pay{ours}"));
    let owed = lab.policy().is_per_vm() && lab.host().fwb && !lab.host().dic;
    ensure!(
        paid == owed,
        "owed: {owed}, payment traced: {paid}:\n{text}"
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0
//! Resets of a VM that has touched much memory, and what it costs the next guest to touch it again. Told
//! in instructions, and in sections for the coherence oracle to count in.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contract::{Counters, Policy};
use kvm_ioctls::Kvm;
use rustix::param::page_size;
use vmm::{Pages, huge_page, marker, module};

use crate::clock::Samples;
use crate::states::load;
use crate::vm::Vm;

const VCPUS: usize = 4;
/// The section of all that is not measured.
const BETWEEN: u64 = 1;
/// How much of it is touched again, in percent.
const TOUCHED: [usize; 3] = [1, 10, 100];

/// Does so without the module and under the policies that differ in unmaps shared by all vCPUs, with so
/// much memory.
pub fn tell(mebibytes: usize) -> Result<()> {
    let kvm = vmm::kvm()?;
    // Whatever the kernel puts off until after its boot is not to be counted here.
    sleep(Duration::from_secs(20));
    let mut number = BETWEEN;
    states(&kvm, "none", mebibytes, &mut number)?;
    load(Policy::Once)?;
    for policy in [Policy::Once, Policy::Lazy] {
        module::write("policy", policy.name()).context("switch policy")?;
        states(&kvm, policy.name(), mebibytes, &mut number)?;
    }
    for (name, value) in module::host()? {
        println!("bench: host {name} {value}");
    }
    module::remove().context("rmmod")
}

fn states(kvm: &Kvm, state: &str, mebibytes: usize, number: &mut u64) -> Result<()> {
    let what = format!("touched_{mebibytes}_small");
    resets(
        kvm,
        state,
        &what,
        mebibytes,
        Pages::Small,
        page_size(),
        number,
    )?;
    let Some(huge) = huge_page() else {
        return Ok(());
    };
    let what = format!("touched_{mebibytes}_huge");
    resets(
        kvm,
        state,
        &what,
        mebibytes,
        Pages::Huge(huge),
        huge,
        number,
    )
}

fn resets(
    kvm: &Kvm,
    state: &str,
    what: &str,
    mebibytes: usize,
    pages: Pages,
    size: usize,
    number: &mut u64,
) -> Result<()> {
    let count = (mebibytes << 20) / size;
    ensure!(count > 0, "{mebibytes} MiB are less than a page");
    let mut vm = Vm::new(kvm, VCPUS)?;
    vm.add_ram(count * size, pages)?;
    // The first time pays for tables and slabs that are there the next time.
    vm.touch(0..count, size)?;
    vm.init()?;
    vm.touch(0..count, size)?;

    if module::is_loaded() {
        module::write("clear", "1").context("clear")?;
    }
    let mut measured = |part: &str, work: &mut dyn FnMut() -> Result<u64>| {
        *number += 1;
        sleep(Duration::from_secs(1));
        marker::section(*number, &format!("{state} {what}_{part}"));
        let taken = work();
        marker::section(BETWEEN, "between");
        Samples::take_one(taken?).tell(state, &format!("{what}_{part}"));
        Ok::<_, anyhow::Error>(())
    };
    measured("init", &mut || vm.init())?;
    let mut from = 0;
    for percent in TOUCHED {
        let to = usize::max(count * percent / 100, from + 1);
        measured(&percent.to_string(), &mut || vm.touch(from..to, size))?;
        from = to;
    }
    if module::is_loaded() {
        let stats = module::parse::<Counters>("stats")?;
        println!(
            "bench: {state} {what}_mapped {}",
            count * size + page_size()
        );
        println!(
            "bench: {state} {what}_bytes {}",
            stats.dcache_clean_elide_bytes
        );
        println!("bench: {state} {what}_pages {}", stats.tlbi_elide);
    }
    Ok(())
}

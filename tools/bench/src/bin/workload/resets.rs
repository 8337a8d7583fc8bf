// SPDX-License-Identifier: GPL-2.0
//! Resets of whole VMs, in parts: the re-inits of all vCPUs, the first KVM_RUN of each, and touching again
//! what had been touched before.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::row::{Key, Line, Told, What};
use contract::Counters;
use kvm_ioctls::Kvm;
use rustix::param::page_size;
use vmm::{Pages, module};

use crate::clock::{self, Samples};
use crate::state::State;
use crate::vm::Vm;
use crate::work::{Sections, tell};

/// How often a small VM is reset: odd, so that there is a middle one.
const ROUNDS: usize = 9;
/// How much is touched again, in percent of all, part by part.
const TOUCHED: [(&str, usize); 3] = [("again_1", 1), ("again_10", 10), ("again_100", 100)];
/// Pages of code that the vCPUs run: the routines, and the function.
const CODE: usize = 2;

/// A VM that has touched nothing but its code.
pub fn untouched(kvm: &Kvm, state: State, vcpus: usize, sections: &mut Sections) -> Result<()> {
    let mut key = Key::new(What::Reset, &state.to_string());
    key.vcpus = Some(vcpus as u32);
    key.mib = Some(0);
    let mut vm = Vm::new(kvm, vcpus, 0)?;
    let (mut reinits, mut runs) = (Vec::new(), Vec::new());
    let mut counted = BTreeMap::new();
    for round in 0..3 + ROUNDS {
        sleep(Duration::from_millis(100));
        clock::after_tick();
        let mut part = |name: &str, work: &mut dyn FnMut() -> Result<u64>| {
            // The oracle counts the last one.
            let section = format!("{state} {vcpus} vCPUs, {name}");
            let (number, taken) = sections.within(&section, work)?;
            counted.insert(name.to_owned(), number);
            Ok::<_, anyhow::Error>(taken)
        };
        let reinit = part("reinit", &mut || vm.init())?;
        let run = part("run", &mut || vm.run())?;
        // The first rounds fault in what the later ones find.
        if round >= 3 {
            reinits.push(reinit);
            runs.push(run);
        }
    }
    let figures = [("reinit", reinits), ("run", runs)];
    tell(&Line::Told(Told {
        key,
        figures: figures
            .into_iter()
            .map(|(name, samples)| {
                (
                    format!("{name}.instructions"),
                    Samples::of(samples).median(),
                )
            })
            .collect(),
        sections: counted,
    }))
}

/// A VM that has touched much memory.
pub fn touched(
    kvm: &Kvm,
    state: State,
    vcpus: usize,
    mebibytes: usize,
    pages: Pages,
    sections: &mut Sections,
) -> Result<()> {
    let size = match pages {
        Pages::Small => page_size(),
        Pages::Huge(size) => size,
    };
    let count = (mebibytes << 20) / size;
    ensure!(count > 0, "{mebibytes} MiB are less than a page");
    let mut key = Key::new(What::Reset, &state.to_string());
    key.vcpus = Some(vcpus as u32);
    key.mib = Some(mebibytes as u32);
    key.pages = Some(match size >> 20 {
        0 => format!("{}K", size >> 10),
        large => format!("{large}M"),
    });

    let mut vm = Vm::new(kvm, vcpus, count * size)?;
    vm.add_ram(count * size, pages)?;
    // The first time pays for tables and slabs that are there the next time.
    vm.touch(0..count, size)?;
    vm.init()?;
    vm.run()?;
    vm.touch(0..count, size)?;
    if module::is_loaded() {
        module::write("clear", "1").context("clear")?;
    }

    let mut told = Told {
        key,
        figures: BTreeMap::new(),
        sections: BTreeMap::new(),
    };
    let mut part = |name: &str, work: &mut dyn FnMut() -> Result<u64>| {
        sleep(Duration::from_secs(1));
        clock::after_tick();
        let section = format!("{state} {vcpus} vCPUs, {mebibytes} MiB of {size}, {name}");
        let (number, taken) = sections.within(&section, work)?;
        told.sections.insert(name.to_owned(), number);
        told.figures.insert(format!("{name}.instructions"), taken);
        Ok::<_, anyhow::Error>(())
    };
    part("reinit", &mut || vm.init())?;
    part("run", &mut || vm.run())?;
    let mut from = 0;
    for (name, percent) in TOUCHED {
        let to = usize::max(count * percent / 100, from + 1).min(count);
        // Of few and large pages there are none left.
        if from < to {
            part(name, &mut || vm.touch(from..to, size))?;
        }
        from = to;
    }
    let mapped = (count * size + CODE * page_size()) as u64;
    told.figures.insert("mapped_bytes".into(), mapped);
    if module::is_loaded() {
        let stats = module::parse::<Counters>("stats")?;
        let figures = [
            ("elided_clean_bytes", stats.dcache_clean_elide_bytes),
            ("elided_tlbi", stats.tlbi_elide),
        ];
        for (name, figure) in figures {
            told.figures.insert(name.into(), figure);
        }
    }
    tell(&Line::Told(told))
}

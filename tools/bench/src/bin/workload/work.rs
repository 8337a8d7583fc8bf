// SPDX-License-Identifier: GPL-2.0
//! All that is measured in one boot.

use std::env;
use std::str::FromStr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bench::row::{Key, Line, Told};
use kvm_ioctls::Kvm;
use vmm::{Pages, huge_page, marker, module};

use crate::guest::Start;
use crate::state::State;
use crate::{calls, clock, functions, guest, resets};

/// The section of all that is between.
pub const BETWEEN: u64 = 1;

/// Numbers of sections, none twice.
pub struct Sections(u64);

impl Sections {
    /// Does `work` in a section of that name. Its number.
    pub fn within<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
        self.0 += 1;
        marker::section(self.0, name);
        let result = work();
        marker::section(BETWEEN, "between");
        Ok((self.0, result?))
    }
}

/// Prints a line for who gathers the figures.
pub fn tell(line: &Line) -> Result<()> {
    println!("{}{}", Line::PREFIX, serde_json::to_string(line)?);
    Ok(())
}

/// Prints a row of figures that no section belongs to.
pub fn tell_row(key: Key, figures: impl IntoIterator<Item = (&'static str, u64)>) -> Result<()> {
    let figures = figures.into_iter();
    tell(&Line::Told(Told {
        key,
        figures: figures
            .map(|(name, figure)| (name.to_owned(), figure))
            .collect(),
        sections: Default::default(),
    }))
}

/// The words of a list in the environment.
fn list<T: FromStr<Err: std::fmt::Display>>(name: &str) -> Result<Vec<T>> {
    let text = env::var(name).unwrap_or_default();
    let words = text.split(',').filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.parse()
                .map_err(|error| anyhow!("{name}: {word}: {error}"))
        })
        .collect()
}

/// Measures what the environment says.
pub fn all() -> Result<()> {
    clock::check()?;
    ensure!(
        !module::is_loaded(),
        "{} is loaded: rmmod it first",
        module::NAME
    );
    let states: Vec<State> = list("fwb_states")?;
    let vcpus: Vec<usize> = list("fwb_vcpus")?;
    let touched: Vec<usize> = list("fwb_touched")?;
    let calls = env::var_os("fwb_calls").is_some();
    let vms: Vec<usize> = list("fwb_vms")?;
    let guests: Vec<Start> = list("fwb_guests")?;

    functions::watch()?;
    let kvm = vmm::kvm()?;
    // Whatever the kernel puts off until after its boot is not to be counted here.
    sleep(Duration::from_secs(20));
    let mut sections = Sections(BETWEEN);
    let mut host_told = false;
    for state in states {
        if calls {
            calls::measure(&kvm, state, &vms)?;
        }
        let inside = state.enter()?;
        if module::is_loaded() && !host_told {
            tell(&Line::Host(module::host()?))?;
            host_told = true;
        }
        resets(&kvm, state, &vcpus, &touched, &mut sections)?;
        for &with in &guests {
            for &vcpus in &vcpus {
                guest::reboot(state, with, vcpus, &mut sections)?;
            }
        }
        inside.leave()?;
    }
    Ok(())
}

fn resets(
    kvm: &Kvm,
    state: State,
    vcpus: &[usize],
    touched: &[usize],
    sections: &mut Sections,
) -> Result<()> {
    for &vcpus in vcpus {
        for &mebibytes in touched {
            if mebibytes == 0 {
                resets::untouched(kvm, state, vcpus, sections)?;
                continue;
            }
            let kinds = [Some(Pages::Small), huge_page().map(Pages::Huge)];
            for pages in kinds.into_iter().flatten() {
                resets::touched(kvm, state, vcpus, mebibytes, pages, sections)?;
            }
        }
    }
    Ok(())
}

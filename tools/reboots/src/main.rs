// SPDX-License-Identifier: GPL-2.0
//! Reboots a guest again and again, as QEMU does it: all vCPUs re-initialised by one thread, then let
//! run. A load for the tools that watch; each boot must run the code of its own.

#[cfg(target_arch = "aarch64")]
mod vm;

use clap::Parser;

/// A VMM whose guest reboots again and again
#[derive(Parser)]
#[command(name = "reboots")]
struct Options {
    /// vCPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    vcpus: u16,
    /// Its memory
    #[arg(long, value_name = "MIB", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    memory: u32,
    /// How long each boot lives, in ms
    #[arg(long, value_name = "MS", default_value_t = 0)]
    every: u32,
    /// End after so many reboots, or never
    #[arg(long, value_name = "N")]
    times: Option<u32>,
}

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    match reboot(&Options::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reboots: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_arch = "aarch64")]
fn reboot(options: &Options) -> anyhow::Result<()> {
    use std::{thread, time::Duration};

    let mut vm = vm::Vm::new(options.vcpus, options.memory)?;
    let mut left = options.times;
    while left != Some(0) {
        thread::sleep(Duration::from_millis(options.every.into()));
        vm.reboot()?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    Options::parse();
    eprintln!(
        "reboots: KVM on arm64 is needed: build it for aarch64-unknown-linux-gnu and run it there"
    );
    std::process::ExitCode::FAILURE
}

// SPDX-License-Identifier: GPL-2.0
//! Reboots a guest again and again, as QEMU does it: all vCPUs re-initialised by one thread, then let
//! run. A load for the tools that watch; each boot must run the code of its own.

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
    /// Memory beside that which each boot reads and writes, a word in each page
    #[arg(long, value_name = "MIB", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=65536))]
    touch: u32,
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
    use std::{sync::Arc, thread, time::Duration};
    use vmm::guest;

    let memory = (options.memory as usize) << 20;
    let touch = (options.touch as usize) << 20;
    let bits = guest::address_bits(touch);
    let kvm = vmm::kvm()?;
    let mut vm = vmm::Vm::with_addresses(&kvm, Arc::new(()), options.vcpus.into(), memory, bits)?;
    if touch > 0 {
        vm.add_ram(touch, vmm::Pages::Small)?;
    }
    let pages = touch / rustix::param::page_size();
    let mut left = options.times;
    boot(&mut vm, pages)?;
    while left != Some(0) {
        thread::sleep(Duration::from_millis(options.every.into()));
        vm.reset()?;
        boot(&mut vm, pages)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// Other code in memory, then KVM_RUN of each vCPU until its guest has told what it ran, and has touched so
/// many pages.
#[cfg(target_arch = "aarch64")]
fn boot(vm: &mut vmm::Vm, pages: usize) -> anyhow::Result<()> {
    vm.rewrite()?;
    (0..vm.vcpus.len()).try_for_each(|vcpu| vm.report_one(vcpu))?;
    if pages > 0 {
        vm.vcpus[0].sweep(rustix::param::page_size(), pages)?;
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

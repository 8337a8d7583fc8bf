// SPDX-License-Identifier: GPL-2.0
//! Measures what KVM's calls cost without kvm_fwb_reset, with it, and while another VM sits in
//! reset. It wants root on an idle arm64 host with KVM, whose counter counts instructions; debugfs
//! at its usual place, and the module at /kvm_fwb_reset.ko, not loaded.
//!
//! What it finds are lines `bench: STATE WHAT MEDIAN LEAST MOST`. With `fwb_operations` in its
//! environment it only resets VMs, each reset a section for the coherence oracle to count in; with
//! `fwb_touched=MIB`, VMs that have touched so much memory.

#[cfg(target_arch = "aarch64")]
mod clock;
#[cfg(target_arch = "aarch64")]
mod memory;
#[cfg(target_arch = "aarch64")]
mod operations;
#[cfg(target_arch = "aarch64")]
mod states;
#[cfg(target_arch = "aarch64")]
mod touched;
#[cfg(target_arch = "aarch64")]
mod vm;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    let touched = std::env::var("fwb_touched").map(|text| text.parse());
    let result = match (touched, std::env::var_os("fwb_operations")) {
        (Ok(Ok(mebibytes)), _) => touched::tell(mebibytes),
        (Ok(Err(error)), _) => Err(anyhow::Error::new(error).context("fwb_touched")),
        (Err(_), Some(_)) => operations::tell(),
        (Err(_), None) => states::measure(),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "bench: this measures KVM on arm64: build it for aarch64-unknown-linux-gnu and run it there"
    );
    std::process::ExitCode::FAILURE
}

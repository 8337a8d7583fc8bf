// SPDX-License-Identifier: GPL-2.0
//! Resets guests without kvm_fwb_reset and under each of its policies, and tells the oracle when. It
//! wants root on an arm64 host with KVM, debugfs and tracefs at their usual places, and the module at
//! /kvm_fwb_reset.ko, not loaded. What it is to do it takes from the environment, as the lab's /init
//! passes on words of the kernel's command line: `fwb_kernel`, `fwb_cpu`, `fwb_expect`, `fwb_states`,
//! `fwb_vcpus` and `fwb_resets`; see [`verify::record::Boot`].

#[cfg(target_arch = "aarch64")]
mod code;
#[cfg(target_arch = "aarch64")]
mod unmaps;
#[cfg(target_arch = "aarch64")]
mod work;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    match work::all() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verify-workload: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "verify-workload: this resets KVM guests on arm64: build it for aarch64-unknown-linux-gnu \
         and run it there"
    );
    std::process::ExitCode::FAILURE
}

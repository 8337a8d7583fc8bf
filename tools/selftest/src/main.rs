// SPDX-License-Identifier: GPL-2.0
//! Resets guests of its own, in every way a VMM can, and checks what they ran and what
//! kvm_fwb_reset counted. It wants root on an arm64 host with KVM, debugfs at its usual place and
//! the module at /kvm_fwb_reset.ko, not loaded.

#[cfg(target_arch = "aarch64")]
mod bpf;
#[cfg(target_arch = "aarch64")]
mod faults;
#[cfg(target_arch = "aarch64")]
mod poison;
#[cfg(target_arch = "aarch64")]
mod runner;
#[cfg(target_arch = "aarch64")]
mod tests;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    runner::main()
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "selftest: this tests KVM on arm64: build it for aarch64-unknown-linux-gnu and run it there"
    );
    std::process::ExitCode::FAILURE
}

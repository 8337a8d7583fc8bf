// SPDX-License-Identifier: GPL-2.0
//! Measures what KVM's calls and guest resets cost without kvm_fwb_reset, with it, and with others who
//! look on. It wants root on an idle arm64 host with KVM, whose counter counts instructions; debugfs and
//! tracefs at their usual places, and the module at /kvm_fwb_reset.ko, not loaded.
//!
//! What it is to do it takes from the environment, as the lab's /init passes on words of the kernel's
//! command line: `fwb_states`, `fwb_vcpus`, `fwb_touched` (MiB) as lists; `fwb_calls` and `fwb_vms` for single
//! calls and readers, beside so many VMs; `fwb_guests` for Debian's kernel as a guest, started by itself or
//! by EDK2, for which QEMU is to be in the path and /vmlinuz, /guest.cpio and /firmware.fd
//! there. What it finds are lines of `bench::row::Line`; the coherence
//! oracle counts in the sections that they name.

#[cfg(target_arch = "aarch64")]
mod calls;
#[cfg(target_arch = "aarch64")]
mod clock;
#[cfg(target_arch = "aarch64")]
mod functions;
#[cfg(target_arch = "aarch64")]
mod guest;
#[cfg(target_arch = "aarch64")]
mod memory;
#[cfg(target_arch = "aarch64")]
mod resets;
#[cfg(target_arch = "aarch64")]
mod state;
#[cfg(target_arch = "aarch64")]
mod vm;
#[cfg(target_arch = "aarch64")]
mod work;

#[cfg(target_arch = "aarch64")]
fn main() -> std::process::ExitCode {
    match work::all() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-workload: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "bench-workload: this measures KVM on arm64: build it for aarch64-unknown-linux-gnu and run it there"
    );
    std::process::ExitCode::FAILURE
}

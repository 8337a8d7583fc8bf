// SPDX-License-Identifier: GPL-2.0

//! What an arm64 host does to its caches when a guest resets: seen, and done once.
//!
//! Start reading at `protocol.rs`, then `policy.rs`, `reinit.rs` and `hooks.rs`. From the bottom: counters,
//! histograms, events, the handoff; what is known of each VM (`vm.rs`); the files that show it; what a
//! re-init does; the hooks that lead there.

use kernel::prelude::*;

mod counters;
mod files;
mod handoff;
mod hooks;
mod in_force;
mod latency;
mod lazy;
mod path;
mod policy;
mod protocol;
mod reinit;
#[path = "../rust/mod.rs"]
mod rust;
mod trace;
mod vm;
mod vm_name;

use policy::Policy;

module! {
    type: KvmFwbReset,
    name: "kvm_fwb_reset",
    authors: ["The kvm_fwb_reset developers"],
    description: "FWB-aware guest reset for KVM on arm64, once per VM, with counters",
    license: "GPL",
    params: {
        policy: u32 {
            default: 2,
            description: "0 native, 1 fwb, 2 once (default), 3 unmap, 4 lazy",
        },
    },
}

/// The loaded module. Hooks go out before the files, for they make files for VMs.
struct KvmFwbReset {
    _hooks: hooks::Hooks,
    _files: files::Files,
}

impl kernel::Module for KvmFwbReset {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        rust::built_for::check()?;
        let number = value(module_parameters::policy.value());
        let Some(policy) = Policy::from_number(number.into()) else {
            pr_err!("policy={number} is unknown: use 0 (native), 1 (fwb), 2 (once), 3 (unmap) or 4 (lazy)\n");
            return Err(EINVAL);
        };

        // VMs that are reset as soon as the hooks are in find the directory for theirs.
        let files = files::Files::new();
        let path = path::ResetPath::find()?;
        let _hooks = hooks::Hooks::new(path, policy)?;
        files.add();
        Ok(Self {
            _hooks,
            _files: files,
        })
    }
}

/// Kernels before 7.3 hand out a parameter by reference, later ones by value.
fn value(parameter: impl core::borrow::Borrow<u32>) -> u32 {
    *parameter.borrow()
}

#[cfg(not(all(
    CONFIG_KVM,
    CONFIG_KPROBES,
    CONFIG_DYNAMIC_FTRACE_WITH_ARGS,
    CONFIG_DEBUG_FS
)))]
compile_error!("the kernel needs CONFIG_KVM, KPROBES, DYNAMIC_FTRACE_WITH_ARGS and DEBUG_FS");
#[cfg(CONFIG_KVM_GENERIC_PRE_FAULT_MEMORY)]
compile_error!("KVM_PRE_FAULT_MEMORY maps guest memory without a KVM_RUN, behind an unmap that re-inits share: such kernels are not supported yet");
#[cfg(any(CONFIG_CFI, CONFIG_CFI_CLANG))]
compile_error!("kernels with CONFIG_CFI check indirect calls in a way that redirects do not pass");

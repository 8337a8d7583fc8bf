// SPDX-License-Identifier: GPL-2.0
//! Single resets, for the coherence oracle to count what the host does to its caches and TLBs in each.

use anyhow::{Context, Result};
use contract::Policy;
use kvm_ioctls::Kvm;
use vmm::{marker, module};

use crate::clock;
use crate::states::{VCPUS, load};
use crate::vm::Vm;

/// The section of all that is between resets.
const BETWEEN: u64 = 1;

/// Resets VMs without the module and under each policy, in sections named `STATE reset_VCPUS`.
pub fn tell() -> Result<()> {
    let kvm = vmm::kvm()?;
    let mut number = BETWEEN;
    resets(&kvm, "none", &mut number)?;
    load(Policy::Once)?;
    for policy in Policy::ALL {
        module::write("policy", policy.name()).context("switch policy")?;
        resets(&kvm, policy.name(), &mut number)?;
    }
    module::remove().context("rmmod")
}

fn resets(kvm: &Kvm, state: &str, number: &mut u64) -> Result<()> {
    for vcpus in VCPUS {
        let mut vm = Vm::new(kvm, vcpus)?;
        vm.reset()?;
        *number += 1;
        clock::after_tick();
        marker::section(*number, &format!("{state} reset_{vcpus}"));
        let result = vm.reset();
        marker::section(BETWEEN, "between");
        result?;
    }
    Ok(())
}

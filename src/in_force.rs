// SPDX-License-Identifier: GPL-2.0

//! What is in force: the policy, on this host and kernel.

use crate::{lazy::Lazy, path::ResetPath, policy::Policy, rust};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        SetOnce,
    },
};

/// The policy in force, as its number: the kernel's own way while not all hooks are in.
static POLICY: Atomic<u32> = Atomic::new(Policy::Native as u32);
/// What is known of this host; set before the first hook is in.
static PATH: SetOnce<ResetPath> = SetOnce::new();

/// The policy in force.
pub(crate) fn policy() -> Policy {
    Policy::from_number(POLICY.load(Acquire).into()).unwrap_or(Policy::Native)
}

/// Puts the first policy in force, which must be to be had on this host. All hooks are in.
pub(crate) fn begin(policy: Policy) {
    POLICY.store(policy as u32, Release);
}

/// Switches, if the policy is to be had on this host; a refusal is logged. Each re-init looks once, so
/// one under way goes by either. Nobody asks before [`begin`]: the file comes later.
pub(crate) fn switch(policy: Policy) -> Result {
    if path().is_some_and(|path| !allows(policy, path)) {
        pr_err!(
            "the policy lazy is not to be had with this kernel, as was said at load: take once\n"
        );
        return Err(rust::unsupported());
    }
    POLICY.store(policy as u32, Release);
    Ok(())
}

/// Leaves everything to the kernel from now on. Nobody switches meanwhile: an open file keeps the
/// module.
pub(crate) fn end() {
    POLICY.store(Policy::Native as u32, Release);
}

/// Whether that policy is to be had on this host.
pub(crate) fn allows(policy: Policy, path: &ResetPath) -> bool {
    policy != Policy::Lazy || path.lazy != Lazy::Refused
}

/// What is known of this host.
pub(crate) fn path() -> Option<&'static ResetPath> {
    PATH.as_ref()
}

/// To be called once.
pub(crate) fn set_path(path: ResetPath) {
    PATH.populate(path);
}

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

/// The policy in force, as its number, or [`NOTHING`].
static POLICY: Atomic<u32> = Atomic::new(NOTHING);
/// Stands for the kernel's own way while not all hooks are in, and for no policy: nothing can be put in
/// its place but by [`begin`].
const NOTHING: u32 = u32::MAX;
/// What is known of this host; set before the first hook is in.
static PATH: SetOnce<ResetPath> = SetOnce::new();

/// The policy in force: the kernel's own way while not all hooks are in.
pub(crate) fn policy() -> Policy {
    Policy::from_number(POLICY.load(Acquire).into()).unwrap_or(Policy::Native)
}

/// Puts the first policy in force, which must be to be had on this host. All hooks are in.
pub(crate) fn begin(policy: Policy) {
    POLICY.store(policy as u32, Release);
}

/// Switches, if the policy is to be had on this host. Each re-init looks once, so one under way goes
/// by either. `EAGAIN` before [`begin`]; other refusals are logged.
pub(crate) fn switch(policy: Policy) -> Result {
    let path = path().ok_or(EAGAIN)?;
    if POLICY.load(Acquire) == NOTHING {
        return Err(EAGAIN);
    }
    if !allows(policy, path) {
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
    POLICY.store(NOTHING, Release);
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

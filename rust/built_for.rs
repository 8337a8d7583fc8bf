// SPDX-License-Identifier: GPL-2.0

//! Which kernel this module was built for.
//!
//! The kernel itself compares releases (vermagic), and a distribution may build several kernels under
//! one: a revision of its package with other patches, and so other structures. Each build has a version
//! of its own, though: what `uname -v` says.

use super::bindings;
use core::ffi::CStr;
use kernel::{ffi::c_char, prelude::*};

/// Refuses, and logs it, a kernel that is not the one this was built for. Where that was not known at
/// build time nothing is compared.
pub(crate) fn check() -> Result {
    // SAFETY: Returns null or a string constant of this module.
    let Some(built_for) = (unsafe { text(bindings::kernel_built_for()) }) else {
        return Ok(());
    };
    // SAFETY: Returns a string of the kernel's that never changes.
    let running = unsafe { text(bindings::kernel_running()) }.unwrap_or("?");
    if running == built_for {
        return Ok(());
    }
    pr_err!("built for the kernel '{built_for}', but this is '{running}': build it for this one\n");
    Err(ENOEXEC)
}

/// What `string` says.
///
/// # Safety
///
/// `string` is null, or points to a string that stays as it is while this module is loaded.
unsafe fn text(string: *const c_char) -> Option<&'static str> {
    if string.is_null() {
        return None;
    }
    // SAFETY: By the caller.
    unsafe { CStr::from_char_ptr(string) }.to_str().ok()
}

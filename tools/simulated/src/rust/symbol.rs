// SPDX-License-Identifier: GPL-2.0

//! What the module finds in the kernel's text.

/// The one `ic ialluis` of the path.
#[derive(Clone, Copy)]
pub(crate) struct IcacheInvalidation;

// SPDX-License-Identifier: GPL-2.0

//! What a VM is called, in `vms/` and in events.

use crate::rust::{atomic::AtomicU64, kvm::Vm};
use core::fmt::{self, Write};
use kernel::prelude::*;

/// Room for the longest: a pid, `-vm`, a number of 64 bits, and a NUL.
const SIZE: usize = 40;

/// A VM's name: that of its directory in KVM's debugfs, `<pid>-<fd>`; or one of our own,
/// `<pid>-vm<number>`, where KVM gave it none, as beside a dying VM of the same pid and fd, or where a
/// dying VM still has that name here.
///
/// # Invariants
///
/// `text[len]` is the first byte that is 0.
#[derive(Clone, Copy)]
pub(crate) struct VmName {
    text: [u8; SIZE],
    len: usize,
}

impl VmName {
    /// What stands for the name of a VM that nothing is known of, for lack of memory.
    pub(crate) const UNKNOWN: &'static CStr = c"?";

    /// KVM's name for `vm`, if it has one.
    pub(crate) fn native(vm: &Vm) -> Option<Self> {
        vm.debugfs_name().map(Self::new)
    }

    /// What is there before the first NUL, or the last byte.
    fn new(mut text: [u8; SIZE]) -> Self {
        text[SIZE - 1] = 0;
        let len = text.iter().position(|&byte| byte == 0).unwrap_or(SIZE - 1);
        // INVARIANT: Found there, and the last byte is one.
        Self { text, len }
    }

    /// A name that no other VM has, and KVM gives to none, for a VM that the thread `pid` made.
    pub(crate) fn ours(pid: i32) -> Self {
        /// How many there are.
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        let mut name = Cursor {
            text: [0; SIZE],
            len: 0,
        };
        // It fits, and what did not fit would be left out.
        let _ = write!(name, "{}-vm{}", pid, NUMBER.next());
        Self::new(name.text)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // SAFETY: By the type invariant this ends with its only NUL. It is asked for in each re-init,
        // mostly by events that are off, so it is not looked for again.
        unsafe { CStr::from_bytes_with_nul_unchecked(&self.text[..=self.len]) }
    }
}

/// Text that is being written; what has no room before the last byte is left out.
struct Cursor {
    text: [u8; SIZE],
    len: usize,
}

impl Write for Cursor {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = (self.len + text.len()).min(SIZE - 1);
        let room = &mut self.text[self.len..end];
        room.copy_from_slice(&text.as_bytes()[..room.len()]);
        self.len = end;
        Ok(())
    }
}

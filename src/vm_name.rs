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
/// The last byte is 0.
#[derive(Clone, Copy)]
pub(crate) struct VmName([u8; SIZE]);

impl VmName {
    /// What stands for the name of a VM that nothing is known of, for lack of memory.
    pub(crate) const UNKNOWN: &'static CStr = c"?";

    /// KVM's name for `vm`, if it has one.
    pub(crate) fn native(vm: &Vm) -> Option<Self> {
        // INVARIANT: Whatever was copied.
        vm.debugfs_name().map(|mut name: [u8; SIZE]| {
            name[SIZE - 1] = 0;
            Self(name)
        })
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
        // INVARIANT: A cursor never writes the last byte.
        Self(name.text)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        // By the type invariant there is a NUL.
        CStr::from_bytes_until_nul(&self.0).unwrap_or(Self::UNKNOWN)
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

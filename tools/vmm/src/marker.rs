// SPDX-License-Identifier: GPL-2.0
//! Instructions that do nothing, and that the coherence oracle takes for a word to it.

use std::arch::asm;

/// From here on, all that the oracle sees belongs to this section. It reads 128 bytes of the name at
/// most.
pub fn section(number: u64, name: &str) {
    // SAFETY: A hint that no architecture gives a meaning does nothing (Arm ARM, HINT).
    unsafe { asm!("hint #0x70", in("x0") number, options(nostack, preserves_flags)) };
    // SAFETY: A hint does nothing; the name is there for the oracle to read.
    unsafe {
        asm!("hint #0x71", in("x0") name.len().min(128), in("x1") name.as_ptr(),
            options(nostack, preserves_flags));
    }
}

/// Who counts is to count how often the instruction at this address is executed, and what follows it. To
/// be said before the kernel first comes there.
pub fn watch(address: u64) {
    // SAFETY: A hint does nothing.
    unsafe { asm!("hint #0x72", in("x0") address, options(nostack, preserves_flags)) };
}

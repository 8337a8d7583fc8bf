// SPDX-License-Identifier: GPL-2.0
//! The guest: a few routines of A64 code that run with the MMU off, and where they lie.
//!
//! RAM holds one page of fixed routines, one page with the function that the tests rewrite between
//! resets, then one data page per vCPU.

use crate::a64::*;

/// Where guest RAM begins.
pub const RAM: u64 = 0x4000_0000;
/// No RAM here: a store leaves for user space.
pub const MMIO: u64 = 0x0900_0000;
/// Memory beside RAM begins here, where there is any.
pub const MORE: u64 = 0x8000_0000;
/// The function that returns the value of the day.
pub const FUNCTION: u64 = RAM + PAGE;

const PAGE: u64 = 4096;
/// Further RAM begins here, where there is any, behind all of [`MORE`].
pub const EXTRA: u64 = 0xa000_0000;
/// Bits of guest physical addresses, where nobody asks for more.
pub const ADDRESS_BITS: u32 = 32;
/// The largest page of any arm64 host: memory slots are made of whole pages.
pub const HOST_PAGE: u64 = 65536;

/// The data page of a vCPU: a word that ends its [`Routine::Spin`], and a word that counts rounds.
pub const fn data(vcpu: usize) -> u64 {
    FUNCTION + PAGE * (1 + vcpu as u64)
}

/// Bits of guest physical addresses that so much further RAM takes.
pub const fn address_bits(further: usize) -> u32 {
    let bits = u64::BITS - (EXTRA + further as u64 - 1).leading_zeros();
    if bits > ADDRESS_BITS {
        bits
    } else {
        ADDRESS_BITS
    }
}

/// Offset of the heartbeat in a data page.
pub const HEARTBEAT: u64 = 4;

/// Size of RAM for so many vCPUs.
pub const fn ram_size(vcpus: usize) -> usize {
    (data(vcpus) - RAM).next_multiple_of(HOST_PAGE) as usize
}

/// `CPU_ON`: the caller names the vCPU, where it begins, and what it finds in x0.
pub const PSCI_CPU_ON: u64 = 0xc400_0003;
/// `SYSTEM_RESET`: the VMM is asked for it.
pub const PSCI_SYSTEM_RESET: u64 = 0x8400_0009;

/// What a vCPU can be started at. Arguments are in x0 and up.
#[derive(Clone, Copy)]
pub enum Routine {
    /// Calls the function and stores its value to MMIO, again and again.
    Report,
    /// Counts in the data page at x0 until its first word is not 0, then stores to MMIO.
    Spin,
    /// Makes a PSCI call and stores what it returned to MMIO.
    Hvc,
    /// A load from MMIO that KVM cannot emulate: KVM_RUN fails.
    Fail,
    /// Reads the first word of the data page at x0, writes the next, calls the function and stores its
    /// value to MMIO, again and again.
    Work,
    /// Reads the word at x0, writes it back, goes on x1 bytes further, x2 times in all, then stores
    /// the sum to MMIO.
    Sweep,
}

const ROUTINES: [Routine; 6] = [
    Routine::Report,
    Routine::Spin,
    Routine::Hvc,
    Routine::Fail,
    Routine::Work,
    Routine::Sweep,
];
const SLOT: u64 = 64;

impl Routine {
    /// Where it begins.
    pub const fn address(self) -> u64 {
        RAM + self as u64 * SLOT
    }

    fn code(self) -> Vec<u32> {
        let mmio = movz_high(19, (MMIO >> 16) as u16);
        // The call, that many instructions into the routine.
        let call = |at: i64| bl((FUNCTION - self.address()) as i64 / 4 - at);
        let body = match self {
            Routine::Report => vec![mmio, call(2), str_w(8, 19, 0), b(-2)],
            Routine::Spin => vec![
                mmio,
                ldr_w(9, 0, 0),
                add_w(8, 8, 1),
                str_w(8, 0, HEARTBEAT as u32),
                cbz_w(9, -3),
                str_w(8, 19, 0),
                b(0),
            ],
            Routine::Hvc => vec![HVC, mmio, str_w(0, 19, 0), b(0)],
            Routine::Fail => vec![mmio, ldp_x(8, 9, 19), b(-1)],
            Routine::Work => vec![
                mmio,
                ldr_w(9, 0, 0),
                add_w(9, 9, 1),
                str_w(9, 0, HEARTBEAT as u32),
                call(5),
                str_w(8, 19, 0),
                b(-5),
            ],
            Routine::Sweep => vec![
                mmio,
                movz_w(8, 0),
                ldr_w(9, 0, 0),
                str_w(9, 0, 0),
                add_w_register(8, 8, 9),
                add_x_register(0, 0, 1),
                sub_x(2, 2, 1),
                cbnz_x(2, -5),
                str_w(8, 19, 0),
                b(0),
            ],
        };
        // A re-init does not cancel a store to MMIO that was under way: the next KVM_RUN completes
        // it and steps over one instruction. Give it one that matters to nobody.
        [vec![NOP], body].concat()
    }
}

/// The page of routines.
pub fn routines() -> Vec<u8> {
    let mut page = vec![0; (ROUTINES.len() as u64 * SLOT) as usize];
    for routine in ROUTINES {
        let at = (routine.address() - RAM) as usize;
        let code = bytes(&routine.code());
        page[at..at + code.len()].copy_from_slice(&code);
    }
    page
}

/// The function, made to return `value`.
pub fn function(value: u16) -> Vec<u8> {
    bytes(&[movz_w(8, value), RET])
}

fn bytes(code: &[u32]) -> Vec<u8> {
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routines_fit_their_slots_and_page() {
        for routine in ROUTINES {
            assert!(routine.code().len() as u64 * 4 <= SLOT);
        }
        assert!(routines().len() as u64 <= PAGE);
    }

    #[test]
    fn further_ram_has_addresses() {
        let bits = |mebibytes: usize| address_bits(mebibytes << 20);
        assert_eq!([0, 64, 1024, 1536].map(bits), [32; 4]);
        assert_eq!([1537, 4096, 16384].map(bits), [33, 33, 35]);
    }

    #[test]
    fn ram_is_whole_host_pages_and_holds_every_data_page() {
        for vcpus in [1, 64, 512] {
            let size = ram_size(vcpus) as u64;
            assert_eq!(size % HOST_PAGE, 0);
            assert!(data(vcpus - 1) + PAGE <= RAM + size);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! The guest: a few routines of A64 code that run with the MMU off, and where they lie.
//!
//! RAM holds one page of fixed routines, one page with the function that the tests rewrite between
//! resets, then one data page per vCPU.

/// Where guest RAM begins.
pub const RAM: u64 = 0x4000_0000;
/// No RAM here: a store leaves for user space.
pub const MMIO: u64 = 0x0900_0000;
/// More memory than RAM begins here, where there is any.
pub const MORE: u64 = 0x8000_0000;
/// The function that returns the value of the day.
pub const FUNCTION: u64 = RAM + PAGE;

const PAGE: u64 = 4096;
/// Further RAM begins here, where there is any, behind the rest of [`MORE`].
pub const EXTRA: u64 = 0xa000_0000;
/// The largest page of any arm64 host: memory slots are made of whole pages.
pub const HOST_PAGE: u64 = 65536;

/// The data page of a vCPU: a word that ends its [`Routine::Spin`], and a word that counts rounds.
pub const fn data(vcpu: usize) -> u64 {
    FUNCTION + PAGE * (1 + vcpu as u64)
}

/// Offset of the heartbeat in a data page.
pub const HEARTBEAT: u64 = 4;

/// Size of RAM for so many vCPUs.
pub const fn ram_size(vcpus: usize) -> usize {
    (data(vcpus) - RAM).next_multiple_of(HOST_PAGE) as usize
}

/// PSCI functions, called by [`Routine::Hvc`].
pub const PSCI_CPU_ON: u64 = 0xc400_0003;
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
    /// Reads the first word of the data page at x0, writes the next, then does as Report, again and
    /// again.
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

// Instructions. Branch offsets count instructions from the branch itself.

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const HVC: u32 = 0xd400_0002;

/// `movz wD, #value`
fn movz_w(d: u32, value: u16) -> u32 {
    0x5280_0000 | (u32::from(value) << 5) | d
}

/// `movz xD, #value, lsl #16`
fn movz_high(d: u32, value: u16) -> u32 {
    0xd2a0_0000 | (u32::from(value) << 5) | d
}

/// `add wD, wN, #value`
fn add_w(d: u32, n: u32, value: u32) -> u32 {
    0x1100_0000 | (value << 10) | (n << 5) | d
}

/// `add wD, wN, wM`
fn add_w_register(d: u32, n: u32, m: u32) -> u32 {
    0x0b00_0000 | (m << 16) | (n << 5) | d
}

/// `add xD, xN, xM`
fn add_x_register(d: u32, n: u32, m: u32) -> u32 {
    0x8b00_0000 | (m << 16) | (n << 5) | d
}

/// `sub xD, xN, #value`
fn sub_x(d: u32, n: u32, value: u32) -> u32 {
    0xd100_0000 | (value << 10) | (n << 5) | d
}

/// `str wT, [xN, #offset]`
fn str_w(t: u32, n: u32, offset: u32) -> u32 {
    0xb900_0000 | ((offset / 4) << 10) | (n << 5) | t
}

/// `ldr wT, [xN, #offset]`
fn ldr_w(t: u32, n: u32, offset: u32) -> u32 {
    0xb940_0000 | ((offset / 4) << 10) | (n << 5) | t
}

/// `ldp xT, xT2, [xN]`
fn ldp_x(t: u32, t2: u32, n: u32) -> u32 {
    0xa940_0000 | (t2 << 10) | (n << 5) | t
}

/// `b offset`
fn b(offset: i64) -> u32 {
    0x1400_0000 | (offset as u32 & 0x03ff_ffff)
}

/// `bl offset`
fn bl(offset: i64) -> u32 {
    0x9400_0000 | (offset as u32 & 0x03ff_ffff)
}

/// `cbz wT, offset`
fn cbz_w(t: u32, offset: i64) -> u32 {
    0x3400_0000 | ((offset as u32 & 0x7_ffff) << 5) | t
}

/// `cbnz xT, offset`
fn cbnz_x(t: u32, offset: i64) -> u32 {
    0xb500_0000 | ((offset as u32 & 0x7_ffff) << 5) | t
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that an assembler gives for the instructions named.
    #[test]
    fn encodings() {
        assert_eq!(movz_w(8, 0x1234), 0x5282_4688); // mov w8, #0x1234
        assert_eq!(movz_high(19, 0x0900), 0xd2a1_2013); // mov x19, #0x9000000
        assert_eq!(add_w(8, 8, 1), 0x1100_0508); // add w8, w8, #1
        assert_eq!(str_w(8, 0, 4), 0xb900_0408); // str w8, [x0, #4]
        assert_eq!(str_w(8, 19, 0), 0xb900_0268); // str w8, [x19]
        assert_eq!(ldr_w(9, 0, 0), 0xb940_0009); // ldr w9, [x0]
        assert_eq!(ldp_x(8, 9, 19), 0xa940_2668); // ldp x8, x9, [x19]
        assert_eq!(b(0), 0x1400_0000); // b .
        assert_eq!(b(-2), 0x17ff_fffe); // b .-8
        assert_eq!(bl(4), 0x9400_0004); // bl .+16
        assert_eq!(cbz_w(9, -3), 0x34ff_ffa9); // cbz w9, .-12
        assert_eq!(cbnz_x(2, -5), 0xb5ff_ff62); // cbnz x2, .-20
        assert_eq!(add_w_register(8, 8, 9), 0x0b09_0108); // add w8, w8, w9
        assert_eq!(add_x_register(0, 0, 1), 0x8b01_0000); // add x0, x0, x1
        assert_eq!(sub_x(2, 2, 1), 0xd100_0442); // sub x2, x2, #1
    }

    #[test]
    fn routines_fit_their_slots_and_page() {
        for routine in ROUTINES {
            assert!(routine.code().len() as u64 * 4 <= SLOT);
        }
        assert!(routines().len() as u64 <= PAGE);
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

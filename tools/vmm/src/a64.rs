// SPDX-License-Identifier: GPL-2.0
//! A64 instructions, as many as the guest is made of. Branch offsets count instructions from the branch
//! itself.

/// `nop`
pub(crate) const NOP: u32 = 0xd503_201f;
/// `ret`
pub(crate) const RET: u32 = 0xd65f_03c0;
/// `hvc #0`
pub(crate) const HVC: u32 = 0xd400_0002;

/// `movz wD, #value`
pub(crate) fn movz_w(d: u32, value: u16) -> u32 {
    0x5280_0000 | (u32::from(value) << 5) | d
}

/// `movz xD, #value, lsl #16`
pub(crate) fn movz_high(d: u32, value: u16) -> u32 {
    0xd2a0_0000 | (u32::from(value) << 5) | d
}

/// `add wD, wN, #value`
pub(crate) fn add_w(d: u32, n: u32, value: u32) -> u32 {
    0x1100_0000 | (value << 10) | (n << 5) | d
}

/// `add wD, wN, wM`
pub(crate) fn add_w_register(d: u32, n: u32, m: u32) -> u32 {
    0x0b00_0000 | (m << 16) | (n << 5) | d
}

/// `add xD, xN, xM`
pub(crate) fn add_x_register(d: u32, n: u32, m: u32) -> u32 {
    0x8b00_0000 | (m << 16) | (n << 5) | d
}

/// `sub xD, xN, #value`
pub(crate) fn sub_x(d: u32, n: u32, value: u32) -> u32 {
    0xd100_0000 | (value << 10) | (n << 5) | d
}

/// `str wT, [xN, #offset]`
pub(crate) fn str_w(t: u32, n: u32, offset: u32) -> u32 {
    0xb900_0000 | ((offset / 4) << 10) | (n << 5) | t
}

/// `ldr wT, [xN, #offset]`
pub(crate) fn ldr_w(t: u32, n: u32, offset: u32) -> u32 {
    0xb940_0000 | ((offset / 4) << 10) | (n << 5) | t
}

/// `ldp xT, xT2, [xN]`
pub(crate) fn ldp_x(t: u32, t2: u32, n: u32) -> u32 {
    0xa940_0000 | (t2 << 10) | (n << 5) | t
}

/// `b offset`
pub(crate) fn b(offset: i64) -> u32 {
    0x1400_0000 | (offset as u32 & 0x03ff_ffff)
}

/// `bl offset`
pub(crate) fn bl(offset: i64) -> u32 {
    0x9400_0000 | (offset as u32 & 0x03ff_ffff)
}

/// `cbz wT, offset`
pub(crate) fn cbz_w(t: u32, offset: i64) -> u32 {
    0x3400_0000 | ((offset as u32 & 0x7_ffff) << 5) | t
}

/// `cbnz xT, offset`
pub(crate) fn cbnz_x(t: u32, offset: i64) -> u32 {
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
}

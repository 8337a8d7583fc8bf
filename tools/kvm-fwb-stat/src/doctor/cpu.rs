// SPDX-License-Identifier: GPL-2.0

//! CPUs by MIDR_EL1, and what CTR_EL0 tells. Arm ARM DDI 0487, D24.2 for both registers.

/// MIDR_EL1 without variant and revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Midr(u64);

/// Implementer, part, name, and whether it has FEAT_S2FWB, which Armv8.4 made mandatory. The
/// numbers are those of the kernel's arch/arm64/include/asm/cputype.h.
const PARTS: &[(u64, u64, &str, bool)] = &[
    (0x41, 0xd03, "Cortex-A53", false),
    (0x41, 0xd04, "Cortex-A35", false),
    (0x41, 0xd05, "Cortex-A55", false),
    (0x41, 0xd07, "Cortex-A57", false),
    (0x41, 0xd08, "Cortex-A72", false),
    (0x41, 0xd09, "Cortex-A73", false),
    (0x41, 0xd0a, "Cortex-A75", false),
    (0x41, 0xd0b, "Cortex-A76", false),
    (0x41, 0xd0c, "Neoverse N1 (Graviton2, Altra)", false),
    (0x41, 0xd0d, "Cortex-A77", false),
    (0x41, 0xd40, "Neoverse V1 (Graviton3)", true),
    (0x41, 0xd41, "Cortex-A78", false),
    (0x41, 0xd44, "Cortex-X1", false),
    (0x41, 0xd46, "Cortex-A510", true),
    (0x41, 0xd47, "Cortex-A710", true),
    (0x41, 0xd48, "Cortex-X2", true),
    (0x41, 0xd49, "Neoverse N2", true),
    (0x41, 0xd4f, "Neoverse V2 (Graviton4, Grace, Axion)", true),
    (0x43, 0x0af, "ThunderX2", false),
    (0x46, 0x001, "A64FX", false),
    (0x48, 0xd01, "Kunpeng 920", false),
    (0xc0, 0xac3, "AmpereOne", true),
    (0xc0, 0xac4, "AmpereOne A", true),
];
/// All of Apple's that run Linux as a host.
const APPLE: u64 = 0x61;

impl Midr {
    /// Of a register's value.
    pub fn new(value: u64) -> Self {
        Self(value & 0xff00_fff0)
    }

    /// Of `CPU implementer` and `CPU part` in /proc/cpuinfo.
    pub fn of_parts(implementer: u64, part: u64) -> Self {
        Self(((implementer & 0xff) << 24) | ((part & 0xfff) << 4))
    }

    fn implementer(self) -> u64 {
        self.0 >> 24
    }

    fn part(self) -> u64 {
        (self.0 >> 4) & 0xfff
    }

    /// Its name.
    pub fn name(self) -> String {
        match self.find() {
            Some((name, _)) => name.into(),
            None => format!(
                "implementer {:#04x} part {:#05x}",
                self.implementer(),
                self.part()
            ),
        }
    }

    /// Whether it has FEAT_S2FWB, if that is known of it.
    pub fn has_fwb(self) -> Option<bool> {
        self.find().map(|(_, fwb)| fwb)
    }

    fn find(self) -> Option<(&'static str, bool)> {
        let known = PARTS
            .iter()
            .find(|part| (part.0, part.1) == (self.implementer(), self.part()))
            .map(|part| (part.2, part.3));
        known.or((self.implementer() == APPLE).then_some(("Apple", true)))
    }
}

/// CTR_EL0.
#[derive(Clone, Copy, Debug)]
pub struct Ctr(pub u64);

impl Ctr {
    /// Instructions need no invalidation to be coherent with data.
    pub fn dic(self) -> bool {
        self.0 & (1 << 29) != 0
    }

    /// Nor data a clean to the PoU.
    pub fn idc(self) -> bool {
        self.0 & (1 << 28) != 0
    }

    /// Of the CPU that this runs on, or, where they differ, as the kernel would have it for all.
    #[cfg(target_arch = "aarch64")]
    pub fn read() -> Option<Self> {
        let value;
        // SAFETY: Reads a register that Linux lets user space read, or reads for it (SCTLR_EL1.UCT,
        // Documentation/arch/arm64/cpu-feature-registers.rst), and touches nothing else.
        unsafe {
            std::arch::asm!(
                "mrs {}, ctr_el0",
                out(reg) value,
                options(nomem, nostack, preserves_flags)
            );
        }
        Some(Self(value))
    }

    /// Other CPUs have none.
    #[cfg(not(target_arch = "aarch64"))]
    pub fn read() -> Option<Self> {
        None
    }
}

// SPDX-License-Identifier: GPL-2.0

//! CPUs by MIDR_EL1, and what CTR_EL0 tells. Arm ARM DDI 0487, D24.2 for both registers.

/// MIDR_EL1 without variant and revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Midr(u64);

/// Why it is known whether a CPU has FEAT_S2FWB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// It has: its maker says that it implements this version of the architecture, and all from
    /// Armv8.4 on must have it (DDI 0487, A2.2.1). Of Arm's own by their Technical Reference Manuals.
    From(&'static str),
    /// It has: the kernel says so where it booted on one, in logs that are public.
    Logged,
    /// It has not: of Arm's own by ID_AA64MMFR2_EL1 in their Technical Reference Manuals, of others by
    /// such logs.
    Lacks,
    /// Nobody has said it in public.
    No,
}

/// Implementer, part, name, and what is known of it. Numbers and names are those of the kernel's
/// arch/arm64/include/asm/cputype.h, Phytium's of util-linux' sys-utils/lscpu-arm.c.
const PARTS: &[(u64, u64, &str, Known)] = &[
    (0x41, 0xd03, "Cortex-A53", Known::Lacks),
    (0x41, 0xd04, "Cortex-A35", Known::Lacks),
    (0x41, 0xd05, "Cortex-A55", Known::Lacks),
    (0x41, 0xd07, "Cortex-A57", Known::Lacks),
    (0x41, 0xd08, "Cortex-A72", Known::Lacks),
    (0x41, 0xd09, "Cortex-A73", Known::Lacks),
    (0x41, 0xd0a, "Cortex-A75", Known::Lacks),
    (0x41, 0xd0b, "Cortex-A76", Known::Lacks),
    (0x41, 0xd0c, "Neoverse N1 (Graviton2, Altra)", Known::Lacks),
    (0x41, 0xd0d, "Cortex-A77", Known::Lacks),
    (
        0x41,
        0xd40,
        "Neoverse V1 (Graviton3)",
        Known::From("Armv8.4-A"),
    ),
    (0x41, 0xd41, "Cortex-A78", Known::Lacks),
    (0x41, 0xd44, "Cortex-X1", Known::Lacks),
    (0x41, 0xd46, "Cortex-A510", Known::From("Armv9.0-A")),
    (0x41, 0xd47, "Cortex-A710", Known::From("Armv9.0-A")),
    (0x41, 0xd48, "Cortex-X2", Known::From("Armv9.0-A")),
    (0x41, 0xd49, "Neoverse N2", Known::From("Armv9.0-A")),
    (0x41, 0xd4d, "Cortex-A715", Known::From("Armv9.0-A")),
    (0x41, 0xd4e, "Cortex-X3", Known::From("Armv9.0-A")),
    (
        0x41,
        0xd4f,
        "Neoverse V2 (Graviton4, Grace, Axion)",
        Known::From("Armv9.0-A"),
    ),
    (0x41, 0xd80, "Cortex-A520", Known::From("Armv9.2-A")),
    (0x41, 0xd81, "Cortex-A720", Known::From("Armv9.2-A")),
    (0x41, 0xd82, "Cortex-X4", Known::From("Armv9.2-A")),
    (0x41, 0xd83, "Neoverse V3AE", Known::From("Armv9.2-A")),
    (0x41, 0xd84, "Neoverse V3", Known::From("Armv9.2-A")),
    (0x41, 0xd85, "Cortex-X925", Known::From("Armv9.2-A")),
    (0x41, 0xd87, "Cortex-A725", Known::From("Armv9.2-A")),
    (0x41, 0xd8e, "Neoverse N3", Known::From("Armv9.2-A")),
    (0x43, 0x0af, "ThunderX2", Known::Lacks),
    (0x46, 0x001, "A64FX", Known::Lacks),
    (0x48, 0xd01, "Kunpeng 920 (TSV110)", Known::Lacks),
    (0x48, 0xd02, "HIP09", Known::Logged),
    (0x48, 0xd06, "HIP12", Known::No),
    (0x4e, 0x010, "Olympus", Known::No),
    (0x51, 0x001, "Oryon", Known::No),
    // The kernel takes it for a Neoverse N2 r0p0, errata and all.
    (
        0x6d,
        0xd49,
        "Cobalt 100 (Neoverse N2)",
        Known::From("Armv9.0-A"),
    ),
    (0x70, 0x303, "Phytium FTC310", Known::No),
    (0x70, 0x660, "Phytium FTC660", Known::No),
    (0x70, 0x661, "Phytium FTC661", Known::No),
    (0x70, 0x662, "Phytium FTC662", Known::No),
    (0x70, 0x663, "Phytium FTC663", Known::No),
    (0x70, 0x664, "Phytium FTC664", Known::No),
    (0x70, 0x862, "Phytium FTC862", Known::No),
    (
        0xc0,
        0xac3,
        "Ampere-1 (AmpereOne)",
        Known::From("Armv8.6-A"),
    ),
    (
        0xc0,
        0xac4,
        "Ampere-1A (AmpereOne)",
        Known::From("Armv8.6-A"),
    ),
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
        match self.find()?.1 {
            Known::From(_) | Known::Logged => Some(true),
            Known::Lacks => Some(false),
            Known::No => None,
        }
    }

    fn find(self) -> Option<(&'static str, Known)> {
        let known = PARTS
            .iter()
            .find(|part| (part.0, part.1) == (self.implementer(), self.part()))
            .map(|part| (part.2, part.3));
        known.or((self.implementer() == APPLE).then_some(("Apple", Known::Logged)))
    }

    /// How that is known.
    pub fn source(self) -> Option<&'static str> {
        match self.find()?.1 {
            Known::From(version) => Some(version),
            Known::Logged => Some("boot logs"),
            Known::Lacks => Some("before Armv8.4-A"),
            Known::No => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_people_have_are_known_and_what_is_not_public_is_not_guessed() {
        for (implementer, part, name, fwb) in [
            (0x41, 0xd49, "Neoverse N2", Some(true)),
            (0x6d, 0xd49, "Cobalt 100", Some(true)),
            (0x48, 0xd01, "Kunpeng 920", Some(false)),
            (0x48, 0xd02, "HIP09", Some(true)),
            (0x41, 0xd8e, "Neoverse N3", Some(true)),
            (0x41, 0xd84, "Neoverse V3", Some(true)),
            (0x41, 0xd80, "Cortex-A520", Some(true)),
            (0x41, 0xd4d, "Cortex-A715", Some(true)),
            (0x41, 0xd81, "Cortex-A720", Some(true)),
            (0xc0, 0xac3, "Ampere-1", Some(true)),
            (0x51, 0x001, "Oryon", None),
            (0x70, 0x662, "Phytium", None),
            // Nobody's, and Microsoft's next.
            (0x00, 0x051, "implementer 0x00", None),
            (0x6d, 0xd84, "implementer 0x6d", None),
        ] {
            let midr = Midr::of_parts(implementer, part);
            assert!(midr.name().starts_with(name), "{}", midr.name());
            assert_eq!(midr.has_fwb(), fwb, "{name}");
        }
    }

    #[test]
    fn each_is_there_once() {
        for (i, part) in PARTS.iter().enumerate() {
            let is_same = |other: &&(u64, u64, &str, Known)| (other.0, other.1) == (part.0, part.1);
            assert_eq!(PARTS.iter().position(|other| is_same(&other)), Some(i));
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The one table of what is counted: its names, units and meaning, and what to do about it. Every
//! output takes them from here; `tests/module.rs` holds it against the module's own.

/// One quantity that the module shows.
pub struct Field {
    /// As in the module's file.
    pub name: &'static str,
    /// Whether it only goes up.
    pub kind: Kind,
    /// What its value counts.
    pub unit: Unit,
    /// Which modules show it.
    pub shown: Shown,
    /// What it means.
    pub help: &'static str,
    /// What an operator does about it.
    pub advice: &'static str,
}

/// How a value moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Goes up, and to 0 when the counters are cleared.
    Counter,
    /// What is so now.
    Gauge,
    /// How often each duration was seen; cleared with the counters.
    Histogram,
}

impl Kind {
    /// In the words of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a value counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Re-inits, operations, VMs, vCPUs: no unit.
    Count,
    /// Of memory.
    Bytes,
    /// Of time.
    Nanoseconds,
}

impl Unit {
    /// As the module gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Nanoseconds => "ns",
        }
    }
}

/// Which modules show a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// All: where it is not, the file is cut short.
    Always,
    /// All but those from before the policy `lazy`.
    SinceLazy,
    /// Of these, those on a kernel that has the function which is counted, under its name.
    WithFunction,
}

/// The function that [`Shown::WithFunction`] is about.
pub const FUNCTION: &str = "stage2_flush_vm";

macro_rules! fields {
    ($(#[doc = $doc:literal])+ $group:ident {
        $($variant:ident = $name:literal $kind:ident of $unit:ident $(shown $shown:ident)?:
            $help:literal, do $advice:literal;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $group {
            $(#[doc = $help] $variant,)+
        }

        impl $group {
            /// All of them, in the order of the file.
            pub const ALL: [Self; Self::FIELDS.len()] = [$(Self::$variant),+];
            const FIELDS: &'static [Field] = &[$(Field {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                shown: fields!(@shown $($shown)?),
                help: $help,
                advice: $advice,
            }),+];

            /// Its line of the table.
            pub fn field(self) -> &'static Field {
                &Self::FIELDS[self as usize]
            }

            /// By the name in the file.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|each| each.field().name == name)
            }
        }
    };
    (@shown) => { Shown::Always };
    (@shown $shown:ident) => { Shown::$shown };
}

fields! {
    /// What `stats` counts.
    Stat {
        VcpuInit = "vcpu_init" Counter of Count:
            "KVM_ARM_VCPU_INIT calls on any vCPU that passed validation, a VM's first ones \
                included",
            do "Nothing: it is there to compare with vcpu_reset.";
        VcpuReset = "vcpu_reset" Counter of Count:
            "Re-inits: KVM_ARM_VCPU_INIT calls on a vCPU that had run before",
            do "Divide by vm_reset: the result should be the guest's number of vCPUs. A guest \
                with a high rate reboots in a loop; look at its console.";
        VmReset = "vm_reset" Counter of Count:
            "Guest resets: runs of re-inits of one VM with no KVM_RUN between",
            do "A steady rate is a boot loop. Find the VM by its pid, and stop or mend the guest.";
        IcacheInvalidate = "icache_invalidate" Counter of Count:
            "Invalidations of the I-caches of all PEs on account of re-inits, by the kernel or by \
                the module",
            do "Each one slows down every guest of the host. Should be one for each vm_reset; \
                with one for each vcpu_reset, switch to the policy once.";
        IcacheElide = "icache_elide" Counter of Count:
            "The kernel's own invalidations that the module left out",
            do "Nothing: it is what the module saves.";
        IcacheDic = "icache_dic" Counter of Count:
            "Re-inits that needed no invalidation, by CTR_EL0.DIC",
            do "Nothing: on such a CPU resets cost little, with or without the module.";
        Stage2Unmap = "stage2_unmap" Counter of Count:
            "Times that all RAM of a VM was unmapped at stage 2",
            do "The guest then faults all of it in again. Without FEAT_S2FWB one for each \
                vm_reset is needed; with it none is, unless the policy is unmap.";
        Stage2UnmapElide = "stage2_unmap_elide" Counter of Count:
            "Unmaps that the module left out",
            do "Nothing: it is what the module saves.";
        Busy = "busy" Counter of Count:
            "Re-inits made while another vCPU of the VM was in KVM_RUN, and therefore at once and \
                in full",
            do "A few are CPU hotplug by user space. Many mean that the VMM does not pause a \
                guest that it resets, and nothing is saved.";
        DcacheCleanElideBytes = "dcache_clean_elide_bytes" Counter of Bytes shown SinceLazy:
            "Bytes that unmaps would have cleaned to the PoC and left, under the policy lazy, to the \
                faults that map them again",
            do "Nothing: it is what lazy saves. What the guest does not touch again stays uncleaned, and \
                the host may read an older version of what was written around the caches: see lazy in \
                docs/counters.md.";
        TlbiElide = "tlbi_elide" Counter of Count shown SinceLazy:
            "TLB invalidations of one entry that unmaps left out under the policy lazy: each makes one \
                for every range in their place",
            do "Nothing: it is what lazy saves.";
        Stage2Flush = "stage2_flush" Counter of Count shown WithFunction:
            "Runs of the kernel's stage2_flush_vm, which cleans all that is mapped of a VM: as a vCPU \
                turns its MMU on, or cleans by set and way, on CPUs without FEAT_S2FWB",
            do "Part of what a reset costs on such CPUs, about one for each vCPU that boots, and no policy \
                leaves it out. Many more are a guest that cleans by set and way. Absent where the kernel \
                has no function of that name.";
        Pending = "pending" Gauge of Count:
            "VMs that owe an invalidation now",
            do "A VM that stays in reset is paused by its VMM, or hangs. Its debt is paid at its \
                next KVM_RUN, and harms nobody.";
    }
}

fields! {
    /// What `latency` measures.
    Timing {
        VcpuReset = "vcpu_reset" Histogram of Nanoseconds:
            "Time of one re-init, from the reset of the vCPU's registers to the end of its cache \
                maintenance",
            do "The VMM waits for it, once for each vCPU. Where stage2_unmap makes up most of it, \
                the guest's memory is large and the CPU lacks FEAT_S2FWB.";
        Stage2Unmap = "stage2_unmap" Histogram of Nanoseconds:
            "Time of one unmap that took place",
            do "Grows with the guest's mapped memory. Huge pages in the host shorten it.";
        IcacheInvalidate = "icache_invalidate" Histogram of Nanoseconds:
            "Time of one invalidation of the I-caches of all PEs",
            do "Grows with the number of CPUs. What other guests lose by cold caches comes on \
                top, and is not in it.";
        Pay = "pay" Histogram of Nanoseconds:
            "Time spent at KVM_RUN to pay a debt, waiting for another payer included",
            do "Delays the guest's first instruction after a reset. Long times with a short \
                icache_invalidate are waits.";
        Stage2Flush = "stage2_flush" Histogram of Nanoseconds shown WithFunction:
            "Time of one run of the kernel's stage2_flush_vm",
            do "The vCPU that turns its MMU on waits for it. Grows with the guest's mapped memory. \
                Absent where the kernel has no function of that name.";
    }
}

fields! {
    /// What `info` tells of a VM in numbers.
    Size {
        Vcpus = "vcpus" Gauge of Count:
            "vCPUs of the VM",
            do "Nothing: without the module each of them costs an operation of its own at a reset.";
        Memory = "memory_bytes" Gauge of Bytes:
            "Memory of the VM, the sum of its memslots",
            do "Nothing: what is mapped of it is what an unmap has to unmap.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for stat in Stat::ALL {
            assert_eq!(Stat::from_name(stat.field().name), Some(stat));
        }
        for timing in Timing::ALL {
            assert_eq!(Timing::from_name(timing.field().name), Some(timing));
        }
        for size in Size::ALL {
            assert_eq!(Size::from_name(size.field().name), Some(size));
        }
    }

    #[test]
    fn help_can_stand_in_metrics() {
        let fields = (Stat::ALL.into_iter().map(Stat::field))
            .chain(Timing::ALL.into_iter().map(Timing::field))
            .chain(Size::ALL.into_iter().map(Size::field));
        for field in fields {
            assert!(!field.help.ends_with('.') && !field.help.contains(['\\', '"', '\n']));
            assert!(field.advice.ends_with('.'));
        }
    }
}

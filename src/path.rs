// SPDX-License-Identifier: GPL-2.0

//! What this kernel's own KVM_ARM_VCPU_INIT does on this host, read off its code as it is patched
//! now.

use crate::{
    lazy::Lazy,
    policy::{Host, Maintenance},
    rust::{
        self, cpu, ftrace, insn, kvm,
        symbol::{IcacheInvalidation, Symbol},
    },
};
use kernel::prelude::*;

/// The kernel's path of KVM_ARM_VCPU_INIT.
pub(crate) struct ResetPath {
    pub(crate) host: Host,
    /// The invalidation in it, if there is one, whether or not these CPUs ever get there.
    pub(crate) icache: Option<IcacheInvalidation>,
    /// What the policy `lazy` comes to.
    pub(crate) lazy: Lazy,
    /// `stage2_flush_vm` is a function of its own, whose runs can be counted.
    pub(crate) has_flush: bool,
}

impl ResetPath {
    /// Looks at the running kernel. Refuses, and says why in the log, where its path is not one
    /// that this module knows how to steer.
    pub(crate) fn find() -> Result<Self> {
        Self::look().inspect_err(|&error| {
            // Whatever it was for.
            if error == ENOMEM {
                pr_err!("no memory to look at KVM's code: try again when there is\n");
            }
        })
    }

    fn look() -> Result<Self> {
        if !kvm::is_initialised()? {
            pr_err!("KVM is not initialised: boot at EL2, and without kvm-arm.mode=none\n");
            return Err(ENODEV);
        }

        let unmap = Symbol::require(c"stage2_unmap_vm")?;
        let reset = Symbol::require(c"kvm_reset_vcpu")?;
        let ioctl = Symbol::require(c"kvm_arch_vcpu_ioctl")?;
        // Usually inlined into the ioctl; as a function of its own it is called from there.
        let init = insn::calls(&ioctl.code()?, ioctl.address())
            .find(|&(_, to)| Symbol::is_named(to, "kvm_arch_vcpu_ioctl_vcpu_init"))
            .and_then(|(_, to)| Symbol::containing(to));

        let mut found = Found::default();
        for function in [Some(ioctl), init].into_iter().flatten() {
            found.scan(function, unmap.address(), reset.address())?;
        }
        if found.unmaps != 1 || found.icaches > 1 {
            pr_err!(
                "not supported: KVM_ARM_VCPU_INIT has {} calls of stage2_unmap_vm (want 1) and {} ic ialluis (want 0 or 1)\n",
                found.unmaps,
                found.icaches
            );
            return Err(rust::unsupported());
        }

        let native = match (found.unmap_reached, found.icache_reached) {
            (false, false) => Maintenance::None,
            (false, true) => Maintenance::Icache,
            (true, false) => Maintenance::Unmap,
            (true, true) => {
                pr_err!(
                    "not supported: KVM_ARM_VCPU_INIT may both unmap and invalidate on this CPU\n"
                );
                return Err(rust::unsupported());
            }
        };
        let lazy = Lazy::find();
        Ok(Self {
            host: Host {
                fwb: cpu::has_fwb(),
                dic: cpu::has_dic(),
                native,
                lazy: lazy == Lazy::Unmaps,
            },
            icache: found.icache,
            lazy,
            has_flush: ftrace::can_redirect(c"stage2_flush_vm")?,
        })
    }

    /// Notes that nothing is redirected that is of use only without FEAT_S2FWB.
    pub(crate) fn do_without_fwb_redirects(&mut self) {
        self.has_flush = false;
        if self.host.lazy {
            self.host.lazy = false;
            self.lazy = Lazy::Refused;
        }
    }

    /// Whether the probe on the invalidation, if one is needed, is in the kernel's text now:
    /// kprobes can be disarmed globally at any time, and then nothing tells.
    pub(crate) fn is_armed(&self) -> bool {
        self.icache.is_none_or(IcacheInvalidation::is_probed)
    }
}

/// What the path's functions hold.
#[derive(Default)]
struct Found {
    unmaps: usize,
    unmap_reached: bool,
    icaches: usize,
    icache_reached: bool,
    icache: Option<IcacheInvalidation>,
}

impl Found {
    /// Adds what `function` holds, and whether it can be reached: from its entry, and, should a
    /// jump table hide the way from there, from behind each call of `kvm_reset_vcpu`. Alternatives
    /// and static branches are patched by now, so what these CPUs never do cannot be reached.
    fn scan(&mut self, function: Symbol, unmap: usize, reset: usize) -> Result {
        let code = &function.code()?;
        let is_unmap = |at: usize| {
            insn::calls(&code[at..=at], function.address() + at * insn::SIZE)
                .any(|(_, to)| to == unmap)
        };
        for (at, &word) in code.iter().enumerate() {
            if word == insn::IC_IALLUIS {
                self.icaches += 1;
                self.icache = function.icache_invalidation(code, at)?;
            }
            self.unmaps += usize::from(is_unmap(at));
        }

        let behind_reset = insn::calls(code, function.address())
            .filter(|&(_, to)| to == reset)
            .map(|(at, _)| at + 1);
        let mut seen = KVec::from_elem(false, code.len(), GFP_KERNEL)?;
        insn::reach(
            code,
            &mut seen,
            Iterator::chain(core::iter::once(0), behind_reset),
            |at, word| {
                self.icache_reached |= word == insn::IC_IALLUIS;
                self.unmap_reached |= is_unmap(at);
            },
        );
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Functions of the kernel that are not exported, found by name.

use super::{bindings, insn};
use core::ffi::CStr;
use kernel::{error::to_result, prelude::*};

/// A function of the running kernel's own text, which stays where it is.
#[derive(Clone, Copy)]
pub(crate) struct Symbol {
    address: usize,
    size: usize,
}

impl Symbol {
    /// Finds the function `name`.
    ///
    /// The kernel tells an address through a probe registered by name. It is registered disabled,
    /// so the function is not touched, and only for a moment. [`ENOENT`] where there is no such
    /// function.
    pub(crate) fn find(name: &'static CStr) -> Result<Self> {
        // SAFETY: All zeroes is a `struct kprobe` before registration.
        let probe = unsafe { core::mem::zeroed::<bindings::kprobe>() };
        let mut probe = KBox::new(probe, GFP_KERNEL)?;
        probe.symbol_name = name.as_char_ptr();

        let (address, _) = look(&mut probe)?;
        // On some configurations a probe by name lands behind the entry's landing pad: ask which
        // function the address is in.
        Self::containing(address).ok_or(ENOENT)
    }

    /// Finds the function `name`, or logs the refusal. That there is no memory is the caller's to tell.
    pub(crate) fn require(name: &'static CStr) -> Result<Self> {
        Self::find(name).inspect_err(|&error| {
            if error != ENOMEM {
                pr_err!(
                    "this kernel has no function {}: not supported\n",
                    Self::display(name)
                );
            }
        })
    }

    /// A function's name, to be printed.
    pub(crate) fn display(name: &'static CStr) -> &'static str {
        name.to_str().unwrap_or("?")
    }

    /// The function that contains `address`.
    pub(crate) fn containing(address: usize) -> Option<Self> {
        let mut text = [0u8; bindings::SYMBOL_TEXT_LEN as usize];
        let (_, offset, size) = describe(address, &mut text)?;
        let address = address.checked_sub(offset)?;
        Some(Self { address, size })
    }

    /// Whether the function that contains `address` is called `name`, or is a clone of it that the
    /// compiler made (`name.isra.0` and the like).
    pub(crate) fn is_named(address: usize, name: &str) -> bool {
        let mut text = [0u8; bindings::SYMBOL_TEXT_LEN as usize];
        match describe(address, &mut text) {
            Some((found, ..)) => match found.strip_prefix(name.as_bytes()) {
                Some(rest) => matches!(rest.first(), None | Some(b'.')),
                None => false,
            },
            None => false,
        }
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// The function's instructions as they are now, alternatives and static branches patched in, and
    /// what is under others' kprobes.
    pub(crate) fn code(&self) -> Result<KVec<u32>> {
        let mut code = KVec::with_capacity(self.size / insn::SIZE, GFP_KERNEL)?;
        for offset in (0..self.size).step_by(insn::SIZE) {
            // SAFETY: kallsyms says that the function is that long.
            code.push(unsafe { instruction(self.address + offset) }?, GFP_KERNEL)?;
        }
        Ok(code)
    }

    /// How many bytes of its entry belong to ftrace; see [`insn::patched_entry`].
    pub(crate) fn patched_entry(&self) -> Result<Option<usize>> {
        // SAFETY: The entry of a function, which is followed by what it does.
        let word = |at| unsafe { instruction(self.address + at * insn::SIZE) };
        Ok(insn::patched_entry(&[word(0)?, word(1)?, word(2)?]))
    }

    /// The `ic ialluis` that `code`, this function's, has at an index, if it has one there.
    pub(crate) fn icache_invalidation(
        &self,
        code: &[u32],
        at: usize,
    ) -> Result<Option<IcacheInvalidation>> {
        let address = self.address + at * insn::SIZE;
        // `code` may be any, what is in the kernel's text is not.
        let found = at < self.size / insn::SIZE
            && code.get(at) == Some(&insn::IC_IALLUIS)
            // SAFETY: Within the function.
            && unsafe { instruction(address) }? == insn::IC_IALLUIS;
        // INVARIANT: Looked at above.
        Ok(found.then_some(IcacheInvalidation {
            address,
            completed: code.get(at + 1) == Some(&insn::DSB_ISH),
        }))
    }
}

/// An `ic ialluis` in the kernel's text.
///
/// # Invariants
///
/// An `ic ialluis` is at `address`; where it is `completed`, a `dsb ish` follows.
#[derive(Clone, Copy)]
pub(crate) struct IcacheInvalidation {
    address: usize,
    completed: bool,
}

impl IcacheInvalidation {
    pub(super) fn address(self) -> usize {
        self.address
    }

    /// Its length, with the `dsb ish` that completes it.
    pub(super) fn bytes(self) -> usize {
        if self.completed {
            2 * insn::SIZE
        } else {
            insn::SIZE
        }
    }

    /// Whether a probe is on it in the kernel's text now: kprobes can be disarmed for the whole host
    /// at any time, and then the probe is not there.
    pub(crate) fn is_probed(self) -> bool {
        // SAFETY: By the type invariant in the kernel's text.
        unsafe { word(self.address) != insn::IC_IALLUIS }
    }
}

/// One word of the kernel's text, as it is now.
///
/// # Safety
///
/// `address` must lie in the kernel's text.
unsafe fn word(address: usize) -> u32 {
    // SAFETY: By the caller; patching replaces whole aligned words.
    unsafe { (address as *const u32).read_volatile() }
}

/// The instruction at `address`: where somebody's kprobe is on it, the one under the probe. Refusals
/// are logged.
///
/// # Safety
///
/// `address` must lie in the kernel's text.
unsafe fn instruction(address: usize) -> Result<u32> {
    // SAFETY: By the caller.
    let word = unsafe { word(address) };
    if word != insn::BRK_KPROBE {
        return Ok(word);
    }
    // SAFETY: All zeroes is a `struct kprobe` before registration.
    let probe = unsafe { core::mem::zeroed::<bindings::kprobe>() };
    let mut probe = KBox::new(probe, GFP_KERNEL)?;
    probe.addr = core::ptr::with_exposed_provenance_mut(address);
    match look(&mut probe) {
        Ok((_, opcode)) => Ok(opcode),
        Err(error) if error == ENOMEM => Err(error),
        Err(error) => {
            pr_err!(
                "a kprobe at {:#x} hides an instruction of KVM's ({:?}): remove it, then load this module\n",
                address,
                error
            );
            Err(EBUSY)
        }
    }
}

/// Registers `probe`, disabled, for a moment: no code is touched. Returns the address that kprobes
/// found for it, and the instruction there, whoever else's probe is on it.
fn look(probe: &mut KBox<bindings::kprobe>) -> Result<(usize, u32)> {
    probe.flags = bindings::KPROBE_FLAG_DISABLED;
    // SAFETY: `probe` stays in its box until it is unregistered below.
    to_result(unsafe { bindings::register_kprobe(&mut **probe) })?;
    let found = (probe.addr as usize, probe.opcode);
    // SAFETY: Registered above.
    unsafe { bindings::unregister_kprobe(&mut **probe) };
    Ok(found)
}

/// Takes `name+0xoffset/0xsize` apart.
fn describe(address: usize, text: &mut [u8]) -> Option<(&[u8], usize, usize)> {
    // SAFETY: `text` has the KSYM_SYMBOL_LEN bytes that `sprint_symbol` may fill.
    let len = unsafe { bindings::sprint_symbol(text.as_mut_ptr().cast(), address) };
    let text = text.get(..usize::try_from(len).ok()?)?;
    let plus = text.iter().position(|&c| c == b'+')?;
    let slash = text.iter().position(|&c| c == b'/')?;
    let end = text.iter().position(|&c| c == b' ').unwrap_or(text.len());
    Some((
        text.get(..plus)?,
        hex(text.get(plus + 1..slash)?)?,
        hex(text.get(slash + 1..end)?)?,
    ))
}

fn hex(text: &[u8]) -> Option<usize> {
    let digits = core::str::from_utf8(text.strip_prefix(b"0x")?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

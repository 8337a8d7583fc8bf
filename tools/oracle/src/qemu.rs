// SPDX-License-Identifier: GPL-2.0

//! What QEMU shows of the code that it translates and runs, behind its C interface.

use qemu_plugin::sys::{
    self, qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS, qemu_plugin_insn, qemu_plugin_meminfo_t,
    qemu_plugin_op::*, qemu_plugin_tb, qemu_plugin_u64, qemu_plugin_vcpu_mem_cb_t,
    qemu_plugin_vcpu_udata_cb_t,
};
use std::ffi::c_void;

/// A count for each PE, which QEMU keeps by itself.
pub struct Counter(qemu_plugin_u64);

// SAFETY: The pointer in it is QEMU's handle, which any thread may use, and is never freed.
unsafe impl Send for Counter {}
// SAFETY: As above.
unsafe impl Sync for Counter {}

impl Counter {
    pub fn new() -> Self {
        Self(qemu_plugin_u64 {
            // SAFETY: May be called at any time.
            score: unsafe { sys::qemu_plugin_scoreboard_new(size_of::<u64>()) },
            offset: 0,
        })
    }

    /// Of all PEs.
    pub fn sum(&self) -> u64 {
        // SAFETY: `new` made it.
        unsafe { sys::qemu_plugin_u64_sum(self.0) }
    }
}

/// An instruction under translation.
pub struct Insn(*mut qemu_plugin_insn);

/// The instructions of a block under translation.
pub fn instructions(tb: *mut qemu_plugin_tb) -> impl Iterator<Item = Insn> {
    // SAFETY: QEMU's own, and this is its translation callback.
    let len = unsafe { sys::qemu_plugin_tb_n_insns(tb) };
    // SAFETY: As above, and it has this many.
    (0..len).map(move |index| Insn(unsafe { sys::qemu_plugin_tb_get_insn(tb, index) }))
}

impl Insn {
    /// The instruction, if it is A64's.
    pub fn word(&self) -> Option<u32> {
        let mut bytes = [0u8; 4];
        // SAFETY: QEMU writes no more than it is told there is room for.
        let len =
            unsafe { sys::qemu_plugin_insn_data(self.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        (len == bytes.len()).then(|| u32::from_le_bytes(bytes))
    }

    pub fn vaddr(&self) -> u64 {
        // SAFETY: QEMU's own, in its translation callback.
        unsafe { sys::qemu_plugin_insn_vaddr(self.0) }
    }

    /// Where QEMU has it; 0 if not in RAM.
    pub fn host(&self) -> u64 {
        // SAFETY: As above.
        unsafe { sys::qemu_plugin_insn_haddr(self.0) as u64 }
    }

    /// Has `counter` go up before it is executed.
    pub fn count(&self, counter: &Counter) {
        // SAFETY: As above; the counter is never freed.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                self.0,
                QEMU_PLUGIN_INLINE_ADD_U64,
                counter.0,
                1,
            );
        }
    }

    /// Has `callback` called after each of its accesses to memory, with the exception level.
    pub fn call_on_access(
        &self,
        accesses: qemu_plugin::MemRW,
        callback: qemu_plugin_vcpu_mem_cb_t,
        el: u8,
    ) {
        // SAFETY: As above; `callback` takes the level for what it is.
        unsafe {
            sys::qemu_plugin_register_vcpu_mem_cb(
                self.0,
                callback,
                QEMU_PLUGIN_CB_R_REGS,
                accesses,
                usize::from(el) as *mut c_void,
            );
        }
    }

    /// Has `callback` called with `data` before it is executed.
    pub fn call<T>(&self, callback: qemu_plugin_vcpu_udata_cb_t, data: &'static T) {
        let data = std::ptr::from_ref(data).cast_mut().cast::<c_void>();
        // SAFETY: As above; `callback` takes `data` for what it is, and only reads it.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_cb(
                self.0,
                callback,
                QEMU_PLUGIN_CB_R_REGS,
                data,
            )
        };
    }
}

/// An access to memory that a PE has made.
pub struct Access {
    pub is_store: bool,
    pub vaddr: u64,
    pub len: u64,
    pub info: qemu_plugin_meminfo_t,
}

impl Access {
    /// Its physical address, if that is RAM. Only in the callback that `info` is from.
    pub fn physical(&self) -> Option<u64> {
        // SAFETY: Called in the callback that `info` was given to, as QEMU asks for.
        let place = unsafe { sys::qemu_plugin_get_hwaddr(self.info, self.vaddr) };
        // SAFETY: QEMU's own, until the callback ends.
        if place.is_null() || unsafe { sys::qemu_plugin_hwaddr_is_io(place) } {
            return None;
        }
        // SAFETY: As above.
        Some(unsafe { sys::qemu_plugin_hwaddr_phys_addr(place) })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What QEMU calls, and what it is asked to call.
//!
//! Code is looked at when QEMU translates it. Instructions that matter get a callback before they
//! are executed; a guest's get one each, and are counted. QEMU gives no room to a callback but one
//! pointer: it points to what was found out at translation, which is kept for good, once for each
//! different instruction.
//!
//! Each CPU of the machine needs a thread of its own, as is QEMU's default: where one thread runs all
//! in turn, QEMU 10.0 gives callbacks the number of the CPU that the code was translated on. The
//! threads meet in the lock around the oracle, and find there what the machine's own ordering lets
//! them: a callback comes before what follows it in its CPU's program.

use crate::{
    counting::{self, Counting},
    machine::{Fetch, Machine, Site},
    qemu::{Access, Counter, instructions},
};
use anyhow::{Context, Result, bail};
use qemu_plugin::{
    PluginId,
    install::{Args, Info},
    plugin::{HasCallbacks, PLUGIN, Plugin, Register},
    sys::{self, qemu_plugin_mem_rw::*, qemu_plugin_meminfo_t, qemu_plugin_tb},
};
use std::{
    ffi::{c_uint, c_void},
    path::PathBuf,
    process,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// What QEMU told at installation.
struct Installed {
    task: Task,
    pes: usize,
    instructions: Counter,
    /// Of them, those of guests; only where it is no more than counted.
    guests: Counter,
}

/// What is wanted, and the file to write it to.
enum Task {
    Verdict(PathBuf),
    Counts(PathBuf),
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();
static MACHINE: OnceLock<Machine> = OnceLock::new();
static COUNTING: OnceLock<Counting> = OnceLock::new();
/// Whether the run was given up.
static REFUSED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn on_access(
    pe: c_uint,
    info: qemu_plugin_meminfo_t,
    vaddr: u64,
    el: *mut c_void,
) {
    let Some(machine) = MACHINE.get() else {
        return;
    };
    let access = Access {
        // SAFETY: Called in the callback that `info` was given to.
        is_store: unsafe { sys::qemu_plugin_mem_is_store(info) },
        vaddr,
        // SAFETY: As above.
        len: 1 << unsafe { sys::qemu_plugin_mem_size_shift(info) },
        info,
    };
    machine.access(pe as usize, el as usize, &access);
}

unsafe extern "C" fn on_fetch(pe: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a `Fetch` that is kept for good.
    let fetch = unsafe { &*data.cast::<Fetch>() };
    if let Some(machine) = MACHINE.get() {
        machine.fetch(pe as usize, fetch);
    }
}

unsafe extern "C" fn on_execute(pe: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a `Site` that is kept for good.
    let site = unsafe { &*data.cast::<Site>() };
    if let Some(machine) = MACHINE.get() {
        machine.execute(pe as usize, site);
    }
}

unsafe extern "C" fn on_count(pe: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a `counting::Site` that is kept for good.
    let site = unsafe { &*data.cast::<counting::Site>() };
    if let Some(counting) = COUNTING.get() {
        counting.execute(pe as usize, site);
    }
}

unsafe extern "C" fn on_translate(_: PluginId, tb: *mut qemu_plugin_tb) {
    let Some(installed) = INSTALLED.get() else {
        return;
    };
    let Installed {
        pes,
        instructions: all,
        guests,
        ..
    } = installed;
    match installed.task {
        Task::Verdict(_) => {
            let new = |host, vaddr| Machine::new(host, vaddr, *pes, all);
            ask_for_callbacks(at_first(&MACHINE, tb, new), all, tb);
        }
        Task::Counts(_) => {
            let new = |host, vaddr| Counting::new(host, vaddr, *pes, all, guests);
            ask_for_counts(at_first(&COUNTING, tb, new), installed, tb);
        }
    }
}

/// What is made when the first block of code is translated, of where that is for QEMU and for the machine.
fn at_first<T>(
    slot: &'static OnceLock<T>,
    tb: *mut qemu_plugin_tb,
    new: impl FnOnce(u64, u64) -> Result<T>,
) -> &'static T {
    slot.get_or_init(|| {
        // The machine has just been reset: its MMU is off, so that this address is a physical one.
        let first = instructions(tb).next().context("an empty block of code");
        first
            .and_then(|insn| new(insn.host(), insn.vaddr()))
            .unwrap_or_else(|error| refuse(&error))
    })
}

/// On the code in `tb`, where it is only counted.
fn ask_for_counts(counting: &Counting, installed: &Installed, tb: *mut qemu_plugin_tb) {
    let guest = counting.is_guest();
    for insn in instructions(tb) {
        let Some(word) = insn.word() else {
            continue;
        };
        insn.count(&installed.instructions);
        if guest {
            insn.count(&installed.guests);
        }
        if let Some(site) = counting.site(insn.vaddr(), word, guest) {
            insn.call(Some(on_count), site);
        }
    }
}

/// On the code in `tb`, which the PE of this thread is to run next.
fn ask_for_callbacks(machine: &Machine, executed: &Counter, tb: *mut qemu_plugin_tb) {
    let (el, guest) = machine.level();
    // The host's loads go through the caches, and find everything.
    let accesses = if guest {
        QEMU_PLUGIN_MEM_RW
    } else {
        QEMU_PLUGIN_MEM_W
    };
    for insn in instructions(tb) {
        let Some(word) = insn.word() else {
            continue;
        };
        let pc = insn.vaddr();
        insn.count(executed);
        insn.call_on_access(accesses, Some(on_access), el);
        if guest {
            let fetch = machine.guest_instruction(pc, insn.host(), word);
            insn.call(Some(on_fetch), fetch);
        }
        if let Some(site) = machine.site(pc, word, guest) {
            insn.call(Some(on_execute), site);
        }
    }
}

unsafe extern "C" fn on_exit(_: PluginId, _: *mut c_void) {
    if REFUSED.load(Relaxed) {
        return;
    }
    if let Err(error) = write_result() {
        refuse(&error);
    }
}

fn write_result() -> Result<()> {
    const NO_CODE: &str = "the machine ran no code";
    let installed = INSTALLED.get().context("it was never installed")?;
    match &installed.task {
        Task::Verdict(path) => MACHINE.get().context(NO_CODE)?.verdict().write(path),
        Task::Counts(path) => COUNTING.get().context(NO_CODE)?.counts().write(path),
    }
}

/// A run that cannot be judged had better not go on.
fn refuse(error: &anyhow::Error) -> ! {
    // Leaving calls `on_exit`, which then has nothing to add.
    if !REFUSED.swap(true, Relaxed) {
        eprintln!("oracle: {error:#}");
    }
    process::exit(1)
}

/// How qemu-plugin knows this plugin.
struct CoherenceOracle;

impl HasCallbacks for CoherenceOracle {}

impl Register for CoherenceOracle {
    // In place of qemu-plugin's default, which wraps each callback in a lock and an allocation.
    fn register_default(&mut self, id: PluginId, args: &Args, info: &Info) -> Result<()> {
        install(id, args, info).unwrap_or_else(|error| refuse(&error));
        Ok(())
    }
}

impl Plugin for CoherenceOracle {}

#[ctor::ctor]
fn announce() {
    let _ = PLUGIN.set(Mutex::new(Box::new(CoherenceOracle)));
}

fn install(id: PluginId, args: &Args, info: &Info) -> Result<()> {
    let (Some(system), "aarch64") = (&info.system, info.target_name.as_str()) else {
        bail!("it is for qemu-system-aarch64 only");
    };
    let mut task = None;
    for arg in &args.raw {
        task = match arg.split_once('=') {
            Some(("verdict", file)) if !file.is_empty() => Some(Task::Verdict(file.into())),
            Some(("counts", file)) if !file.is_empty() => Some(Task::Counts(file.into())),
            _ => bail!("knows no argument {arg}, only verdict=FILE or counts=FILE"),
        };
    }
    let installed = Installed {
        task: task.context(
            "needs verdict=FILE or counts=FILE, where to write what it found or counted",
        )?,
        pes: usize::try_from(system.max_vcpus)?,
        instructions: Counter::new(),
        guests: Counter::new(),
    };
    if INSTALLED.set(installed).is_err() {
        bail!("may be loaded only once");
    }
    // SAFETY: The callbacks have the types that QEMU wants, and stay loaded as long as QEMU runs.
    unsafe {
        sys::qemu_plugin_register_vcpu_tb_trans_cb(id, Some(on_translate));
        sys::qemu_plugin_register_atexit_cb(id, Some(on_exit), std::ptr::null_mut());
    }
    Ok(())
}

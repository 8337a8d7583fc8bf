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
//! threads meet in the lock around the model, and find there what the machine's own ordering lets
//! them: a callback comes before what follows it in its CPU's program.

use crate::{ram::Ram, registers::Registers};
use anyhow::{Context, Result, bail};
use coherence::{
    At, Dirty, Executed, Oracle, Writers,
    insn::{Kind, Op},
    memory::{LINE, PAGE, page_of},
    verdict::Finding,
    view::View,
    walk,
};
use qemu_plugin::{
    PluginId,
    install::{Args, Info},
    plugin::{HasCallbacks, PLUGIN, Plugin, Register},
    sys::{
        self, qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS, qemu_plugin_insn, qemu_plugin_mem_rw::*,
        qemu_plugin_meminfo_t, qemu_plugin_op::*, qemu_plugin_tb, qemu_plugin_u64,
        qemu_plugin_vcpu_udata_cb_t,
    },
};
use std::{
    collections::HashMap,
    ffi::{c_uint, c_void},
    hash::Hash,
    ops::Range,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
};

/// Longest name of a section, in bytes.
const NAME: u64 = 128;

/// What QEMU told at installation.
struct Installed {
    verdict: PathBuf,
    pes: usize,
    instructions: Counter,
}

/// A count for each PE, which QEMU keeps by itself.
struct Counter(qemu_plugin_u64);

// SAFETY: The pointer in it is QEMU's handle, which any thread may use, and is never freed.
unsafe impl Send for Counter {}
// SAFETY: As above.
unsafe impl Sync for Counter {}

impl Counter {
    fn new() -> Self {
        Self(qemu_plugin_u64 {
            // SAFETY: May be called at any time.
            score: unsafe { sys::qemu_plugin_scoreboard_new(size_of::<u64>()) },
            offset: 0,
        })
    }

    /// Of all PEs.
    fn sum(&self) -> u64 {
        // SAFETY: `new` made it.
        unsafe { sys::qemu_plugin_u64_sum(self.0) }
    }
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();
static MACHINE: OnceLock<Machine> = OnceLock::new();
/// Whether the run was given up.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The machine, from its first instruction on.
struct Machine {
    registers: Registers,
    ram: Ram,
    oracle: Mutex<Oracle>,
    /// What of it can be asked and told without the lock.
    generation: Arc<AtomicU64>,
    dirty: Arc<Dirty>,
    writers: Arc<Writers>,
    /// Bytes that `dc zva` writes.
    block: u64,
    pes: Vec<Pe>,
    fetches: Interned<(Option<u64>, u32), Fetch>,
    sites: Interned<(u64, u32), SiteOf>,
}

/// What only its own thread touches of a PE, apart from the others' cache lines.
#[repr(align(64))]
#[derive(Default)]
struct Pe {
    /// Whose EL1 and EL0 are, as a `View`. It is looked up when it is asked for.
    view: AtomicU8,
    /// Instructions of guests.
    guest_instructions: AtomicU64,
}

/// Values that are kept for good, one for each key.
type Interned<K, V> = Mutex<HashMap<K, &'static V>>;

fn intern<K: Eq + Hash, V>(all: &Interned<K, V>, key: K, new: impl FnOnce() -> V) -> &'static V {
    lock(all)
        .entry(key)
        .or_insert_with(|| Box::leak(Box::new(new())))
}

/// A panic while it was held has ended QEMU, or will.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One instruction of a guest, in one version.
struct Fetch {
    /// Where it lies in RAM, if it does.
    addr: Option<u64>,
    word: u32,
    /// Where it was last seen.
    pc: AtomicU64,
    /// A generation of the caches, and below it a bit for each PE on which it was in order then.
    verified: AtomicU64,
}

/// How many PEs have a bit in `Fetch::verified`. Those above are looked up each time.
const VERIFIED: u32 = 16;

impl Fetch {
    fn is_verified(&self, pe: usize, generation: u64) -> bool {
        let verified = self.verified.load(Relaxed);
        pe < VERIFIED as usize && verified >> VERIFIED == generation && (verified >> pe) & 1 != 0
    }

    fn set_verified(&self, pe: usize, generation: u64) {
        if pe < VERIFIED as usize {
            let before = self.verified.load(Relaxed);
            let others = if before >> VERIFIED == generation {
                before
            } else {
                generation << VERIFIED
            };
            self.verified.store(others | (1 << pe), Relaxed);
        }
    }
}

/// One instruction that the oracle acts on.
struct SiteOf {
    pc: u64,
    op: Op,
}

impl Machine {
    /// On a PE's thread. `host` is where QEMU has the instruction at `vaddr`.
    fn new(host: u64, vaddr: u64, pes: usize) -> Result<Self> {
        let registers = Registers::new()?;
        let ram = Ram::around(host, vaddr)?;
        let features = registers.features();
        let oracle = Oracle::new(pes, ram.range(), features);
        Ok(Self {
            registers,
            ram,
            generation: oracle.generation(),
            dirty: oracle.dirty(),
            writers: oracle.writers(),
            block: features.dcache_line,
            oracle: Mutex::new(oracle),
            pes: (0..pes).map(|_| Pe::default()).collect(),
            fetches: Interned::default(),
            sites: Interned::default(),
        })
    }

    /// How `pe` sees memory at EL1 and EL0.
    fn view(&self, pe: usize) -> View {
        let known = View::from_bits(self.pes[pe].view.load(Relaxed));
        if known != View::UNKNOWN {
            return known;
        }
        let (hcr_el2, sctlr_el1) = (self.registers.hcr_el2(), self.registers.sctlr_el1());
        let view = lock(&self.oracle).view(hcr_el2, sctlr_el1);
        self.pes[pe].view.store(view.bits(), Relaxed);
        view
    }

    /// What all PEs have executed so far.
    fn executed(&self) -> Executed {
        let guest = |pe: &Pe| pe.guest_instructions.load(Relaxed);
        Executed {
            all: INSTALLED.get().map_or(0, |it| it.instructions.sum()),
            guests: self.pes.iter().map(guest).sum(),
        }
    }

    /// A guest is about to execute an instruction.
    fn fetch(&self, pe: usize, fetch: &Fetch) {
        let view = self.view(pe);
        if !view.is_guest() {
            return;
        }
        self.pes[pe].guest_instructions.fetch_add(1, Relaxed);
        let Some(addr) = fetch.addr else {
            return;
        };
        let bypasses = view.fetch_bypasses() && self.dirty.is_suspect(addr);
        if !bypasses && fetch.is_verified(pe, self.generation.load(Acquire)) {
            return;
        }
        let pc = fetch.pc.load(Relaxed);
        let mut oracle = lock(&self.oracle);
        oracle.fetch(At { pe, pc }, view, addr, fetch.word, &self.ram);
        // The generation changes only under the lock.
        fetch.set_verified(pe, self.generation.load(Acquire));
    }

    /// A PE has accessed memory at exception level `el`.
    fn access(&self, pe: usize, el: usize, access: &Access) {
        let view = if el < 2 { self.view(pe) } else { View::HOST };
        if !access.is_store && !view.data_bypasses() {
            return;
        }
        let Some(addr) = access.physical() else {
            return;
        };
        self.touch(pe, view, access, addr..addr + access.len);
        // What reaches into another page has another place there.
        let over = (addr % PAGE + access.len).saturating_sub(PAGE);
        if over > 0 {
            let next = page_of(access.vaddr).wrapping_add(PAGE);
            if let Some(addr) = self.translate(next) {
                self.touch(pe, view, access, addr..addr + over);
            }
        }
    }

    /// The lines at the physical addresses `addrs` are accessed.
    fn touch(&self, pe: usize, view: View, access: &Access, addrs: Range<u64>) {
        let end = addrs.end.min(page_of(addrs.start) + PAGE);
        if access.is_store {
            self.writers.wrote(addrs.start..end, view.is_guest());
        }
        for line in ((addrs.start & !(LINE - 1))..end).step_by(LINE as usize) {
            if !view.data_bypasses() {
                self.dirty.store(line, view.is_guest());
            } else if self.dirty.is_suspect(line) {
                let finding = if access.is_store {
                    Finding::DirtyWrite
                } else {
                    Finding::DirtyRead
                };
                let pc = access.vaddr;
                lock(&self.oracle).bypass(At { pe, pc }, line, finding);
            }
        }
    }

    /// A PE is about to execute one of the instructions that matter.
    fn execute(&self, pe: usize, site: &SiteOf) {
        let at = At { pe, pc: site.pc };
        match site.op {
            Op::IcIalluis => lock(&self.oracle).ic_ialluis(at, &self.ram),
            Op::IcIallu => {
                let regime = self.registers.regime();
                let broadcast = regime.is_guest() && regime.hcr_el2 & walk::HCR_FB != 0;
                lock(&self.oracle).ic_iallu(at, broadcast, &self.ram);
            }
            Op::IcIvau { rt } => {
                let addr = self.translate(self.registers.x(rt));
                lock(&self.oracle).ic_ivau(at, addr, &self.ram);
            }
            Op::Dsb(domain) => lock(&self.oracle).dsb(pe, domain, &self.ram),
            Op::Tlbi => lock(&self.oracle).count(at, Kind::Tlbi),
            Op::Dc { rt, point } => {
                let addr = self.translate(self.registers.x(rt));
                lock(&self.oracle).dc(at, addr, point);
            }
            Op::DcZva { rt } => self.zero(pe, self.registers.x(rt)),
            Op::Context => self.pes[pe].view.store(View::UNKNOWN.bits(), Relaxed),
            Op::Section => {
                lock(&self.oracle).section(self.registers.x(0), self.executed());
            }
            Op::Name => {
                let (len, addr) = (self.registers.x(0), self.registers.x(1));
                let name = self.text(addr, len.min(NAME));
                lock(&self.oracle).name(name);
            }
        }
    }

    /// `dc zva`, which QEMU does not show as a store. Blocks are as large as lines on all CPUs that
    /// anything is found on (DCZID_EL0).
    fn zero(&self, pe: usize, vaddr: u64) {
        let regime = self.registers.regime();
        let view = if regime.is_guest() {
            self.view(pe)
        } else {
            View::HOST
        };
        let vaddr = vaddr & !(self.block - 1);
        if let Some(addr) = regime.translate(vaddr, &self.ram) {
            let access = Access {
                is_store: true,
                vaddr,
                len: self.block,
                info: 0,
            };
            self.touch(pe, view, &access, addr..addr + self.block);
        }
    }

    fn translate(&self, addr: u64) -> Option<u64> {
        self.registers.regime().translate(addr, &self.ram)
    }

    /// Text in the memory of who runs now; as much of it as is there.
    fn text(&self, addr: u64, len: u64) -> String {
        let mut bytes = Vec::new();
        let mut next = addr;
        let end = addr.saturating_add(len);
        while next < end {
            let stop = end.min(page_of(next).saturating_add(PAGE));
            let mut part = vec![0; (stop - next) as usize];
            match self.translate(next) {
                Some(addr) if self.ram.copy(addr, &mut part) => bytes.append(&mut part),
                _ => break,
            }
            next = stop;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks QEMU for callbacks on the code in `tb`, which the PE of this thread is to run next.
    fn translated(&self, tb: *mut qemu_plugin_tb, counter: &Counter) {
        let el = self.registers.el();
        let guest = el < 2 && walk::is_guest(self.registers.hcr_el2());
        for insn in instructions(tb) {
            let Some(word) = insn.word() else {
                continue;
            };
            // The host's loads go through the caches, and find everything.
            let accesses = if guest {
                QEMU_PLUGIN_MEM_RW
            } else {
                QEMU_PLUGIN_MEM_W
            };
            insn.count(counter);
            insn.call_on_access(accesses, el);
            if guest {
                let addr = self.ram.physical(insn.host());
                let fetch = intern(&self.fetches, (addr, word), || Fetch {
                    addr,
                    word,
                    pc: AtomicU64::new(0),
                    verified: AtomicU64::new(u64::MAX << VERIFIED),
                });
                fetch.pc.store(insn.vaddr(), Relaxed);
                insn.call(Some(on_fetch), fetch);
            }
            if let Some(op) = Op::decode(word) {
                if guest && matches!(op, Op::Section | Op::Name) {
                    continue;
                }
                let pc = insn.vaddr();
                let site = intern(&self.sites, (pc, word), || SiteOf { pc, op });
                insn.call(Some(on_execute), site);
            }
        }
    }
}

/// An instruction under translation.
struct Insn(*mut qemu_plugin_insn);

fn instructions(tb: *mut qemu_plugin_tb) -> impl Iterator<Item = Insn> {
    // SAFETY: QEMU's own, and this is its translation callback.
    let len = unsafe { sys::qemu_plugin_tb_n_insns(tb) };
    // SAFETY: As above, and it has this many.
    (0..len).map(move |index| Insn(unsafe { sys::qemu_plugin_tb_get_insn(tb, index) }))
}

impl Insn {
    /// The instruction, if it is A64's.
    fn word(&self) -> Option<u32> {
        let mut bytes = [0u8; 4];
        // SAFETY: QEMU writes no more than it is told there is room for.
        let len =
            unsafe { sys::qemu_plugin_insn_data(self.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        (len == bytes.len()).then(|| u32::from_le_bytes(bytes))
    }

    fn vaddr(&self) -> u64 {
        // SAFETY: QEMU's own, in its translation callback.
        unsafe { sys::qemu_plugin_insn_vaddr(self.0) }
    }

    /// Where QEMU has it; 0 if not in RAM.
    fn host(&self) -> u64 {
        // SAFETY: As above.
        unsafe { sys::qemu_plugin_insn_haddr(self.0) as u64 }
    }

    /// Has `counter` go up before it is executed.
    fn count(&self, counter: &Counter) {
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

    /// Has `on_access` called after each of its accesses to memory, with the exception level.
    fn call_on_access(&self, accesses: qemu_plugin::MemRW, el: u8) {
        // SAFETY: As above; `on_access` takes the level for what it is.
        unsafe {
            sys::qemu_plugin_register_vcpu_mem_cb(
                self.0,
                Some(on_access),
                QEMU_PLUGIN_CB_R_REGS,
                accesses,
                usize::from(el) as *mut c_void,
            );
        }
    }

    /// Has `callback` called with `data` before it is executed.
    fn call<T>(&self, callback: qemu_plugin_vcpu_udata_cb_t, data: &'static T) {
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
struct Access {
    is_store: bool,
    vaddr: u64,
    len: u64,
    info: qemu_plugin_meminfo_t,
}

impl Access {
    /// Its physical address, if that is RAM. Only in the callback that `info` is from.
    fn physical(&self) -> Option<u64> {
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
    // SAFETY: Registered with a `SiteOf` that is kept for good.
    let site = unsafe { &*data.cast::<SiteOf>() };
    if let Some(machine) = MACHINE.get() {
        machine.execute(pe as usize, site);
    }
}

unsafe extern "C" fn on_translate(_: PluginId, tb: *mut qemu_plugin_tb) {
    let Some(installed) = INSTALLED.get() else {
        return;
    };
    let machine = MACHINE.get_or_init(|| {
        // The machine has just been reset: its MMU is off, so that this address is a physical one.
        let first = instructions(tb).next().context("an empty block of code");
        first
            .and_then(|insn| Machine::new(insn.host(), insn.vaddr(), installed.pes))
            .unwrap_or_else(|error| refuse(&error))
    });
    machine.translated(tb, &installed.instructions);
}

unsafe extern "C" fn on_exit(_: PluginId, _: *mut c_void) {
    if REFUSED.load(Relaxed) {
        return;
    }
    if let Err(error) = write_verdict() {
        refuse(&error);
    }
}

fn write_verdict() -> Result<()> {
    let installed = INSTALLED.get().context("it was never installed")?;
    let machine = MACHINE.get().context("the machine ran no code")?;
    let verdict = lock(&machine.oracle).verdict(machine.executed());
    verdict.write(&installed.verdict)
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
    let mut verdict = None;
    for arg in &args.raw {
        match arg.split_once('=') {
            Some(("verdict", path)) if !path.is_empty() => verdict = Some(PathBuf::from(path)),
            _ => bail!("knows no argument {arg}, only verdict=FILE"),
        }
    }
    let installed = Installed {
        verdict: verdict.context("needs verdict=FILE, where to write what it found")?,
        pes: usize::try_from(system.max_vcpus)?,
        instructions: Counter::new(),
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

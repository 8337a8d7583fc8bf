// SPDX-License-Identifier: GPL-2.0
//! A VM without devices: vCPUs, some RAM, and a hole whose stores come back to us. Every ioctl that
//! the module may count is told to the model.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use crate::guest::{self, Routine};
use anyhow::{Context, Result, anyhow, bail, ensure};
use contract::Model;
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_MEM_GUEST_MEMFD, KVM_MP_STATE_STOPPED,
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64, KVM_SYSTEM_EVENT_RESET,
    kvm_create_guest_memfd, kvm_mp_state, kvm_userspace_memory_region,
    kvm_userspace_memory_region2, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A lock that outlives a panic of its holder: the test has failed then, the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

/// How a KVM_RUN ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest stored this.
    Value(u32),
    /// The guest asked for a reset.
    Reset,
    /// KVM_RUN failed.
    Error(i32),
}

pub struct Vm {
    // Dropped in this order: RAM must outlive those who use it.
    pub vcpus: Vec<Vcpu>,
    /// None once it is closed.
    fd: Option<VmFd>,
    code: Code,
    /// Further memory, and where the VMM maps it.
    more: Vec<Place>,
    /// Further RAM, of any size.
    extra: Option<Arc<Extra>>,
    model: Arc<Mutex<Model>>,
    name: Arc<str>,
}

/// The code that the tests rewrite: a function that returns a value.
pub struct Code {
    memory: Arc<Memory>,
    value: u16,
}

pub struct Vcpu {
    fd: VcpuFd,
    index: usize,
    target: kvm_vcpu_init,
    memory: Arc<Memory>,
    model: Arc<Mutex<Model>>,
    vm: Arc<str>,
}

impl Vm {
    /// A VM whose vCPUs have been initialised for the first time and would all report.
    pub fn new(kvm: &Kvm, model: &Arc<Mutex<Model>>, vcpus: usize) -> Result<Self> {
        // KVM walks all of the guest's physical address space to destroy it: keep that small.
        let fd = kvm.create_vm_with_ipa_size(32).context("KVM_CREATE_VM")?;
        let memory = Arc::new(Memory::new(vcpus)?);
        let region = kvm_userspace_memory_region {
            guest_phys_addr: guest::RAM,
            memory_size: guest::ram_size(vcpus) as u64,
            userspace_addr: memory.host_address(guest::RAM)? as u64,
            ..Default::default()
        };
        // SAFETY: The memory lives as long as the VM, see the order of its fields.
        unsafe { fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;

        let mut target = kvm_vcpu_init::default();
        fd.get_preferred_target(&mut target)
            .context("KVM_ARM_PREFERRED_TARGET")?;
        target.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;

        // As KVM names it in debugfs: the thread that made the VM, and the descriptor.
        // SAFETY: Takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() };
        let native = format!("{thread}-{}", fd.as_raw_fd());
        let name: Arc<str> = {
            let mut model = lock(model);
            if model.shown(&native).is_none() {
                model.create(&native, vcpus);
                native.into()
            } else {
                let name = format!("{native} again");
                model.create(&name, vcpus);
                model.nameless(&name, thread);
                name.into()
            }
        };
        let mut vm = Self {
            vcpus: Vec::new(),
            fd: Some(fd),
            code: Code { memory, value: 0 },
            more: Vec::new(),
            extra: None,
            model: model.clone(),
            name,
        };
        for index in 0..vcpus {
            let fd = vm.fd()?.create_vcpu(index as u64);
            let fd = fd.context("KVM_CREATE_VCPU")?;
            vm.vcpus.push(Vcpu {
                fd,
                index,
                target,
                memory: vm.code.memory.clone(),
                model: vm.model.clone(),
                vm: vm.name.clone(),
            });
        }
        vm.code.memory.write(guest::RAM, &guest::routines())?;
        vm.rewrite()?;
        for vcpu in &mut vm.vcpus {
            vcpu.reset(Routine::Report)?;
        }
        Ok(vm)
    }

    /// What the model knows it by. Where nobody has the name already, the directory in `vms`, too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory in `vms`, once it is there.
    pub fn shown(&self) -> String {
        let model = lock(&self.model);
        model.shown(&self.name).unwrap_or(&self.name).to_owned()
    }

    fn fd(&self) -> Result<&VmFd> {
        self.fd.as_ref().context("the VM's descriptor is closed")
    }

    /// Closes the VM's descriptor. Its vCPUs keep the VM, and the number is free for another.
    pub fn close(&mut self) {
        self.fd = None;
    }

    /// Gives the guest more memory than its RAM: one page of the largest size, of guest_memfd if
    /// `guest_memfd`. Where it is to be `mapped` the VMM has it in its own address space, too; else
    /// there is a hole.
    pub fn add_memory(&mut self, guest_memfd: bool, mapped: bool) -> Result<()> {
        let number = 1 + self.more.len();
        let mut place = Place::new(number);
        let fd = self.fd()?;
        let file = guest_memfd.then(|| {
            fd.create_guest_memfd(kvm_create_guest_memfd {
                size: guest::HOST_PAGE,
                flags: GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
                ..Default::default()
            })
        });
        let file = file.transpose().context("KVM_CREATE_GUEST_MEMFD")?;
        // SAFETY: Just made, and nobody else's.
        let file = file.map(|file| unsafe { OwnedFd::from_raw_fd(file) });
        if mapped {
            place.map(file.as_ref())?;
        }
        let region = kvm_userspace_memory_region2 {
            slot: number as u32,
            flags: if guest_memfd { KVM_MEM_GUEST_MEMFD } else { 0 },
            guest_phys_addr: guest::MORE + guest::HOST_PAGE * number as u64,
            memory_size: guest::HOST_PAGE,
            userspace_addr: place.address as u64,
            guest_memfd: file.as_ref().map_or(0, |file| file.as_raw_fd() as u32),
            ..Default::default()
        };
        // SAFETY: What is mapped there goes after the VM.
        unsafe { fd.set_user_memory_region2(region) }.context("KVM_SET_USER_MEMORY_REGION2")?;
        if guest_memfd || !mapped {
            lock(&self.model).out_of_reach(&self.name);
        }
        self.more.push(place);
        Ok(())
    }

    /// Gives the guest further RAM, once, which the VMM maps in pages of that kind.
    pub fn add_ram(&mut self, size: usize, pages: Pages) -> Result<Arc<Extra>> {
        ensure!(self.extra.is_none(), "the VM has further RAM already");
        let extra = Arc::new(Extra::new(size, pages)?);
        let region = kvm_userspace_memory_region {
            slot: EXTRA_SLOT,
            guest_phys_addr: guest::EXTRA,
            memory_size: size as u64,
            userspace_addr: extra.address as u64,
            ..Default::default()
        };
        // SAFETY: The VM keeps what is mapped there, and it goes after the VM.
        unsafe { self.fd()?.set_user_memory_region(region) }
            .context("KVM_SET_USER_MEMORY_REGION")?;
        self.extra = Some(extra.clone());
        Ok(extra)
    }

    /// A vCPU that is never initialised: KVM must refuse to run it.
    pub fn run_uninitialised(&self) -> Result<()> {
        let number = self.vcpus.len() as u64;
        let mut fd = self.fd()?.create_vcpu(number).context("KVM_CREATE_VCPU")?;
        match fd.run().map(|exit| format!("{exit:?}")) {
            Err(error) if error.errno() == libc::ENOEXEC => Ok(()),
            other => bail!("a vCPU that was never initialised: want ENOEXEC, got {other:?}"),
        }
    }

    /// Gives the guest other code to run.
    pub fn rewrite(&mut self) -> Result<()> {
        self.code.rewrite()
    }

    /// What the guest's code returns now.
    pub fn value(&self) -> u16 {
        self.code.value()
    }

    /// Gives each vCPU another word to read, as a VMM loads an image: through the cache, with
    /// nothing cleaned.
    pub fn rewrite_data(&mut self) -> Result<()> {
        let word = u32::from(self.code.value).to_le_bytes();
        let memory = &self.code.memory.0;
        (0..self.vcpus.len())
            .try_for_each(|vcpu| memory.write_slice(&word, GuestAddress(guest::data(vcpu))))
            .context("write to guest RAM")
    }

    /// Re-initialises all vCPUs in turn.
    pub fn reset(&mut self) -> Result<()> {
        self.vcpus
            .iter_mut()
            .try_for_each(|vcpu| vcpu.reset(Routine::Report))
    }

    /// Re-initialises all vCPUs at the same time.
    pub fn reset_parallel(&mut self) -> Result<()> {
        self.parallel(|vcpu| vcpu.reset(Routine::Report))
    }

    /// Lets all vCPUs run at the same time and report: each must see the code as it is now.
    pub fn report(&mut self) -> Result<()> {
        let value = self.code.value;
        self.parallel(|vcpu| vcpu.report(value))
    }

    /// The same for one of them.
    pub fn report_one(&mut self, vcpu: usize) -> Result<()> {
        self.vcpus[vcpu].report(self.code.value)
    }

    /// A thread for each vCPU, all let go at once.
    fn parallel(&mut self, work: impl Fn(&mut Vcpu) -> Result<()> + Sync) -> Result<()> {
        self.parallel_if(|_| true, work)
    }

    /// The same for those of them that are `wanted`, by index.
    pub fn parallel_if(
        &mut self,
        wanted: impl Fn(usize) -> bool,
        work: impl Fn(&mut Vcpu) -> Result<()> + Sync,
    ) -> Result<()> {
        let vcpus = self.vcpus.iter_mut();
        let vcpus: Vec<_> = vcpus.filter(|vcpu| wanted(vcpu.index)).collect();
        let start = Barrier::new(vcpus.len());
        let (start, work) = (&start, &work);
        thread::scope(|scope| {
            let spawn = |vcpu| {
                scope.spawn(move || {
                    start.wait();
                    work(vcpu)
                })
            };
            let threads: Vec<_> = vcpus.into_iter().map(spawn).collect();
            threads.into_iter().try_for_each(join)
        })
    }

    /// Does `work` with the other vCPUs and the code while vCPU 0 spins in KVM_RUN.
    pub fn while_running<T>(
        &mut self,
        work: impl FnOnce(&mut [Vcpu], &mut Code) -> Result<T>,
    ) -> Result<T> {
        let code = &mut self.code;
        let (spinner, others) = self.vcpus.split_first_mut().context("a VM without vCPUs")?;
        let (memory, flag) = (spinner.memory.clone(), guest::data(spinner.index));
        let (exit, result) = spinner.spin(|_| {
            let result = work(others, code);
            memory.write(flag, &1u32.to_le_bytes())?;
            Ok(result)
        })?;
        match exit {
            Exit::Value(_) => result,
            exit => bail!("vCPU 0 should have spun, but left with {exit:?}"),
        }
    }
}

impl Code {
    /// The function returns another value from now on.
    pub fn rewrite(&mut self) -> Result<()> {
        self.value = self.value.wrapping_add(1);
        let function = guest::function(self.value);
        self.memory.write(guest::FUNCTION, &function)
    }

    /// What the function returns now.
    pub fn value(&self) -> u16 {
        self.value
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        lock(&self.model).destroy(&self.name);
    }
}

impl Vcpu {
    /// KVM_ARM_VCPU_INIT, and the routine to begin with.
    pub fn reset(&mut self, routine: Routine) -> Result<()> {
        self.init(&self.target.clone())
            .with_context(|| format!("KVM_ARM_VCPU_INIT of vCPU {}", self.index))?;
        self.start(routine, &[])
    }

    /// The same, to wait for a CPU_ON.
    pub fn reset_off(&mut self) -> Result<()> {
        let mut target = self.target;
        target.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        Ok(self.init(&target)?)
    }

    fn init(&mut self, target: &kvm_vcpu_init) -> Result<(), kvm_ioctls::Error> {
        self.fd.vcpu_init(target)?;
        lock(&self.model).init(&self.vm, self.index);
        Ok(())
    }

    /// Re-inits that KVM must refuse: a CPU it does not know, and a change of features.
    pub fn init_wrongly(&mut self) -> Result<()> {
        let mut unknown = self.target;
        unknown.target = u32::MAX;
        let mut changed = self.target;
        changed.features[0] &= !(1 << KVM_ARM_VCPU_PSCI_0_2);
        for target in [unknown, changed] {
            match self.init(&target) {
                Err(error) if error.errno() == libc::EINVAL => {}
                other => bail!("a wrong KVM_ARM_VCPU_INIT: want EINVAL, got {other:?}"),
            }
        }
        Ok(())
    }

    /// Sets the program counter to the routine, and x0 and up to the arguments.
    pub fn start(&mut self, routine: Routine, arguments: &[u64]) -> Result<()> {
        for (number, argument) in arguments.iter().enumerate() {
            self.fd
                .set_one_reg(register(number), &argument.to_le_bytes())?;
        }
        self.fd
            .set_one_reg(register(PC), &routine.address().to_le_bytes())?;
        Ok(())
    }

    /// Where the vCPU would go on.
    pub fn program_counter(&self) -> Result<u64> {
        let mut value = [0; 8];
        self.fd.get_one_reg(register(PC), &mut value)?;
        Ok(u64::from_le_bytes(value))
    }

    pub fn run(&mut self) -> Result<Exit> {
        lock(&self.model).enter(&self.vm, self.index);
        let exit = match self.fd.run() {
            Ok(VcpuExit::MmioWrite(guest::MMIO, data)) => data
                .try_into()
                .map(|word| Exit::Value(u32::from_le_bytes(word)))
                .context("a store that is not a word"),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Ok(Exit::Reset),
            Ok(exit) => Err(anyhow!("vCPU {}: unexpected exit {exit:?}", self.index)),
            Err(error) => Ok(Exit::Error(error.errno())),
        };
        lock(&self.model).leave(&self.vm, self.index);
        exit
    }

    /// KVM_RUN with immediate_exit.
    pub fn run_immediate(&mut self) -> Result<()> {
        lock(&self.model).immediate(&self.vm, self.index);
        self.fd.set_kvm_immediate_exit(1);
        let exit = self.fd.run().map(|exit| format!("{exit:?}"));
        self.fd.set_kvm_immediate_exit(0);
        match exit {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            other => bail!("immediate_exit: want EINTR, got {other:?}"),
        }
    }

    /// Runs until the guest stores a value, which must be this one.
    pub fn report(&mut self, value: u16) -> Result<()> {
        let exit = self.run()?;
        ensure!(
            exit == Exit::Value(value.into()),
            "vCPU {}: want {value}, got {exit:?}: the guest ran other code than was written",
            self.index
        );
        Ok(())
    }

    /// Runs until the guest stores something.
    pub fn value(&mut self) -> Result<u32> {
        match self.run()? {
            Exit::Value(value) => Ok(value),
            exit => bail!("vCPU {}: want a value, got {exit:?}", self.index),
        }
    }

    /// Reads so many words, one in each `step` bytes of further RAM, and writes them back. Their sum.
    pub fn sweep(&mut self, step: usize, count: usize) -> Result<u32> {
        self.start(Routine::Sweep, &[guest::EXTRA, step as u64, count as u64])?;
        self.value()
    }

    /// Runs no code but the fixed routines, and leaves at once.
    pub fn touch(&mut self) -> Result<()> {
        let page = guest::data(self.index);
        self.memory.write(page, &1u64.to_le_bytes())?;
        self.start(Routine::Spin, &[page])?;
        self.value().map(|_| ())
    }

    /// KVM_RUN with a signal pending that only KVM_RUN lets through: it ends before the guest is
    /// entered.
    pub fn run_with_signal_pending(&mut self) -> Result<()> {
        set_kick_handler();
        let mask = SignalMask {
            len: 8,
            // All are let through.
            set: [0; 8],
        };
        // SAFETY: The kernel only reads the structure.
        let masked = unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_SET_SIGNAL_MASK as _, &mask) };
        ensure!(masked == 0, "KVM_SET_SIGNAL_MASK");
        let blocked = Blocked::new()?;
        // SAFETY: A signal that is handled, to this very thread.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
        let exit = self.run()?;
        drop(blocked);
        ensure!(
            exit == Exit::Error(libc::EINTR),
            "a signal pending: want EINTR, got {exit:?}"
        );
        Ok(())
    }

    /// KVM_RUN of a vCPU that is powered off: it waits, and a signal ends that.
    pub fn run_stopped(&mut self) -> Result<()> {
        let stopped = kvm_mp_state {
            mp_state: KVM_MP_STATE_STOPPED,
        };
        self.fd.set_mp_state(stopped).context("KVM_SET_MP_STATE")?;
        let exit = thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            let runner = scope.spawn(move || {
                // SAFETY: Takes nothing and cannot fail.
                send.send(unsafe { libc::pthread_self() })?;
                self.run()
            });
            let thread = receive.recv()?;
            while !runner.is_finished() {
                // Until one meets it in KVM_RUN.
                kick(thread);
                thread::sleep(Duration::from_millis(5));
            }
            join(runner)
        })?;
        ensure!(
            exit == Exit::Error(libc::EINTR),
            "powered off: want EINTR, got {exit:?}"
        );
        Ok(())
    }

    /// Its number in the VM.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Lets the vCPU spin, and a signal end its KVM_RUN.
    pub fn interrupt(&mut self) -> Result<()> {
        let (exit, ()) = self.spin(|thread| {
            kick(thread);
            Ok(())
        })?;
        ensure!(
            exit == Exit::Error(libc::EINTR),
            "a signal: want EINTR, got {exit:?}"
        );
        Ok(())
    }

    /// Goes to spin in KVM_RUN, in a thread of its own, until [`Spinner::stop`].
    pub fn into_spinner(mut self) -> Result<Spinner> {
        let page = guest::data(self.index);
        let memory = self.memory.clone();
        memory.write(page, &[0; 8])?;
        self.start(Routine::Spin, &[page])?;
        let thread = thread::spawn(move || {
            let exit = self.run();
            (self, exit)
        });
        while memory.word(page + guest::HEARTBEAT)? == 0 && !thread.is_finished() {
            thread::yield_now();
        }
        Ok(Spinner(Some(thread)))
    }

    /// Spins in a thread of its own. `work` is told the thread, and has to end its KVM_RUN.
    fn spin<T>(&mut self, work: impl FnOnce(libc::pthread_t) -> Result<T>) -> Result<(Exit, T)> {
        let page = guest::data(self.index);
        let memory = self.memory.clone();
        memory.write(page, &[0; 8])?;
        self.start(Routine::Spin, &[page])?;
        thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            let runner = scope.spawn(move || {
                // SAFETY: Takes nothing and cannot fail.
                send.send(unsafe { libc::pthread_self() })?;
                self.run()
            });
            let thread = receive.recv()?;
            while memory.word(page + guest::HEARTBEAT)? == 0 && !runner.is_finished() {
                thread::yield_now();
            }
            let result = work(thread)?;
            Ok((join(runner)?, result))
        })
    }
}

/// A vCPU that spins in KVM_RUN.
pub struct Spinner(Option<thread::JoinHandle<(Vcpu, Result<Exit>)>>);

impl Spinner {
    /// A signal ends its KVM_RUN.
    pub fn stop(mut self) -> Result<Vcpu> {
        match self.kick_and_join() {
            Some(Ok((vcpu, Ok(Exit::Error(libc::EINTR))))) => Ok(vcpu),
            Some(Ok((vcpu, exit))) => bail!("vCPU {} should have spun: {exit:?}", vcpu.index),
            _ => bail!("the thread of a vCPU that spins panicked"),
        }
    }

    fn kick_and_join(&mut self) -> Option<thread::Result<(Vcpu, Result<Exit>)>> {
        let thread = self.0.take()?;
        kick(thread.as_pthread_t());
        Some(thread.join())
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.kick_and_join();
    }
}

/// `struct kvm_signal_mask` with what a 64-bit kernel wants behind it.
#[repr(C)]
struct SignalMask {
    len: u32,
    set: [u8; 8],
}

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`, which kvm-ioctls does not have.
const KVM_SET_SIGNAL_MASK: u32 = 0x4004_ae8b;

/// SIGUSR1 waits while this lives.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn new() -> Result<Self> {
        // SAFETY: All zeroes is a set.
        let (mut set, mut old): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: Both sets are ours.
        let blocked = unsafe {
            libc::sigaddset(&mut set, libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut old)
        };
        ensure!(blocked == 0, "pthread_sigmask");
        Ok(Self(old))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: The set is ours.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

fn set_kick_handler() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: The handler touches nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
}

/// A signal that does nothing but end a KVM_RUN.
fn kick(thread: libc::pthread_t) {
    set_kick_handler();
    // SAFETY: Callers have not joined the thread yet.
    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
}

/// The result of a thread; its panic becomes an error like any other.
pub fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

/// The program counter follows x0 to x30 and sp.
const PC: usize = 32;

/// The identifier of a core register: its offset in 32-bit words.
fn register(number: usize) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (number as u64 * 2)
}

// Of KVM's header, newer than kvm-bindings.
const GUEST_MEMFD_FLAG_MMAP: u64 = 1 << 0;
const GUEST_MEMFD_FLAG_INIT_SHARED: u64 = 1 << 1;

/// A page of the VMM's address space, far from where mmap puts anything by itself.
struct Place {
    address: usize,
    mapped: bool,
}

impl Place {
    fn new(number: usize) -> Self {
        Self {
            address: (64 << 30) + number * guest::HOST_PAGE as usize,
            mapped: false,
        }
    }

    fn map(&mut self, file: Option<&OwnedFd>) -> Result<()> {
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: With MAP_FIXED_NOREPLACE nothing that is there is touched.
        let address = unsafe {
            libc::mmap(
                self.address as *mut _,
                guest::HOST_PAGE as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_FIXED_NOREPLACE,
                fd,
                0,
            )
        };
        self.mapped = address as usize == self.address;
        ensure!(self.mapped, "mmap: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: Mapped here, and the VM that knew it is closed.
            unsafe { libc::munmap(self.address as *mut _, guest::HOST_PAGE as usize) };
        }
    }
}

/// The slot of further RAM, behind those of other memory.
const EXTRA_SLOT: u32 = 32;

/// How large huge pages are, if the host has any.
pub fn huge_page() -> Option<usize> {
    let file = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The size of the host's own pages.
pub fn page() -> usize {
    // SAFETY: Takes a number and cannot fail.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// The pages that memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The host's own.
    Small,
    /// Transparent huge pages, of that size, as far as the host has any.
    Huge(usize),
}

/// Further RAM, mapped by the VMM at an address that huge pages can begin at.
pub struct Extra {
    mapping: usize,
    mapped: usize,
    address: usize,
    size: usize,
    pages: Pages,
}

impl Extra {
    /// Memory of that size, in whole pages of the largest size of any host.
    pub fn new(size: usize, pages: Pages) -> Result<Self> {
        let align = match pages {
            Pages::Small => guest::HOST_PAGE as usize,
            Pages::Huge(size) => size,
        };
        let mapped = size + align;
        let mapping = map(0, mapped, 0)?;
        let extra = Self {
            mapping,
            mapped,
            address: mapping.next_multiple_of(align),
            size,
            pages,
        };
        extra.advise(0, mapped)?;
        Ok(extra)
    }

    fn advise(&self, offset: usize, size: usize) -> Result<()> {
        let advice = match self.pages {
            Pages::Small => libc::MADV_NOHUGEPAGE,
            Pages::Huge(_) => libc::MADV_HUGEPAGE,
        };
        let at = if size == self.mapped {
            self.mapping
        } else {
            self.address + offset
        };
        // SAFETY: The range is this mapping's.
        let status = unsafe { libc::madvise(at as *mut _, size, advice) };
        // A kernel without huge pages has none to avoid.
        let status = status == 0 || self.pages == Pages::Small;
        ensure!(status, "madvise: {}", io::Error::last_os_error());
        Ok(())
    }

    fn place(&self, offset: usize, size: usize) -> Result<usize> {
        ensure!(
            offset + size <= self.size,
            "{offset} is not in further RAM of {} bytes",
            self.size
        );
        Ok(self.address + offset)
    }

    /// Where the VMM maps it.
    pub fn host_address(&self) -> usize {
        self.address
    }

    /// Writes a word, and cleans it from the cache.
    pub fn write(&self, offset: usize, word: u32) -> Result<()> {
        let place = self.place(offset, size_of::<u32>())? as *mut u32;
        // SAFETY: Mapped, and of nobody but the guest; the line is mapped.
        unsafe {
            place.write_volatile(word);
            std::arch::asm!("dc civac, {}", "dsb sy", in(reg) place);
        }
        Ok(())
    }

    /// Makes a mapping of its own of each `step` bytes, so that unmaps have as many ranges to go through.
    pub fn split(&self, step: usize) -> Result<()> {
        for offset in (0..self.size).step_by(2 * step) {
            let place = self.place(offset, step)?;
            // SAFETY: What is left out of core dumps is of no consequence.
            let status = unsafe { libc::madvise(place as *mut _, step, libc::MADV_DONTDUMP) };
            ensure!(status == 0, "MADV_DONTDUMP: {}", io::Error::last_os_error());
        }
        Ok(())
    }

    /// Gives pages back to the host. What is read there from now on is 0.
    pub fn discard(&self, offset: usize, size: usize) -> Result<()> {
        let place = self.place(offset, size)?;
        // SAFETY: Nothing but guest RAM lies there.
        let status = unsafe { libc::madvise(place as *mut _, size, libc::MADV_DONTNEED) };
        ensure!(status == 0, "MADV_DONTNEED: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Maps other pages over those that are there.
    pub fn map_over(&self, offset: usize, size: usize) -> Result<()> {
        map(self.place(offset, size)?, size, libc::MAP_FIXED)?;
        self.advise(offset, size)
    }

    /// Moves pages there that were somewhere else, and hold `word`.
    pub fn move_over(&self, offset: usize, size: usize, word: u32) -> Result<()> {
        let place = self.place(offset, size)?;
        let other = map(0, size, 0)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: Just mapped; and nothing but guest RAM lies where it is moved.
        let moved = unsafe {
            (other as *mut u32).write_volatile(word);
            std::arch::asm!("dc civac, {}", "dsb sy", in(reg) other);
            libc::mremap(
                other as *mut _,
                size,
                size,
                flags,
                place as *mut libc::c_void,
            )
        };
        ensure!(
            moved as usize == place,
            "mremap: {}",
            io::Error::last_os_error()
        );
        self.advise(offset, size)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        // SAFETY: Mapped here, and the VM that knew it is closed.
        unsafe { libc::munmap(self.mapping as *mut _, self.mapped) };
    }
}

/// Anonymous memory, at `address` if `flags` say so. Where it is.
fn map(address: usize, size: usize, flags: libc::c_int) -> Result<usize> {
    // SAFETY: Only where callers know what is there do they give MAP_FIXED.
    let mapping = unsafe {
        libc::mmap(
            address as *mut _,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    ensure!(
        mapping != libc::MAP_FAILED,
        "mmap: {}",
        io::Error::last_os_error()
    );
    Ok(mapping as usize)
}

/// Guest RAM.
struct Memory(GuestMemoryMmap);

impl Memory {
    fn new(vcpus: usize) -> Result<Self> {
        let ranges = [(GuestAddress(guest::RAM), guest::ram_size(vcpus))];
        Ok(Self(GuestMemoryMmap::from_ranges(&ranges)?))
    }

    fn host_address(&self, address: u64) -> Result<*mut u8> {
        Ok(self.0.get_host_address(GuestAddress(address))?)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_slice(bytes, GuestAddress(address))?;
        // What the guest does with its MMU off goes past our cache, except with S2FWB. Code is left
        // as it is: to make that coherent is what is under test.
        if address >= guest::data(0) {
            self.clean(address)?;
        }
        Ok(())
    }

    fn word(&self, address: u64) -> Result<u32> {
        self.clean(address)?;
        Ok(self
            .0
            .load(GuestAddress(address), std::sync::atomic::Ordering::Acquire)?)
    }

    /// Cleans and invalidates a line of the data cache, so that host and guest see the same.
    fn clean(&self, address: u64) -> Result<()> {
        let line = self.host_address(address)?;
        // SAFETY: The line is mapped, and its content does not change.
        unsafe { std::arch::asm!("dc civac, {}", "dsb sy", in(reg) line) };
        Ok(())
    }
}

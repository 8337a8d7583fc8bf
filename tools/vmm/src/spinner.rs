// SPDX-License-Identifier: GPL-2.0
//! KVM_RUNs in threads of their own, and what ends them.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kvm_bindings::{KVM_MP_STATE_STOPPED, KVMIO, kvm_mp_state, kvm_signal_mask};
use rustix::io::Errno;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;
use vmm_sys_util::signal::{Killable, SIGRTMIN, block_signal, register_signal_handler};

use crate::guest::{self, Routine};
use crate::memory::Memory;
use crate::vcpu::{Exit, Vcpu};

/// A vCPU in its thread, and how its KVM_RUN ended.
type Run = (Vcpu, Result<Exit>);

/// A vCPU that spins in KVM_RUN, until it is stopped; at the latest when this is dropped.
pub struct Spinner {
    thread: Option<JoinHandle<Run>>,
    memory: Arc<Memory>,
    /// Its data page.
    page: u64,
}

impl Spinner {
    /// A signal ends its KVM_RUN.
    pub fn stop(mut self) -> Result<Vcpu> {
        self.kick()?;
        self.join(|exit| *exit == Exit::Error(Errno::INTR))
    }

    /// The guest itself ends its KVM_RUN, by a store.
    pub(crate) fn leave(mut self) -> Result<Vcpu> {
        self.memory.write(self.page, &1u32.to_le_bytes())?;
        self.join(|exit| matches!(exit, Exit::Value(_)))
    }

    fn kick(&self) -> Result<()> {
        self.thread.as_ref().map_or(Ok(()), kick)
    }

    fn join(&mut self, is_as_meant: impl Fn(&Exit) -> bool) -> Result<Vcpu> {
        let thread = self.thread.take().context("joined already")?;
        match join(thread)? {
            (vcpu, Ok(exit)) if is_as_meant(&exit) => Ok(vcpu),
            (vcpu, exit) => bail!("vCPU {} should have spun: {exit:?}", vcpu.index()),
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        // Nobody is left to be told what is wrong with it.
        let _ = self.kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Vcpu {
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
        Ok(Spinner {
            thread: Some(thread),
            memory,
            page,
        })
    }

    /// KVM_RUN with a signal pending that only KVM_RUN lets through: it ends before the guest is
    /// entered.
    pub(crate) fn run_with_signal_pending(mut self) -> Result<Self> {
        let mask = SignalMask {
            len: 8,
            // All are let through.
            set: [0; 8],
        };
        // SAFETY: The kernel only reads the structure.
        let masked = unsafe { ioctl_with_ref(&self.fd, KVM_SET_SIGNAL_MASK(), &mask) };
        ensure!(
            masked == 0,
            "KVM_SET_SIGNAL_MASK: {}",
            io::Error::last_os_error()
        );
        let (blocked, is_blocked) = mpsc::channel();
        let (kicked, is_kicked) = mpsc::channel();
        let thread = thread::spawn(move || {
            let ready = block_signal(SIGRTMIN())
                .map_err(|error| anyhow!("block a signal: {error:?}"))
                .and_then(|()| Ok(blocked.send(())?))
                .and_then(|()| Ok(is_kicked.recv()?));
            let exit = ready.and_then(|()| self.run());
            (self, exit)
        });
        if is_blocked.recv().is_ok() {
            kick(&thread)?;
            kicked.send(())?;
        }
        interrupted("a signal pending", join(thread)?)
    }

    /// KVM_RUN of a vCPU that is powered off: it waits, and a signal ends that.
    pub(crate) fn run_stopped(mut self) -> Result<Self> {
        let stopped = kvm_mp_state {
            mp_state: KVM_MP_STATE_STOPPED,
        };
        self.fd.set_mp_state(stopped).context("KVM_SET_MP_STATE")?;
        let thread = thread::spawn(move || {
            let exit = self.run();
            (self, exit)
        });
        while !thread.is_finished() {
            // Until one meets it in KVM_RUN.
            kick(&thread)?;
            thread::sleep(Duration::from_millis(5));
        }
        interrupted("powered off", join(thread)?)
    }
}

fn interrupted(what: &str, (vcpu, exit): Run) -> Result<Vcpu> {
    let exit = exit?;
    ensure!(
        exit == Exit::Error(Errno::INTR),
        "{what}: want EINTR, got {exit:?}"
    );
    Ok(vcpu)
}

fn join(thread: JoinHandle<Run>) -> Result<Run> {
    thread
        .join()
        .map_err(|_| anyhow!("the thread of a vCPU panicked"))
}

/// `struct kvm_signal_mask` with what a 64-bit kernel wants behind it.
#[repr(C)]
struct SignalMask {
    len: u32,
    set: [u8; 8],
}

// Which kvm-ioctls does not have.
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// A signal that does nothing but end a KVM_RUN.
fn kick(thread: &JoinHandle<Run>) -> Result<()> {
    extern "C" fn nothing<T>(_: c_int, _: *mut T, _: *mut c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).context("sigaction")?;
    thread.kill(SIGRTMIN()).context("pthread_kill")
}

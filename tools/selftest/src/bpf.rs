// SPDX-License-Identifier: GPL-2.0
//! BPF programs on functions of the kernel's, as those that bpftrace calls fentry and fexit. These do
//! nothing but be there.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

/// Where in a function a program comes in: BPF_TRACE_FENTRY, BPF_TRACE_FEXIT.
#[derive(Clone, Copy)]
pub enum At {
    Entry = 24,
    Exit = 25,
}

/// A program, attached until this is dropped.
pub struct Program(#[expect(dead_code, reason = "held, not used")] OwnedFd);

impl Program {
    /// Attaches one to each function, by its number ([`vmm::btf`]).
    pub fn on_each(functions: &[u32], at: At) -> Result<Vec<Self>> {
        let mut programs = Vec::new();
        for &function in functions {
            programs.push(Self::attach(at, function)?);
        }
        Ok(programs)
    }

    fn attach(at: At, function: u32) -> Result<Self> {
        // r0 = 0; exit
        let code: [u64; 2] = [0xb7, 0x95];
        let program = bpf(
            BPF_PROG_LOAD,
            &Load {
                kind: BPF_PROG_TYPE_TRACING,
                count: code.len() as u32,
                code: code.as_ptr() as u64,
                licence: c"GPL".as_ptr() as u64,
                at: at as u32,
                function,
                ..Default::default()
            },
        )
        .context("BPF_PROG_LOAD")?;
        let attach = Attach {
            name: 0,
            program: program.as_raw_fd() as u64,
        };
        bpf(BPF_RAW_TRACEPOINT_OPEN, &attach)
            .map(Self)
            .context("BPF_RAW_TRACEPOINT_OPEN")
    }
}

const BPF_PROG_LOAD: c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;

/// `union bpf_attr` of BPF_PROG_LOAD, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    licence: u64,
    no_log: [u64; 2],
    no_flags: [u32; 2],
    no_name: [u32; 5],
    at: u32,
    no_types: [u32; 9],
    function: u32,
}

/// The same of BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Attach {
    name: u64,
    program: u64,
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: The kernel only reads the attributes, and what they point to, which callers keep.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: Just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

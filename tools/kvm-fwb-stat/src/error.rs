// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, each with its one line and its exit status.

use std::{io, path::PathBuf};
use thiserror::Error;

/// The result of what may fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why nothing could be shown, or not all.
#[derive(Debug, Error)]
pub enum Error {
    /// The files are root's alone.
    #[error("{} may not be read by this user: run as root", .0.display())]
    NotRoot(PathBuf),
    /// Root, and still refused.
    #[error("{} is refused even to root: /sys/kernel/security/lockdown forbids it", .0.display())]
    Lockdown(PathBuf),
    /// Nothing is mounted where debugfs belongs.
    #[error("debugfs is not mounted: run mount -t debugfs debugfs /sys/kernel/debug")]
    NoDebugfs,
    /// The kernel has no debugfs to mount.
    #[error(
        "debugfs is switched off (debugfs=off on the kernel's command line, or its build): nothing \
         can be shown or switched; the module, if it is loaded, works by the policy that it was \
         loaded with"
    )]
    DebugfsOff,
    /// debugfs is there, and the module is not.
    #[error(
        "the module kvm_fwb_reset is not loaded: insmod kvm_fwb_reset.ko; \
         kvm-fwb-stat doctor tells what stops it"
    )]
    NotLoaded,
    /// Another directory was named, and is not there.
    #[error("{} is not there; --root takes a directory with the module's files", .0.display())]
    NoRoot(PathBuf),
    /// A file that ends early, or holds something else.
    #[error("{path} is cut short or damaged: {what}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The module kept its policy.
    #[error("the module kept its policy {0}: see dmesg")]
    PolicyKept(String),
    /// `host` says that this policy is not to be had.
    #[error(
        "the policy lazy is not to be had on this host: it could not be proven that this kernel cleans \
         what it maps, or a function is missing; dmesg says which: kvm-fwb-stat policy once is the next \
         best"
    )]
    LazyRefused,
    /// The module is from before that policy.
    #[error("the module is older than this tool, and has no policy lazy: load a newer one")]
    LazyUnknown,
    /// Reading or writing failed in another way.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// In the system's words.
        error: io::Error,
    },
    /// Standard output, or the terminal, is gone or full.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Exit statuses and what they mean, as `--help` and the man page tell them.
pub const STATUSES: &[(u8, &str)] = &[
    (
        0,
        "all was shown; also where an older module has less to show, which is noted",
    ),
    (
        1,
        "reading or writing failed, or the policy is not to be had",
    ),
    (2, "wrong usage"),
    (3, "not permitted: not root, or kernel lockdown"),
    (
        4,
        "debugfs is not mounted or switched off, or --root is not there",
    ),
    (5, "the module is not loaded"),
    (
        6,
        "a file is cut short or damaged; the VMs that could be read were shown",
    ),
    (
        10,
        "doctor: guest resets on this host may run stale code or read stale data",
    ),
    (
        11,
        "doctor: the module, or the file that was named, would not be loaded, or works degraded",
    ),
];

impl Error {
    /// The status where a file was damaged.
    pub const DAMAGED: u8 = 6;

    /// One of [`STATUSES`].
    pub fn status(&self) -> u8 {
        match self {
            Self::Io { .. } | Self::Output(_) => 1,
            Self::PolicyKept(_) | Self::LazyRefused | Self::LazyUnknown => 1,
            Self::NotRoot(_) | Self::Lockdown(_) => 3,
            Self::NoDebugfs | Self::DebugfsOff | Self::NoRoot(_) => 4,
            Self::NotLoaded => 5,
            Self::Damaged { .. } => Self::DAMAGED,
        }
    }

    /// Whether the reader of the output has left, which is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_documented_and_every_line_is_one() {
        let path = || PathBuf::from("/x");
        let io = || io::Error::from(io::ErrorKind::NotFound);
        for error in [
            Error::NotRoot(path()),
            Error::Lockdown(path()),
            Error::NoDebugfs,
            Error::DebugfsOff,
            Error::NotLoaded,
            Error::NoRoot(path()),
            Error::Damaged {
                path: path(),
                what: String::new(),
            },
            Error::PolicyKept(String::new()),
            Error::LazyRefused,
            Error::LazyUnknown,
            Error::Io {
                path: path(),
                error: io(),
            },
            Error::Output(io()),
        ] {
            assert!(STATUSES.iter().any(|&(status, _)| status == error.status()));
            assert!(!error.to_string().contains('\n'));
        }
    }
}

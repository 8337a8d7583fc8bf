// SPDX-License-Identifier: GPL-2.0

//! Where debugfs is on a host, or why it is not.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Where debugfs belongs.
const USUAL: &str = "/sys/kernel/debug";

/// debugfs, of a host whose file system begins at some directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debugfs {
    /// Mounted here, as the host names it.
    At(PathBuf),
    /// Mounted nowhere, but could be.
    Unmounted,
    /// The kernel has none to mount: `debugfs=off` on its command line, or built so.
    Off,
}

impl Debugfs {
    /// Looks at the host whose file system begins at `system`.
    pub fn of(system: &Path) -> Self {
        let read = |path: &str| fs::read(system.join("proc").join(path)).ok();
        // Through another directory than / it is the host's own view that counts, not ours.
        let mounts = match system == Path::new("/") {
            true => read("self/mounts"),
            false => read("1/mounts"),
        };
        let points = points(&mounts.or_else(|| read("mounts")).unwrap_or_default());
        let usual = points.iter().find(|point| *point == Path::new(USUAL));
        if let Some(point) = usual.or(points.first()) {
            return Self::At(point.clone());
        }
        let kinds = read("filesystems");
        match kinds.map(|text| String::from_utf8_lossy(&text).into_owned()) {
            Some(text) if !text.lines().any(|line| line == "nodev\tdebugfs") => Self::Off,
            _ => Self::Unmounted,
        }
    }

    /// Where it is, or where it belongs.
    pub fn path(&self) -> &Path {
        match self {
            Self::At(path) => path,
            Self::Unmounted | Self::Off => Path::new(USUAL),
        }
    }
}

/// Where debugfs is mounted, by the text of /proc/mounts.
fn points(mounts: &[u8]) -> Vec<PathBuf> {
    (mounts.split(|&c| c == b'\n'))
        .filter_map(|line| {
            let mut words = line.split(|&c| c == b' ').skip(1);
            let point = words.next()?;
            (words.next()? == b"debugfs").then(|| PathBuf::from(OsString::from_vec(plain(point))))
        })
        .collect()
}

/// The kernel writes spaces, tabs, line ends and backslashes of a path in octal.
fn plain(mut escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while let Some((&first, rest)) = escaped.split_first() {
        let code = (rest.get(..3).filter(|_| first == b'\\'))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(first));
        escaped = if code.is_some() { &rest[3..] } else { rest };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found with these two files in /proc.
    fn found(mounts: &str, filesystems: Option<&str>) -> Debugfs {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/mounts"), mounts).unwrap();
        // Not the host's: that of whoever looks.
        fs::write(dir.path().join("proc/mounts"), "d /here debugfs rw 0 0\n").unwrap();
        if let Some(text) = filesystems {
            fs::write(dir.path().join("proc/filesystems"), text).unwrap();
        }
        Debugfs::of(dir.path())
    }

    #[test]
    fn it_is_found_among_mounts() {
        let none = "sysfs /sys sysfs rw 0 0\ndebugfs /debugfs tmpfs rw 0 0\n";
        let at = |path: &str| Debugfs::At(path.into());
        let with = |line: &str| found(&format!("{none}{line}"), None);
        assert_eq!(with("none /mnt debugfs rw 0 0\n"), at("/mnt"));
        assert_eq!(with("d /a\\040b\\134 debugfs rw 0 0\n"), at("/a b\\"));
        // Where it belongs comes first.
        assert_eq!(
            with("d /mnt debugfs rw 0 0\nd /sys/kernel/debug debugfs rw 0 0\n"),
            at("/sys/kernel/debug")
        );
        assert_eq!(found(none, None), Debugfs::Unmounted);
        let kinds = "nodev\tsysfs\nnodev\tdebugfs\n\text4\n";
        assert_eq!(found(none, Some(kinds)), Debugfs::Unmounted);
        let kinds = "nodev\tsysfs\nnodev\ttracefs\n\text4\n";
        assert_eq!(found(none, Some(kinds)), Debugfs::Off);
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Debian's kernel as a guest of Debian's QEMU: from the order to reboot until it is up again.

use std::fmt;
use std::io::{BufRead, BufReader, Split, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use bench::row::{Key, Line, Told, What};
use contract::Counters;
use vmm::module;

use crate::state::State;
use crate::work::{Sections, tell};

/// What a guest begins with when it is started or reset.
#[derive(Clone, Copy)]
pub enum Start {
    /// The kernel itself.
    Kernel,
    /// EDK2, which loads the kernel.
    Edk2,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Start::Kernel => "kernel",
            Start::Edk2 => "edk2",
        })
    }
}

impl FromStr for Start {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = [Start::Kernel, Start::Edk2].into_iter();
        all.find(|start| start.to_string() == text)
            .ok_or("a guest starts with kernel or edk2")
    }
}

/// A guest that says when it is up, and waits for orders then.
struct Guest {
    qemu: Child,
    orders: ChildStdin,
    said: Split<BufReader<ChildStdout>>,
    up: String,
}

impl Guest {
    fn start(with: Start, vcpus: usize) -> Result<Self> {
        let mut command = Command::new("qemu-system-aarch64");
        command
            .args(["-M", "virt,gic-version=3", "-accel", "kvm", "-cpu", "host"])
            .args(["-m", "512", "-nodefaults", "-nographic", "-serial", "stdio"])
            .args(["-kernel", "/vmlinuz", "-initrd", "/guest.cpio"])
            .args(["-append", "console=ttyAMA0 quiet panic=-1"])
            .args(["-smp", &vcpus.to_string()]);
        if let Start::Edk2 = with {
            command.args(["-bios", "/firmware.fd"]);
        }
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-system-aarch64")?;
        let mut guest = Self {
            orders: qemu.stdin.take().context("QEMU's input")?,
            said: BufReader::new(qemu.stdout.take().context("QEMU's output")?).split(b'\n'),
            up: format!("guest: up with {vcpus} vCPUs"),
            qemu,
        };
        guest.wait_until_up()?;
        Ok(guest)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let up = self.up.as_bytes();
        for line in &mut self.said {
            let line = line.context("QEMU's output")?;
            if line.windows(up.len()).any(|part| part == up) {
                return Ok(());
            }
        }
        bail!("the guest is not up, and QEMU ended: {}", self.qemu.wait()?)
    }

    fn order(&mut self, word: &str) -> Result<()> {
        writeln!(self.orders, "{word}").with_context(|| format!("order the guest to {word}"))
    }

    fn reboot(&mut self) -> Result<()> {
        self.order("reboot")?;
        self.wait_until_up()
    }

    fn power_off(mut self) -> Result<()> {
        self.order("power off")?;
        let status = self.qemu.wait().context("QEMU")?;
        ensure!(status.success(), "QEMU ended: {status}");
        Ok(())
    }
}

/// One reboot, of a guest that was rebooted before.
pub fn reboot(state: State, with: Start, vcpus: usize, sections: &mut Sections) -> Result<()> {
    let mut guest = Guest::start(with, vcpus)?;
    // The first finds less in the host's page tables and caches than all that follow.
    guest.reboot()?;
    if module::is_loaded() {
        module::write("clear", "1").context("clear")?;
    }
    let section = format!("{state}, a guest with {vcpus} vCPUs, reboot from {with}");
    let (number, ()) = sections.within(&section, || guest.reboot())?;
    let mut told = Told {
        key: Key::new(What::Guest, &state.to_string()),
        figures: Default::default(),
        sections: [("reboot".to_owned(), number)].into(),
    };
    told.key.vcpus = Some(vcpus as u32);
    told.key.start = Some(with.to_string());
    if module::is_loaded() {
        let stats = module::parse::<Counters>("stats")?;
        ensure!(
            stats.vm_reset == 1,
            "a reboot was {} VM resets",
            stats.vm_reset
        );
        let figures = [
            ("elided_clean_bytes", stats.dcache_clean_elide_bytes),
            ("elided_tlbi", stats.tlbi_elide),
        ];
        told.figures = figures
            .map(|(name, figure)| (name.to_owned(), figure))
            .into();
    }
    guest.power_off()?;
    tell(&Line::Told(told))
}

// SPDX-License-Identifier: GPL-2.0
//! Hosts that the module must not be loaded into: it says why in one line, and leaves nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use contract::Policy;
use rustix::io::Errno;

use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::module;

/// The module again, under another name: both would redirect the same functions.
pub fn second_copy(lab: &Lab) -> Result<()> {
    let copy = Path::new("/tmp/copy.ko");
    let other = module::NAME.replace("reset", "again");
    let image = fs::read(module::IMAGE).context(module::IMAGE)?;
    fs::write(copy, renamed(&image, module::NAME, &other)).context("copy")?;

    refused(copy, &other, Errno::BUSY, "")?;

    // The first is none the worse for it.
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check("after a second copy: in reset")?;
    vm.report()?;
    lab.check("after a second copy: running")
}

/// KVM that was never initialised, as with `kvm-arm.mode=none`. Not one of the tests that want KVM.
pub fn without_kvm() -> Result<()> {
    refused(Path::new(module::IMAGE), module::NAME, Errno::NODEV, "")
}

/// The module as it would be, built for another build of a kernel of this release.
pub fn another_build(_: &Lab) -> Result<()> {
    let running = fs::read_to_string("/proc/sys/kernel/version")?;
    let running = running.trim_end();
    let other = running.replace("SMP", "PMS");
    let image = fs::read(module::IMAGE).context(module::IMAGE)?;
    let file = Path::new("/tmp/other.ko");
    fs::write(file, renamed(&image, running, &other)).context("a module for another build")?;
    let message = format!("built for the kernel '{other}', but this is '{running}'");
    refused(file, module::NAME, Errno::NOEXEC, &message)
}

/// Loading fails as it should, with one line in the log that has `message`, and leaves no module and no
/// files.
fn refused(image: &Path, name: &str, errno: Errno, message: &str) -> Result<()> {
    let mut log = Kmsg::open().context("/dev/kmsg")?;
    let parameters = format!("policy={}", Policy::Once as u8);
    match module::insert_from(image, &parameters) {
        Err(error) if Errno::from_io_error(&error) == Some(errno) => (),
        other => bail!("insmod: want {errno}, got {other:?}"),
    }
    let said: Vec<_> = log
        .records()?
        .into_iter()
        .filter(|record| record.contains(&format!(";{name}: ")))
        .filter(|record| !record.contains("taints kernel") && !record.contains("tainting kernel"))
        .collect();
    ensure!(
        said.len() == 1 && said[0].contains(message),
        "want one line in the log, with \"{message}\", got {said:?}"
    );
    ensure!(
        !Path::new("/sys/module").join(name).exists(),
        "{name} was refused, but is there"
    );
    ensure!(
        !Path::new("/sys/kernel/debug").join(name).exists(),
        "{name} was refused, but left files behind"
    );
    Ok(())
}

/// `image` with one name in place of another of the same length.
fn renamed(image: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut image = image.to_vec();
    let mut at = 0;
    while at + from.len() <= image.len() {
        if image[at..].starts_with(from.as_bytes()) {
            image[at..][..to.len()].copy_from_slice(to.as_bytes());
        }
        at += 1;
    }
    image
}

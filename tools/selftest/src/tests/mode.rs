// SPDX-License-Identifier: GPL-2.0
//! What KVM was told to be by `kvm-arm.mode=` on the kernel's command line.

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use vmm::boot;
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;

/// pKVM keeps its VMs in a table (KVM_MAX_PVMS in arch/arm64/include/asm/kvm_pkvm.h).
const PROTECTED_VMS: usize = 255;

/// How many VMs there can be, if KVM has such a limit in its mode.
pub fn most_vms() -> Result<Option<usize>> {
    Ok((boot::word("kvm-arm.mode")?.as_deref() == Some("protected")).then_some(PROTECTED_VMS))
}

/// With as many there is no other one.
pub fn refuses_another(lab: &Lab) -> Result<()> {
    let error = lab.vm(1).err().context("more VMs than KVM should have")?;
    let errno = error
        .downcast_ref::<kvm_ioctls::Error>()
        .map(|error| Errno::from_raw_os_error(error.errno()));
    ensure!(errno == Some(Errno::NOMEM), "one VM too many: {error:#}");
    Ok(())
}

/// KVM says that it is what it was told to be: a mode that the CPU does not have is left without an
/// error, and all tests would have run in another.
pub fn as_asked(_: &Lab) -> Result<()> {
    let records = Kmsg::from_boot()?.records()?;
    let said = records
        .iter()
        .find(|record| record.contains("mode initialized successfully"))
        .context("KVM's line is not in the log any more")?;
    let mode = boot::word("kvm-arm.mode")?;
    let want = match mode.as_deref() {
        Some("protected") => "Protected ",
        Some("nvhe") => "Hyp nVHE ",
        Some("nested") => "VHE+NV2 ",
        _ => "",
    };
    ensure!(said.contains(want), "{mode:?} was asked for: {said}");
    Ok(())
}

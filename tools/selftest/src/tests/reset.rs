// SPDX-License-Identifier: GPL-2.0
//! What one VM can do: every kind of re-init and of KVM_RUN that the counters tell apart.

use anyhow::{Result, ensure};
use contract::Policy;
use rustix::io::Errno;
use vmm::guest::{self, Routine};

use vmm::lab::Lab;
use vmm::{Exit, Vm};

/// One vCPU, a few, and enough to make one invalidation per vCPU hurt.
fn sizes(lab: &Lab) -> &'static [usize] {
    match lab.policy() {
        Policy::Once | Policy::Lazy => &[1, 2, 8, 64],
        // As many as matter where vCPUs have no payment to share.
        _ => &[1, 2, 8],
    }
}

/// The first init of a vCPU, and further ones before it has run, are no resets.
pub fn first_init(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(8)?;
    lab.check("after the first init")?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check("after a second init")?;
    vm.report()?;
    lab.check("after the first run")
}

/// As QEMU does it: all vCPUs stopped, one thread re-initialises each in turn.
pub fn sequence(lab: &Lab) -> Result<()> {
    sizes(lab)
        .iter()
        .try_for_each(|&vcpus| rounds(lab, vcpus, Vm::reset))
}

/// Each vCPU is re-initialised by its own thread.
pub fn parallel(lab: &Lab) -> Result<()> {
    sizes(lab)
        .iter()
        .try_for_each(|&vcpus| rounds(lab, vcpus, Vm::reset_parallel))
}

fn rounds(lab: &Lab, vcpus: usize, reset: fn(&mut Vm) -> Result<()>) -> Result<()> {
    let mut vm = lab.vm(vcpus)?;
    vm.report()?;
    for round in 0..lab.reps {
        vm.rewrite()?;
        reset(&mut vm)?;
        lab.check(&format!("{vcpus} vCPUs, round {round}, in reset"))?;
        if lab.covers_late_writes() {
            vm.rewrite()?;
        }
        // All enter the guest at once: only one of them may pay.
        vm.report()?;
        lab.check(&format!("{vcpus} vCPUs, round {round}, running"))?;
    }
    Ok(())
}

/// KVM_RUNs and re-inits of different vCPUs alternate: each run ends the reset of the whole VM.
pub fn one_at_a_time(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    vm.report()?;
    for round in 0..lab.reps {
        vm.rewrite()?;
        vm.reset()?;
        vm.report_one(2)?;
        lab.check(&format!("round {round}: one of four runs"))?;
        vm.vcpus[2].reset(Routine::Report)?;
        vm.vcpus[3].reset(Routine::Report)?;
        lab.check(&format!("round {round}: two in reset again"))?;
        vm.report_one(0)?;
        vm.vcpus[0].reset(Routine::Report)?;
        vm.vcpus[0].reset(Routine::Report)?;
        lab.check(&format!("round {round}: the same one twice"))?;
        vm.report()?;
        lab.check(&format!("round {round}: all run"))?;
    }
    Ok(())
}

/// A guest resets itself by PSCI, and starts its secondary vCPUs by CPU_ON.
pub fn guest_asks(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(4)?;
    for round in 0..lab.reps {
        vm.rewrite()?;
        power_on(&mut vm)?;
        lab.check(&format!("round {round}: booting"))?;
        for target in 1..4 {
            cpu_on(&mut vm, target)?;
        }
        vm.report()?;
        lab.check(&format!("round {round}: booted"))?;
        vm.vcpus[0].start(Routine::Hvc, &[guest::PSCI_SYSTEM_RESET])?;
        let exit = vm.vcpus[0].run()?;
        ensure!(exit == Exit::Reset, "SYSTEM_RESET: got {exit:?}");
        lab.check(&format!("round {round}: reset asked for"))?;
    }
    Ok(())
}

/// All vCPUs as after power on: only the first is on.
fn power_on(vm: &mut Vm) -> Result<()> {
    let (first, others) = vm.vcpus.split_at_mut(1);
    first[0].reset(Routine::Report)?;
    others.iter_mut().try_for_each(|vcpu| vcpu.reset_off())
}

/// vCPU 0 asks PSCI to start another one, and then goes on to report.
fn cpu_on(vm: &mut Vm, target: u64) -> Result<()> {
    let entry = Routine::Report.address();
    vm.vcpus[0].start(Routine::Hvc, &[guest::PSCI_CPU_ON, target, entry, 0])?;
    let answer = vm.vcpus[0].value()?;
    ensure!(answer == 0, "CPU_ON of vCPU {target}: {answer:#x}");
    vm.vcpus[0].start(Routine::Report, &[])
}

/// KVM_RUN with immediate_exit makes a vCPU one that has run, but enters no guest: it neither pays
/// nor ends the reset, and code written after it is still covered.
pub fn immediate_exit(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.vcpus[0].run_immediate()?;
    vm.reset()?;
    lab.check("one has run, if only so")?;
    vm.vcpus[1].run_immediate()?;
    vm.rewrite()?;
    vm.reset()?;
    lab.check("the same reset goes on")?;
    for vcpu in &mut vm.vcpus {
        vcpu.run_immediate()?;
    }
    lab.check("nothing paid")?;
    if lab.covers_late_writes() {
        vm.rewrite()?;
    }
    vm.report()?;
    lab.check("running")
}

/// A KVM_RUN that gets as far as KVM's own look at the vCPU pays, and ends the reset, whether or not
/// the guest is entered in the end: where it fails, where a signal ends it, before the guest or in it,
/// and where the vCPU is powered off.
pub fn failing_run(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    vm.rewrite()?;
    vm.reset()?;
    vm.vcpus[1].start(Routine::Fail, &[])?;
    let exit = vm.vcpus[1].run()?;
    ensure!(
        exit == Exit::Error(Errno::NOSYS),
        "a load KVM cannot emulate: got {exit:?}"
    );
    lab.check("after a KVM_RUN that failed")?;
    vm.reset()?;
    lab.check("in reset again")?;
    vm.interrupt(1)?;
    lab.check("after a KVM_RUN that a signal ended")?;
    vm.reset()?;
    vm.run_with_signal_pending(1)?;
    lab.check("after a KVM_RUN that a signal kept from the guest")?;
    vm.reset()?;
    vm.run_stopped(1)?;
    lab.check("after a KVM_RUN of a vCPU that is powered off")?;
    vm.reset()?;
    vm.run_uninitialised()?;
    lab.check("after a KVM_RUN that KVM refused at once")?;
    vm.rewrite()?;
    vm.reset()?;
    vm.report()?;
    lab.check("running")
}

/// Memory that an unmap may leave mapped, guest_memfd or what has a hole in it: then each re-init
/// makes its own, as the kernel does.
pub fn out_of_reach(lab: &Lab) -> Result<()> {
    for (guest_memfd, mapped) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut vm = lab.vm(3)?;
        vm.add_memory(guest_memfd, mapped)?;
        vm.report()?;
        vm.rewrite()?;
        vm.reset()?;
        lab.check(&format!(
            "guest_memfd {guest_memfd}, mapped {mapped}: in reset"
        ))?;
        vm.report()?;
        lab.check(&format!(
            "guest_memfd {guest_memfd}, mapped {mapped}: running"
        ))?;
    }
    Ok(())
}

/// An init that KVM refuses moves no counter, in reset or not.
pub fn failing_init(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.vcpus[0].init_wrongly()?;
    lab.check("before the first run")?;
    vm.report()?;
    vm.vcpus[0].init_wrongly()?;
    lab.check("after a run")?;
    vm.rewrite()?;
    vm.reset()?;
    vm.vcpus[1].init_wrongly()?;
    lab.check("in reset")?;
    vm.report()?;
    lab.check("running")
}

/// A CPU_ON leaves a reset pending on its target, which any GET_ONE_REG or SET_ONE_REG carries out.
/// That is no re-init, though it takes the same ways in the kernel.
pub fn cpu_on_pending(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    for round in 0..lab.reps {
        vm.rewrite()?;
        power_on(&mut vm)?;
        cpu_on(&mut vm, 1)?;
        lab.check(&format!("round {round}: pending"))?;
        let counter = vm.vcpus[1].program_counter()?;
        ensure!(
            counter == Routine::Report.address(),
            "CPU_ON: vCPU 1 is at {counter:#x}"
        );
        lab.check(&format!("round {round}: carried out by GET_ONE_REG"))?;
        vm.report()?;

        power_on(&mut vm)?;
        cpu_on(&mut vm, 1)?;
        vm.vcpus[1].start(Routine::Report, &[])?;
        lab.check(&format!("round {round}: carried out by SET_ONE_REG"))?;
        vm.report()?;

        power_on(&mut vm)?;
        cpu_on(&mut vm, 1)?;
        vm.rewrite()?;
        vm.reset()?;
        lab.check(&format!("round {round}: overtaken by a re-init"))?;
        vm.report()?;
        lab.check(&format!("round {round}: running"))?;
    }
    Ok(())
}

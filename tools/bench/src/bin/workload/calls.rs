// SPDX-License-Identifier: GPL-2.0
//! Single calls, readers of the module's files, and the module itself.

use std::fs;

use anyhow::{Context, Result};
use bench::row::{Key, What};
use contract::Policy;
use elf::ElfBytes;
use elf::abi::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE};
use elf::endian::LittleEndian;
use kvm_ioctls::Kvm;
use vmm::module;

use crate::clock::{Samples, time};
use crate::memory;
use crate::state::{State, load, unload};
use crate::vm::Vm;
use crate::work::tell_row;

/// How often each is measured: odd, so that there is a middle one.
const CALLS: usize = 301;
const BURST: usize = 7;
const LOADS: usize = 5;

/// In `state`; where that is the default policy, beside so many other VMs and with all that only depends on
/// whether the module is there, too.
pub fn measure(kvm: &Kvm, state: State, vms: &[usize]) -> Result<()> {
    let key = Key::new(What::Call, &state.to_string());
    let is_default = state == State::Loaded(Policy::Once);
    if is_default && !vms.is_empty() {
        beside_many(kvm, state, vms)?;
    }
    let inside = state.enter()?;
    calls(kvm, key.clone())?;
    if is_default {
        let mut other = Vm::new(kvm, 1, 0)?;
        other.init()?;
        let beside_reset = true;
        calls(
            kvm,
            Key {
                beside_reset,
                ..key
            },
        )?;
    }
    inside.leave()?;
    if is_default {
        the_module(state)?;
    }
    Ok(())
}

/// Beside other VMs that were all reset.
fn beside_many(kvm: &Kvm, state: State, numbers: &[usize]) -> Result<()> {
    let most = numbers.iter().copied().max().unwrap_or(0);
    let mut all = memory::vms(kvm, most)?;
    // What KVM itself keeps for a re-init is none of the module's.
    let without = memory::per_vm_in_reset(&mut all)?;
    for vm in &mut all {
        vm.run()?;
    }
    let inside = state.enter()?;
    let (mut reset, mut with) = (0, 0);
    for &number in numbers {
        // One is what is read.
        let end = number.saturating_sub(1).max(reset);
        let more = &mut all[reset..end];
        if !more.is_empty() {
            with = memory::per_vm_in_reset(more)?;
        }
        for vm in more {
            vm.run()?;
        }
        reset = end;
        reads(kvm, state, number)?;
    }
    let mut key = Key::new(What::Call, &state.to_string());
    key.vms = Some(most as u32);
    calls(kvm, key.clone())?;
    // Of so many in reset, one has the gate of any VM.
    for vm in &mut all {
        vm.init()?;
    }
    key.beside_reset = true;
    calls(kvm, key)?;
    inside.leave()?;
    drop(all);
    tell_row(
        Key::new(What::Module, "per_vm"),
        [("bytes", with.saturating_sub(without))],
    )
}

/// Single calls on a VM with one vCPU. The kernel copies in more or fewer instructions as the stack
/// happens to be aligned, so each state must find the same frame.
#[inline(never)]
fn calls(kvm: &Kvm, key: Key) -> Result<()> {
    let mut vm = Vm::new(kvm, 1, 0)?;
    let run = Samples::take(CALLS, BURST, || vm.run())?;
    let get = Samples::take(CALLS, BURST, || vm.get_register())?;
    let init = Samples::take(CALLS, BURST, || {
        let taken = vm.init()?;
        vm.run()?;
        Ok(taken)
    })?;
    tell_row(
        key,
        [
            ("run.instructions", run.median()),
            ("get.instructions", get.median()),
            ("init.instructions", init.median()),
        ],
    )
}

/// Readers of the module's files: of all VMs, and of one of so many.
fn reads(kvm: &Kvm, state: State, vms: usize) -> Result<()> {
    let known = module::vms()?;
    let mut vm = Vm::new(kvm, 1, 0)?;
    vm.init()?;
    vm.run()?;
    let own = module::vms()?
        .into_iter()
        .find(|name| !known.contains(name));
    let own = own.context("a VM that was reset has no files")?;
    let of_one = |file| (format!("vms/<name>/{file}"), format!("vms/{own}/{file}"));
    let of_all = |file: &str| (file.to_owned(), file.to_owned());
    let files = ["policy", "host", "stats", "latency"].map(of_all);
    for (name, file) in files
        .into_iter()
        .chain(["stats", "latency", "info"].map(of_one))
    {
        let taken = Samples::take(CALLS, BURST, || time(|| module::read(&file)))?;
        tell_read(state, name, vms, taken.median())?;
    }
    let taken = Samples::take(CALLS, BURST, || time(module::vms))?;
    tell_read(state, "vms, listed".into(), vms, taken.median())?;
    let taken = Samples::take(LOADS, 1, || {
        time(|| module::write("clear", "1").context("clear"))
    })?;
    tell_read(state, "clear, written".into(), vms, taken.median())
}

fn tell_read(state: State, file: String, vms: usize, taken: u64) -> Result<()> {
    let mut key = Key::new(What::Read, &state.to_string());
    key.file = Some(file);
    key.vms = Some(vms as u32);
    tell_row(key, [("instructions", taken)])
}

/// What it takes to load and to unload it, and in memory.
fn the_module(state: State) -> Result<()> {
    let State::Loaded(policy) = state else {
        return Ok(());
    };
    let loaded = Samples::take(LOADS, 1, || {
        let taken = load(policy)?;
        unload()?;
        Ok(taken)
    })?;
    let unloaded = Samples::take(LOADS, 1, || {
        load(policy)?;
        unload()
    })?;
    let inside = state.enter()?;
    let size = loaded_size()?;
    inside.leave()?;
    let (text, constant, data) = sections()?;
    tell_row(
        Key::new(What::Module, "itself"),
        [
            ("load.instructions", loaded.median()),
            ("unload.instructions", unloaded.median()),
            ("loaded_bytes", size),
            ("text_bytes", text),
            ("constant_bytes", constant),
            ("data_bytes", data),
        ],
    )
}

/// What the loaded module takes of the kernel's memory, in bytes.
fn loaded_size() -> Result<u64> {
    let text = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(module::NAME)).then_some(words))
        .context("the module is not in /proc/modules")?;
    words
        .next()
        .and_then(|size| size.parse().ok())
        .context("/proc/modules has no size")
}

/// Bytes of code, of constants and of variables in the module's file that stay when it is loaded.
fn sections() -> Result<(u64, u64, u64)> {
    let file = fs::read(module::IMAGE).context(module::IMAGE)?;
    let file = ElfBytes::<LittleEndian>::minimal_parse(&file).context(module::IMAGE)?;
    let (headers, names) = file.section_headers_with_strtab().context("sections")?;
    let (headers, names) = headers.zip(names).context("it has no sections")?;
    let (mut text, mut constant, mut data) = (0, 0, 0);
    for header in headers {
        let flag = |flag: u32| header.sh_flags & u64::from(flag) != 0;
        let name = names.get(header.sh_name as usize)?;
        if !flag(SHF_ALLOC) || name.contains(".init") || name.contains(".modinfo") {
            continue;
        }
        *match (flag(SHF_EXECINSTR), flag(SHF_WRITE)) {
            (true, _) => &mut text,
            (false, false) => &mut constant,
            (false, true) => &mut data,
        } += header.sh_size;
    }
    Ok((text, constant, data))
}

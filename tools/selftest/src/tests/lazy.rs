// SPDX-License-Identifier: GPL-2.0
//! What `lazy` leaves out, and what of it must not be missed. `once`, which leaves nothing of an unmap
//! out, has to pass as well.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use contract::{Counters, Policy};
use rustix::io::Errno;
use rustix::param::page_size;
use rustix::thread::gettid;
use vmm::affinity;
use vmm::guest::{self, Routine};

use crate::tests::Skip;
use crate::tests::hooks::{TRACING, trace};
use vmm::kmsg::Kmsg;
use vmm::lab::Lab;
use vmm::module;
use vmm::{Extra, Pages, Vm, huge_page, threads::join};

/// The size of a slot with room for so many bytes.
fn slot(bytes: usize) -> usize {
    bytes.next_multiple_of(guest::HOST_PAGE as usize)
}

/// Whether unmaps of a VM reset leave out their maintenance here.
fn is_lazy(lab: &Lab) -> Result<bool> {
    Ok(lab.policy() == Policy::Lazy && lab.lazy()? == "unmaps")
}

/// Other words in each page of further RAM.
pub fn fill(ram: &Extra, step: usize, words: &[u32]) -> Result<()> {
    let mut words = words.iter().enumerate();
    words.try_for_each(|(number, &word)| ram.write(number * step, word))
}

pub fn sweep(vm: &mut Vm, vcpu: usize, step: usize, words: &[u32]) -> Result<()> {
    let (want, got) = (
        words.iter().sum::<u32>(),
        vm.vcpus[vcpu].sweep(step, words.len())?,
    );
    ensure!(
        want == got,
        "vCPU {vcpu}: want the sum {want}, got {got}: the guest read other pages than are there"
    );
    Ok(())
}

/// As much is left out as was mapped, in pages of either size, by one unmap for all vCPUs: the kernel's
/// own tracing sees nothing cleaned, and TLB invalidations for each slot and each table alone.
pub fn left_out(lab: &Lab) -> Result<()> {
    // More than one table's worth of small pages.
    small_or_huge(lab, Pages::Small, page_size(), 1100)?;
    match huge_page() {
        Some(size) => small_or_huge(lab, Pages::Huge(size), size, 3),
        None => Ok(()),
    }
}

fn small_or_huge(lab: &Lab, pages: Pages, step: usize, count: usize) -> Result<()> {
    let (mut vm, witness) = (lab.vm(4)?, Witness::watch()?);
    let vhe = u64::from(module::host()?["vhe"] == "1");
    let size = slot(count * step);
    let ram = vm.add_ram(size, pages)?;
    let words: Vec<_> = (1..).take(count).collect();
    fill(&ram, step, &words)?;
    vm.report()?;
    for round in 0..lab.reps {
        // Behind a reset nothing else is mapped but the page of routines.
        vm.reset()?;
        sweep(&mut vm, 0, step, &words)?;
        lab.clear()?;
        let seen = || {
            Ok::<_, anyhow::Error>([
                witness.cleaned()?,
                witness.entries()?,
                witness.flushed(guest::RAM, guest::ram_size(4))?,
                witness.flushed(guest::EXTRA, size)?,
            ])
        };
        let before = seen()?;
        vm.reset()?;
        let after = seen()?;
        let seen: Vec<_> = before
            .iter()
            .zip(after)
            .map(|(before, after)| after - before)
            .collect();
        let when = format!("{pages:?}, round {round}");
        lab.check(&format!("{when}: in reset"))?;

        let stats = module::parse::<Counters>(&format!("vms/{}/stats", lab.shown(&vm)))?;
        let got = (stats.dcache_clean_elide_bytes, stats.tlbi_elide, &seen[..]);
        let mapped = count as u64 + 1;
        // Their pages are freed at once. One has the page of routines.
        let tables = 1 + if pages == Pages::Small {
            (count * size_of::<u64>()).div_ceil(page_size()) as u64
        } else {
            0
        };
        let want: (_, _, &[_]) = match (is_lazy(lab)?, lab.host().fwb) {
            (true, _) => {
                let bytes = (count * step + page_size()) as u64;
                (bytes, mapped, &[0, vhe * tables, 1, 1])
            }
            (false, false) => (0, 0, &[mapped, vhe * (mapped + tables), 0, 0]),
            (false, true) => (0, 0, &[0, 0, 0, 0]),
        };
        ensure!(
            got == want,
            "{when}: left out bytes, TLB invalidations, and seen pages cleaned, TLB invalidations for \
             entries and for either slot: want {want:?}, got {got:?}"
        );
        sweep(&mut vm, 3, step, &words)?;
        lab.check(&format!("{when}: running"))?;
        // That is over: what this task unmaps from now on is cleaned as ever.
        let before = witness.cleaned()?;
        ram.discard(0, count * step)?;
        let cleaned = witness.cleaned()? - before;
        let want = if lab.host().fwb { 0 } else { count as u64 };
        ensure!(
            cleaned == want,
            "{when}: want {want} pages cleaned when they are given back, got {cleaned}"
        );
        lab.check(&format!("{when}: given back"))?;
        fill(&ram, step, &words)?;
    }
    Ok(())
}

/// A re-init of another vCPU than the first may be of a guest that lives on: its unmap is in full, and
/// the first one's shares it.
pub fn another_first(lab: &Lab) -> Result<()> {
    let mut vm = lab.vm(2)?;
    vm.report()?;
    for round in 0..lab.reps {
        vm.vcpus[1].reset(Routine::Report)?;
        lab.check(&format!("round {round}: the second"))?;
        vm.vcpus[0].reset(Routine::Report)?;
        lab.check(&format!("round {round}: both"))?;
        let stats = module::parse::<Counters>("stats")?;
        let left_out = (stats.dcache_clean_elide_bytes, stats.tlbi_elide);
        ensure!(
            left_out == (0, 0),
            "round {round}: left out {left_out:?}, though the first vCPU did not come first"
        );
        vm.report()?;
    }
    Ok(())
}

/// How the host replaces a page of the guest's.
type Replace = fn(&Extra, usize, usize) -> Result<()>;

/// The host replaces pages between the reset and the guest's next access: it finds the new ones, whoever
/// used the old ones before. What is left in stage 2 would show; what is left in TLBs would not, for
/// QEMU empties them at each write to HCR_EL2 that changes VM, on the way into the guest. That they are
/// invalidated is [`left_out`]'s to see.
pub fn replaced(lab: &Lab) -> Result<()> {
    small_or_huge_replaced(lab, Pages::Small, page_size(), 12)?;
    match huge_page() {
        Some(size) => small_or_huge_replaced(lab, Pages::Huge(size), size, 3),
        None => Ok(()),
    }
}

fn small_or_huge_replaced(lab: &Lab, pages: Pages, step: usize, count: usize) -> Result<()> {
    let ways: [(&str, Replace); 3] = [
        ("MADV_DONTNEED", |ram, at, size| ram.discard(at, size)),
        ("mmap", |ram, at, size| ram.map_over(at, size)),
        ("mremap", |ram, at, size| ram.move_over(at, size, 0)),
    ];
    let pes = thread::available_parallelism()?.get();
    for vcpus in [1, 2, 4] {
        let mut vm = lab.vm(vcpus)?;
        let ram = vm.add_ram(slot(count * step), pages)?;
        let mut words: Vec<u32> = (1..).take(count).collect();
        fill(&ram, step, &words)?;
        // KVM empties a PE's TLB when another vCPU of the VM comes to it than was there last
        // (`__kvm_flush_cpu_context`): the first PE has one to itself.
        let all = |vm: &mut Vm, words: &[u32]| {
            (0..vcpus).try_for_each(|vcpu| {
                affinity::on(vcpu.min(pes - 1), || sweep(vm, vcpu, step, words))
            })
        };
        for round in 0..lab.reps {
            for (name, replace) in ways {
                let when = format!("{pages:?}, {vcpus} vCPUs, round {round}: {name}");
                all(&mut vm, &words).with_context(|| format!("{when}, before"))?;
                vm.reset()?;
                for number in (0..count).step_by(2) {
                    replace(&ram, number * step, step)?;
                    words[number] += 1000;
                    ram.write(number * step, words[number])?;
                }
                all(&mut vm, &words).with_context(|| when.clone())?;
                lab.check(&when)?;
            }
        }
    }
    Ok(())
}

/// A VM loses its pages to the host again and again, while another one is reset all the time: what is
/// left out is that one's alone.
pub fn taken_away(lab: &Lab) -> Result<()> {
    const PAGES: usize = 16;
    // Ranges for an unmap, so that most of the time the other VM is in one.
    const RANGES: usize = 512;
    const SOME: usize = 4;
    let rounds = 100 * lab.reps;
    let step = page_size();
    let (mut vm, mut other) = (lab.vm(1)?, lab.vm(1)?);
    let ram = vm.add_ram(slot(PAGES * step), Pages::Small)?;
    let others = other.add_ram(slot(RANGES * step), Pages::Small)?;
    let witness = Witness::watch()?;
    thread::scope(|scope| {
        let taken = scope.spawn(|| {
            (0..rounds).try_for_each(|round| {
                let words = [round as u32; PAGES];
                fill(&ram, step, &words)?;
                sweep(&mut vm, 0, step, &words)?;
                ram.discard(0, PAGES * step)
            })
        });
        let mut reset = || {
            let words = [7; SOME];
            fill(&others, step, &words)?;
            others.split(step)?;
            while !taken.is_finished() {
                // Of the first vCPU: no other's re-init leaves anything out.
                sweep(&mut other, 0, step, &words)?;
                other.reset()?;
            }
            Ok(())
        };
        let result = reset();
        join(taken).and(result)
    })?;
    let cleaned = witness.cleaned_elsewhere()?;
    let stats: Counters = module::parse("stats")?;
    ensure!(
        stats.dcache_clean_elide_bytes > 0 || !is_lazy(lab)?,
        "the other VM's resets left nothing out"
    );
    // As each is mapped, and as each is unmapped.
    let least = (2 * PAGES * rounds) as u64;
    ensure!(
        lab.host().fwb || cleaned >= least,
        "want {least} pages cleaned or more for a VM that was not reset, got {cleaned}"
    );
    lab.check("after all")
}

/// What the kernel's own tracing says that threads did, most often the current one.
struct Witness(());

/// Each event: its name, its probe, and what it is counted by.
const EVENTS: [(&str, &str, &str); 3] = [
    ("clean", "clean_dcache_guest_page", "common_pid"),
    ("entry", "__kvm_tlb_flush_vmid_ipa", "common_pid"),
    (
        "flush",
        "kvm_tlb_flush_vmid_range addr=%x1:u64 size=%x2:u64",
        "common_pid,addr,size",
    ),
];

impl Witness {
    fn watch() -> Result<Self> {
        let probes = EVENTS.map(|(name, probe, _)| format!("p:lazy/{name} {probe}\n"));
        trace("kprobe_events", &probes.concat())?;
        let witness = Self(());
        for (name, _, keys) in EVENTS {
            trace(
                &format!("events/lazy/{name}/trigger"),
                &format!("hist:keys={keys}"),
            )?;
        }
        Ok(witness)
    }

    /// Guest pages cleaned.
    fn cleaned(&self) -> Result<u64> {
        Self::count("clean", "")
    }

    /// Guest pages cleaned by all other threads: by kcompactd, too, which moves pages while they are mapped.
    fn cleaned_elsewhere(&self) -> Result<u64> {
        let own = format!("common_pid: {}", gettid());
        Self::sum("clean", |keys| keys != own)
    }

    /// Invalidations of the TLB for one entry of stage 2. With nVHE they are EL2's, and not seen.
    fn entries(&self) -> Result<u64> {
        Self::count("entry", "")
    }

    /// Invalidations of the TLB for just this range, which KVM unmaps in pieces no larger than the largest
    /// page of all that stage 2 can have: for each the same number.
    fn flushed(&self, addr: u64, size: usize) -> Result<u64> {
        let largest = match page_size() {
            4096 => 1 << 30,
            // A table of last-level pages.
            page => page * (page / size_of::<u64>()),
        };
        let counts: Vec<_> = (0..size)
            .step_by(largest)
            .map(|at| {
                let (addr, size) = (addr + at as u64, largest.min(size - at));
                Self::count("flush", &format!(", addr: {addr}, size: {size}"))
            })
            .collect::<Result<_>>()?;
        ensure!(
            counts.iter().all(|count| *count == counts[0]),
            "TLB invalidations of {size:#x} bytes at {addr:#x}, by the piece: {counts:?}"
        );
        Ok(counts[0])
    }

    fn count(event: &str, keys: &str) -> Result<u64> {
        let wanted = format!("common_pid: {}{keys}", gettid());
        Self::sum(event, |keys| keys == wanted)
    }

    /// Of all keys that are wanted.
    fn sum(event: &str, is_wanted: impl Fn(&str) -> bool) -> Result<u64> {
        let path = format!("{TRACING}/events/lazy/{event}/hist");
        let text = fs::read_to_string(&path).context(path)?;
        // { common_pid: 123, addr: 45, size: 6 } hitcount: 7, with blanks before each number
        let counts = text.lines().filter_map(|line| {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let (keys, count) = line.strip_prefix("{ ")?.split_once(" } hitcount: ")?;
            is_wanted(keys).then(|| count.parse::<u64>().context("a hitcount"))
        });
        counts.sum()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for (name, _, keys) in EVENTS {
            let _ = trace(
                &format!("events/lazy/{name}/trigger"),
                &format!("!hist:keys={keys}"),
            );
        }
        let _ = trace("kprobe_events", "\n");
    }
}

fn is_unsupported(what: &str, result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(()),
        other => bail!("{what}: want EOPNOTSUPP, got {other:?}"),
    }
}

/// insmod with `lazy` is refused, in one line of the log.
fn insmod_is_refused() -> Result<()> {
    let mut log = Kmsg::open().context("/dev/kmsg")?;
    is_unsupported(
        "insmod",
        module::insert(&format!("policy={}", Policy::Lazy as u8)),
    )?;
    ensure!(!module::is_loaded(), "refused, but the module is there");
    let mut said = log.records()?;
    said.retain(|record| {
        record.contains(&format!(";{}: ", module::NAME)) && record.contains("lazy")
    });
    ensure!(said.len() == 1, "want one line in the log, got {said:?}");
    Ok(())
}

/// Somebody else has, as a livepatch would, one of the functions that are redirected without FEAT_S2FWB
/// alone: `lazy` is refused, flushes are not counted, and the module loads all the same.
pub fn taken_by_another(lab: &Lab) -> Result<()> {
    for function in ["kvm_pgtable_stage2_unmap", "stage2_flush_vm"] {
        module::insert_another(
            Path::new("/take_function.ko"),
            &format!("function={function}"),
        )
        .context("insmod take_function")?;
        if lab.lazy()? == "unmaps" {
            insmod_is_refused().context(function)?;
            module::insert("").context(function)?;
            is_unsupported("a write", module::write("policy", Policy::Lazy.name()))?;
            let lazy = module::host()?.remove("lazy");
            ensure!(
                lazy.as_deref() == Some("refused"),
                "{function}: lazy is {lazy:?}"
            );
            let stats = module::read("stats")?;
            ensure!(
                !stats.contains("stage2_flush"),
                "{function}: flushes are shown, which nobody counts: {stats}"
            );
            module::remove().context("rmmod")?;
        } else {
            // Nothing is redirected there.
            lab.load(Policy::Lazy).context(function)?;
            lab.unload()?;
        }
        module::remove_another("take_function").context("rmmod take_function")?;
    }
    lab.load(Policy::Lazy).context("with all to be had again")?;
    lab.unload()
}

/// Where `lazy` is not to be had it is refused, in a line of the log where the module is loaded, and all
/// else is as ever.
pub fn refused(lab: &Lab) -> Result<()> {
    if lab.lazy()? != "refused" {
        return Err(Skip("the policy `lazy` is to be had here").into());
    }
    insmod_is_refused()?;
    for policy in Policy::ALL
        .into_iter()
        .filter(|&policy| policy != Policy::Lazy)
    {
        lab.load(policy)?;
        is_unsupported("a write", module::write("policy", Policy::Lazy.name()))?;
        let mut vm = lab.vm(2)?;
        vm.report()?;
        vm.reset()?;
        lab.check("in reset")?;
        vm.report()?;
        lab.check("running")?;
        drop(vm);
        lab.unload()?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0
//! What `lazy` leaves out, and what of it must not be missed. `once`, which leaves nothing of an unmap
//! out, has to pass as well.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use selftest::affinity;
use selftest::expect::Policy;

use crate::kmsg::Kmsg;
use crate::lab::Lab;
use crate::module;
use crate::tests::Skip;
use crate::tests::hooks::{TRACING, trace};
use crate::vm::{Extra, Pages, Vm, join};

/// The host's own pages.
fn page() -> usize {
    // SAFETY: Takes a number and cannot fail.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// How large huge pages are, if the host has any.
fn huge_page() -> Option<usize> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    text.trim().parse().ok()
}

/// Whether unmaps of a VM reset leave out their maintenance here.
fn is_lazy(lab: &Lab) -> Result<bool> {
    Ok(lab.policy() == Policy::Lazy && lab.lazy()? == "unmaps")
}

/// Other words in each page of further RAM.
fn fill(ram: &Extra, step: usize, words: &[u32]) -> Result<()> {
    let mut words = words.iter().enumerate();
    words.try_for_each(|(number, &word)| ram.write(number * step, word))
}

fn sweep(vm: &mut Vm, vcpu: usize, step: usize, words: &[u32]) -> Result<()> {
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

/// As much is left out as was mapped, in pages of either size, by one unmap for all vCPUs, and the
/// kernel's own count of cleanings says so, too.
pub fn left_out(lab: &Lab) -> Result<()> {
    // More than one table's worth of small pages.
    small_or_huge(lab, Pages::Small, page(), 1100)?;
    match huge_page() {
        Some(size) => small_or_huge(lab, Pages::Huge(size), size, 3),
        None => Ok(()),
    }
}

fn small_or_huge(lab: &Lab, pages: Pages, step: usize, count: usize) -> Result<()> {
    let (mut vm, cleanings) = (lab.vm(4)?, Cleanings::watch()?);
    let ram = vm.add_ram((count * step).next_multiple_of(1 << 16), pages)?;
    let words: Vec<_> = (1..).take(count).collect();
    fill(&ram, step, &words)?;
    vm.report()?;
    for round in 0..lab.reps {
        // Behind a reset nothing else is mapped but the page of routines.
        vm.reset()?;
        sweep(&mut vm, 0, step, &words)?;
        lab.clear()?;
        let before = cleanings.of_this_thread()?;
        vm.reset()?;
        let cleaned = cleanings.of_this_thread()? - before;
        let when = format!("{pages:?}, round {round}");
        lab.check(&format!("{when}: in reset"))?;

        let stats = module::stats(&format!("vms/{}/stats", vm.shown()))?;
        let got = (stats.dcache_clean_elide_bytes, stats.tlbi_elide, cleaned);
        let mapped = count as u64 + 1;
        let want = match (is_lazy(lab)?, lab.host().fwb) {
            (true, _) => ((count * step + page()) as u64, mapped, 0),
            (false, false) => (0, 0, mapped),
            (false, true) => (0, 0, 0),
        };
        ensure!(
            got == want,
            "{when}: want bytes, TLB invalidations left out, and pages cleaned {want:?}, got {got:?}"
        );
        sweep(&mut vm, 3, step, &words)?;
        lab.check(&format!("{when}: running"))?;
    }
    Ok(())
}

/// How the host replaces a page of the guest's.
type Replace = fn(&Extra, usize, usize) -> Result<()>;

/// The host replaces pages between the reset and the guest's next access: whoever used them before,
/// none of the PEs' TLBs may lead to the old ones.
pub fn replaced(lab: &Lab) -> Result<()> {
    const PAGES: usize = 12;
    let ways: [(&str, Replace); 3] = [
        ("MADV_DONTNEED", |ram, at, size| ram.discard(at, size)),
        ("mmap", |ram, at, size| ram.map_over(at, size)),
        ("mremap", |ram, at, size| ram.move_over(at, size, 0)),
    ];
    let step = page();
    let pes = thread::available_parallelism()?.get();
    for vcpus in [1, 2, 4] {
        let mut vm = lab.vm(vcpus)?;
        let ram = vm.add_ram((PAGES * step).next_multiple_of(1 << 16), Pages::Small)?;
        let mut words: Vec<u32> = (1..).take(PAGES).collect();
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
                all(&mut vm, &words)?;
                vm.reset()?;
                for number in (0..PAGES).step_by(2) {
                    replace(&ram, number * step, step)?;
                    words[number] += 1000;
                    ram.write(number * step, words[number])?;
                }
                all(&mut vm, &words)
                    .with_context(|| format!("{vcpus} vCPUs, round {round}: {name}"))?;
                lab.check(&format!("{vcpus} vCPUs, round {round}: {name}"))?;
            }
        }
    }
    Ok(())
}

/// A VM loses its pages to the host again and again, while another one is reset all the time: what is
/// left out is that one's alone.
pub fn taken_away(lab: &Lab) -> Result<()> {
    const PAGES: usize = 16;
    const MANY: usize = 256;
    let rounds = 100 * lab.reps;
    let step = page();
    let (mut vm, mut other) = (lab.vm(1)?, lab.vm(2)?);
    let ram = vm.add_ram((PAGES * step).next_multiple_of(1 << 16), Pages::Small)?;
    let others = other.add_ram((MANY * step).next_multiple_of(1 << 16), Pages::Small)?;
    let cleanings = Cleanings::watch()?;
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let resetting = scope.spawn(|| {
            let words = [7; MANY];
            fill(&others, step, &words)?;
            while !over.load(Ordering::Relaxed) {
                sweep(&mut other, 1, step, &words)?;
                other.reset()?;
            }
            Ok(())
        });
        let mut taken = || {
            for round in 0..rounds {
                let words = [round as u32; PAGES];
                fill(&ram, step, &words)?;
                sweep(&mut vm, 0, step, &words)?;
                ram.discard(0, PAGES * step)?;
            }
            cleanings.of_this_thread()
        };
        let result = taken();
        over.store(true, Ordering::Relaxed);
        join(resetting).and(result)
    });
    let cleaned = result?;
    // As each is mapped, and as each is unmapped.
    let least = (2 * PAGES * rounds) as u64;
    ensure!(
        lab.host().fwb || cleaned >= least,
        "want {least} pages cleaned or more for a VM that was not reset, got {cleaned}"
    );
    lab.check("after all")
}

/// Counts the kernel's cleanings of guest pages, by thread.
struct Cleanings(());

const EVENTS: &str = "events/lazy/clean";

impl Cleanings {
    fn watch() -> Result<Self> {
        trace("kprobe_events", "p:lazy/clean clean_dcache_guest_page")?;
        let cleanings = Self(());
        trace(&format!("{EVENTS}/trigger"), "hist:keys=common_pid")?;
        Ok(cleanings)
    }

    fn of_this_thread(&self) -> Result<u64> {
        // SAFETY: Takes nothing and cannot fail.
        let thread = unsafe { libc::gettid() }.to_string();
        let path = format!("{TRACING}/{EVENTS}/hist");
        let text = fs::read_to_string(&path).context(path)?;
        // { common_pid: 123 } hitcount: 4
        let found = text.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["{", "common_pid:", key, "}", "hitcount:", count] if key == thread => Some(count),
                _ => None,
            }
        });
        found.map_or(Ok(0), |count| count.parse().context("a hitcount"))
    }
}

impl Drop for Cleanings {
    fn drop(&mut self) {
        let _ = trace(&format!("{EVENTS}/trigger"), "!hist:keys=common_pid");
        let _ = trace("kprobe_events", "\n");
    }
}

/// Where `lazy` is not to be had it is refused, in a line of the log where the module is loaded, and all
/// else is as ever.
pub fn refused(lab: &Lab) -> Result<()> {
    if lab.lazy()? != "refused" {
        return Err(Skip("the policy `lazy` is to be had here").into());
    }
    let refused = |what: &str, result: std::io::Result<()>| match result {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => bail!("{what}: want EOPNOTSUPP, got {other:?}"),
    };
    let mut log = Kmsg::open().context("/dev/kmsg")?;
    refused(
        "insmod",
        module::insert(&format!("policy={}", Policy::Lazy as u8)),
    )?;
    ensure!(!module::is_loaded(), "refused, but the module is there");
    let said: Vec<_> = log
        .records()?
        .into_iter()
        .filter(|record| {
            record.contains(&format!(";{}: ", module::NAME)) && record.contains("lazy")
        })
        .collect();
    ensure!(said.len() == 1, "want one line in the log, got {said:?}");

    for policy in Policy::ALL
        .into_iter()
        .filter(|&policy| policy != Policy::Lazy)
    {
        lab.load(policy)?;
        refused("a write", module::write("policy", Policy::Lazy.name()))?;
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

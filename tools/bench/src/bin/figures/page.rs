// SPDX-License-Identifier: GPL-2.0
//! docs/benchmarks.md and its plots, from rows and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bench::row::{Key, What};

use crate::kept::{Kept, Made, Row, write_whole};
use crate::plot::{self, Axis, Bar, Series};
use crate::table::{Table, grouped};

/// In the order in which a reader compares them.
const STATES: [&str; 9] = [
    "none", "native", "fwb", "once", "unmap", "lazy", "kprobe", "function", "bpftrace",
];
/// The parts of a reset in which memory is touched again.
const AGAIN: [&str; 3] = ["again_1", "again_10", "again_100"];
/// Of VMs with how many vCPUs tables tell, where there is a choice.
const USUAL_VCPUS: u32 = 8;

const HEAD: &str = "\
<!-- SPDX-License-Identifier: GPL-2.0 -->
<!-- Written by `make bench` from benchmarks.json: change tools/bench/src/bin/figures/page.rs in its place. -->
# Benchmarks

Counted, not timed: an emulated arm64 host on which the clock goes on by one for each instruction, and a QEMU plugin that
counts what maintains caches and TLBs, by section and cause. An emulator has no caches, so none of this is in ns;
[`costs.md`](costs.md) says why the figures are what they are, and what they would be in time on real machines.
`make bench` makes them again, in 20 minutes and what Debian guests take (`GUESTS=` for none), and with `CPU=`, `TOUCHED=`,
`VCPUS=` or `STATES=` a part; `VCPUS=512` or `TOUCHED=1024` makes larger guests, in 20 minutes more for each CPU. `make bench-compare` then says what has become worse. All figures are
in [`benchmarks.json`](benchmarks.json), a row in each line.

`none` is the kernel without the module; `native` to `lazy` are the module's policies. `kprobe` (kprobe events), `function` (the
function tracer) and `bpftrace` (fentry) are what one would use without the module to see its re-inits, unmaps and flushes;
the kernel's own invalidation, which is no function, they do not see. `legacy` is the kernel as it was before 5.8, which
unmaps with FEAT_S2FWB, too: today's, changed by one instruction.
";

/// Writes the page to `directory`, and its plots to `benchmarks` there.
pub fn write(kept: &Kept, directory: &Path) -> Result<()> {
    let plots = directory.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("{}", plots.display()))?;
    let page = page(kept)?;
    for (name, svg) in &page.plots {
        write_whole(&plots.join(name), svg)?;
    }
    write_whole(&directory.join("benchmarks.md"), &page.text)
}

/// The page, and its plots by name.
struct Page {
    text: String,
    plots: BTreeMap<&'static str, String>,
}

fn page(kept: &Kept) -> Result<Page> {
    let mut page = Page {
        text: HEAD.to_owned(),
        plots: BTreeMap::new(),
    };
    let all = Rows(kept.0.values().collect());
    calls(&mut page, &all)?;
    resets(&mut page, &all)?;
    guests(&mut page, &all)?;
    the_module(&mut page, &all)?;
    runs(&mut page, &all)?;
    Ok(page)
}

impl Page {
    fn section(&mut self, title: &str, text: &str) -> Result<()> {
        writeln!(self.text, "\n## {title}\n\n{text}")?;
        Ok(())
    }

    fn table(&mut self, title: &str, table: &Table) -> Result<()> {
        if !table.is_empty() {
            write!(self.text, "\n{title}:\n\n{table}")?;
        }
        Ok(())
    }

    fn plot(&mut self, name: &'static str, title: &str, svg: Option<String>) -> Result<()> {
        if let Some(svg) = svg {
            writeln!(self.text, "\n![{title}](benchmarks/{name})")?;
            self.plots.insert(name, svg);
        }
        Ok(())
    }
}

/// Some of the rows.
struct Rows<'a>(Vec<&'a Row>);

impl<'a> Rows<'a> {
    fn only(&self, wanted: impl Fn(&Key) -> bool) -> Rows<'a> {
        let rows = self.0.iter().copied();
        Rows(rows.filter(|row| wanted(&row.key)).collect())
    }

    fn of(&self, what: What) -> Rows<'a> {
        self.only(|key| key.what == what)
    }

    /// Hosts, and the rows of each.
    fn by_host(&self) -> Vec<(String, Rows<'a>)> {
        let hosts: BTreeSet<_> = self.keys(|key| (key.cpu.clone(), key.kernel.clone()));
        let of_host = |(cpu, kernel): (String, String)| {
            let rows = self.only(|key| key.cpu == cpu && key.kernel == kernel);
            let name = if kernel == "stock" {
                cpu
            } else {
                format!("{cpu}, {kernel} kernel")
            };
            (name, rows)
        };
        // The kernel as it is comes first.
        let mut hosts: Vec<_> = hosts.into_iter().collect();
        hosts.sort_by_key(|(cpu, kernel)| (cpu.clone(), kernel != "stock"));
        hosts.into_iter().map(of_host).collect()
    }

    /// What they differ by.
    fn keys<T: Ord>(&self, of: impl Fn(&Key) -> T) -> BTreeSet<T> {
        self.0.iter().map(|row| of(&row.key)).collect()
    }

    /// One for each state, in a reader's order.
    fn by_state(&self) -> Vec<&'a Row> {
        let mut rows = self.0.clone();
        let place = |row: &Row| STATES.iter().position(|&state| state == row.key.state);
        rows.sort_by_key(|row| place(row));
        rows
    }

    fn state(&self, state: &str) -> Rows<'a> {
        self.only(|key| key.state == state)
    }
}

/// Of several, the usual one if it is there, or else the largest.
fn chosen(all: &BTreeSet<u32>, usual: u32) -> Option<u32> {
    all.get(&usual).or(all.last()).copied()
}

/// How large its pages are, to have them in order.
fn page_bytes(key: &Key) -> u64 {
    let pages = key.pages.as_deref().unwrap_or_default();
    let number = |unit| Some(pages.strip_suffix(unit)?.parse::<u64>().unwrap_or(0));
    number('K').map_or_else(|| number('M').unwrap_or(0) << 20, |kib| kib << 10)
}

/// The size of a page for people.
fn size(pages: &str) -> String {
    let (number, unit) = pages.split_at(pages.len().saturating_sub(1));
    format!("{number} {unit}iB")
}

/// A figure of several parts together.
fn sum(row: &Row, parts: &[&str], figure: &str) -> u64 {
    let names = parts.iter().map(|part| format!("{part}.{figure}"));
    names.map(|name| row.get(&name)).sum()
}

fn calls(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let all = all.of(What::Call);
    if all.0.is_empty() {
        return Ok(());
    }
    page.section(
        "Single calls",
        "Instructions, on a VM with one vCPU; medians of 301. KVM_RUN goes to a store to MMIO and back; each \
         KVM_ARM_VCPU_INIT follows one.",
    )?;
    for (host, rows) in all.by_host() {
        let mut table = Table::new(["", "KVM_RUN", "KVM_GET_ONE_REG", "KVM_ARM_VCPU_INIT"]);
        for row in rows.by_state() {
            let mut name = row.key.state.clone();
            match (row.key.vms, row.key.beside_reset) {
                (None, false) => {}
                (None, true) => name.push_str(", another VM in reset"),
                (Some(n), false) => write!(name, ", {} other VMs were reset", grouped(n.into()))?,
                (Some(n), true) => write!(name, ", {} other VMs in reset", grouped(n.into()))?,
            }
            let figure = |call| grouped(row.get(&format!("{call}.instructions")));
            table.line([name, figure("run"), figure("get"), figure("init")]);
        }
        page.table(&host, &table)?;
    }
    Ok(())
}

fn resets(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let all = all.of(What::Reset);
    if all.0.is_empty() {
        return Ok(());
    }
    page.section(
        "Resets",
        "The re-inits of all vCPUs, the first KVM_RUN of each, and, where the guest had touched memory, one vCPU touching all of \
         it again. *Invalidations* are `ic ialluis`, of the I-caches of all PEs; *lines* are lines of the data cache cleaned to the \
         PoC, by the unmap or by the faults that map pages again.",
    )?;
    by_vcpus(page, &all)?;
    by_memory(page, &all)
}

/// What depends on the number of vCPUs, of VMs that have touched nothing.
fn by_vcpus(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let all = all.only(|key| key.mib == Some(0));
    let with_fwb = all.only(|key| key.cpu == "cortex-a710" && key.kernel == "stock");
    // Of all parts of a reset, by the number of vCPUs.
    let series = |states: &[&str], figure: &dyn Fn(&Row, u64) -> u64| {
        let series = states.iter().map(|state| Series {
            name: (*state).to_owned(),
            points: with_fwb
                .state(state)
                .0
                .iter()
                .filter_map(|row| {
                    let vcpus = row.key.vcpus?.into();
                    Some((vcpus, figure(row, vcpus)))
                })
                .collect(),
        });
        series
            .filter(|series| !series.points.is_empty())
            .collect::<Vec<_>>()
    };
    let parts = ["reinit", "run"];
    let svg = plot::lines(
        "cortex-a710: invalidations of all I-caches at one reset",
        ("vCPUs", "invalidations"),
        Axis::Logarithmic,
        &series(&["none", "once"], &|row, _| sum(row, &parts, "icache")),
    )?;
    page.plot("invalidations.svg", "Invalidations by vCPUs", svg)?;
    let svg = plot::lines(
        "cortex-a710: instructions for each vCPU at one reset",
        ("vCPUs", "instructions for each"),
        Axis::Linear,
        &series(&["none", "native", "once", "unmap"], &|row, vcpus| {
            sum(row, &parts, "instructions") / vcpus
        }),
    )?;
    page.plot("instructions.svg", "Instructions by vCPUs", svg)?;

    for (host, rows) in all.by_host() {
        let vcpus = rows.keys(|key| key.vcpus);
        let vcpus: Vec<_> = vcpus.into_iter().flatten().collect();
        let head = ["re-inits and first KVM_RUNs, instructions".to_owned()];
        let mut head: Vec<_> = head.to_vec();
        for n in &vcpus {
            head.push(format!("{n} vCPUs"));
        }
        // Operations are told where every state was measured.
        let states = rows.keys(|key| key.state.clone()).len();
        let in_all = |n: &u32| rows.only(|key| key.vcpus == Some(*n)).0.len() == states;
        let most = vcpus.iter().copied().filter(in_all).next_back();
        let most = most.or(vcpus.last().copied()).unwrap_or(0);
        head.push(format!("invalidations at {most}"));
        head.push(format!("`tlbi` at {most}"));
        let mut table = Table::new(head);
        for state in STATES {
            let of_state = rows.state(state);
            if of_state.0.is_empty() {
                continue;
            }
            let at = |n: u32| of_state.only(|key| key.vcpus == Some(n)).0.first().copied();
            let mut line = vec![state.to_owned()];
            let figure = |n, figure| match at(n) {
                Some(row) => grouped(sum(row, &parts, figure)),
                None => String::new(),
            };
            line.extend(vcpus.iter().map(|&n| figure(n, "instructions")));
            line.push(figure(most, "icache"));
            line.push(figure(most, "tlbi"));
            table.line(line);
        }
        page.table(&format!("{host}, nothing touched but code"), &table)?;
    }
    Ok(())
}

/// What depends on how much was touched, and in which pages.
fn by_memory(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let all = all.only(|key| key.mib > Some(0));
    let without_fwb = all.only(|key| key.cpu == "neoverse-n1" && key.kernel == "stock");
    let vcpus: BTreeSet<_> = without_fwb
        .keys(|key| key.vcpus)
        .into_iter()
        .flatten()
        .collect();
    if let Some(vcpus) = chosen(&vcpus, USUAL_VCPUS) {
        let rows = without_fwb.only(|key| key.vcpus == Some(vcpus));
        plots_of_memory(page, &rows, vcpus)?;
    }
    for (host, rows) in all.by_host() {
        let vcpus: BTreeSet<_> = rows.keys(|key| key.vcpus).into_iter().flatten().collect();
        let Some(vcpus) = chosen(&vcpus, USUAL_VCPUS) else {
            continue;
        };
        let rows = rows.only(|key| key.vcpus == Some(vcpus));
        for (mib, _, pages) in rows.keys(|key| (key.mib, page_bytes(key), key.pages.clone())) {
            let (Some(mib), Some(pages)) = (mib, pages) else {
                continue;
            };
            let same = rows.only(|key| key.mib == Some(mib) && key.pages.as_ref() == Some(&pages));
            let title = format!(
                "{host}, {vcpus} vCPUs, {} MiB touched in pages of {}",
                grouped(mib.into()),
                size(&pages)
            );
            page.table(&title, &of_memory(&same))?;
        }
    }
    Ok(())
}

fn of_memory(rows: &Rows<'_>) -> Table {
    let mut table = Table::new([
        "",
        "re-inits: instructions",
        "invalidations",
        "`tlbi`",
        "lines",
        "first KVM_RUNs: instructions",
        "their invalidations",
        "all touched again: instructions",
        "its faults",
        "its `tlbi`",
        "its lines",
        "of them in the first 1 %, or page",
    ]);
    for row in rows.by_state() {
        let of = |parts: &[&str], figure| grouped(sum(row, parts, figure));
        let lines = |parts: &[&str]| {
            let causes = ["lines_unmap", "lines_fault", "lines_flush", "lines_other"];
            grouped(causes.iter().map(|cause| sum(row, parts, cause)).sum())
        };
        table.line([
            row.key.state.clone(),
            of(&["reinit"], "instructions"),
            of(&["reinit"], "icache"),
            of(&["reinit"], "tlbi"),
            lines(&["reinit"]),
            of(&["run"], "instructions"),
            of(&["run"], "icache"),
            of(&AGAIN, "instructions"),
            of(&AGAIN, "faults"),
            of(&AGAIN, "tlbi"),
            lines(&AGAIN),
            lines(&AGAIN[..1]),
        ]);
    }
    table
}

fn plots_of_memory(page: &mut Page, rows: &Rows<'_>, vcpus: u32) -> Result<()> {
    let pages: Vec<_> = rows
        .keys(|key| key.pages.clone())
        .into_iter()
        .flatten()
        .collect();
    let mut series = Vec::new();
    for state in ["none", "once", "lazy"] {
        for pages in &pages {
            let same = rows.only(|key| key.state == state && key.pages.as_ref() == Some(pages));
            let points = same.0.iter();
            let points: Vec<_> = points
                .filter_map(|row| Some((row.key.mib?.into(), row.get("reinit.instructions"))))
                .collect();
            series.push(Series {
                name: format!("{state}, {}", size(pages)),
                points,
            });
        }
    }
    series.retain(|series| !series.points.is_empty());
    let svg = plot::lines(
        &format!("neoverse-n1, {vcpus} vCPUs: instructions in the re-inits of one reset"),
        ("MiB touched", "instructions"),
        Axis::Logarithmic,
        &series,
    )?;
    page.plot(
        "reinits.svg",
        "Instructions in re-inits by MiB touched",
        svg,
    )?;

    // Where there is most to see.
    let sizes: BTreeSet<_> = rows.keys(|key| key.mib).into_iter().flatten().collect();
    let Some(mib) = chosen(&sizes, 1024) else {
        return Ok(());
    };
    let mut bars = Vec::new();
    let mut rows = rows.only(|key| key.mib == Some(mib)).by_state();
    rows.sort_by_key(|row| page_bytes(&row.key));
    for row in rows {
        if ["none", "once", "lazy"].contains(&row.key.state.as_str()) {
            bars.push(Bar {
                name: format!(
                    "{}, {}",
                    row.key.state,
                    size(row.key.pages.as_deref().unwrap_or_default())
                ),
                parts: vec![
                    sum(row, &["reinit"], "lines_unmap"),
                    sum(row, &AGAIN[..1], "lines_fault"),
                    sum(row, &AGAIN[1..], "lines_fault"),
                ],
            });
        }
    }
    let title =
        format!("neoverse-n1, {mib} MiB: lines cleaned by one reset, until all is touched again");
    let parts = [
        "by the unmap",
        "by faults, first 1 %, or page",
        "by faults, the rest",
    ];
    let svg = plot::bars(&title, "lines", &parts, &bars)?;
    page.plot("lines.svg", "Lines cleaned, by cause", svg)
}

fn guests(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let all = all.of(What::Guest);
    if all.0.is_empty() {
        return Ok(());
    }
    page.section(
        "Reboots of a Debian guest",
        "Debian's kernel with 512 MiB under Debian's QEMU, started by itself or by EDK2, from its order to reboot until its init says \
         that it is up; the second reboot of its life. QEMU's own work and the guest's are in it. Threads take turns in it as their \
         instructions happen to fall, so that a few operations more or less tell nothing.",
    )?;
    for (host, rows) in all.by_host() {
        for (start, vcpus) in rows.keys(|key| (key.start.clone(), key.vcpus)) {
            let (Some(name), Some(n)) = (&start, vcpus) else {
                continue;
            };
            let mut table = Table::new([
                "",
                "instructions of the host",
                "of the guest",
                "invalidations",
                "`tlbi`",
                "faults",
                "lines cleaned by unmaps",
                "by flushes",
                "by faults",
            ]);
            let same = rows.only(|key| key.start == start && key.vcpus == vcpus);
            for row in same.by_state() {
                let figure = |figure| grouped(row.get(&format!("reboot.{figure}")));
                table.line([
                    row.key.state.clone(),
                    figure("host_instructions"),
                    figure("guest_instructions"),
                    figure("icache"),
                    figure("tlbi"),
                    figure("faults"),
                    figure("lines_unmap"),
                    figure("lines_flush"),
                    figure("lines_fault"),
                ]);
            }
            page.table(&format!("{host}, {n} vCPUs, started by {name}"), &table)?;
        }
    }
    Ok(())
}

fn the_module(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    let (reads, itself) = (all.of(What::Read), all.of(What::Module));
    if reads.0.is_empty() && itself.0.is_empty() {
        return Ok(());
    }
    page.section(
        "The module itself",
        "A VM has files and a record from its first re-init on; its bytes are by how much the kernel's slabs grow. To load and to unload \
         the module is mostly to wait until no CPU is where code changes; the clock goes on meanwhile, at one for a ns.",
    )?;
    let mut table = Table::new([
        "",
        "code, bytes",
        "constants",
        "variables",
        "all of it, loaded",
        "for each VM",
        "loading, waits and all",
        "unloading, waits and all",
    ]);
    for (host, rows) in itself.by_host() {
        let of = |state: &str, figure: &str| {
            let rows = rows.state(state);
            rows.0.first().map_or(0, |row| row.get(figure))
        };
        let figure = |name: &str| grouped(of("itself", name));
        table.line([
            host,
            figure("text_bytes"),
            figure("constant_bytes"),
            figure("data_bytes"),
            figure("loaded_bytes"),
            grouped(of("per_vm", "bytes")),
            figure("load.instructions"),
            figure("unload.instructions"),
        ]);
    }
    page.table("What it takes", &table)?;
    for (host, rows) in reads.by_host() {
        let numbers: Vec<_> = rows.keys(|key| key.vms).into_iter().flatten().collect();
        let mut head = vec!["instructions to open, read and close".to_owned()];
        for &n in &numbers {
            head.push(format!("{} VMs", grouped(n.into())));
        }
        let mut table = Table::new(head);
        for file in rows.keys(|key| key.file.clone()).into_iter().flatten() {
            let same = rows.only(|key| key.file.as_ref() == Some(&file));
            let mut line = vec![format!("`{file}`")];
            for &n in &numbers {
                let row = same.only(|key| key.vms == Some(n));
                let figure = row.0.first().map(|row| row.get("instructions"));
                line.push(figure.map(grouped).unwrap_or_default());
            }
            table.line(line);
        }
        page.table(&format!("{host}, readers"), &table)?;
    }
    Ok(())
}

/// Where all of it is from.
fn runs(page: &mut Page, all: &Rows<'_>) -> Result<()> {
    page.section(
        "Runs",
        "Each row keeps its own date and command. Where there were several runs of a row, each was on a host with 64 MiB more memory, \
         so that all lay elsewhere; figures are medians, and the last column is by how much they differ at most.",
    )?;
    let mut made: BTreeMap<(&Made, u32), (usize, u64)> = BTreeMap::new();
    for row in &all.0 {
        let (rows, spread) = made.entry((&row.made, row.runs)).or_default();
        *rows += 1;
        *spread = (*spread).max(row.spread_ppm);
    }
    let mut table = Table::new([
        "command",
        "date",
        "kernel",
        "module",
        "QEMU",
        "rows",
        "runs",
        "differ by",
    ]);
    for ((made, runs), (rows, spread)) in made {
        let differ = match runs {
            1 => String::new(),
            _ => format!("{:.4} %", spread as f64 / 1e4),
        };
        table.line([
            format!("`{}`", made.command),
            made.date.clone(),
            format!("{}, {}", made.release, made.package),
            made.module.clone(),
            made.qemu.clone(),
            rows.to_string(),
            runs.to_string(),
            differ,
        ]);
    }
    write!(page.text, "\n{table}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::tests::{kept, row};

    /// The committed page is what the committed rows make.
    #[test]
    fn the_page_in_docs_is_of_the_rows_in_docs() -> Result<()> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let rows = docs.join("benchmarks.json");
        let page = page(&Kept::read(&rows)?)?;
        let text = fs::read_to_string(docs.join("benchmarks.md"))?;
        assert!(text == page.text, "docs/benchmarks.md was changed by hand");
        for (name, svg) in &page.plots {
            let text = fs::read_to_string(docs.join("benchmarks").join(name))?;
            assert!(text == *svg, "docs/benchmarks/{name} was changed by hand");
        }
        Ok(())
    }

    #[test]
    fn states_come_in_a_readers_order_and_figures_are_sums() -> Result<()> {
        let of = |state, n| {
            let figures = [
                ("reinit.lines_unmap", 10),
                ("again_1.lines_fault", 1),
                ("again_100.lines_fault", n),
            ];
            row(state, 8, &figures)
        };
        let rows = kept([of("lazy", 99), of("none", 2000), of("kprobe", 5)]);
        let page = page(&rows)?;
        let lines: Vec<_> = page.text.lines().filter(|l| l.ends_with("| 1 |")).collect();
        assert_eq!(
            lines,
            [
                "| none | 0 | 0 | 0 | 10 | 0 | 0 | 0 | 0 | 0 | 2,001 | 1 |",
                "| lazy | 0 | 0 | 0 | 10 | 0 | 0 | 0 | 0 | 0 | 100 | 1 |",
                "| kprobe | 0 | 0 | 0 | 10 | 0 | 0 | 0 | 0 | 0 | 6 | 1 |",
            ]
        );
        assert!(
            page.text
                .contains("cortex-a710, 8 vCPUs, 64 MiB touched in pages of 4 KiB")
        );
        Ok(())
    }
}

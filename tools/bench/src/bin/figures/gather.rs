// SPDX-License-Identifier: GPL-2.0
//! Rows of a boot, and of several boots of the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bench::row::{Figures, Line, Told, What};
use coherence::counts::{Counts, Section};
use coherence::insn::Kind;
use coherence::verdict::Address;

use crate::kept::{Kept, Made, Row, name};

/// What runs may differ by.
const AGREED_PPM: u64 = 1000;

/// Where the kernel has its functions.
type Functions = BTreeMap<String, (u64, u64)>;

/// The rows that the console `log` tells of, with what the oracle counted in their sections.
pub fn rows(log: &Path, counts: &Path, cpu: &str, kernel: &str, made: &Made) -> Result<Kept> {
    let text = fs::read(log).with_context(|| format!("{}", log.display()))?;
    let counts = Counts::read(counts)?;
    let kept = gathered(&String::from_utf8_lossy(&text), &counts, cpu, kernel, made);
    kept.with_context(|| format!("{}", log.display()))
}

fn gathered(text: &str, counts: &Counts, cpu: &str, kernel: &str, made: &Made) -> Result<Kept> {
    let mut functions = Functions::new();
    let mut kept = Kept::default();
    for line in text.lines() {
        let Some(at) = line.find(Line::PREFIX) else {
            continue;
        };
        let json = line[at + Line::PREFIX.len()..].trim_end();
        match serde_json::from_str(json)
            .with_context(|| format!("not a line of figures: {json}"))?
        {
            Line::Functions(told) => functions = told,
            Line::Host(_) => {}
            Line::Told(told) => {
                let row = row(told, counts, &functions, cpu, kernel, made)?;
                kept.0.insert(row.key.clone(), row);
            }
        }
    }
    ensure!(!kept.0.is_empty(), "it tells of no figures");
    Ok(kept)
}

fn row(
    told: Told,
    counts: &Counts,
    functions: &Functions,
    cpu: &str,
    kernel: &str,
    made: &Made,
) -> Result<Row> {
    let Told {
        mut key,
        mut figures,
        sections,
    } = told;
    key.cpu = cpu.to_owned();
    key.kernel = kernel.to_owned();
    for (part, number) in sections {
        let section = counts.sections.iter().find(|s| s.number == number);
        let section = section.with_context(|| format!("the oracle has no section {number}"))?;
        for (figure, count) in figures_of(section, functions)? {
            *figures.entry(format!("{part}.{figure}")).or_default() += count;
        }
        // The clock goes on while all of a guest's CPUs are idle; elsewhere one thread does all that is done.
        if key.what == What::Guest {
            let guest = section.guest_instructions;
            figures.insert(format!("{part}.guest_instructions"), guest);
            figures.insert(
                format!("{part}.host_instructions"),
                section.instructions - guest,
            );
        }
    }
    figures.retain(|_, figure| *figure > 0);
    Ok(Row {
        key,
        figures,
        made: made.clone(),
        runs: 1,
        spread_ppm: 0,
    })
}

/// What was done in a section.
fn figures_of(section: &Section, functions: &Functions) -> Result<Figures> {
    let range = |name: &str| {
        let range = functions.get(name);
        range.with_context(|| format!("the console does not tell where {name} is"))
    };
    let cleans = range("dcache_clean_inval_poc")?;
    // One that a kernel lacks tells of nothing.
    let entry = |name: &str| functions.get(name).map(|&(pc, _)| pc);
    let causes = [
        ("lines_unmap", entry("stage2_unmap_walker")),
        ("lines_flush", entry("stage2_flush_walker")),
        ("lines_fault", entry("stage2_map_walker_try_leaf")),
    ];
    let faults = entry("user_mem_abort").map(Address);

    let mut figures = Figures::new();
    for operation in &section.operations {
        let Address(pc) = operation.pc;
        let figure = match operation.kind {
            Kind::IcIalluis => "icache",
            Kind::IcIvau => "icache_lines",
            Kind::Tlbi => "tlbi",
            Kind::Dc if (cleans.0..cleans.1).contains(&pc) => {
                let after = operation.after.map(|Address(pc)| pc);
                let cause = causes.iter().find(|&&(_, pc)| pc.is_some() && after == pc);
                cause.map_or("lines_other", |&(figure, _)| figure)
            }
            // Of this PE alone; and what user space cleans.
            Kind::IcIallu | Kind::Dc => continue,
        };
        *figures.entry(figure.to_owned()).or_default() += operation.count;
    }
    let entered = section.entries.iter().find(|e| Some(e.pc) == faults);
    figures.insert("faults".into(), entered.map_or(0, |entry| entry.count));
    Ok(figures)
}

/// The medians of several runs, and what is to be said of how they agree.
pub fn agree(paths: &[PathBuf]) -> Result<(Kept, String)> {
    let runs: Vec<_> = paths.iter().map(|p| Kept::read(p)).collect::<Result<_>>()?;
    agreed(&runs)
}

fn agreed(runs: &[Kept]) -> Result<(Kept, String)> {
    let first = runs.first().context("there is no run")?;
    let mut kept = Kept::default();
    let mut said = String::new();
    let mut exact = 0;
    for row in first.0.values() {
        let others = runs.iter().map(|run| run.0.get(&row.key));
        let same: Vec<&Row> = others
            .collect::<Option<_>>()
            .with_context(|| format!("not in every run: {}", name(&row.key)))?;
        let mut row = row.clone();
        row.runs = same.iter().map(|row| row.runs).sum();
        let names = same.iter().flat_map(|row| row.figures.keys().cloned());
        let names: std::collections::BTreeSet<_> = names.collect();
        for figure in names {
            let mut values: Vec<_> = same.iter().map(|row| row.get(&figure)).collect();
            values.sort_unstable();
            let (least, most) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            let ppm = (most - least) * 1_000_000 / median.max(1);
            row.spread_ppm = row.spread_ppm.max(ppm);
            if ppm > AGREED_PPM {
                writeln!(
                    said,
                    "{}: {figure} is from {least} to {most}, which differ by more than 0.1 %",
                    name(&row.key)
                )?;
            }
            row.figures.insert(figure, median);
        }
        exact += usize::from(row.spread_ppm == 0);
        kept.0.insert(row.key.clone(), row);
    }
    writeln!(
        said,
        "{} runs: {exact} of {} rows are the same to the last digit",
        runs.len(),
        kept.0.len()
    )?;
    Ok((kept, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::tests::{kept, row};
    use coherence::counts::{Entry, Operation};

    const FUNCTIONS: &str = r#"bench: {"functions":{"dcache_clean_inval_poc":[100,200],
        "stage2_unmap_walker":[1000,1100],"stage2_flush_walker":[2000,2100],
        "stage2_map_walker_try_leaf":[3000,3100],"user_mem_abort":[4000,4100]}}"#;

    /// Lines are told apart by why they were cleaned; what user space cleans is none of KVM's.
    #[test]
    fn counts_go_to_their_rows_and_causes() -> Result<()> {
        let operation = |kind, pc, after: Option<u64>, count| Operation {
            kind,
            pc: Address(pc),
            after: after.map(Address),
            count,
        };
        let section = Section {
            number: 7,
            operations: vec![
                operation(Kind::Dc, 100, Some(1000), 64),
                operation(Kind::Dc, 199, Some(3000), 3),
                operation(Kind::Dc, 150, None, 1),
                operation(Kind::Dc, 200, Some(1000), 1000),
                operation(Kind::Tlbi, 5, None, 9),
                operation(Kind::IcIalluis, 6, Some(1000), 2),
            ],
            entries: vec![
                Entry {
                    pc: Address(4000),
                    count: 5,
                },
                Entry {
                    pc: Address(1000),
                    count: 6,
                },
            ],
            ..Section::default()
        };
        let counts = Counts {
            version: 1,
            sections: vec![Section::default(), section],
        };
        let text = format!(
            "{}\nnoise bench: {}\r\n",
            FUNCTIONS.replace('\n', ""),
            r#"{"told":{"what":"reset","state":"once","vcpus":8,"mib":64,"pages":"4K",
                "figures":{"reinit.instructions":77},"sections":{"reinit":7}}}"#
                .replace('\n', "")
        );
        let kept = gathered(&text, &counts, "neoverse-n1", "stock", &Made::default())?;
        let row = kept.0.values().next().unwrap();
        let figures: Vec<_> = row.figures.iter().map(|(n, &f)| (n.as_str(), f)).collect();
        assert_eq!(
            figures,
            [
                ("reinit.faults", 5),
                ("reinit.icache", 2),
                ("reinit.instructions", 77),
                ("reinit.lines_fault", 3),
                ("reinit.lines_other", 1),
                ("reinit.lines_unmap", 64),
                ("reinit.tlbi", 9),
            ]
        );
        assert_eq!(
            name(&row.key),
            "neoverse-n1 stock reset once, 8 vCPUs, 64 MiB in 4K"
        );

        let lost = Counts {
            version: 1,
            sections: vec![],
        };
        let error = gathered(&text, &lost, "", "", &Made::default()).unwrap_err();
        assert_eq!(error.to_string(), "the oracle has no section 7");
        assert!(gathered("nothing", &counts, "", "", &Made::default()).is_err());
        Ok(())
    }

    /// What a guest's reboot takes is not in the clock, which goes on while all are idle.
    #[test]
    fn a_guest_has_instructions_of_its_own() -> Result<()> {
        let section = Section {
            number: 3,
            instructions: 100,
            guest_instructions: 60,
            ..Section::default()
        };
        let counts = Counts {
            version: 1,
            sections: vec![section],
        };
        let told = r#"bench: {"told":{"what":"guest","state":"lazy","vcpus":4,"start":"edk2","figures":{},"sections":{"reboot":3}}}"#;
        let text = format!("{}\n{told}\n", FUNCTIONS.replace('\n', ""));
        let kept = gathered(&text, &counts, "neoverse-n1", "stock", &Made::default())?;
        let row = kept.0.values().next().unwrap();
        let figures: Vec<_> = row.figures.iter().map(|(n, &f)| (n.as_str(), f)).collect();
        assert_eq!(
            figures,
            [
                ("reboot.guest_instructions", 60),
                ("reboot.host_instructions", 40),
            ]
        );
        assert_eq!(
            name(&row.key),
            "neoverse-n1 stock guest lazy, 4 vCPUs from edk2"
        );
        Ok(())
    }

    #[test]
    fn runs_that_differ_are_told() -> Result<()> {
        let run = |a, b| kept([row("none", 1, &[("a", a)]), row("once", 1, &[("b", b)])]);
        let (agreed, said) = agreed(&[run(100_000, 7), run(100_100, 7), run(100_101, 7)])?;
        let rows: Vec<_> = agreed.0.values().collect();
        assert_eq!(
            (rows[0].get("a"), rows[0].spread_ppm, rows[0].runs),
            (100_100, 1008, 3)
        );
        assert_eq!((rows[1].get("b"), rows[1].spread_ppm), (7, 0));
        assert_eq!(
            said,
            "cortex-a710 stock reset none, 1 vCPUs, 64 MiB in 4K: a is from 100000 to 100101, which differ by more \
             than 0.1 %\n3 runs: 1 of 2 rows are the same to the last digit\n"
        );
        assert!(super::agreed(&[run(1, 1), kept([row("none", 1, &[])])]).is_err());
        Ok(())
    }
}

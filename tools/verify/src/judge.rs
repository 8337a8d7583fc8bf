// SPDX-License-Identifier: GPL-2.0
//! Joins what the workload said with what the oracle saw, and says what is not as due.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use coherence::insn::Kind;
use coherence::verdict::{self, Verdict};
use contract::{Counters, Host};

use crate::due::Due;
use crate::record::{Boot, Code, Record, Section, State};

/// The fewest instructions that a vCPU executes in a section: `Work` of `vmm::guest` up to the
/// store that leaves the guest, but for the first, which the completion of an older store may step
/// over. An oracle that saw fewer did not look.
const INSTRUCTIONS: u64 = 8;

/// What was seen at one reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Stale fetches by guests.
    pub stale_fetches: u64,
    /// Dirty reads by guests.
    pub dirty_reads: u64,
    /// Dirty writes by guests.
    pub dirty_writes: u64,
    /// `ic ialluis` on account of re-inits.
    pub invalidations: u64,
    /// Runs of `stage2_unmap_vm`.
    pub unmaps: u64,
}

/// One VM, reset again and again in one state.
#[derive(Debug)]
pub struct Cell {
    /// With the module or without.
    pub state: State,
    /// The VM's vCPUs.
    pub vcpus: usize,
    /// One for each reset.
    pub resets: Vec<Seen>,
    /// What is not as due.
    pub wrong: Vec<String>,
}

/// One boot of the lab.
#[derive(Debug)]
pub struct Run {
    /// What was booted.
    pub boot: Boot,
    /// A VM of each number of vCPUs in each state.
    pub cells: Vec<Cell>,
    /// What is wrong outside of any cell.
    pub wrong: Vec<String>,
}

impl Run {
    /// Whether all is as due.
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.cells.iter().all(|cell| cell.wrong.is_empty())
    }
}

/// Judges one boot by the console's log and the oracle's verdict.
pub fn judge(log: &str, verdict: Verdict) -> Result<Run> {
    let sections = verdict.sections.into_iter();
    let mut seen: BTreeMap<_, _> = sections.map(|section| (section.number, section)).collect();
    let (mut boot, mut codes, mut sections) = (None, Vec::new(), Vec::new());
    for record in Record::all(log)? {
        match record {
            Record::Boot(record) => boot = Some(record),
            Record::Code(code) => codes.push(code),
            Record::Section(section) => sections.push(section),
        }
    }
    let boot = boot.context("the log has no line that the workload begins with")?;
    let host: Host = boot.facts.parse().map_err(anyhow::Error::msg)?;

    let mut cells = Vec::new();
    for &state in &boot.states {
        for &vcpus in &boot.vcpus {
            let mut cell = Cell {
                state,
                vcpus,
                resets: Vec::new(),
                wrong: Vec::new(),
            };
            for reset in 0..=boot.resets {
                let at = |wrong: String| format!("{}: {wrong}", moment(reset));
                let said = sections.iter().find(|section| {
                    (section.state, section.vcpus, section.reset) == (state, vcpus, reset)
                });
                let Some(said) = said else {
                    cell.wrong.push(at("the workload said nothing".to_owned()));
                    continue;
                };
                let Some(saw) = seen.remove(&said.number) else {
                    cell.wrong.push(at("the oracle saw nothing".to_owned()));
                    continue;
                };
                let (seen, wrong) = compare(host, said, &saw, &codes);
                cell.wrong.extend(wrong.into_iter().map(at));
                if reset > 0 {
                    cell.resets.push(seen);
                }
            }
            cells.push(cell);
        }
    }
    // What is left is no reset: loading, unloading, the end of VMs.
    let wrong = seen
        .into_values()
        .filter(|saw| !saw.findings().is_empty())
        .map(|saw| {
            let (number, name, findings) = (saw.number, &saw.name, saw.findings());
            format!("section {number} ({name}), no reset: {findings}")
        })
        .collect();
    Ok(Run { boot, cells, wrong })
}

fn moment(reset: usize) -> String {
    match reset {
        0 => "first run".to_owned(),
        _ => format!("reset {reset}"),
    }
}

/// What a section shows, and what of it is not as due.
fn compare(
    host: Host,
    said: &Section,
    saw: &verdict::Section,
    codes: &[Code],
) -> (Seen, Vec<String>) {
    let due = match said.reset {
        0 => Due::at_first(host, said.state, said.vcpus),
        _ => Due::at_reset(host, said.state, said.vcpus),
    };
    let seen = Seen {
        stale_fetches: saw.stale_fetches,
        dirty_reads: saw.dirty_reads,
        dirty_writes: saw.dirty_writes,
        invalidations: invalidations(saw, codes),
        unmaps: said.unmaps,
    };

    let mut wrong = Vec::new();
    let mut exactly = |what: &str, want: u64, got: u64| {
        if got != want {
            wrong.push(format!("{what}: want {want}, got {got}"));
        }
    };
    exactly("invalidations", due.invalidations, seen.invalidations);
    exactly("unmaps", due.unmaps, seen.unmaps);
    exactly("dirty reads", 0, seen.dirty_reads);
    exactly("dirty writes", 0, seen.dirty_writes);
    // How often depends on what each PE has run; whether does not.
    match (due.stale, seen.stale_fetches) {
        (false, 0) | (true, 1..) => {}
        (false, got) => wrong.push(format!("stale fetches: want none, got {got}")),
        (true, 0) => wrong.push("stale fetches: want some, got none".to_owned()),
    }

    let least = INSTRUCTIONS * said.vcpus as u64;
    if saw.guest_instructions < least {
        wrong.push(format!(
            "guest instructions: want {least} or more, got {}: the oracle does not see the guest",
            saw.guest_instructions
        ));
    }
    match (due.counters, &said.stats) {
        (None, None) => {}
        (Some(want), Some(text)) => match text.parse::<Counters>() {
            Ok(got) if due.elides => {
                wrong.extend(want.with_elided_of(&got).difference(&got));
                wrong.extend(got.contradictions());
                if got.tlbi_elide == 0 {
                    wrong.push("tlbi_elide: want some, got none".to_owned());
                }
            }
            Ok(got) => wrong.extend(want.difference(&got)),
            Err(error) => wrong.push(error),
        },
        (None, Some(_)) => wrong.push("the module was loaded".to_owned()),
        (Some(_), None) => wrong.push("the module was not loaded".to_owned()),
    }
    (seen, wrong)
}

/// How often one of these `codes` executed `ic ialluis`.
fn invalidations(saw: &verdict::Section, codes: &[Code]) -> u64 {
    let is_ours = |site: &&verdict::Site| {
        let mut codes = codes.iter();
        site.kind == Kind::IcIalluis
            && codes.any(|code| (code.start..code.end).contains(&site.pc.0))
    };
    saw.sites
        .iter()
        .filter(is_ours)
        .map(|site| site.count)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Policy;

    const OURS: u64 = 0xffff_8000_8000_1000;
    const ONCE: State = State(Some(Policy::Once));
    const LAZY: State = State(Some(Policy::Lazy));
    const HOST: &str = "fwb:1,dic:0,native_reset:icache";
    const RFC: &str = "fwb:1,dic:0,native_reset:none";
    const NO_FWB: &str = "fwb:0,dic:0,native_reset:unmap";

    fn code() -> Code {
        Code {
            name: "kvm_arch_vcpu_ioctl".to_owned(),
            start: OURS,
            end: OURS + 4096,
        }
    }

    fn site(pc: u64, kind: Kind, count: u64) -> verdict::Site {
        let pc = verdict::Address(pc);
        verdict::Site { pc, kind, count }
    }

    /// A boot as it should be, with one cell of 8 vCPUs and two resets, to be made wrong.
    struct Recorded {
        boot: Boot,
        sections: Vec<Section>,
        seen: Vec<verdict::Section>,
    }

    impl Recorded {
        fn new(facts: &str, state: State) -> Self {
            let vcpus = 8;
            let host = facts.parse().unwrap();
            let (mut sections, mut seen) = (Vec::new(), Vec::new());
            for (number, reset) in (10..).zip(0..=2) {
                let due = match reset {
                    0 => Due::at_first(host, state, vcpus),
                    _ => Due::at_reset(host, state, vcpus),
                };
                sections.push(Section {
                    number,
                    state,
                    vcpus,
                    reset,
                    unmaps: due.unmaps,
                    stats: due.counters.map(|counters| {
                        let elided = u64::from(due.elides);
                        let counters = Counters {
                            dcache_clean_elide_bytes: 4096 * elided,
                            tlbi_elide: elided,
                            ..counters
                        };
                        counters.to_string()
                    }),
                });
                seen.push(verdict::Section {
                    number,
                    guest_instructions: 72,
                    stale_fetches: due.stale.into(),
                    // That of the kernel's on account of faults is not ours.
                    sites: vec![
                        site(OURS, Kind::IcIalluis, due.invalidations),
                        site(OURS + 4096, Kind::IcIalluis, 5),
                    ],
                    ..verdict::Section::default()
                });
            }
            let boot = Boot {
                release: "7.3.4".to_owned(),
                kernel: "stock".to_owned(),
                cpu: "cortex-a710".to_owned(),
                facts: facts.to_owned(),
                states: vec![state],
                vcpus: vec![vcpus],
                resets: 2,
            };
            Self {
                boot,
                sections,
                seen,
            }
        }

        fn judge(&self) -> Run {
            let mut records = vec![Record::Boot(self.boot.clone()), Record::Code(code())];
            records.extend(self.sections.iter().cloned().map(Record::Section));
            let lines: Vec<_> = records.iter().map(|line| line.line().unwrap()).collect();
            judge(&lines.join("\r\n"), Verdict::new(self.seen.clone())).unwrap()
        }

        fn change_stats(&mut self, section: usize, from: &str, to: &str) {
            let stats = self.sections[section].stats.take();
            self.sections[section].stats = stats.map(|stats| stats.replace(from, to));
        }

        /// All that is wrong, in one text.
        fn wrong(&self) -> String {
            let run = self.judge();
            assert_eq!(
                run.is_right(),
                run.wrong.is_empty() && run.cells[0].wrong.is_empty()
            );
            [run.wrong, run.cells[0].wrong.clone()].concat().join("; ")
        }
    }

    #[test]
    fn only_our_invalidations_of_all_pes_count() {
        let section = verdict::Section {
            sites: vec![
                site(OURS, Kind::IcIalluis, 3),
                site(OURS, Kind::IcIvau, 3),
                site(OURS + 4096, Kind::IcIalluis, 3),
            ],
            ..verdict::Section::default()
        };
        let next = Code {
            start: OURS + 4096,
            end: OURS + 8192,
            ..code()
        };
        assert_eq!(invalidations(&section, &[]), 0);
        assert_eq!(invalidations(&section, &[code()]), 3);
        assert_eq!(invalidations(&section, &[code(), next]), 6);
    }

    #[test]
    fn what_is_due_is_right() {
        for facts in [HOST, RFC, NO_FWB, "fwb:1,dic:1,native_reset:none"] {
            for state in State::ALL {
                assert_eq!(Recorded::new(facts, state).wrong(), "", "{facts} {state}");
            }
        }
        let run = Recorded::new(HOST, ONCE).judge();
        assert_eq!(run.cells[0].resets.len(), 2);
        assert_eq!(run.cells[0].resets[1].invalidations, 1);
    }

    /// Each way to be wrong is said, at its reset.
    #[test]
    fn what_is_not_is_said() {
        type Change = fn(&mut Recorded);
        let changes: [(&str, State, Change, &str); 19] = [
            (
                HOST,
                ONCE,
                |r| r.seen[1].stale_fetches = 1,
                "reset 1: stale fetches: want none, got 1",
            ),
            (
                HOST,
                ONCE,
                |r| r.seen[0].stale_fetches = 1,
                "first run: stale fetches: want none, got 1",
            ),
            (
                RFC,
                State(None),
                |r| r.seen[2].stale_fetches = 0,
                "reset 2: stale fetches: want some, got none",
            ),
            (
                RFC,
                State(None),
                |r| r.seen[2].dirty_reads = 4,
                "reset 2: dirty reads: want 0, got 4",
            ),
            (
                NO_FWB,
                ONCE,
                |r| r.seen[1].dirty_reads = 4,
                "reset 1: dirty reads: want 0, got 4",
            ),
            (
                NO_FWB,
                ONCE,
                |r| r.seen[1].dirty_writes = 4,
                "reset 1: dirty writes: want 0, got 4",
            ),
            (
                HOST,
                ONCE,
                |r| r.seen[1].sites[0].count = 2,
                "reset 1: invalidations: want 1, got 2",
            ),
            (
                HOST,
                ONCE,
                |r| r.seen[1].sites[0].count = 0,
                "reset 1: invalidations: want 1, got 0",
            ),
            (
                HOST,
                State(None),
                |r| r.seen[1].sites[0].kind = Kind::IcIallu,
                "reset 1: invalidations: want 8, got 0",
            ),
            (
                NO_FWB,
                ONCE,
                |r| r.sections[2].unmaps = 2,
                "reset 2: unmaps: want 1, got 2",
            ),
            (
                HOST,
                ONCE,
                |r| r.seen[1].guest_instructions = 63,
                "reset 1: guest instructions: want 64 or more, got 63: the oracle does not see the guest",
            ),
            (
                HOST,
                ONCE,
                |r| r.sections[1].stats = r.sections[0].stats.clone(),
                "reset 1: vcpu_reset: want 8, got 0; reset 1: vm_reset: want 1, got 0; reset 1: icache_invalidate: want 1, got 0; reset 1: icache_elide: want 8, got 0",
            ),
            (
                HOST,
                ONCE,
                |r| r.sections[1].stats = None,
                "reset 1: the module was not loaded",
            ),
            (
                NO_FWB,
                LAZY,
                |r| r.change_stats(1, "bytes 4096", "bytes 0"),
                "reset 1: 0 bytes not cleaned of 1 pages",
            ),
            (
                NO_FWB,
                LAZY,
                |r| r.sections[1].stats = Recorded::new(NO_FWB, ONCE).sections[1].stats.clone(),
                "reset 1: tlbi_elide: want some, got none",
            ),
            (
                NO_FWB,
                ONCE,
                |r| r.change_stats(1, "tlbi_elide 0", "tlbi_elide 7"),
                "reset 1: tlbi_elide: want 0, got 7",
            ),
            (
                HOST,
                State(None),
                |r| r.sections[1].stats = Some(String::new()),
                "reset 1: the module was loaded",
            ),
            (
                HOST,
                ONCE,
                |r| drop(r.sections.pop()),
                "reset 2: the workload said nothing",
            ),
            (
                HOST,
                ONCE,
                |r| drop(r.seen.pop()),
                "reset 2: the oracle saw nothing",
            ),
        ];
        for (facts, state, change, want) in changes {
            let mut recorded = Recorded::new(facts, state);
            change(&mut recorded);
            assert_eq!(recorded.wrong(), want);
        }
    }

    #[test]
    fn what_is_found_outside_of_resets_is_said() {
        let mut recorded = Recorded::new(HOST, ONCE);
        let mut other = verdict::Section {
            number: 99,
            name: "unload".to_owned(),
            ..verdict::Section::default()
        };
        recorded.seen.push(other.clone());
        assert_eq!(recorded.wrong(), "");
        other.stale_fetches = 2;
        recorded.seen[3] = other;
        assert_eq!(
            recorded.wrong(),
            "section 99 (unload), no reset: 2 stale fetches, 0 dirty reads, 0 dirty writes"
        );
    }

    #[test]
    fn a_log_without_a_beginning_is_refused() {
        assert!(judge("lab: verify ended, status 0\n", Verdict::new(vec![])).is_err());
    }
}

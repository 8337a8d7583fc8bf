// SPDX-License-Identifier: GPL-2.0

//! Scenarios, a few events each, and what must be found in them; and that no rule can be left out
//! without one of them noticing.

use crate::{
    At, Executed, Features, Oracle,
    insn::{Domain, Point},
    memory::{LINE, Memory, Words},
    rules::{Rule, Rules},
    verdict::{Finding, Section, Verdict},
    view::View,
    walk::{HCR_FWB, HCR_VM, SCTLR_C, SCTLR_I, SCTLR_M},
};
use std::collections::HashMap;

/// RAM of zeroes, and what was written there.
#[derive(Default)]
struct Ram(HashMap<u64, u32>);

impl Ram {
    fn word(&self, addr: u64) -> u32 {
        self.0.get(&addr).copied().unwrap_or(0)
    }
}

impl Memory for Ram {
    fn read(&self, page: u64, words: &mut Words) -> bool {
        for (word, addr) in words.0.iter_mut().zip((page..).step_by(4)) {
            *word = self.word(addr);
        }
        true
    }

    fn doubleword(&self, _: u64) -> Option<u64> {
        None
    }
}

/// As FWB, IDC and no DIC is; PEs are 0 and 1, and begin as a guest's with the MMU on.
const A710: Features = Features {
    dic: false,
    idc: true,
    icache_line: LINE,
    dcache_line: LINE,
};
const DIC: Features = Features { dic: true, ..A710 };
const A57: Features = Features { idc: false, ..A710 };
const A64FX: Features = Features {
    icache_line: 4 * LINE,
    dcache_line: 4 * LINE,
    ..A710
};

/// Stale fetches, dirty reads, dirty writes, and what a guest did to itself.
type Found = (u64, u64, u64, u64);
const NOTHING: Found = (0, 0, 0, 0);
const STALE: Found = (1, 0, 0, 0);

type Scenario = (&'static str, Features, &'static str, Found);

/// What the architecture says of each, as programs for PE 0 and 1 and a host:
///
/// - `write ADDR`, by the host, another value each time; `guest-write PE ADDR`
/// - `read PE ADDR`, `fetch PE ADDR`
/// - `ialluis PE`, `iallu PE`, `iallu-fb PE`, `ivau PE ADDR`
/// - `cvau PE ADDR`, `cvac PE ADDR`, `nsh PE` and `ish PE` for `dsb`
/// - `mmu-on PE`, `mmu-off PE`, `fwb PE` with the MMU off, `i-on PE` with the MMU off and SCTLR_EL1.I
/// - `section`
const SCENARIOS: &[Scenario] = &[
    (
        "first code",
        A710,
        "write 0; fetch 0 0; fetch 1 0; fetch 0 4",
        NOTHING,
    ),
    ("rewritten", A710, "fetch 0 0; write 0; fetch 0 0", STALE),
    (
        "once for each version",
        A710,
        "fetch 0 0; write 0; fetch 0 0; fetch 0 0; write 0; fetch 0 0",
        (2, 0, 0, 0),
    ),
    (
        "once for each PE",
        A710,
        "fetch 0 0; write 0; fetch 0 0; fetch 1 0",
        (2, 0, 0, 0),
    ),
    (
        "written next to it",
        A710,
        "fetch 0 0; write 4; fetch 0 0",
        NOTHING,
    ),
    (
        "never executed, but prefetched",
        A710,
        "fetch 0 0; write 4; fetch 0 4",
        STALE,
    ),
    (
        "another page",
        A710,
        "fetch 0 0; write 0x1000; fetch 0 0x1000",
        NOTHING,
    ),
    (
        "all invalidated",
        A710,
        "fetch 0 0; write 0; ialluis 0; ish 0; fetch 0 0; fetch 1 0",
        NOTHING,
    ),
    (
        "by the other PE",
        A710,
        "fetch 0 0; write 0; ialluis 1; ish 1; fetch 0 0; fetch 1 0",
        NOTHING,
    ),
    (
        "not completed",
        A710,
        "fetch 0 0; write 0; ialluis 0; fetch 0 0",
        STALE,
    ),
    (
        "completed by another",
        A710,
        "fetch 0 0; write 0; ialluis 0; ish 1; fetch 0 0",
        STALE,
    ),
    (
        "completed before",
        A710,
        "fetch 0 0; write 0; ish 0; ialluis 0; fetch 0 0",
        STALE,
    ),
    (
        "completed here only",
        A710,
        "fetch 0 0; write 0; ialluis 0; nsh 0; fetch 0 0",
        STALE,
    ),
    (
        "local, completed here",
        A710,
        "fetch 0 0; write 0; iallu 0; nsh 0; fetch 0 0",
        NOTHING,
    ),
    (
        "local, of the other",
        A710,
        "fetch 0 0; write 0; iallu 1; ish 1; fetch 0 0",
        STALE,
    ),
    (
        "local, executed elsewhere",
        A710,
        "fetch 0 0; write 0; iallu 0; ish 0; fetch 1 0",
        STALE,
    ),
    (
        "local, but broadcast",
        A710,
        "fetch 0 0; write 0; iallu-fb 1; ish 1; fetch 0 0",
        NOTHING,
    ),
    (
        "written after it",
        A710,
        "fetch 0 0; ialluis 0; ish 0; write 0; fetch 0 0",
        STALE,
    ),
    (
        "written before the dsb",
        A710,
        "fetch 0 0; ialluis 0; write 0; ish 0; fetch 0 0",
        STALE,
    ),
    (
        "before and after",
        A710,
        "fetch 0 0; write 0; ialluis 0; ish 0; write 0; fetch 0 0",
        STALE,
    ),
    (
        "again after it",
        A710,
        "fetch 0 0; ialluis 0; write 0; ialluis 0; ish 0; fetch 0 0",
        NOTHING,
    ),
    (
        "the later one counts",
        A710,
        "fetch 0 0; write 0; ialluis 0; write 0; ialluis 1; ish 1; ish 0; fetch 0 0",
        NOTHING,
    ),
    (
        "the later one first, back to what it was",
        A710,
        "fetch 0 0; write 0; ialluis 0; undo 0; ialluis 1; ish 1; ish 0; fetch 0 0",
        NOTHING,
    ),
    (
        "by line",
        A710,
        "fetch 0 0; write 0; ivau 1 0x3c; ish 1; fetch 0 0; fetch 1 0",
        NOTHING,
    ),
    (
        "another line",
        A710,
        "fetch 0 0; write 0; ivau 0 0x40; ish 0; fetch 0 0",
        STALE,
    ),
    (
        "one of two lines",
        A710,
        "fetch 0 0; write 0; write 0x40; ivau 0 0; ish 0; fetch 0 0; fetch 0 0x40",
        STALE,
    ),
    (
        "by line, not broadcast enough",
        A710,
        "fetch 0 0; write 0; ivau 0 0; nsh 0; fetch 0 0",
        STALE,
    ),
    (
        "by longer lines",
        A64FX,
        "fetch 0 0; write 0xc0; ivau 0 0; ish 0; fetch 0 0xc0",
        NOTHING,
    ),
    (
        "and no longer",
        A64FX,
        "fetch 0 0; write 0x100; ivau 0 0; ish 0; fetch 0 0x100",
        STALE,
    ),
    (
        "coherent by hardware",
        DIC,
        "fetch 0 0; write 0; fetch 0 0",
        NOTHING,
    ),
    (
        "not at the PoU",
        A57,
        "fetch 0 0; write 0; ialluis 0; ish 0; fetch 0 0",
        STALE,
    ),
    (
        "at the PoU",
        A57,
        "fetch 0 0; write 0; cvau 0 0; ish 0; ialluis 0; ish 0; fetch 0 0",
        NOTHING,
    ),
    (
        "on its way to the PoU",
        A57,
        "fetch 0 0; write 0; cvau 0 0; ialluis 0; ish 0; fetch 0 0",
        STALE,
    ),
    (
        "at the PoU, after it",
        A57,
        "fetch 0 0; write 0; ialluis 0; ish 0; cvau 0 0; ish 0; fetch 0 0",
        STALE,
    ),
    (
        "a guest's own",
        A710,
        "fetch 0 0; guest-write 0 0; fetch 0 0",
        (0, 0, 0, 1),
    ),
    (
        "a guest's own, and then the host's",
        A710,
        "fetch 0 0; guest-write 0 0; write 0; fetch 0 0",
        STALE,
    ),
    (
        "a guest's next to the host's",
        A710,
        "fetch 0 0; write 0; guest-write 0 4; fetch 0 0",
        STALE,
    ),
    (
        "only one of them",
        A710,
        "fetch 0 0; write 0; guest-write 0 4; fetch 0 4",
        (0, 0, 0, 1),
    ),
    (
        "a guest's, not at the PoU",
        A57,
        "fetch 0 0; guest-write 0 0; ialluis 0; ish 0; fetch 0 0",
        (0, 0, 0, 1),
    ),
    (
        "a guest's, around the caches",
        A57,
        "mmu-off 0; fetch 0 0; guest-write 0 0; ialluis 0; ish 0; fetch 0 0",
        NOTHING,
    ),
    (
        "clean",
        A710,
        "mmu-off 0; read 0 0; guest-write 0 0; read 0 0; fetch 0 0",
        NOTHING,
    ),
    (
        "dirty read",
        A710,
        "write 0; mmu-off 0; read 0 0x3f",
        (0, 1, 0, 0),
    ),
    (
        "dirty write",
        A710,
        "write 0; mmu-off 0; guest-write 0 0",
        (0, 0, 1, 0),
    ),
    (
        "dirty fetch",
        A710,
        "write 0; mmu-off 0; fetch 0 0",
        (0, 1, 0, 0),
    ),
    (
        "fetch by way of the caches",
        A710,
        "write 0; i-on 0; fetch 0 0",
        NOTHING,
    ),
    (
        "but not the data",
        A710,
        "write 0; i-on 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "with the MMU on",
        A710,
        "write 0; read 0 0; guest-write 0 0; fetch 0 0",
        NOTHING,
    ),
    (
        "FWB",
        A710,
        "write 0; fwb 0; read 0 0; guest-write 0 0; fetch 0 0",
        NOTHING,
    ),
    (
        "once for each line",
        A710,
        "write 0; mmu-off 0; read 0 0; read 0 4; read 1 0",
        (0, 1, 0, 0),
    ),
    (
        "and section",
        A710,
        "write 0; mmu-off 0; read 0 0; section; read 0 0",
        (0, 2, 0, 0),
    ),
    (
        "cleaned",
        A710,
        "write 0; cvac 0 0; ish 0; mmu-off 0; read 0 0; guest-write 0 0; fetch 0 0",
        NOTHING,
    ),
    (
        "cleaned by longer lines",
        A64FX,
        "write 0xc0; cvac 0 0; ish 0; mmu-off 0; read 0 0xc0",
        NOTHING,
    ),
    (
        "cleaned as far as the PoU",
        A710,
        "write 0; cvau 0 0; ish 0; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "cleaned, not completed",
        A710,
        "write 0; cvac 0 0; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "cleaned, completed by another",
        A710,
        "write 0; cvac 0 0; ish 1; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "cleaned, completed here only",
        A710,
        "write 0; cvac 0 0; nsh 0; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "dirty again",
        A710,
        "write 0; cvac 0 0; ish 0; write 0; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "dirty again before the dsb",
        A710,
        "write 0; cvac 0 0; write 0; ish 0; mmu-off 0; read 0 0",
        (0, 1, 0, 0),
    ),
    (
        "dirty again and told again",
        A710,
        "mmu-off 0; write 0; read 0 0; cvac 0 0; ish 0; write 0; read 0 0",
        (0, 2, 0, 0),
    ),
    (
        "dirty by a guest",
        A710,
        "guest-write 0 0; mmu-off 1; read 1 0",
        (0, 1, 0, 0),
    ),
    (
        "not by one with its MMU off",
        A710,
        "mmu-off 0; guest-write 0 0; read 0 0",
        NOTHING,
    ),
];

struct Run {
    oracle: Oracle,
    ram: Ram,
    views: [View; 2],
    written: u32,
}

impl Run {
    fn new(features: Features, rules: Rules) -> Self {
        let oracle = Oracle::with_rules(2, 0..0x2000, features, rules);
        let on = oracle.view(HCR_VM, SCTLR_M | SCTLR_C | SCTLR_I);
        Self {
            oracle,
            ram: Ram::default(),
            views: [on; 2],
            written: 0,
        }
    }

    fn event(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        let verb = words.next().expect("an event");
        let numbers: Vec<u64> = words
            .map(|word| match word.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).expect("hexadecimal"),
                None => word.parse().expect("a number"),
            })
            .collect();
        let number = |at: usize| numbers[at];
        let (oracle, ram) = (&mut self.oracle, &mut self.ram);
        let at = At {
            pe: numbers.first().map_or(0, |&pe| pe as usize),
            pc: 0,
        };
        match verb {
            "write" | "undo" => {
                self.written += 1;
                let value = if verb == "undo" { 0 } else { self.written };
                ram.0.insert(number(0), value);
                oracle.dirty().store(number(0), false);
                oracle.writers().wrote(number(0)..number(0) + 4, false);
            }
            "guest-write" => {
                self.written += 1;
                ram.0.insert(number(1), self.written);
                oracle.writers().wrote(number(1)..number(1) + 4, true);
                if self.views[at.pe].data_bypasses() {
                    oracle.bypass(at, number(1), Finding::DirtyWrite);
                } else {
                    oracle.dirty().store(number(1), true);
                }
            }
            "read" => {
                if self.views[at.pe].data_bypasses() {
                    oracle.bypass(at, number(1), Finding::DirtyRead);
                }
            }
            "fetch" => {
                let word = ram.word(number(1));
                oracle.fetch(at, self.views[at.pe], number(1), word, ram);
            }
            "ialluis" => oracle.ic_ialluis(at, ram),
            "iallu" => oracle.ic_iallu(at, false, ram),
            "iallu-fb" => oracle.ic_iallu(at, true, ram),
            "ivau" => oracle.ic_ivau(at, Some(number(1)), ram),
            "cvau" => oracle.dc(at, Some(number(1)), Point::Unification),
            "cvac" => oracle.dc(at, Some(number(1)), Point::Coherency),
            "ish" => oracle.dsb(at.pe, Domain::Shared, ram),
            "nsh" => oracle.dsb(at.pe, Domain::Own, ram),
            "mmu-on" => self.views[at.pe] = oracle.view(HCR_VM, SCTLR_M | SCTLR_C | SCTLR_I),
            "mmu-off" => self.views[at.pe] = oracle.view(HCR_VM, 0),
            "i-on" => self.views[at.pe] = oracle.view(HCR_VM, SCTLR_I),
            "fwb" => self.views[at.pe] = oracle.view(HCR_VM | HCR_FWB, 0),
            "section" => oracle.section(1, Executed::default()),
            _ => panic!("no event: {text}"),
        }
    }
}

fn run(scenario: &Scenario, rules: Rules) -> (Found, Verdict) {
    let (_, features, events, _) = scenario;
    let mut run = Run::new(*features, rules);
    events.split(';').for_each(|event| run.event(event));
    let verdict = run.oracle.verdict(Executed::default());
    let sum = |count: fn(&Section) -> u64| verdict.sections.iter().map(count).sum();
    let found = (
        sum(|section| section.stale_fetches),
        sum(|section| section.dirty_reads),
        sum(|section| section.dirty_writes),
        sum(|section| section.self_modified),
    );
    (found, verdict)
}

#[test]
fn scenarios() {
    for scenario in SCENARIOS {
        let (name, _, events, wanted) = scenario;
        let (found, verdict) = run(scenario, Rules::default());
        assert_eq!(found, *wanted, "{name}: {events}");
        let coherent = (wanted.0, wanted.1, wanted.2) == (0, 0, 0);
        assert_eq!(verdict.coherent, coherent, "{name}: {events}");
    }
}

/// Every rule is there for something: without it a scenario ends otherwise.
#[test]
fn no_rule_can_be_left_out() {
    for rule in Rule::ALL {
        let rules = Rules {
            without: Some(rule),
        };
        let notices = |scenario: &&Scenario| run(scenario, rules).0 != scenario.3;
        assert!(
            SCENARIOS.iter().any(|scenario| notices(&scenario)),
            "nobody misses {rule:?}"
        );
    }
}

#[test]
fn a_report_says_what_and_why() {
    let mut run = Run::new(A710, Rules::default());
    for event in ["write 4", "fetch 0 4", "ivau 0 0x40", "write 4"] {
        run.event(event);
    }
    let at = At { pe: 1, pc: 0x4004 };
    let view = run.views[1];
    run.oracle.fetch(at, view, 4, run.ram.word(4), &run.ram);
    let verdict = run.oracle.verdict(Executed::default());
    assert_eq!(
        serde_json::to_value(&verdict.sections[0].reports).expect("JSON"),
        serde_json::json!([{
            "kind": "stale_fetch", "vaddr": "0x4004", "paddr": "0x4", "old": "0x00000001",
            "new": "0x00000002", "cpu": 1,
            "last_invalidation": {"kind": "ic_ivau", "pc": "0x0", "cpu": 0}
        }])
    );
}

#[test]
fn sections_have_what_was_counted_in_them() {
    let mut run = Run::new(A710, Rules::default());
    let executed = |guests| Executed {
        all: guests * 1000,
        guests,
    };
    for event in ["ialluis 0", "ialluis 1"] {
        run.event(event);
    }
    run.oracle.section(7, executed(100));
    run.oracle.name("seven".to_owned());
    for event in ["iallu 0", "ivau 0 0", "cvac 0 0", "cvau 0 0"] {
        run.event(event);
    }
    run.oracle.section(0, executed(130));
    run.event("ialluis 0");
    let verdict = run.oracle.verdict(executed(131));
    let [zero, seven] = &verdict.sections[..] else {
        panic!("two sections: {verdict:?}");
    };
    assert_eq!((zero.number, zero.guest_instructions), (0, 101));
    assert_eq!((zero.ic_ialluis, zero.ic_iallu), (3, 0));
    assert_eq!((zero.sites.len(), zero.sites[0].count), (1, 3));
    assert_eq!((seven.number, seven.guest_instructions), (7, 30));
    assert_eq!((zero.instructions, seven.instructions), (101_000, 30_000));
    assert_eq!((seven.ic_ialluis, seven.ic_iallu), (0, 1));
    assert_eq!((seven.ic_ivau, seven.dc), (1, 2));
    assert_eq!(seven.name, "seven");
}

/// More findings than are told in full are counted all the same.
#[test]
fn reports_end_and_counts_do_not() {
    let mut run = Run::new(A710, Rules::default());
    run.event("fetch 0 0");
    for _ in 0..40 {
        run.event("write 0");
        run.event("fetch 0 0");
    }
    let verdict = run.oracle.verdict(Executed::default());
    assert_eq!(verdict.sections[0].stale_fetches, 40);
    assert_eq!(verdict.sections[0].reports.len(), 32);
}

/// From CTR_EL0 and CLIDR_EL1; the first CTR_EL0 is Cortex-A710's.
#[test]
fn features_are_read_as_linux_reads_them() {
    let read = |ctr, clidr| {
        let features = Features::from_registers(ctr, clidr);
        (
            features.dic,
            features.idc,
            features.icache_line,
            features.dcache_line,
        )
    };
    let a710 = read(0x4_9444_c004, 0xc300_0123);
    assert_eq!(a710, (false, true, 64, 64));
    // No IDC, but nothing to clean: no level of unification.
    assert!(read(0x8444_c004, 0x8200_0023).1);
    // Level 1 is above the PoU.
    assert!(!read(0x8444_c004, 0x0a20_0023).1);
    let longer = read(0x8668_0006, 0x8200_0023);
    assert_eq!((longer.2, longer.3), (256, 1024));
    assert!(read(0xb444_c004, 0).0, "DIC");
}

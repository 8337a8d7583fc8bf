// SPDX-License-Identifier: GPL-2.0

//! What the facts mean.

use super::{
    candidate::{Candidate, Signature},
    facts::{Facts, OPTIONS, REDIRECTED_WITHOUT_FWB},
};
use crate::{
    counters::Stat,
    error::Error,
    render::{summary, units},
    snapshot::{Debugfs, Hooks, Lazy, Maintenance, Policy, Snapshot},
};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Write},
    path::Path,
};

/// The first kernel that leaves out the unmap where there is FEAT_S2FWB, and invalidates instead.
const SIDESTEPS: (u32, u32) = (5, 8);

/// How to take a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// As it should be.
    Good,
    /// Good to know.
    Note,
    /// Cannot be seen from here.
    Unknown,
    /// Something to do.
    Bad,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "[ok]  ",
            Self::Note => "[note]",
            Self::Unknown => "[?]   ",
            Self::Bad => "[BAD] ",
        })
    }
}

type Finding = (Mark, String);
type Findings = Vec<Finding>;

fn good(text: impl Into<String>) -> Finding {
    (Mark::Good, text.into())
}

fn note(text: impl Into<String>) -> Finding {
    (Mark::Note, text.into())
}

fn unknown(text: impl Into<String>) -> Finding {
    (Mark::Unknown, text.into())
}

fn bad(text: impl Into<String>) -> Finding {
    (Mark::Bad, text.into())
}

/// Where what it depends on is not known.
fn untold() -> Finding {
    unknown("Cannot be told without the facts above")
}

/// What was found, in plain words.
#[derive(Debug)]
pub struct Report {
    sections: Vec<(&'static str, Findings)>,
    status: u8,
}

/// What decides at a reset.
#[derive(Clone, Copy)]
struct Cpu {
    fwb: Option<bool>,
    dic: Option<bool>,
}

impl Report {
    /// Resets may be wrong.
    const WRONG: u8 = 10;
    /// The module, or a file of it, cannot be loaded, or not do its work.
    const STOPPED: u8 = 11;

    /// Judges.
    pub fn new(facts: &Facts) -> Self {
        let snapshot = facts
            .module
            .as_ref()
            .and_then(|module| module.as_ref().ok());
        let cpu = Cpu::new(facts, snapshot);
        let own = match snapshot {
            Some(snapshot) => Some(snapshot.host.native_reset),
            None => cpu.predicted(facts),
        };
        let host = host(facts, cpu, snapshot.is_some());
        let now = now(facts, snapshot, own);
        let right = right(facts, cpu, snapshot, own);
        let change = change(facts, cpu, snapshot, own);
        let obstacles = match &facts.module {
            Some(module) => loaded(facts, module),
            None => obstacles(facts, cpu),
        };
        let mut sections = vec![
            ("This host", host),
            ("What a guest reset does now", now),
            ("Is that right?", right),
            ("What the module changes", change),
            ("What stops the module", obstacles),
        ];
        if let Some((path, candidate)) = &facts.file {
            sections.push(("This file", file(facts, path, candidate)));
        }
        let (status, verdict) = verdict(facts, &sections);
        sections.push(("Verdict", vec![verdict]));
        Self { sections, status }
    }

    /// The exit status that says the same.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// As `out`'s.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (i, (title, lines)) in self.sections.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{title}")?;
            for (mark, text) in lines {
                writeln!(out, "  {mark} {text}")?;
            }
        }
        Ok(())
    }
}

/// What all of it comes to, and the exit status that says the same.
fn verdict(facts: &Facts, sections: &[(&str, Findings)]) -> (u8, Finding) {
    let first = |title: &str, mark: Mark| {
        let mut lines = (sections.iter()).filter(|section| section.0 == title);
        let found = lines.find_map(|section| section.1.iter().find(|line| line.0 == mark));
        found.map(|line| line.1.as_str())
    };
    let stopped = first("What stops the module", Mark::Bad);
    let what = match &facts.file {
        Some((path, _)) => path.display().to_string(),
        None => "the module".into(),
    };
    // Who asks of a file means to load it, whatever resets do before that.
    if facts.file.is_some() {
        if let Some(why) = first("This file", Mark::Bad).or(stopped) {
            return (
                Report::STOPPED,
                bad(format!("{what} would not be loaded: {why}")),
            );
        }
    } else if let Some(why) = first("Is that right?", Mark::Bad) {
        return (Report::WRONG, bad(why));
    } else if let Some(why) = stopped {
        let text = match facts.module {
            Some(_) => why.into(),
            None => format!("The module would not be loaded: {why}"),
        };
        return (Report::STOPPED, bad(text));
    }
    let is_unknown = |section: &(_, Findings)| section.1.iter().any(|line| line.0 == Mark::Unknown);
    let finding = match (sections.iter().any(is_unknown), &facts.module) {
        (true, _) => unknown("Nothing wrong is seen, but not all can be: see [?] above"),
        (false, Some(_)) => good("Resets are right, and the module does its work"),
        (false, None) => good(format!("Resets are right, and nothing seen stops {what}")),
    };
    (0, finding)
}

impl Cpu {
    fn new(facts: &Facts, snapshot: Option<&Snapshot>) -> Self {
        if let Some(Snapshot { host, .. }) = snapshot {
            return Self {
                fwb: Some(host.fwb),
                dic: Some(host.dic),
            };
        }
        Self {
            fwb: facts.logged_fwb.or_else(|| known_fwb(facts)),
            dic: facts.ctr.map(|ctr| ctr.dic()),
        }
    }

    /// What mainline of this version does on these CPUs, in kvm_arch_vcpu_ioctl_vcpu_init().
    fn predicted(self, facts: &Facts) -> Option<Maintenance> {
        if version(facts)? < SIDESTEPS {
            return Some(Maintenance::Unmap);
        }
        self.needed()
    }

    /// What makes memory coherent with the least work.
    fn needed(self) -> Option<Maintenance> {
        match (self.fwb?, self.dic) {
            (false, _) => Some(Maintenance::Unmap),
            (true, Some(false)) => Some(Maintenance::Icache),
            (true, Some(true)) => Some(Maintenance::None),
            (true, None) => None,
        }
    }

    /// Whether `own` makes it coherent. An unmap always does: pages are cleaned, and invalidated
    /// for instruction fetch, as they fault in again.
    fn suffices(self, own: Maintenance) -> Option<bool> {
        match own {
            Maintenance::Unmap => Some(true),
            Maintenance::Icache => self.fwb,
            Maintenance::None => match (self.fwb, self.dic) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
        }
    }
}

/// By what is known of the CPUs; all must have it.
fn known_fwb(facts: &Facts) -> Option<bool> {
    let all: BTreeSet<_> = facts.cpus.iter().map(|cpu| cpu.has_fwb()).collect();
    match all.contains(&Some(false)) {
        true => Some(false),
        false => (all.len() == 1 && all.contains(&Some(true))).then_some(true),
    }
}

fn version(facts: &Facts) -> Option<(u32, u32)> {
    let mut numbers = facts.release.as_ref()?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn is_arm(facts: &Facts) -> Option<bool> {
    facts.machine.as_ref().map(|machine| machine == "aarch64")
}

fn host(facts: &Facts, cpu: Cpu, is_loaded: bool) -> Findings {
    let release = facts.release.as_deref().unwrap_or("of unknown release");
    let machine = facts.machine.as_deref().unwrap_or("unknown machine");
    let mut lines = vec![note(format!("Linux {release}, {machine}"))];
    if is_arm(facts) == Some(false) {
        return lines;
    }
    let names: Vec<_> = facts.cpus.iter().map(|cpu| cpu.name()).collect();
    lines.push(match &*names {
        [] => unknown("CPUs: neither sysfs nor /proc/cpuinfo names them"),
        names => note(format!("CPUs: {}", names.join("; "))),
    });
    let source = match (is_loaded, facts.logged_fwb) {
        (true, _) => "the module says so".into(),
        (false, Some(_)) => "by the kernel's log".into(),
        (false, None) => {
            let sources: BTreeSet<_> = facts.cpus.iter().filter_map(|cpu| cpu.source()).collect();
            let sources: Vec<_> = sources.into_iter().collect();
            format!("by the CPUs' names: {}", sources.join(", "))
        }
    };
    lines.push(match cpu.fwb {
        Some(true) => note(format!(
            "FEAT_S2FWB: yes, data is coherent at any reset ({source})"
        )),
        Some(false) => note(format!(
            "FEAT_S2FWB: no, data must be cleaned at a reset ({source})"
        )),
        None => unknown(
            "FEAT_S2FWB: cannot be seen; the kernel's log would tell root, \
             and the module, which with policy=0 does nothing else",
        ),
    });
    lines.push(match cpu.dic {
        Some(true) => note("CTR_EL0.DIC: yes, instructions are coherent by themselves"),
        Some(false) => note("CTR_EL0.DIC: no, I-caches must be invalidated"),
        None => unknown("CTR_EL0.DIC: cannot be seen from here"),
    });
    lines
}

/// The kernel's own way, in words.
fn each_vcpu(own: Maintenance) -> &'static str {
    match own {
        Maintenance::None => "nothing",
        Maintenance::Icache => {
            "for each vCPU, an invalidation of the I-caches of all CPUs of the host"
        }
        Maintenance::Unmap => {
            "for each vCPU, an unmap of all the guest's memory, which then faults in again"
        }
    }
}

fn now(facts: &Facts, snapshot: Option<&Snapshot>, own: Option<Maintenance>) -> Findings {
    if is_arm(facts) == Some(false) {
        return vec![note("Nothing of this kind: only arm64 needs it")];
    }
    let own = own.map(each_vcpu);
    match (own, snapshot) {
        (Some(own), None) => vec![
            note(format!("The kernel alone: {own}")),
            note("(As mainline of its version does; only the module reads the kernel's code)"),
        ],
        (Some(own), Some(snapshot)) => {
            vec![
                note(format!("The kernel alone: {own}")),
                with_module(snapshot),
            ]
        }
        (None, _) => vec![untold()],
    }
}

/// What becomes of the kernel's own way under the policy in force.
fn with_module(snapshot: &Snapshot) -> Finding {
    let host = &snapshot.host;
    let Some(policy) = snapshot.policy else {
        return unknown("The module's policy is hidden by kernel lockdown");
    };
    let shares = matches!(policy, Policy::Once | Policy::Lazy);
    let is_once = shares && host.hooks == Hooks::Armed;
    let text = match policy {
        Policy::Native => "the same, and it is counted",
        Policy::Unmap => "for each vCPU, an unmap of all the guest's memory",
        Policy::Lazy if host.lazy == Some(Lazy::Unmaps) => {
            "one unmap for each reset of a VM, which cleans nothing: pages are cleaned as they fault in \
             again"
        }
        _ if !host.fwb && shares => "one unmap for each reset of a VM",
        _ if !host.fwb => "for each vCPU, an unmap of all the guest's memory",
        _ if host.dic => "nothing",
        _ if is_once => "one invalidation for each reset of a VM, at its next KVM_RUN",
        _ => "for each vCPU, an invalidation of all I-caches",
    };
    note(format!(
        "With the module's policy {}: {text}",
        policy.name()
    ))
}

fn right(
    facts: &Facts,
    cpu: Cpu,
    snapshot: Option<&Snapshot>,
    own: Option<Maintenance>,
) -> Findings {
    if is_arm(facts) == Some(false) {
        return vec![good("Yes")];
    }
    let Some(own) = own else {
        return vec![untold()];
    };
    let policy = snapshot.and_then(|snapshot| snapshot.policy);
    match (cpu.suffices(own), policy) {
        (Some(true), _) => {
            let mut lines = vec![good(
                "Yes: memory and I-caches are coherent as the guest starts",
            )];
            if Some(own) != cpu.needed() {
                lines.push(note("But the kernel alone does more than these CPUs need"));
            }
            lines
        }
        (Some(false), Some(policy)) if policy != Policy::Native => vec![
            good(format!("Yes, by the module's policy {}", policy.name())),
            note("The kernel alone is wrong on these CPUs: keep the module, and this policy"),
        ],
        (Some(false), _) => {
            let harm = match cpu.fwb {
                Some(true) => "run stale instructions",
                _ => "read stale data and run stale instructions",
            };
            let remedy = match snapshot {
                Some(_) => "run kvm-fwb-stat policy once",
                None => "load the module",
            };
            vec![bad(format!(
                "NO: a guest may {harm} after a reset; {remedy}"
            ))]
        }
        (None, _) => vec![untold()],
    }
}

fn change(
    facts: &Facts,
    cpu: Cpu,
    snapshot: Option<&Snapshot>,
    own: Option<Maintenance>,
) -> Findings {
    use Maintenance::{Icache, None as Nothing, Unmap};

    if is_arm(facts) == Some(false) {
        return vec![note("Nothing")];
    }
    let Some(needed) = cpu.needed() else {
        return vec![untold()];
    };
    let text = match (needed, own) {
        (Nothing, Some(Nothing) | None) => {
            "Nothing: these CPUs need no maintenance. It counts resets, and times them"
        }
        (Nothing, Some(_)) => "The kernel's own work is left out: these CPUs need none",
        (Icache, Some(Unmap)) => {
            "One invalidation for each reset of a VM, instead of an unmap for each of its vCPUs"
        }
        (Icache, Some(Nothing)) => {
            "One invalidation for each reset of a VM, where the kernel makes none"
        }
        (Icache, _) => {
            "One invalidation for each reset of a VM, instead of one for each of its vCPUs"
        }
        (Unmap, _) => "One unmap for each reset of a VM, instead of one for each of its vCPUs",
    };
    let mut lines = vec![note(format!("{text} (policy once)"))];
    if let Some(snapshot) = snapshot {
        let elided = snapshot.total.elided();
        lines.push(note(format!(
            "So far it left out {elided} invalidations and unmaps"
        )));
    }
    if needed == Unmap {
        lines.extend(lazy(snapshot));
    }
    lines
}

/// What the policy `lazy` would save, or saves, of unmaps, and what it gives up.
fn lazy(snapshot: Option<&Snapshot>) -> Findings {
    const GIVES_UP: &str = "the host, where it reads or copies the guest's memory (swap, compaction, \
        migration, a dump, pstore in RAM), may find an older version of what the guest wrote around the \
        caches before the reset and has not touched since, and give that to the guest";

    let policy = snapshot.and_then(|snapshot| snapshot.policy);
    let text = match (policy, snapshot.map(|snapshot| snapshot.host.lazy)) {
        (Some(Policy::Lazy), Some(Some(Lazy::Unmaps))) => {
            let left = snapshot.map_or(0, |snapshot| {
                snapshot.total.stats.get(Stat::DcacheCleanElideBytes)
            });
            return vec![
                note(format!(
                    "So far lazy left {} uncleaned that unmaps would have cleaned",
                    units::memory(left)
                )),
                note(format!("What lazy gives up: {GIVES_UP}")),
            ];
        }
        (Some(Policy::Fwb | Policy::Unmap), _) => return Vec::new(),
        (_, Some(Some(Lazy::Unmaps))) => {
            "The policy lazy would save what that unmap cleans, and leave it to the faults that follow"
        }
        (_, None) => {
            "The policy lazy, where the kernel allows it, would save what that unmap cleans, and leave it \
             to the faults that follow"
        }
        (_, Some(Some(Lazy::AsOnce))) => {
            return vec![note(
                "The policy lazy is as once here: the hypervisor unmaps (pKVM), and cleans",
            )];
        }
        (_, Some(Some(Lazy::Refused))) => {
            return vec![note(
                "The policy lazy, which would save what that unmap cleans, is refused: it could not be \
                 proven that this kernel cleans what it maps, or a function is missing; dmesg says which",
            )];
        }
        // An older module's.
        (_, Some(None)) => return Vec::new(),
    };
    vec![
        note(text),
        note(format!(
            "It is for who can do without this, and never chosen by itself: {GIVES_UP}"
        )),
    ]
}

fn loaded(facts: &Facts, module: &Result<Snapshot, Error>) -> Findings {
    let snapshot = match module {
        Ok(snapshot) => snapshot,
        Err(error @ Error::DebugfsOff) => return vec![unknown(format!("It is loaded; {error}"))],
        Err(error @ Error::NotRoot(_)) => return vec![unknown(format!("It is loaded; {error}"))],
        Err(error) => return vec![bad(format!("It is loaded, but cannot be asked: {error}"))],
    };
    let mut lines = vec![match snapshot.host.hooks {
        Hooks::Armed => good("Nothing: it is loaded, and its hooks are armed"),
        Hooks::Degraded => bad(format!(
            "It is loaded, but kprobes are switched off, and once works as fwb: echo 1 >{}",
            kprobes(facts)
        )),
    }];
    lines.extend(locked(facts));
    lines.extend(summary::uncounted(snapshot).map(note));
    if !snapshot.missing.is_empty() {
        let missing = snapshot.missing.join(" and no ");
        lines.push(note(format!(
            "It is older than this tool, and has no {missing}"
        )));
    }
    lines
}

/// What would keep it from being loaded, and what to do.
fn obstacles(facts: &Facts, cpu: Cpu) -> Findings {
    if is_arm(facts) == Some(false) {
        return vec![bad("It is for arm64 hosts")];
    }
    let mut lines = refusals(facts, cpu);
    if lines.is_empty() {
        lines.push(good("Nothing that can be seen from here; it is not loaded"));
    }
    lines.extend(conditions(facts, cpu));
    lines
}

/// What refuses it for certain.
fn refusals(facts: &Facts, cpu: Cpu) -> Findings {
    let mut lines = Findings::new();
    if facts.kvm_off {
        lines.push(bad("KVM is off: boot without kvm-arm.mode=none"));
    } else if !facts.has_kvm {
        lines.push(bad(
            "There is no /dev/kvm: boot at EL2, with a kernel that has KVM",
        ));
    }
    for option in facts.lacking.iter().flatten() {
        lines.push(bad(format!("The kernel was built without CONFIG_{option}")));
    }
    if facts.cfi {
        lines.push(bad(
            "The kernel was built with CFI, which redirects do not pass",
        ));
    }
    for name in facts.unnamed.iter().flatten() {
        lines.push(bad(format!(
            "The kernel has no function {name}: none that the module knows"
        )));
    }
    if facts.ftrace == Some(false) {
        lines.push(bad(
            "ftrace is switched off: sysctl kernel.ftrace_enabled=1",
        ));
    }
    for name in &facts.taken {
        let by = format!("A livepatch, or another module, has {name}: only one can");
        match cpu.fwb {
            _ if !REDIRECTED_WITHOUT_FWB.contains(name) => lines.push(bad(by)),
            // Nobody asks for it.
            Some(true) => (),
            _ => lines.push(note(
                by + ", and without FEAT_S2FWB lazy is refused, and stage2_flush not counted",
            )),
        }
    }
    if facts.modules_disabled {
        lines.push(bad(
            "No module can be loaded until the next boot (kernel.modules_disabled)",
        ));
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        lines.push(bad("Kernel lockdown, confidentiality: no kprobes"));
    }
    if let (Some(why), None) = (must_sign(facts), &facts.file) {
        lines.push(bad(format!(
            "Modules must be signed ({why}), and make leaves this one unsigned: sign it by a key that \
             the kernel knows; kvm-fwb-stat doctor FILE.ko tells of a file"
        )));
    }
    lines
}

/// Where kprobes are switched.
fn kprobes(facts: &Facts) -> String {
    let path = facts.debugfs.path().join("kprobes/enabled");
    path.display().to_string()
}

fn is_locked(facts: &Facts) -> bool {
    facts.lockdown.as_ref().is_some_and(|mode| mode != "none")
}

/// What lockdown leaves of the module's files.
fn locked(facts: &Facts) -> Option<Finding> {
    is_locked(facts).then(|| {
        note(
            "Kernel lockdown refuses the files policy and clear even to root: the policy is the \
             one given at load, insmod kvm_fwb_reset.ko policy=NUMBER; counters can be read",
        )
    })
}

/// Why a module must be signed here, if it must.
fn must_sign(facts: &Facts) -> Option<&'static str> {
    match (is_locked(facts), facts.must_sign) {
        (true, _) => Some("kernel lockdown"),
        (false, true) => Some("module.sig_enforce"),
        (false, false) => None,
    }
}

/// Whether the kernel would take this very file, as far as the file tells.
fn file(facts: &Facts, path: &Path, candidate: &Result<Candidate, String>) -> Findings {
    let candidate = match candidate {
        Ok(candidate) => candidate,
        Err(why) => return vec![bad(format!("{}: {why}", path.display()))],
    };
    let name = candidate.name.as_deref().unwrap_or("without a name");
    let mut lines = vec![match name {
        "kvm_fwb_reset" => note(format!("{}: the module {name}", path.display())),
        _ => bad(format!("It is the module {name}, and not kvm_fwb_reset")),
    }];
    if facts.module.is_some() {
        lines.push(bad(
            "A module of this name is loaded already: rmmod kvm_fwb_reset first",
        ));
    }
    lines.push(match candidate.is_arm {
        true => good("Built for arm64"),
        false => bad("It is not built for arm64"),
    });
    lines.push(built_for(facts, candidate));
    lines.push(signed(facts, candidate.signature));
    lines
}

/// Whether the kernel it was built for is this one.
fn built_for(facts: &Facts, candidate: &Candidate) -> Finding {
    let Some(theirs) = candidate.vermagic.as_deref().map(str::trim) else {
        return bad("It does not say what kernel it was built for (no vermagic)");
    };
    let release = theirs.split(' ').next();
    let options = |vermagic: &str| Some(vermagic.split_once(' ')?.1.to_owned());
    match (&facts.vermagic, &facts.release) {
        (Some(ours), _) if ours == theirs => good(format!("Built for this kernel ({theirs})")),
        // The kernel looks at the symbols' versions then, and not at the release.
        (Some(ours), _) if ours.contains(" modversions ") && options(ours) == options(theirs) => {
            unknown(format!(
                "Built for {theirs}; whether this kernel has the same symbols only loading tells"
            ))
        }
        (None, Some(ours)) if Some(ours.as_str()) == release => unknown(format!(
            "Built for a kernel of this release ({theirs}); the options of this one are not here"
        )),
        (Some(ours), _) | (None, Some(ours)) => bad(format!(
            "It is built for another kernel ({theirs}), and this one is {ours}: make KERNEL={}",
            facts.release.as_deref().unwrap_or("RELEASE")
        )),
        (None, None) => unknown(format!(
            "Built for {theirs}; the running kernel is not known"
        )),
    }
}

fn signed(facts: &Facts, signature: Signature) -> Finding {
    match (signature, must_sign(facts)) {
        (Signature::Malformed, _) => bad("Its signature is malformed, which is refused anywhere"),
        (Signature::None, Some(why)) => bad(format!(
            "It is not signed, and must be ({why}): sign it by a key that the kernel knows"
        )),
        (Signature::None, None) => good("It is not signed, and need not be; it taints the kernel"),
        (Signature::Present, Some(why)) => unknown(format!(
            "It is signed, as it must be ({why}); only the kernel tells whether it knows the key"
        )),
        (Signature::Present, None) => good("It is signed, and need not be"),
    }
}

/// What it depends on, and what could not be seen.
fn conditions(facts: &Facts, cpu: Cpu) -> Findings {
    let mut lines = Findings::new();
    lines.extend(locked(facts));
    let needs_probe = cpu.needed() != Some(Maintenance::None) && cpu.fwb != Some(false);
    if facts.kprobes == Some(false) && needs_probe {
        lines.push(note(format!(
            "kprobes are switched off: once would work as fwb until {} is 1",
            kprobes(facts)
        )));
    }
    match facts.debugfs {
        Debugfs::At(_) => (),
        Debugfs::Unmounted => lines.push(note(
            "debugfs is not mounted, and nothing could be shown: \
             mount -t debugfs debugfs /sys/kernel/debug",
        )),
        Debugfs::Off => lines.push(note(
            "debugfs is switched off (debugfs=off, or the kernel's build): the module would work, but \
             show nothing, and keep the policy given at load, insmod kvm_fwb_reset.ko policy=NUMBER",
        )),
    }
    if facts.lacking.is_none() {
        let options = OPTIONS.join(", ");
        lines.push(unknown(format!(
            "The kernel's configuration is not here; it needs {options}"
        )));
    }
    if facts.unnamed.is_none() {
        lines.push(unknown("/proc/kallsyms cannot be read"));
    }
    lines
}

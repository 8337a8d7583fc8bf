// SPDX-License-Identifier: GPL-2.0

//! The module's files, from text. Lines that are not known are from a newer module, and left out; a
//! known line that does not hold what it should, or a missing one, means a file that was cut short.

use super::{Histogram, Hooks, Host, Info, Latency, Lazy, Maintenance, Policy, Stats, VmId};
use crate::counters::{Shown, Stat, Timing};

/// Why a text cannot be a whole file.
pub type Result<T> = std::result::Result<T, String>;

/// The lines of a whole file.
fn lines(text: &str) -> Result<impl Iterator<Item = &str>> {
    match text {
        "" => Err("it is empty".into()),
        _ if text.ends_with('\n') => Ok(text.lines()),
        _ => Err("its last line has no end".into()),
    }
}

/// The `name value` lines of a whole file. The value is the rest of the line.
fn pairs(text: &str) -> Result<impl Iterator<Item = (&str, &str)>> {
    Ok(lines(text)?.filter_map(|line| line.split_once(' ')))
}

fn bad<T>(name: &str, value: &str) -> Result<T> {
    Err(format!("its line {name:?} has the value {value:?}"))
}

fn number(name: &str, value: &str) -> Result<u64> {
    value.parse().or_else(|_| bad(name, value))
}

pub(super) fn missing(name: &str) -> String {
    format!("it has no line {name:?}")
}

/// `stats`
pub fn stats(text: &str) -> Result<Stats> {
    let mut stats = Stats::default();
    for (name, value) in pairs(text)? {
        if let Some(stat) = Stat::from_name(name) {
            // The gauge is several words of memory, and may be read between changes of two.
            let transient =
                stat == Stat::Pending && value.parse::<i64>().is_ok_and(|value| value < 0);
            stats.0[stat as usize] = Some(if transient { 0 } else { number(name, value)? });
        }
    }
    let is_new =
        |stat: &Stat| stat.field().shown == Shown::SinceLazy && stats.seen(*stat).is_some();
    let is_new = Stat::ALL.iter().any(is_new);
    for stat in Stat::ALL {
        let field = stat.field();
        let must_be = match field.shown {
            Shown::Always => true,
            Shown::SinceLazy => is_new,
            Shown::WithFunction => false,
        };
        if must_be && stats.seen(stat).is_none() {
            return Err(missing(field.name));
        }
    }
    Ok(stats)
}

/// `latency`, beside these `stats`.
pub fn latency(text: &str, stats: &Stats) -> Result<Latency> {
    let mut found = Timing::ALL.map(|_| (None, None, Histogram::default()));
    for line in lines(text)? {
        let mut words = line.split(' ');
        let (Some(name), Some(key)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(timing) = Timing::from_name(name) else {
            continue;
        };
        let label = format!("{name} {key}");
        let value = number(&label, words.next().unwrap_or(""))?;
        let (count, sum_ns, histogram) = &mut found[timing as usize];
        match key {
            "count" => *count = Some(value),
            "sum_ns" => *sum_ns = Some(value),
            _ => match key.parse::<u64>() {
                Ok(from_ns) if from_ns == 0 || from_ns.is_power_of_two() => {
                    histogram.add(from_ns, value)
                }
                Ok(_) => return Err(format!("its line {label:?} has no power of two")),
                // A newer module's.
                Err(_) => continue,
            },
        }
    }
    let mut latency = Latency::default();
    for (timing, (count, sum_ns, mut histogram)) in Timing::ALL.into_iter().zip(found) {
        let name = timing.field().name;
        // It is in both files, or in none.
        let counted = Stat::from_name(name).filter(|_| timing.field().shown != Shown::Always);
        let is_shown = counted.is_none_or(|stat| stats.seen(stat).is_some());
        if !is_shown && count.is_none() && sum_ns.is_none() && histogram == Histogram::default() {
            continue;
        }
        histogram.count = count.ok_or_else(|| missing(&format!("{name} count")))?;
        histogram.sum_ns = sum_ns.ok_or_else(|| missing(&format!("{name} sum_ns")))?;
        if histogram.count != histogram.below(u64::MAX) {
            return Err(format!(
                "its buckets of {name:?} are not as many as its count"
            ));
        }
        latency.0[timing as usize] = Some(histogram);
    }
    Ok(latency)
}

/// The value that the line `name` has.
fn value<'a>(pairs: &[(&'a str, &'a str)], name: &str) -> Result<&'a str> {
    let found = pairs.iter().find(|pair| pair.0 == name);
    found.map(|pair| pair.1).ok_or_else(|| missing(name))
}

/// `host`
pub fn host(text: &str) -> Result<Host> {
    let pairs: Vec<_> = pairs(text)?.collect();
    let flag = |name| match value(&pairs, name)? {
        "0" => Ok(false),
        "1" => Ok(true),
        other => bad(name, other),
    };
    let native_reset = value(&pairs, "native_reset")?;
    let hooks = value(&pairs, "hooks")?;
    // The last line, and not an older module's.
    let lazy = (value(&pairs, "lazy").ok())
        .map(|lazy| Lazy::from_name(lazy).map_or_else(|| bad("lazy", lazy), Ok))
        .transpose()?;
    Ok(Host {
        fwb: flag("fwb")?,
        dic: flag("dic")?,
        idc: flag("idc")?,
        vhe: flag("vhe")?,
        native_reset: Maintenance::from_name(native_reset)
            .map_or_else(|| bad("native_reset", native_reset), Ok)?,
        hooks: Hooks::from_name(hooks).map_or_else(|| bad("hooks", hooks), Ok)?,
        lazy,
    })
}

/// `policy`: the one in brackets.
pub fn policy(text: &str) -> Result<Policy> {
    let mut found = lines(text)?
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match (found.next(), found.next()) {
        (Some(name), None) => {
            Policy::from_name(name).ok_or_else(|| format!("it has the unknown policy {name:?}"))
        }
        _ => Err("it has not one policy in brackets".into()),
    }
}

/// `info`
pub fn info(text: &str) -> Result<Info> {
    let pairs: Vec<_> = pairs(text)?.collect();
    let number = |name| number(name, value(&pairs, name)?);
    Ok(Info {
        pid: value(&pairs, "pid").ok().and_then(|pid| pid.parse().ok()),
        comm: value(&pairs, "comm")?.replace(|c: char| c.is_control(), "?"),
        vcpus: number("vcpus")?,
        memory_bytes: number("memory_bytes")?,
        owed: value(&pairs, "owed")?.to_owned(),
    })
}

/// The name of a VM's directory. What does not read as one of the known forms, and back, is itself.
pub fn vm_id(name: &str) -> VmId {
    let known = || {
        let (pid, rest) = name.split_once('-')?;
        let pid = pid.parse().ok()?;
        Some(match rest.strip_prefix("vm") {
            Some(number) => VmId::Module {
                pid,
                number: number.parse().ok()?,
            },
            None => VmId::Kvm {
                pid,
                fd: rest.parse().ok()?,
            },
        })
    };
    known()
        .filter(|id| id.to_string() == name)
        .unwrap_or_else(|| VmId::Other(name.into()))
}

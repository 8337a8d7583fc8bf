// SPDX-License-Identifier: GPL-2.0

//! Metrics, in Prometheus' text format and in OpenMetrics. The series are the same in both.
//!
//! `kvm_fwb_reset_NAME` is of all VMs since load, those that are gone included;
//! `kvm_fwb_reset_per_vm_NAME` of one, by the label `vm`. Durations are histograms in the former,
//! and only sums and counts in the latter: a host of 1,000 VMs would have 100,000 series otherwise.

use crate::{
    counters::{Field, Kind, Size, Timing, Unit},
    snapshot::{Histogram, Hooks, Policy, Snapshot, Vm},
};
use std::fmt::{Display, Write};

/// How metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What there is to say.
#[derive(Debug)]
pub enum Look<'a> {
    /// All that the module shows.
    Seen(&'a Snapshot),
    /// The module is not loaded, and that is all.
    NotLoaded,
    /// Something is there, and cannot be read.
    Unread {
        /// When it could be last, in seconds since 1970.
        last: Option<f64>,
    },
}

/// A look as metrics.
pub fn text(look: &Look<'_>, dialect: Dialect) -> String {
    let mut page = Page {
        dialect,
        text: String::new(),
    };
    match look {
        Look::Seen(snapshot) => {
            page.loaded(true);
            page.read(true, snapshot.time);
            page.host(snapshot);
            page.total(snapshot);
            page.vms(snapshot);
        }
        Look::NotLoaded => page.loaded(false),
        // Whether it is loaded is not known then.
        Look::Unread { last } => page.read(false, last.unwrap_or(0.0)),
    }
    if dialect == Dialect::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// The time of the last good look, as a page says it.
pub fn last_read(page: &str) -> Option<f64> {
    let name = format!("{PREFIX}_{LAST_READ}");
    (page.lines()).find_map(|line| line.strip_prefix(&name)?.trim().parse().ok())
}

/// What every name begins with.
const PREFIX: &str = "kvm_fwb_reset";
/// What the names of a VM's metrics begin with.
const PER_VM: &str = "per_vm_";

/// The metric with the time of the last good look.
const LAST_READ: &str = "last_read_timestamp_seconds";

/// The upper ends of a histogram's buckets, in nanoseconds, are 2 to the power of these: 1 us to
/// 4 s. They do not change with what is in them, for rates are taken of each bucket.
const BUCKETS: std::ops::RangeInclusive<u32> = 10..=32;

type Labels<'a> = [(&'a str, &'a str)];

struct Page {
    dialect: Dialect,
    text: String,
}

impl Page {
    fn loaded(&mut self, is_loaded: bool) {
        self.gauge("loaded", "Whether the module is loaded");
        self.sample("loaded", &[], u8::from(is_loaded));
    }

    fn read(&mut self, is_read: bool, last: f64) {
        self.gauge(
            "read_success",
            "Whether what the module shows could be read; if not, this and the time of the last \
                good look are all there is",
        );
        self.sample("read_success", &[], u8::from(is_read));
        let help = "When what the module shows could be read last, 0 if never";
        self.family(LAST_READ, Kind::Gauge.name(), Some("seconds"), help);
        self.sample(LAST_READ, &[], format_args!("{last:.3}"));
    }

    fn host(&mut self, snapshot: &Snapshot) {
        let host = &snapshot.host;
        let flag = |flag| if flag { "1" } else { "0" };
        self.info(
            "host",
            "What the CPUs have, and what the kernel alone does at a guest reset",
        );
        let mut labels = vec![
            ("fwb", flag(host.fwb)),
            ("dic", flag(host.dic)),
            ("idc", flag(host.idc)),
            ("vhe", flag(host.vhe)),
            ("native_reset", host.native_reset.name()),
        ];
        labels.extend(host.lazy.map(|lazy| ("lazy", lazy.name())));
        self.sample("host_info", &labels, 1);
        self.gauge(
            "hooks_armed",
            "Whether all hooks are in place, and not degraded",
        );
        self.sample("hooks_armed", &[], u8::from(host.hooks == Hooks::Armed));
        if let Some(policy) = snapshot.policy {
            self.gauge("policy", "Whether this policy is in force");
            for &each in Policy::ALL {
                let labels = [("policy", each.name())];
                self.sample("policy", &labels, u8::from(each == policy));
            }
        }
        self.gauge(
            "unreadable_vms",
            "VMs left out because a file of theirs could not be read",
        );
        self.sample("unreadable_vms", &[], snapshot.problems.len());
    }

    fn total(&mut self, snapshot: &Snapshot) {
        for (stat, value) in snapshot.total.stats.iter() {
            let name = self.field("", stat.field());
            self.sample(&name, &[], value);
        }
        for (timing, times) in snapshot
            .total
            .latency
            .iter()
            .flat_map(|latency| latency.iter())
        {
            let name = seconds("", timing);
            self.family(&name, "histogram", Some("seconds"), timing.field().help);
            self.histogram(&name, times);
        }
    }

    fn vms(&mut self, snapshot: &Snapshot) {
        let vms: Vec<_> = snapshot
            .vms
            .iter()
            .map(|vm| (vm.id.to_string(), vm))
            .collect();
        self.info("per_vm", "The process that made the VM");
        for (id, vm) in &vms {
            let pid = vm.pid().map_or_else(String::new, |pid| pid.to_string());
            let labels = [("vm", &**id), ("pid", &pid), ("comm", vm.comm())];
            self.sample("per_vm_info", &labels, 1);
        }
        for size in Size::ALL {
            let name = self.field(PER_VM, size.field());
            self.each(&vms, &name, |vm| vm.size(size));
        }
        for (stat, _) in snapshot.total.stats.iter() {
            let name = self.field(PER_VM, stat.field());
            self.each(&vms, &name, |vm| vm.figures.stats.seen(stat));
        }
        let timings = (snapshot.total.latency.iter()).flat_map(|latency| latency.iter());
        for (timing, _) in timings {
            let name = seconds(PER_VM, timing);
            self.family(&name, "summary", Some("seconds"), timing.field().help);
            for (id, vm) in &vms {
                let latency = vm.figures.latency.as_ref();
                if let Some(times) = latency.and_then(|latency| latency.get(timing)) {
                    self.sample(&format!("{name}_sum"), &[("vm", id)], Seconds(times.sum_ns));
                    self.sample(&format!("{name}_count"), &[("vm", id)], times.count);
                }
            }
        }
    }

    /// A sample of each VM that has a value.
    fn each<T: Display>(
        &mut self,
        vms: &[(String, &Vm)],
        name: &str,
        value: impl Fn(&Vm) -> Option<T>,
    ) {
        for (id, vm) in vms {
            if let Some(value) = value(vm) {
                self.sample(name, &[("vm", id)], value);
            }
        }
    }

    fn histogram(&mut self, name: &str, times: &Histogram) {
        let bucket = format!("{name}_bucket");
        for power in BUCKETS {
            let end = 1 << power;
            // The module's buckets end before this, le means up to it: times are whole nanoseconds,
            // so what is less than the end is also at most that.
            self.sample(
                &bucket,
                &[("le", &Seconds(end).to_string())],
                times.below(end),
            );
        }
        self.sample(&bucket, &[("le", "+Inf")], times.count);
        self.sample(&format!("{name}_sum"), &[], Seconds(times.sum_ns));
        self.sample(&format!("{name}_count"), &[], times.count);
    }

    /// Begins the family of a counter or gauge of the table. Returns the name of its samples.
    fn field(&mut self, level: &str, field: &Field) -> String {
        let unit = (field.unit == Unit::Bytes).then_some("bytes");
        let family = format!("{level}{}", field.name);
        self.family(&family, field.kind.name(), unit, field.help);
        match field.kind {
            Kind::Counter => family + "_total",
            Kind::Gauge | Kind::Histogram => family,
        }
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, Kind::Gauge.name(), None, help);
    }

    fn info(&mut self, name: &str, help: &str) {
        self.family(name, "info", None, help);
    }

    /// Begins a family, by its name in OpenMetrics, which leaves out what the kind adds. The help
    /// holds nothing that must be escaped; a test of the table sees to that.
    fn family(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        let (name, kind) = match (self.dialect, kind) {
            (Dialect::Prometheus, "counter") => (format!("{name}_total"), kind),
            (Dialect::Prometheus, "info") => (format!("{name}_info"), "gauge"),
            _ => (name.to_owned(), kind),
        };
        let name = format!("{PREFIX}_{name}");
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if let (Dialect::OpenMetrics, Some(unit)) = (self.dialect, unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        let labels = match &*labels {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        self.line(format_args!("{PREFIX}_{name}{labels} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

fn seconds(level: &str, timing: Timing) -> String {
    format!("{level}{}_seconds", timing.field().name)
}

fn escape(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

/// Nanoseconds, written in seconds without a loss.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (ns, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1024, "0.000001024"),
            (10_000_000_000, "10"),
            (1_500_000_000, "1.5"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(Seconds(ns).to_string(), text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}

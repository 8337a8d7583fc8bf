// SPDX-License-Identifier: GPL-2.0

//! Numbers as people read them: three digits, and a unit.

use crate::counters::Unit;

/// Three significant digits of a number from 0 to 1000.
fn digits(value: f64) -> String {
    let decimals = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// `value` in the largest of `units` (each `step` times the one before) that makes it 1 or more.
fn scaled(value: u64, step: f64, units: &[&str]) -> String {
    let mut scaled = value as f64;
    for (i, unit) in units.iter().enumerate() {
        // What would be rounded up to a full step belongs to the next unit.
        if scaled < step - 0.5 || i + 1 == units.len() {
            return match i {
                0 => format!("{value} {unit}"),
                _ => format!("{} {unit}", digits(scaled)),
            };
        }
        scaled /= step;
    }
    String::new()
}

/// A duration, as `16.4 µs`.
pub fn time(ns: u64) -> String {
    scaled(ns, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Memory, as `4.00 GiB`.
pub fn memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A value as its unit has it.
pub fn value(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Bytes => memory(value),
        Unit::Nanoseconds => time(value),
    }
}

/// How fast a value grows, as its unit has it.
pub fn growth(per_second: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => format!("{}/s", memory(per_second.round() as u64)),
        Unit::Count | Unit::Nanoseconds => rate(per_second),
    }
}

/// So often in a second, as `1.25/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0/s".into(),
        _ => format!("{}/s", digits(per_second)),
    }
}

/// A part of 1, as `62 %`.
pub fn share(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// A bar of at most `width` cells, `part` (0 to 1) of them full, in eighths of a cell.
pub fn bar(part: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = if part.is_nan() {
        0.0
    } else {
        part.clamp(0.0, 1.0)
    };
    // What is there at all is seen.
    let least = usize::from(part > 0.0);
    let eighths = ((part * (width * 8) as f64).round() as usize).max(least);
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (16_384, "16.4 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_240_000_000, "1.24 s"),
            (7_200_000_000_000, "7200 s"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(memory(4 << 30), "4.00 GiB");
        assert_eq!(memory(u64::MAX), "16777216 TiB");
        assert_eq!(value(3 << 19, Unit::Bytes), "1.50 MiB");
        assert_eq!(value(3 << 19, Unit::Count), "1572864");
        assert_eq!(growth(1.5 * 1048576.0, Unit::Bytes), "1.50 MiB/s");
        assert_eq!(growth(1.5, Unit::Count), "1.50/s");
        assert_eq!(rate(0.0), "0/s");
        assert_eq!(rate(12.345), "12.3/s");
        assert_eq!(share(0.625), "62 %");
    }

    #[test]
    fn bars_fit() {
        assert_eq!(bar(0.0, 8), "");
        assert_eq!(bar(1.0, 8).chars().count(), 8);
        assert_eq!(bar(1e-9, 8), "▏");
        assert_eq!(bar(7.0, 3), "███");
        assert_eq!(bar(f64::NAN, 3), "");
    }
}

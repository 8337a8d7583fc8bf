// SPDX-License-Identifier: GPL-2.0

//! Every output has the numbers of the module's own files, each read by a parser that is not the
//! tool's: of trees as they were recorded, or of the one in `$RECORDED`, with a live screen of the
//! same moment at `out/live` in it.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// By VM, `all` for the totals, and by name as in CSV.
type Numbers = BTreeMap<(String, String), u64>;

/// What stands for a counter on paper and on the screen: in a column, and as a total.
const SHOWN: [(&str, &str, &str); 4] = [
    ("vm_reset", "RESETS", "VM resets"),
    ("vcpu_reset", "RE-INITS", "re-inits"),
    ("icache_invalidate", "ICACHE", "I-cache invalidations"),
    ("stage2_unmap", "UNMAPS", "unmaps"),
];

/// Metrics that no file of counters has.
const OTHERS: [&str; 10] = [
    "loaded",
    "read_success",
    "last_read_timestamp_seconds",
    "host_info",
    "hooks_armed",
    "policy",
    "unreadable_vms",
    "info",
    "vcpus",
    "memory_bytes",
];

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn recorded() -> Option<PathBuf> {
    env::var_os("RECORDED").map(PathBuf::from)
}

/// All trees that are whole.
fn trees() -> Vec<PathBuf> {
    if let Some(tree) = recorded() {
        return vec![tree];
    }
    let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")).unwrap();
    let trees: Vec<_> = all
        .map(|tree| tree.unwrap().path())
        .filter(|tree| !tree.to_string_lossy().contains("truncated"))
        .collect();
    assert!(trees.len() > 5, "{trees:?}");
    trees
}

/// What `stats` and `latency` say.
fn files(tree: &Path) -> Numbers {
    let mut numbers = Numbers::new();
    let mut add = |vm: &str, directory: &Path| {
        for line in read(&directory.join("stats")).lines() {
            let (name, value) = line.split_once(' ').unwrap();
            numbers.insert((vm.into(), name.into()), number(value));
        }
        // Older modules have none.
        let latency = directory.join("latency");
        let latency = latency.exists().then(|| read(&latency));
        for line in latency.iter().flat_map(|text| text.lines()) {
            let words: Vec<_> = line.split(' ').collect();
            if let [name, key @ ("count" | "sum_ns"), value] = words[..] {
                numbers.insert((vm.into(), format!("{name}_{key}")), number(value));
            }
        }
    };
    add("all", tree);
    for vm in fs::read_dir(tree.join("vms")).unwrap() {
        let vm = vm.unwrap();
        if vm.file_type().unwrap().is_dir() {
            add(&vm.file_name().to_string_lossy(), &vm.path());
        }
    }
    numbers
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn tool(tree: &Path, format: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kvm-fwb-stat"))
        .args([format, "--root"])
        .arg(tree)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Holds what `parse` finds in an output against the files of all trees.
fn all_agree(format: &str, parse: impl Fn(&str) -> Numbers) {
    for tree in trees() {
        let (got, want) = (parse(&tool(&tree, format)), files(&tree));
        assert!(!want.is_empty());
        assert_eq!(got, want, "{format}, {}", tree.display());
    }
}

#[test]
fn json() {
    all_agree("--json", |text| {
        let value: Value = serde_json::from_str(text).unwrap();
        let mut numbers = Numbers::new();
        let mut add = |vm: &str, figures: &Value| {
            let mut put = |name: String, value: &Value| {
                // Null is what this module does not count.
                if !value.is_null() {
                    numbers.insert((vm.into(), name), value.as_u64().unwrap());
                }
            };
            for (name, value) in figures["stats"].as_object().unwrap() {
                put(name.clone(), value);
            }
            for (name, histogram) in figures["latency"].as_object().into_iter().flatten() {
                for key in ["count", "sum_ns"] {
                    put(format!("{name}_{key}"), &histogram[key]);
                }
            }
        };
        add("all", &value["total"]);
        for vm in value["vms"].as_array().unwrap() {
            add(vm["vm"].as_str().unwrap(), vm);
        }
        numbers
    });
}

#[test]
fn csv() {
    all_agree("--csv", |text| {
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let names = reader.headers().unwrap().clone();
        let mut numbers = Numbers::new();
        for row in reader.records() {
            let row = row.unwrap();
            let cells = names
                .iter()
                .zip(&row)
                .skip_while(|(name, _)| *name != "owed");
            // Empty is what this module does not count.
            for (name, value) in cells.skip(1).filter(|(_, value)| !value.is_empty()) {
                numbers.insert((row[1].into(), name.into()), number(value));
            }
        }
        numbers
    });
}

/// Prometheus' text format, or OpenMetrics'.
fn metrics(page: &str) -> Numbers {
    let mut numbers = Numbers::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let name = name.strip_prefix("kvm_fwb_reset_").unwrap();
        let (name, vm) = match name.strip_prefix("per_vm_") {
            Some(name) => (name, labels.split('"').nth(1).unwrap()),
            None => (name, "all"),
        };
        if OTHERS.contains(&name) || name.ends_with("_seconds_bucket") {
            continue;
        }
        let (name, value) = if let Some(name) = name.strip_suffix("_seconds_sum") {
            let seconds: f64 = value.parse().unwrap();
            (format!("{name}_sum_ns"), (seconds * 1e9).round() as u64)
        } else if let Some(name) = name.strip_suffix("_seconds_count") {
            (format!("{name}_count"), number(value))
        } else {
            let name = name.strip_suffix("_total").unwrap_or(name);
            (name.to_owned(), number(value))
        };
        assert_eq!(numbers.insert((vm.into(), name), value), None, "{line}");
    }
    numbers
}

#[test]
fn prometheus() {
    all_agree("--prometheus", metrics);
}

#[test]
fn openmetrics() {
    all_agree("--openmetrics", metrics);
}

/// What people see: on paper, and on a screen that is wide enough for all columns.
fn shown(text: &str) -> Numbers {
    let mut numbers = Numbers::new();
    let mut columns = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if words.starts_with(&["VM", "COMMAND"]) {
            // Numbers end where their headings do.
            columns = SHOWN
                .iter()
                .map(|(name, heading, _)| (*name, line.find(heading).unwrap() + heading.len()))
                .collect();
            continue;
        }
        if words.is_empty() {
            columns.clear();
        }
        for (name, end) in &columns {
            let upto: String = line.chars().take(*end).collect();
            let value = upto.split_whitespace().next_back().unwrap();
            numbers.insert((words[0].into(), (*name).into()), number(value));
        }
        for (name, _, heading) in SHOWN {
            for (at, _) in line.match_indices(heading) {
                let behind = line[at + heading.len()..].trim_start();
                let digits = behind.split(|c: char| !c.is_ascii_digit()).next().unwrap();
                // `unmaps left out 3` is another one.
                if (at == 0 || line[..at].ends_with("  ")) && !digits.is_empty() {
                    numbers.insert(("all".into(), name.into()), number(digits));
                }
            }
        }
    }
    numbers
}

/// What of the numbers is shown to people.
fn few(mut numbers: Numbers) -> Numbers {
    numbers.retain(|(_, name), _| SHOWN.iter().any(|(shown, ..)| shown == name));
    numbers
}

#[test]
fn table() {
    for tree in trees() {
        let got = shown(&tool(&tree, "--once"));
        assert_eq!(got, few(files(&tree)), "{}", tree.display());
    }
}

/// Of the screen that was approved, or of the one that was recorded.
#[test]
fn live() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (tree, screen) = match recorded() {
        Some(tree) => (tree.clone(), read(&tree.join("out/live"))),
        None => (
            here.join("tests/trees/a-second-later"),
            read(&here.join("src/live/snapshots/kvm_fwb_stat__live__tests__list_132x24.snap"))
                .lines()
                .map(|line| line.trim_matches('"').to_owned() + "\n")
                .collect(),
        ),
    };
    assert_eq!(shown(&screen), few(files(&tree)));
}

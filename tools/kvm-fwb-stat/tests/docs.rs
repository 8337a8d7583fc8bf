// SPDX-License-Identifier: GPL-2.0

//! The documents against what they tell of: this tool, the module's source, and files recorded from it.

use kvm_fwb_stat::{
    dump::metrics::{Dialect, Look, text},
    manual,
    snapshot::Tree,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names<'a>(of: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    of.into_iter().map(str::to_owned).collect()
}

/// The rows below the heading that begins with `first`, as the cells of each.
fn table<'a>(text: &'a str, first: &str) -> Vec<Vec<&'a str>> {
    let heading = format!("| {first} |");
    text.lines()
        .skip_while(|line| !line.starts_with(&heading))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// What stands in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn first_column(text: &str, heading: &str) -> BTreeSet<String> {
    let rows = table(text, heading);
    assert!(!rows.is_empty(), "no table {heading}");
    names(rows.iter().flat_map(|row| quoted(row[0])))
}

/// Names in a file of `name value` lines.
fn keys(text: &str) -> BTreeSet<String> {
    names(text.lines().filter_map(|line| line.split(' ').next()))
}

/// Recorded from the module, on a host where it shows all there is.
const TREE: &str = "tests/trees/recorded-lazy";

#[test]
fn counters_are_told_as_the_tool_tells_them() {
    let text = read("../../docs/counters.md");
    let mut printed = Vec::new();
    manual::counters(&mut printed, true).expect("a Vec takes all");
    let printed = String::from_utf8(printed).expect("text");
    let told = (text.split_once("counters --markdown -->\n"))
        .and_then(|(_, rest)| rest.split_once("<!-- The end of it -->"));
    assert_eq!(
        told.map(|(told, _)| told.trim()),
        Some(printed.trim()),
        "put what `kvm-fwb-stat counters --markdown` prints into docs/counters.md"
    );
}

#[test]
fn facts_are_the_modules() {
    let text = read("../../docs/counters.md");
    let host = keys(&read(&format!("{TREE}/host")));
    assert_eq!(first_column(&text, "`host` | values"), host);

    // Some of `info` are in words, and some numbers that the tool tells of.
    let vm = fs::read_dir(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(TREE)
            .join("vms"),
    );
    let vm = vm
        .expect("vms")
        .next()
        .expect("a VM")
        .expect("its name")
        .path();
    let info = keys(&fs::read_to_string(vm.join("info")).expect("info"));
    let mut told = first_column(&text, "`info` | meaning");
    told.extend(first_column(&text, "`info` | kind"));
    assert_eq!(told, info);
}

#[test]
fn trace_events_are_the_modules() {
    let source = read("../../src/trace.h");
    // Each by its name, with its fields in their order.
    let mut events = BTreeSet::new();
    let mut class = Vec::new();
    for definition in source.split("\nTRACE_EVENT(").skip(1) {
        let name = definition.split(',').next().expect("a name");
        events.insert((name.to_owned(), fields(definition)));
    }
    for definition in source.split("\nDECLARE_EVENT_CLASS(").skip(1) {
        class = fields(definition);
    }
    for definition in source.split("\nDEFINE_EVENT(").skip(1) {
        let name = definition.split(',').nth(1).expect("a name").trim();
        events.insert((name.to_owned(), class.clone()));
    }
    assert!(events.len() > 4, "{events:?}");

    let text = read("../../docs/counters.md");
    let told = table(&text, "event").into_iter();
    let told: BTreeSet<_> = told
        .map(|row| {
            let fields = quoted(row[1]).into_iter().map(str::to_owned).collect();
            (quoted(row[0]).concat(), fields)
        })
        .collect();
    assert_eq!(told, events);
}

#[test]
fn remedies_are_the_modules() {
    let source = read("../../src/trace.h");
    let symbols = (source.split_once("__print_symbolic(__entry->remedy,"))
        .and_then(|(_, rest)| rest.split_once("})"))
        .map_or("", |(symbols, _)| symbols);
    let remedies: Vec<_> = symbols.split('"').skip(1).step_by(2).collect();
    assert!(remedies.contains(&"unmap_once"), "{remedies:?}");
    let text = read("../../docs/counters.md");
    let rows = table(&text, "event");
    let told = rows.iter().find(|row| row[0] == "`vcpu_reset`");
    let told = quoted(told.expect("the event vcpu_reset")[2]);
    for remedy in remedies {
        assert!(told.contains(&remedy), "{remedy} is not told of: {told:?}");
    }
}

/// The fields of a definition in trace.h, up to the end of their structure.
fn fields(definition: &str) -> Vec<String> {
    let structure = (definition.split_once("TP_STRUCT__entry("))
        .and_then(|(_, rest)| rest.split_once("TP_fast_assign"))
        .map_or("", |(structure, _)| structure);
    let of = |line: &str| {
        let line = line.trim();
        let string = line
            .strip_prefix("__string(")
            .and_then(|rest| rest.split(',').next());
        let field = line
            .strip_prefix("__field(")
            .and_then(|rest| rest.split([',', ')']).nth(1));
        string.or(field).map(|name| name.trim().to_owned())
    };
    structure.lines().filter_map(of).collect()
}

/// All metrics that there can be.
fn metrics() -> BTreeSet<String> {
    let tree = Tree::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(TREE));
    let snapshot = tree.read().expect("a recorded tree");
    let text = text(&Look::Seen(&snapshot), Dialect::Prometheus);
    names(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next()),
    )
}

/// The metrics that a query names.
fn queried(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("kvm_fwb_reset_"))
}

/// Each string under the key `expr` or `query`, wherever it is.
fn queries<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match value {
            Value::String(query) if matches!(&**key, "expr" | "query") => found.push(query),
            _ => queries(value, found),
        }),
        Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => (),
    }
}

#[test]
fn what_is_queried_is_there() {
    let metrics = metrics();
    let dashboard = read("../../docs/dashboard/kvm_fwb_reset.json");
    let dashboard = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    let mut all = Vec::new();
    queries(&dashboard, &mut all);
    assert!(all.len() > 10);
    let rules = read("../../docs/dashboard/alerts.yml");
    all.push(&rules);
    for name in all.into_iter().flat_map(queried) {
        assert!(metrics.contains(name), "no such metric: {name}");
    }
}

#[test]
fn alerts_are_told() {
    let rules = read("../../docs/dashboard/alerts.yml");
    let alerts = names(
        rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: ")),
    );
    assert!(!alerts.is_empty());
    let text = read("../../docs/counters.md");
    assert_eq!(first_column(&text, "alert"), alerts);
}

// SPDX-License-Identifier: GPL-2.0

//! The tool itself, on trees as the module shows them.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn tree(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/trees")
        .join(name)
}

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvm-fwb-stat"));
    command
        .env_remove("KVM_FWB_STAT_ROOT")
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn run(tree_name: &str, arguments: &[&str]) -> Output {
    tool(arguments)
        .arg("--root")
        .arg(tree(tree_name))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The metric that is the time of the look.
const LAST_READ: &str = "kvm_fwb_reset_last_read_timestamp_seconds ";

/// A line of metrics, or another one, without the time of the look.
fn timeless(line: &str) -> String {
    match line.strip_prefix(LAST_READ) {
        Some(_) => format!("{LAST_READ}TIME"),
        None => line.into(),
    }
}

/// The time of the last good look in a page of metrics.
fn last_read(page: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(LAST_READ));
    line.unwrap().parse().unwrap()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// A copy of a tree, to be changed.
fn copy(tree_name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new("cp")
        .arg("-r")
        .arg(tree(tree_name))
        .arg(dir.path().join("tree"))
        .status();
    assert!(done.unwrap().success());
    dir
}

/// Waits until `is` holds, for as long as a busy machine may need.
fn soon(is: impl Fn() -> bool) {
    for _ in 0..200 {
        if is() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain");
}

/// All that was said, without what changes from run to run and from place to place.
fn said(output: &Output) -> String {
    let text: String = stdout(output)
        .lines()
        .map(|line| {
            let is_row = line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(',');
            let line = match line.split_once(',') {
                Some((_, rest)) if is_row => format!("TIME,{rest}"),
                _ if line.starts_with("  \"time\":") => "  \"time\": TIME,".into(),
                _ => timeless(line),
            };
            line + "\n"
        })
        .collect();
    let text = format!("{text}--- {}\n{}", output.status, stderr(output));
    text.replace(env!("CARGO_MANIFEST_DIR"), "")
}

/// The one line that is said of a failure.
fn failed(output: &Output, status: i32, words: &str) {
    let line = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert!(
        line.contains(words) && line.ends_with('\n') && line.lines().count() == 1,
        "{line}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn every_output_of_three_guests() {
    for output in ["once", "json", "csv", "prometheus", "openmetrics"] {
        let output_of = run("three-guests", &[&format!("--{output}")]);
        insta::assert_snapshot!(format!("three_guests_{output}"), said(&output_of));
    }
}

#[test]
fn other_trees() {
    for (tree, output) in [
        ("recorded", "--once"),
        ("unmapping", "--once"),
        ("quiet", "--once"),
        ("quiet", "--prometheus"),
        ("made-anew", "--once"),
        ("older-module", "--once"),
        ("older-module", "--json"),
        ("older-module", "--csv"),
        ("older-module", "--openmetrics"),
        ("truncated-vm", "--once"),
        ("truncated-vm", "--prometheus"),
        ("no-entry", "--once"),
        ("no-entry", "--csv"),
        ("lazy", "--once"),
        ("lazy", "--json"),
        ("lazy", "--csv"),
        ("lazy", "--openmetrics"),
        ("no-flush-count", "--once"),
        ("no-flush-count", "--csv"),
        ("no-flush-count", "--prometheus"),
    ] {
        let name = format!("{tree}_{}", &output[2..]).replace('-', "_");
        insta::assert_snapshot!(name, said(&run(tree, &[output])));
    }
}

#[test]
fn a_list_as_asked_for() {
    let arguments = [
        "--once",
        "--sort",
        "resets",
        "--reverse",
        "--filter",
        "QEMU",
    ];
    insta::assert_snapshot!(said(&run("three-guests", &arguments)));
}

#[test]
fn without_a_terminal_it_is_a_table() {
    assert_eq!(
        stdout(&run("three-guests", &[])),
        stdout(&run("three-guests", &["--once"]))
    );
}

/// Every number of the files `stats` and `latency` of a tree, as (vm or "", name) to value.
fn numbers(tree: &Path) -> BTreeMap<(String, String), u64> {
    let mut numbers = BTreeMap::new();
    let mut add = |vm: &str, dir: &Path| {
        for file in ["stats", "latency"] {
            for line in fs::read_to_string(dir.join(file)).unwrap().lines() {
                let (name, value) = line.rsplit_once(' ').unwrap();
                numbers.insert((vm.into(), name.into()), value.parse().unwrap());
            }
        }
    };
    add("", tree);
    for vm in fs::read_dir(tree.join("vms")).unwrap() {
        let vm = vm.unwrap();
        add(vm.file_name().to_str().unwrap(), &vm.path());
    }
    numbers
}

/// Two made up, and two recorded on hosts of the lab.
const FULL: [&str; 4] = ["three-guests", "recorded", "lazy", "recorded-lazy"];

#[test]
fn json_agrees_with_the_files() {
    FULL.map(json_agrees);
}

fn json_agrees(tree_name: &str) {
    let json: Value = serde_json::from_str(&stdout(&run(tree_name, &["--json"]))).unwrap();
    let mut seen = 0;
    for ((vm, name), value) in numbers(&tree(tree_name)) {
        let object = if vm.is_empty() {
            &json["total"]
        } else {
            json["vms"]
                .as_array()
                .unwrap()
                .iter()
                .find(|each| each["vm"] == *vm)
                .unwrap()
        };
        let found = match name.split_once(' ') {
            None => &object["stats"][&name],
            Some((name, key @ ("count" | "sum_ns"))) => &object["latency"][name][key],
            Some((name, from)) => {
                let from: u64 = from.parse().unwrap();
                let buckets = object["latency"][name]["buckets"].as_array().unwrap();
                &buckets
                    .iter()
                    .find(|bucket| bucket["from_ns"] == from)
                    .unwrap()["count"]
            }
        };
        assert_eq!(found, &Value::from(value), "{vm} {name}");
        seen += 1;
    }
    assert!(seen > 80);
}

#[test]
fn metrics_agree_with_the_files() {
    FULL.map(metrics_agree);
}

fn metrics_agree(tree_name: &str) {
    let prometheus = stdout(&run(tree_name, &["--prometheus"]));
    let openmetrics = stdout(&run(tree_name, &["--openmetrics"]));
    let samples = |text: &str| -> BTreeMap<String, f64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
        pairs
            .map(|(name, value)| (name.into(), value.parse().unwrap()))
            .collect()
    };
    let [found, same] = [&prometheus, &openmetrics].map(|text| {
        let mut found = samples(text);
        // Of two looks.
        assert!(found.remove(LAST_READ.trim()).unwrap() > 1e9);
        found
    });
    assert_eq!(found, same);
    assert!(openmetrics.ends_with("\n# EOF\n") && !prometheus.contains("# EOF"));
    for ((vm, name), value) in numbers(&tree(tree_name)) {
        let (level, labels) = match &*vm {
            "" => ("", String::new()),
            vm => ("per_vm_", format!("{{vm=\"{vm}\"}}")),
        };
        let (sample, value) = match name.split_once(' ') {
            None if name == "pending" => (name, value as f64),
            None => (format!("{name}_total"), value as f64),
            Some((name, "count")) => (format!("{name}_seconds_count"), value as f64),
            Some((name, "sum_ns")) => (format!("{name}_seconds_sum"), value as f64 / 1e9),
            Some(_) => continue,
        };
        let sample = format!("kvm_fwb_reset_{level}{sample}{labels}");
        let found = found.get(&sample).unwrap_or_else(|| panic!("no {sample}"));
        assert!((found - value).abs() < 1e-12, "{sample} {found} {value}");
    }
}

#[test]
fn buckets_are_cumulative() {
    let prometheus = stdout(&run("three-guests", &["--prometheus"]));
    let buckets: Vec<_> = prometheus
        .lines()
        .filter_map(|line| line.strip_prefix("kvm_fwb_reset_pay_seconds_bucket{le=\""))
        .map(|line| line.split_once("\"} ").unwrap())
        .collect();
    let value = |le: &str| buckets.iter().find(|bucket| bucket.0 == le).unwrap().1;
    assert_eq!(value("0.000004096"), "0");
    assert_eq!(value("0.000008192"), "12");
    assert_eq!(value("0.000131072"), "18");
    assert_eq!(value("0.000262144"), "19");
    assert_eq!(value("+Inf"), "19");
}

#[test]
fn csv_agrees_with_the_files() {
    FULL.map(csv_agrees);
}

fn csv_agrees(tree_name: &str) {
    let text = stdout(&run(tree_name, &["--csv"]));
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let names = rows.headers().unwrap().clone();
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    let vms = fs::read_dir(tree(tree_name).join("vms")).unwrap().count();
    assert_eq!(rows.len(), 1 + vms);
    for ((vm, name), value) in numbers(&tree(tree_name)) {
        let vm = if vm.is_empty() { "all" } else { &vm };
        let name = name.replace(' ', "_");
        if let Some(column) = names.iter().position(|each| each == name) {
            let row = rows.iter().find(|row| &row[1] == vm).unwrap();
            assert_eq!(row[column], value.to_string(), "{vm} {name}");
        } else {
            assert!(name.ends_with(|c: char| c.is_ascii_digit()), "{name}");
        }
    }
}

#[test]
fn json_follows_its_schema() {
    let schema: Value =
        serde_json::from_slice(&tool(&["schema"]).output().unwrap().stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for tree in [
        "three-guests",
        "unmapping",
        "quiet",
        "made-anew",
        "older-module",
        "truncated-vm",
        "no-entry",
        "lazy",
        "recorded-lazy",
        "no-flush-count",
    ] {
        let json: Value = serde_json::from_slice(&run(tree, &["--json"]).stdout).unwrap();
        if let Err(error) = validator.validate(&json) {
            panic!("{tree}: {error} at {}", error.instance_path);
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({ "schema": 1 })));
}

#[test]
fn what_is_not_counted_is_no_number() {
    let flush = "stage2_flush";
    let since_lazy = ["dcache_clean_elide_bytes", "tlbi_elide", flush];
    for (tree, absent) in [
        ("no-flush-count", &[flush][..]),
        ("unmapping", &since_lazy),
        ("lazy", &[]),
    ] {
        let json: Value = serde_json::from_str(&stdout(&run(tree, &["--json"]))).unwrap();
        let metrics = stdout(&run(tree, &["--prometheus"]));
        let csv = stdout(&run(tree, &["--csv"]));
        let once = stdout(&run(tree, &["--once"]));
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let names = rows.headers().unwrap().clone();
        let all = rows.records().next().unwrap().unwrap();
        for name in since_lazy {
            let is_absent = absent.contains(&name);
            for figures in [&json["total"], &json["unlisted"], &json["vms"][0]] {
                assert_eq!(figures["stats"][name].is_null(), is_absent, "{tree} {name}");
            }
            for level in ["", "per_vm_"] {
                let sample = format!("kvm_fwb_reset_{level}{name}");
                assert_eq!(!metrics.contains(&sample), is_absent, "{tree} {sample}");
            }
            let column = names.iter().position(|each| each == name).unwrap();
            assert_eq!(all[column].is_empty(), is_absent, "{tree} {name}");
        }
        let is_absent = !absent.is_empty();
        assert_eq!(json["total"]["latency"][flush].is_null(), is_absent);
        assert_eq!(once.contains("Not counted: "), is_absent, "{once}");
    }
    // Where it would be 0 anyhow nobody misses it.
    assert!(!stdout(&run("recorded", &["--once"])).contains("Not counted"));
}

#[test]
fn what_is_documented() {
    for (name, arguments) in [
        ("schema", &["schema"][..]),
        ("counters", &["counters"]),
        ("counters_markdown", &["counters", "--markdown"]),
        ("man", &["man"]),
        ("help", &["--help"]),
    ] {
        insta::assert_snapshot!(name, stdout(&tool(arguments).output().unwrap()));
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = stdout(&tool(&["completions", shell]).output().unwrap());
        for word in ["prometheus", "doctor", "interval", "sort"] {
            assert!(text.contains(word), "{shell} {word}");
        }
    }
}

#[test]
fn again_and_again() {
    let output = run(
        "three-guests",
        &["--csv", "--interval", "0.1", "--count", "3"],
    );
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1 + 3 * 4);
    assert_eq!(text.matches("time,").count(), 1);
    let output = run(
        "three-guests",
        &["--json", "--interval", "0.1", "--count", "2"],
    );
    let times: Vec<f64> = stdout(&output)
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["time"]
                .as_f64()
                .unwrap()
        })
        .collect();
    assert!(times.len() == 2 && times[1] - times[0] >= 0.09);
    let output = run("three-guests", &["--once", "--interval", "0.1"]);
    assert!(stdout(&output).contains("RATE") && stdout(&output).contains("0/s"));
}

#[test]
fn a_file_of_metrics_is_whole_and_readable() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.prom");
    fs::write(&file, "old").unwrap();
    // Whoever has it open keeps what he has.
    let mut open = fs::File::open(&file).unwrap();
    let path = file.to_str().unwrap();
    let output = run("three-guests", &["--prometheus", path]);
    assert!(output.status.success() && output.stdout.is_empty());
    let text = fs::read_to_string(&file).unwrap();
    let lines = |text: &str| text.lines().map(timeless).collect::<Vec<_>>();
    assert_eq!(
        lines(&text),
        lines(&stdout(&run("three-guests", &["--prometheus"])))
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o644
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(io::read_to_string(&mut open).unwrap(), "old");
    // What cannot be read leaves no old figures, and the time that they were of.
    let read = last_read(&text);
    assert!((now() - read).abs() < 60.0, "{read}");
    failed(
        &run("truncated", &["--prometheus", path]),
        6,
        "truncated/stats is cut short",
    );
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text.lines().filter(|line| !line.starts_with('#')).count(),
        2
    );
    assert!(text.contains("\nkvm_fwb_reset_read_success 0\n"), "{text}");
    assert_eq!(last_read(&text), read);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // Nor is there one that was never read.
    let never = dir.path().join("never.prom");
    failed(
        &run("truncated", &["--openmetrics", never.to_str().unwrap()]),
        6,
        "is cut short",
    );
    let text = fs::read_to_string(&never).unwrap();
    assert!(
        last_read(&text) == 0.0 && text.ends_with("\n# EOF\n"),
        "{text}"
    );
    failed(
        &run("three-guests", &["--openmetrics", "/nonexistent/x"]),
        1,
        "/nonexistent/x: ",
    );
}

/// The tool, to be ended, and what it says.
struct Running(Child, tempfile::NamedTempFile);

impl Running {
    fn start(command: &mut Command) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let child = command.stderr(said.reopen().unwrap()).spawn().unwrap();
        Self(child, said)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.1).unwrap()
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_bad_look_ends_no_loop_and_the_file_says_so() {
    let dir = copy("three-guests");
    let [root, stats, file, rows] =
        ["tree", "tree/stats", "x.prom", "rows.csv"].map(|name| dir.path().join(name));
    let start =
        |command: &mut Command| Running::start(command.args(["-i", "0.1", "--root"]).arg(&root));
    let mut loops = [
        start(tool(&["--prometheus"]).arg(&file)),
        start(tool(&["--csv"]).stdout(fs::File::create(&rows).unwrap())),
    ];
    let page = || fs::read_to_string(&file).unwrap_or_default();
    let count = || fs::read_to_string(&rows).unwrap().lines().count();
    soon(|| page().contains("read_success 1") && count() > 4);

    let whole = fs::read(&stats).unwrap();
    fs::write(&stats, "vcpu_init 1\n").unwrap();
    let all_say = |loops: &[Running], words| loops.iter().all(|each| each.said().contains(words));
    soon(|| all_say(&loops, "stats is cut short"));
    soon(|| page().contains("read_success 0"));
    let text = page();
    assert!(
        !text.contains("vm_reset") && !text.contains("loaded"),
        "{text}"
    );
    let last = last_read(&text);
    assert!(last > 1e9);
    // As with debugfs unmounted.
    fs::rename(&root, dir.path().join("gone")).unwrap();
    soon(|| all_say(&loops, "tree is not there"));
    // Told once, and not at each look.
    let said = loops[1].said();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(loops[1].said(), said);
    assert!(
        said.lines().all(|line| line.ends_with("(going on)")),
        "{said}"
    );
    assert_eq!(last_read(&page()), last);

    let before = count();
    fs::write(dir.path().join("gone/stats"), whole).unwrap();
    fs::rename(dir.path().join("gone"), &root).unwrap();
    soon(|| page().contains("read_success 1") && count() > before);
    assert!(last_read(&page()) > last);
    assert!(loops.iter_mut().all(Running::is_running));
}

#[test]
fn after_a_stop_there_is_one_look() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("looks");
    let tool = Running::start(
        tool(&["--json", "-i", "0.2", "--root"])
            .arg(tree("three-guests"))
            .stdout(fs::File::create(&file).unwrap()),
    );
    let times = || -> Vec<f64> {
        let text = fs::read_to_string(&file).unwrap();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        whole
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["time"]
                    .as_f64()
                    .unwrap()
            })
            .collect()
    };
    soon(|| times().len() >= 2);
    tool.signal(Signal::STOP);
    let before = times().len();
    thread::sleep(Duration::from_secs(2));
    let resumed = now();
    tool.signal(Signal::CONT);
    soon(|| times().len() >= before + 4);
    drop(tool);
    // Ten were missed. One is made up for, and one may have been under way.
    let at_once = times()
        .iter()
        .filter(|&&time| time > resumed - 1.0 && time < resumed + 0.1)
        .count();
    assert!((1..=2).contains(&at_once), "{:?} {resumed}", times());
}

#[test]
fn a_file_of_metrics_tells_that_the_module_went() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.prom");
    // Opening a socket fails as opening a file of a module on its way out does.
    let _socket = UnixListener::bind(dir.path().join("stats")).unwrap();
    let output = tool(&["--prometheus"])
        .arg(&file)
        .arg("--root")
        .arg(dir.path())
        .output()
        .unwrap();
    failed(&output, 5, "is not loaded");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with("\nkvm_fwb_reset_loaded 0\n") && text.lines().count() == 3);
}

#[test]
fn failures_are_one_line_and_a_status() {
    failed(&run("nowhere", &["--once"]), 4, "nowhere is not there");
    failed(&run("nowhere", &["policy"]), 4, "nowhere is not there");
    failed(
        &run("truncated", &["--once"]),
        6,
        "truncated/stats is cut short or damaged",
    );
    // Wrong usage is told as clap tells it.
    assert_eq!(
        run("three-guests", &["policy", "twice"]).status.code(),
        Some(2)
    );
    assert_eq!(
        run("three-guests", &["--json", "policy"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_user_who_is_not_root_is_told() {
    // A place that any user can run the tool from, and a directory that only its owner can read.
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let tool = dir.path().join("kvm-fwb-stat");
    fs::copy(env!("CARGO_BIN_EXE_kvm-fwb-stat"), &tool).unwrap();
    let debug = dir.path().join("debug");
    fs::create_dir(&debug).unwrap();
    fs::set_permissions(&debug, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(tool);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command
        .arg("--once")
        .arg("--root")
        .arg(debug.join("kvm_fwb_reset"))
        .output()
        .unwrap();
    failed(&output, 3, "may not be read by this user: run as root");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = tool(&["--csv", "--interval", "0.1"])
        .arg("--root")
        .arg(tree("three-guests"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    for format in ["--once", "--json", "--csv", "--prometheus"] {
        let output = tool(&[format, "--root"])
            .arg(tree("quiet"))
            .stdout(full.try_clone().unwrap())
            .output()
            .unwrap();
        failed(&output, 1, "cannot write the output");
    }
}

#[test]
fn the_policy_is_shown_and_switched() {
    assert_eq!(stdout(&run("three-guests", &["policy"])), "once\n");
    // A plain file takes what is written, and does not show it in brackets as the module does.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy");
    let switch = || {
        tool(&["policy", "fwb", "--root"])
            .arg(dir.path())
            .output()
            .unwrap()
    };
    fs::write(&file, "any [once]\n").unwrap();
    failed(&switch(), 1, "kept its policy once");
    assert_eq!(fs::read_to_string(&file).unwrap(), "fwb\n[once]\n");
    fs::remove_file(&file).unwrap();
    failed(&switch(), 1, "policy: No such file");
    // Not made where there is none.
    assert!(!file.exists());
}

#[test]
fn lazy_is_switched_to_where_it_is_to_be_had() {
    let host = "fwb 0\ndic 0\nidc 1\nvhe 1\nnative_reset unmap\nhooks armed\n";
    // As the module would: what it is told ends up in brackets.
    let switch = |host: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("host"), host).unwrap();
        fs::write(dir.path().join("policy"), "once [lazy]\n").unwrap();
        let output = tool(&["policy", "lazy", "--root"])
            .arg(dir.path())
            .output()
            .unwrap();
        (
            output,
            fs::read_to_string(dir.path().join("policy")).unwrap(),
        )
    };
    // A plain file begins with what was written, and has no policy in brackets then: see above. What
    // counts is whether it was written.
    let is_written = |text: &str| text.starts_with("lazy\n");

    let (output, text) = switch(&format!("{host}lazy refused\n"));
    failed(&output, 1, "the policy lazy is not to be had on this host");
    assert!(stderr(&output).contains("dmesg"));
    assert!(!is_written(&text));
    let (output, text) = switch(host);
    failed(&output, 1, "older than this tool, and has no policy lazy");
    assert!(!is_written(&text));
    assert!(is_written(&switch(&format!("{host}lazy unmaps\n")).1));
}

#[test]
fn where_lazy_is_as_once_it_says_so() {
    let host = "dic 0\nidc 1\nvhe 1\nnative_reset unmap\nhooks armed\n";
    for (fwb, lazy, words) in [
        (
            1,
            "as_once",
            "note: on this host lazy is as once: the CPUs have FEAT_S2FWB",
        ),
        (
            0,
            "as_once",
            "note: on this host lazy is as once: the hypervisor unmaps (pKVM)",
        ),
        (0, "unmaps", ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("host"),
            format!("fwb {fwb}\n{host}lazy {lazy}\n"),
        )
        .unwrap();
        // What is written covers as much, and leaves the brackets.
        fs::write(dir.path().join("policy"), "once [lazy]\n").unwrap();
        let output = tool(&["policy", "lazy", "--root"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert_eq!(stdout(&output), "lazy (was lazy)\n", "{}", stderr(&output));
        match words {
            "" => assert_eq!(stderr(&output), ""),
            words => assert!(stderr(&output).contains(words), "{}", stderr(&output)),
        }
    }
}

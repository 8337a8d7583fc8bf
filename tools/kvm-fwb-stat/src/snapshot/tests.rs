// SPDX-License-Identifier: GPL-2.0

use super::{Lazy, Stats, Tree, VmId, parse};
use crate::{
    counters::{Shown, Stat, Timing},
    error::Error,
    snapshot::{Change, Figures, Histogram, Policy},
};
use proptest::prelude::*;
use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
    time::{Duration, Instant},
};

/// A tree that is kept for tests.
pub(crate) fn tree(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/trees")
        .join(name)
}

/// What the `stats` of all VMs in a tree hold.
fn stats_of(name: &str) -> Stats {
    parse::stats(&fs::read_to_string(tree(name).join("stats")).unwrap()).unwrap()
}

#[test]
fn a_whole_tree_is_read() {
    let snapshot = Tree::new(tree("three-guests")).read().unwrap();
    assert_eq!(snapshot.policy, Some(Policy::Once));
    assert_eq!(snapshot.total.stats.get(Stat::VcpuReset), 118);
    let latency = snapshot.total.latency.as_ref().unwrap();
    let pay = latency.get(Timing::Pay).unwrap();
    assert_eq!((pay.count, pay.sum_ns), (19, 344_064));
    let buckets: Vec<_> = pay
        .buckets()
        .map(|b| (b.from_ns, b.to_ns, b.count))
        .collect();
    assert_eq!(
        buckets,
        [(4096, 8192, 12), (8192, 16384, 6), (131_072, 262_144, 1)]
    );
    assert_eq!(pay.span().len(), 6);
    assert_eq!(
        (pay.below(8192), pay.below(131_072), pay.below(262_144)),
        (12, 18, 19)
    );
    let ids: Vec<_> = snapshot.vms.iter().map(|vm| vm.id.to_string()).collect();
    assert_eq!(ids, ["1204-14", "1377-14", "20511-31"]);
    assert_eq!(snapshot.vms[1].comm(), "qemu web \"2\"");
    assert_eq!(snapshot.vms[1].owed(), "icache");
    assert_eq!(
        snapshot.costliest().unwrap().0.id,
        VmId::Kvm { pid: 1204, fd: 14 }
    );
    assert!(snapshot.missing.is_empty() && snapshot.problems.is_empty());
}

#[test]
fn what_lazy_leaves_is_read_and_flushes_are_part_of_the_cost() {
    let snapshot = Tree::new(tree("lazy")).read().unwrap();
    assert_eq!(snapshot.policy, Some(Policy::Lazy));
    assert_eq!(snapshot.host.lazy, Some(Lazy::Unmaps));
    let total = &snapshot.total;
    assert_eq!(total.stats.get(Stat::DcacheCleanElideBytes), 2_604_658_688);
    assert_eq!(total.stats.get(Stat::TlbiElide), 526_582);
    assert_eq!(total.stats.get(Stat::Stage2Flush), 19);
    let time = total
        .latency
        .as_ref()
        .unwrap()
        .get(Timing::Stage2Flush)
        .unwrap();
    assert_eq!((time.count, time.sum_ns), (19, 180_879_360));
    // Re-inits and flushes; nothing was owed.
    assert_eq!(total.time_ns(), Some(203_243_520 + 180_879_360));
    assert_eq!(snapshot.uncounted(), None);
}

#[test]
fn what_an_older_module_or_another_kernel_does_not_count_is_told_apart() {
    let uncounted = |name: &str| Tree::new(tree(name)).read().unwrap().uncounted();
    assert_eq!(
        uncounted("no-flush-count"),
        Some((vec!["stage2_flush"], Shown::WithFunction))
    );
    let all = vec!["dcache_clean_elide_bytes", "tlbi_elide", "stage2_flush"];
    assert_eq!(uncounted("unmapping"), Some((all, Shown::SinceLazy)));
}

#[test]
fn files_of_one_module_have_the_same_lines() {
    for (file, cut) in [
        ("host", "lazy unmaps\n"),
        ("stats", "tlbi_elide 526582\n"),
        ("stats", "dcache_clean_elide_bytes 2604658688\n"),
        ("latency", "stage2_flush count 19\n"),
        ("latency", "stage2_flush sum_ns 180879360\n"),
        // All of it.
        ("latency", "stage2_flush "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("vms")).unwrap();
        for name in ["host", "policy", "stats", "latency"] {
            let mut text = fs::read_to_string(tree("lazy").join(name)).unwrap();
            if name == file {
                assert!(text.contains(cut));
                let kept = text
                    .split_inclusive('\n')
                    .filter(|line| !line.starts_with(cut));
                text = kept.collect();
            }
            fs::write(dir.path().join(name), text).unwrap();
        }
        let read = Tree::new(dir.path()).read();
        assert!(matches!(read, Err(Error::Damaged { .. })), "{file}: {cut}");
    }
}

#[test]
fn rates_are_of_the_time_between() {
    let mut before = Tree::new(tree("three-guests")).read().unwrap();
    let mut after = Tree::new(tree("a-second-later")).read().unwrap();
    let start = Instant::now();
    let later = start + Duration::from_secs(2);
    // Meanwhile somebody set the clock back: it is not what rates are taken by.
    (before.time, after.time) = (5000.0, 100.0);
    (before.at, after.at) = (start, later);
    let change = Change::new(&before, &after).unwrap();
    assert_eq!(change.total(&after.total, Stat::VcpuReset), 4.0);
    let vm = &after.vms[0];
    assert_eq!(change.vm(&vm.id, &vm.figures, Stat::VmReset), 0.5);
    let back = Change::new(&after, &before);
    assert!(back.is_none());
    // Cleared meanwhile: what there is was counted since.
    (before.at, after.at) = (later, start);
    let change = Change::new(&after, &before).unwrap();
    assert_eq!(change.total(&before.total, Stat::VcpuReset), 59.0);
    // A VM that was not there before.
    let new = &before.vms[2];
    assert_eq!(change.vm(&new.id, &new.figures, Stat::VmReset), 1.5);
}

#[test]
fn totals_and_the_list_agree_or_it_is_said_what_is_missing() {
    // All VMs are there that were reset, and others that were only initialised.
    let before = Tree::new(tree("three-guests")).read().unwrap();
    let counted = |rest: &Figures| {
        let counts = rest.stats.iter().filter(|&(_, count)| count > 0);
        counts.map(|(stat, _)| stat).collect::<Vec<_>>()
    };
    let rest = before.unlisted();
    assert_eq!(counted(&rest), [Stat::VcpuInit]);
    let latency = rest.latency.unwrap();
    assert!(
        latency
            .iter()
            .all(|(_, times)| *times == Histogram::default())
    );
    // One of the three went, and what it had done stays in the totals.
    let mut after = Tree::new(tree("a-second-later")).read().unwrap();
    after.at = before.at + Duration::from_secs(1);
    let gone = &before.vms[2].figures;
    let rest = after.unlisted();
    for (stat, count) in gone
        .stats
        .iter()
        .filter(|(stat, _)| *stat != Stat::VcpuInit)
    {
        assert_eq!(rest.stats.get(stat), count);
    }
    assert_eq!(rest.latency, gone.latency);
    // It did nothing in that second; then a VM that is not in the list is reset twice.
    let change = Change::new(&before, &after).unwrap();
    assert_eq!(change.unlisted(&after, Stat::VmReset), 0.0);
    after.total.stats.set(Stat::VmReset, 24);
    assert_eq!(change.unlisted(&after, Stat::VmReset), 2.0);
    assert_eq!(
        after.unlisted().stats.get(Stat::VmReset),
        gone.stats.get(Stat::VmReset) + 2
    );
}

#[test]
fn every_name_of_a_vm_can_be_shown() {
    for (name, pid, fd) in [
        ("1204-14", Some(1204), Some(14)),
        ("1204-vm7", Some(1204), None),
        ("1204-vm18446744073709551615", Some(1204), None),
        // What does not read back as itself is another name: its directory is that one.
        ("01204-14", None, None),
        ("+1-2", None, None),
        ("1-2-3", None, None),
        ("99999999999-1", None, None),
        ("1-vm", None, None),
        ("1-vm07", None, None),
        ("-1", None, None),
        ("", None, None),
    ] {
        let id = parse::vm_id(name);
        assert_eq!((id.pid(), id.fd()), (pid, fd), "{name}");
        assert_eq!(id.to_string(), name);
    }
    assert_eq!(parse::vm_id("\x1b[2J").to_string(), "\\u{1b}[2J");

    let dir = tempfile::tempdir().unwrap();
    let root = tree("three-guests");
    for name in ["host", "policy", "stats", "latency"] {
        fs::copy(root.join(name), dir.path().join(name)).unwrap();
    }
    for name in ["1204-14", "1204-vm7", "of a newer module", "01204-14"] {
        let vm = dir.path().join("vms").join(name);
        fs::create_dir_all(&vm).unwrap();
        for name in ["info", "stats", "latency"] {
            fs::copy(root.join("vms/1204-14").join(name), vm.join(name)).unwrap();
        }
    }
    let snapshot = Tree::new(dir.path()).read().unwrap();
    let told: Vec<_> = (snapshot.vms.iter())
        .map(|vm| (vm.id.to_string(), vm.pid()))
        .collect();
    let named = |name: &str| (name.to_owned(), Some(1204));
    assert_eq!(
        told,
        ["1204-14", "1204-vm7", "01204-14", "of a newer module"].map(named)
    );
}

#[test]
fn an_older_module_shows_what_it_has() {
    let snapshot = Tree::new(tree("older-module")).read().unwrap();
    assert_eq!(snapshot.missing, ["latency", "info"]);
    assert!(!snapshot.is_timed());
    assert_eq!(snapshot.cost(&snapshot.vms[0].figures), 6);
}

#[test]
fn a_vm_that_goes_while_it_is_read_is_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["host", "policy", "stats", "latency"] {
        fs::copy(tree("three-guests").join(name), dir.path().join(name)).unwrap();
    }
    let vms = dir.path().join("vms");
    fs::create_dir(&vms).unwrap();
    // As a directory that readdir still shows, and that cannot be opened any more.
    symlink("/nonexistent", vms.join("77-7")).unwrap();
    // And what is no VM.
    fs::write(vms.join("README"), "").unwrap();
    let snapshot = Tree::new(dir.path()).read().unwrap();
    assert!(snapshot.vms.is_empty() && snapshot.problems.is_empty());
    assert!(snapshot.missing.is_empty());
}

#[test]
fn a_module_that_goes_while_it_is_read_is_not_loaded() {
    for name in ["stats", "vms/77-7/stats"] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["host", "policy", "stats", "latency"] {
            fs::copy(tree("three-guests").join(name), dir.path().join(name)).unwrap();
        }
        fs::create_dir_all(dir.path().join("vms/77-7")).unwrap();
        // To open a socket is refused with ENXIO, as debugfs refuses a file of a module that goes.
        let _ = fs::remove_file(dir.path().join(name));
        let _socket = UnixListener::bind(dir.path().join(name)).unwrap();
        assert!(matches!(
            Tree::new(dir.path()).read(),
            Err(Error::NotLoaded)
        ));
    }
}

#[test]
fn a_damaged_vm_is_left_out_and_told() {
    let snapshot = Tree::new(tree("truncated-vm")).read().unwrap();
    assert_eq!(snapshot.vms.len(), 1);
    assert!(snapshot.problems[0].contains("701-11/stats is cut short"));
}

#[test]
fn what_cannot_be_read_says_why() {
    assert!(matches!(
        Tree::new("/nonexistent").read(),
        Err(Error::NoRoot(_))
    ));
    assert!(matches!(
        Tree::new(tree("truncated")).read(),
        Err(Error::Damaged { .. })
    ));
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Tree::new(dir.path()).read(),
        Err(Error::Io { .. })
    ));
}

#[test]
fn a_module_on_its_way_out_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    // Opening a socket fails as opening a file of such a module does.
    let _socket = UnixListener::bind(dir.path().join("stats")).unwrap();
    assert!(matches!(
        Tree::new(dir.path()).read(),
        Err(Error::NotLoaded)
    ));
}

#[test]
fn debugfs_is_found_where_it_is_mounted() {
    let system = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = system.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/filesystems", "nodev\tdebugfs\n");
    let read = || Tree::Of(system.path().into()).read();
    assert!(matches!(read(), Err(Error::NoDebugfs)));
    put("proc/1/mounts", "debugfs /mnt/debug debugfs rw 0 0\n");
    assert!(matches!(read(), Err(Error::NotLoaded)));
    for name in ["host", "policy", "stats", "latency"] {
        let text = fs::read_to_string(tree("three-guests").join(name)).unwrap();
        put(&format!("mnt/debug/kvm_fwb_reset/{name}"), &text);
    }
    fs::create_dir(system.path().join("mnt/debug/kvm_fwb_reset/vms")).unwrap();
    assert_eq!(read().unwrap().policy, Some(Policy::Once));
    // With debugfs=off there is none to mount.
    put("proc/1/mounts", "");
    put("proc/filesystems", "nodev\tsysfs\n");
    let error = read().unwrap_err();
    assert!(matches!(error, Error::DebugfsOff));
    assert!(
        error
            .to_string()
            .contains("by the policy that it was loaded with")
    );
    assert_eq!(error.status(), 4);
}

#[test]
fn lines_of_a_newer_module_are_left_out() {
    let mut stats = fs::read_to_string(tree("three-guests/stats")).unwrap();
    let known = parse::stats(&stats).unwrap();
    stats.insert_str(0, "more than_we_know\nloose\n\n");
    assert_eq!(parse::stats(&stats), Ok(known));
    let mut latency = fs::read_to_string(tree("three-guests/latency")).unwrap();
    let known = parse::latency(&latency, &stats_of("three-guests")).unwrap();
    latency.push_str("pay max_ns 12\nother count 1\nother 3 x\nloose\n");
    assert_eq!(
        parse::latency(&latency, &stats_of("three-guests")),
        Ok(known)
    );
}

#[test]
fn known_lines_must_make_sense() {
    let stats = fs::read_to_string(tree("three-guests/stats")).unwrap();
    for (from, to) in [
        ("busy 2", "busy two"),
        ("busy 2", "busy -2"),
        ("busy 2", "busy"),
        ("busy 2\n", ""),
    ] {
        assert!(stats.contains(from));
        assert!(parse::stats(&stats.replace(from, to)).is_err(), "{to}");
    }
    // The gauge may be seen between two steps.
    let parsed = parse::stats(&stats.replace("pending 1", "pending -1")).unwrap();
    assert_eq!(parsed.get(Stat::Pending), 0);
    let latency = fs::read_to_string(tree("three-guests/latency")).unwrap();
    for (from, to) in [
        ("pay 4096", "pay 4095"),
        ("pay count 19\n", ""),
        ("pay sum_ns 344064", "pay sum_ns"),
        ("pay 131072 1\n", ""),
    ] {
        assert!(latency.contains(from));
        let parsed = parse::latency(&latency.replace(from, to), &stats_of("three-guests"));
        assert!(parsed.is_err(), "{to}");
    }
    for policy in [
        "native fwb once unmap\n",
        "native fwb once unmap lazy\n",
        "[native] [fwb]\n",
        "[twice]\n",
        "native fwb [once] unmap",
        "",
    ] {
        assert!(parse::policy(policy).is_err(), "{policy}");
    }
    let host = fs::read_to_string(tree("three-guests/host")).unwrap();
    for (from, to) in [
        ("fwb 1", "fwb 2"),
        ("icache", "all"),
        ("armed", "off"),
        ("vhe 1\n", ""),
    ] {
        assert!(parse::host(&host.replace(from, to)).is_err(), "{to}");
    }
    assert!(parse::host(&format!("{host}lazy perhaps\n")).is_err());
}

#[test]
fn a_command_name_cannot_steer_the_terminal() {
    let text = fs::read_to_string(tree("three-guests/vms/1204-14/info")).unwrap();
    let info = parse::info(&text.replace("qemu-system-aar", "a\x1b[2J b")).unwrap();
    assert_eq!(info.comm, "a?[2J b");
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in any::<String>(), tail in "\n?") {
        let text = text + &tail;
        let _ = (parse::stats(&text), parse::latency(&text, &Stats::default()), parse::host(&text));
        let _ = (parse::policy(&text), parse::info(&text), parse::vm_id(&text));
    }

    #[test]
    fn nor_do_lines_of_known_names(
        lines in prop::collection::vec(
            (
                "(pay|vcpu_reset|busy|pending|comm|fwb|[a-z]{1,3})",
                "( (count|sum_ns|[0-9]{0,20}|-?[0-9]))?",
                "( [0-9]{0,20})?",
            ),
            0..40,
        )
    ) {
        let lines: Vec<_> = lines.into_iter().map(|(a, b, c)| a + &b + &c + "\n").collect();
        let text = lines.concat();
        if let Ok(latency) = parse::latency(&text, &Stats::default()) {
            for (_, times) in latency.iter() {
                prop_assert!(times.span().len() <= 65);
                prop_assert_eq!(times.below(u64::MAX), times.count);
            }
        }
        let _ = (parse::stats(&text), parse::host(&text), parse::info(&text));
    }

    #[test]
    fn no_part_of_a_file_passes_for_the_whole(cut in 0usize..1000) {
        for (name, parse) in [
            ("stats", (|text| parse::stats(text).is_ok()) as fn(&str) -> bool),
            ("latency", |text| parse::latency(text, &stats_of("three-guests")).is_ok()),
            ("host", |text| parse::host(text).is_ok()),
            ("policy", |text| parse::policy(text).is_ok()),
            ("vms/1377-14/info", |text| parse::info(text).is_ok()),
        ] {
            let text = fs::read_to_string(tree("three-guests").join(name)).unwrap();
            prop_assert!(parse(&text));
            prop_assert!(!parse(&text[..cut % text.len()]), "{name}");
        }
    }
}

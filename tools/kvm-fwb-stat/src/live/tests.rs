// SPDX-License-Identifier: GPL-2.0

use super::{
    INTERVAL,
    app::{Action, App, Page},
};
use crate::{
    counters::{Stat, Timing},
    error::Error,
    render::column::Column,
    snapshot::{Snapshot, Tree, VmId, tests::tree},
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use std::{
    collections::BTreeSet,
    fs,
    sync::OnceLock,
    time::{Duration, Instant},
};

fn snapshot(name: &str, seconds: u64) -> Snapshot {
    static START: OnceLock<Instant> = OnceLock::new();
    Snapshot {
        at: *START.get_or_init(Instant::now) + Duration::from_secs(seconds),
        ..Tree::new(tree(name)).read().unwrap()
    }
}

/// A screen that saw the three guests, and saw them again a second later.
fn app() -> App {
    let mut app = App::new(
        Tree::new("/nonexistent"),
        INTERVAL,
        Column::Cost,
        false,
        String::new(),
    );
    app.show(snapshot("three-guests", 100));
    app.show(snapshot("a-second-later", 101));
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    terminal.backend().to_string()
}

fn press(app: &mut App, keys: &str) -> Action {
    let mut last = Action::Draw;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '⇊' => KeyCode::PageDown,
            '⇈' => KeyCode::PageUp,
            '⇱' => KeyCode::Home,
            '⇲' => KeyCode::End,
            key => KeyCode::Char(key),
        };
        last = app.key(KeyEvent::new(code, KeyModifiers::NONE));
        // What keys do depends on what was drawn.
        screen(app, 100, 30);
    }
    last
}

#[test]
fn the_list() {
    let mut app = app();
    insta::assert_snapshot!("list_132x24", screen(&mut app, 132, 24));
    insta::assert_snapshot!("list_80x24", screen(&mut app, 80, 24));
    insta::assert_snapshot!("list_40x12", screen(&mut app, 40, 12));
}

#[test]
fn a_vm() {
    let mut app = app();
    press(&mut app, "\n");
    assert_eq!(app.page, Page::Vm(VmId::Kvm { pid: 1204, fd: 14 }));
    insta::assert_snapshot!("vm_132x32", screen(&mut app, 132, 32));
    insta::assert_snapshot!("vm_80x24", screen(&mut app, 80, 24));
    press(&mut app, "⇲");
    insta::assert_snapshot!("vm_80x24_end", screen(&mut app, 80, 24));
    press(&mut app, "\x1b");
    assert_eq!(app.page, Page::List);
}

#[test]
fn all_vms_and_help() {
    let mut app = app();
    press(&mut app, "a");
    insta::assert_snapshot!("all_132x32", screen(&mut app, 132, 32));
    press(&mut app, "?");
    insta::assert_snapshot!("help_80x24", screen(&mut app, 80, 24));
    press(&mut app, "?\x1b");
    assert_eq!(app.page, Page::List);
}

#[test]
fn other_hosts() {
    for name in [
        "unmapping",
        "quiet",
        "made-anew",
        "older-module",
        "truncated-vm",
        "lazy",
        "no-flush-count",
    ] {
        let mut app = App::new(
            Tree::new("/nonexistent"),
            INTERVAL,
            Column::Cost,
            false,
            String::new(),
        );
        let mut snapshot = snapshot(name, 100);
        for problem in &mut snapshot.problems {
            *problem = problem.replace(env!("CARGO_MANIFEST_DIR"), "");
        }
        app.show(snapshot);
        insta::assert_snapshot!(format!("list_{name}"), screen(&mut app, 100, 14));
    }
}

#[test]
fn a_host_under_lazy() {
    let mut app = App::new(
        Tree::new("/nonexistent"),
        INTERVAL,
        Column::Uncleaned,
        false,
        String::new(),
    );
    let mut before = snapshot("lazy", 100);
    let bytes = Stat::DcacheCleanElideBytes;
    let left = before.total.stats.get(bytes) - (3 << 20);
    before.total.stats.set(bytes, left);
    app.show(before);
    app.show(snapshot("lazy", 102));
    let text = screen(&mut app, 140, 24);
    assert!(
        text.contains("left uncleaned 2.43 GiB (1.50 MiB/s)"),
        "{text}"
    );
    assert!(
        text.contains("stage-2 flushes 19   time in flushes 181 ms"),
        "{text}"
    );
    // It is sorted by what was left, and the next column is that of flushes.
    assert!(
        text.find("\n\"1377-14") < text.find("\n\"1204-14"),
        "{text}"
    );
    press(&mut app, "s");
    assert_eq!(app.sort, Column::Flushes);
    let text = screen(&mut app, 140, 24);
    assert!(
        text.find("\n\"1204-14") < text.find("\n\"1377-14"),
        "{text}"
    );
    press(&mut app, "\n");
    insta::assert_snapshot!("vm_lazy_132x40", screen(&mut app, 132, 40));
}

#[test]
fn columns_that_this_host_cannot_fill_are_not_there() {
    let mut app = app();
    assert!(!screen(&mut app, 200, 24).contains("UNCLEANED"));
    app.sort = Column::Elided;
    press(&mut app, "s");
    assert_eq!(app.sort, Column::Cost);
    // The module counts them there too, and they are 0 for ever.
    let mut with_fwb = snapshot("lazy", 102);
    with_fwb.host.fwb = true;
    app.show(with_fwb);
    let text = screen(&mut app, 200, 24);
    let absent = ["UNCLEANED", "FLUSHES", "left uncleaned", "flushes"];
    assert!(absent.iter().all(|word| !text.contains(word)), "{text}");
    app.show(snapshot("no-flush-count", 103));
    let text = screen(&mut app, 200, 24);
    assert!(
        text.contains(" UNCLEANED ") && !text.contains(" FLUSHES "),
        "{text}"
    );
    assert!(
        text.contains("Not counted: stage2_flush; this kernel has no function stage2_flush_vm"),
        "{text}"
    );
}

#[test]
fn the_screen_agrees_with_the_files() {
    let mut app = app();
    let list = screen(&mut app, 132, 24);
    for (id, counts) in [("1204-14", "11 11.0"), ("1377-14", "8")] {
        let stats = fs::read_to_string(tree("a-second-later/vms").join(id).join("stats")).unwrap();
        let line = list
            .lines()
            .find(|line| line.starts_with(&format!("\"{id}")))
            .unwrap();
        for name in [
            "vm_reset",
            "vcpu_reset",
            "icache_invalidate",
            "icache_elide",
        ] {
            let value = stats
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value = value.unwrap();
            assert!(
                line.split_whitespace().any(|word| word == value),
                "{name} {counts}: {line}"
            );
        }
    }
    press(&mut app, "a");
    let all = screen(&mut app, 132, 32);
    let stats = fs::read_to_string(tree("a-second-later/stats")).unwrap();
    for line in stats.lines() {
        let (name, value) = line.split_once(' ').unwrap();
        let shown = all.lines().any(|line| {
            let mut words = line.trim_start_matches(['"', '│']).split_whitespace();
            words.next() == Some(name) && words.next() == Some(value)
        });
        assert!(shown, "{name} {value}:\n{all}");
    }
}

#[test]
fn on_any_screen_a_number_is_whole_or_not_there() {
    let words = |text: &str| -> BTreeSet<String> {
        let is_edge = |c: char| c == '"' || c == '│';
        (text
            .lines()
            .flat_map(|line| line.trim_matches(is_edge).split_whitespace()))
        .filter(|word| word.contains(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
    };
    let mut large = app();
    // Counts with more digits than a heading has letters.
    let now = large.now.as_mut().unwrap();
    now.vms[0]
        .figures
        .stats
        .set(Stat::IcacheInvalidate, 123_456_789_012);
    now.total.stats.set(Stat::VcpuReset, 98_765_432_109_876);
    assert!(screen(&mut large, 132, 24).contains(" 123456789012 "));
    for page in ["", "\n", "a", "?"] {
        press(&mut large, page);
        let all = words(&screen(&mut large, 250, 80));
        for sort in [Column::Cost, Column::Reinits] {
            large.sort = sort;
            for width in (1..60).chain([80, 100, 132]) {
                for height in [8, 60] {
                    let text = screen(&mut large, width, height);
                    // What it says of itself is no number of the host's.
                    let shown = words(&text.replace("columns show", ""));
                    let wish = large.wish.get().map(|wish| wish.to_string());
                    let cut: Vec<_> = (shown.difference(&all))
                        .filter(|word| Some(*word) != wish.as_ref())
                        .collect();
                    assert!(cut.is_empty(), "{cut:?}\n{text}");
                }
            }
        }
        press(&mut large, "\x1b");
    }
}

#[test]
fn a_small_screen_says_how_wide_it_wants_to_be() {
    let mut app = app();
    insta::assert_snapshot!("list_30x8", screen(&mut app, 30, 8));
    let text = screen(&mut app, 30, 12);
    assert!(
        text.contains("2.25 ms") && text.contains("1204-14"),
        "{text}"
    );
    assert!(text.contains("111 columns show all"), "{text}");
    assert!(!screen(&mut app, 111, 24).contains("show all"));
    assert!(screen(&mut app, 110, 24).contains("111 columns show all"));
}

#[test]
fn what_no_vm_in_the_list_did_is_told() {
    let mut app = app();
    // The third guest went, and its part of the totals with it.
    let line = "VMs that are gone or have no entry: 3 VM resets, 8 re-inits, 190 µs";
    let text = screen(&mut app, 132, 24);
    assert!(text.contains(line), "{text}");
    app.now.as_mut().unwrap().total.stats.set(Stat::VmReset, 24);
    let text = screen(&mut app, 132, 24);
    assert!(
        text.contains("no entry: 5 VM resets (2.00/s), 8 re-inits"),
        "{text}"
    );
    app.show(snapshot("three-guests", 102));
    assert!(!screen(&mut app, 132, 24).contains("no entry"));
}

#[test]
fn vms_are_sorted_and_filtered() {
    let mut app = app();
    let order = |app: &mut App| {
        let text = screen(app, 132, 24);
        let ids = ["1204-14", "1377-14"].map(|id| text.find(&format!("\n\"{id}")));
        ids[0] < ids[1]
    };
    assert!(order(&mut app));
    press(&mut app, "r");
    assert!(!order(&mut app));
    press(&mut app, "ssc");
    assert_eq!(app.sort, Column::Cost);
    press(&mut app, "SSSSSSSSSSS");
    assert_eq!(app.sort, Column::Owes);
    press(&mut app, "/web\n");
    let text = screen(&mut app, 132, 24);
    assert!(text.contains("1377-14") && !text.contains("\n\"1204-14"));
    press(&mut app, "/x\x08\x08\x08\x08\x08\x08\n");
    assert_eq!(app.filter, "");
    press(&mut app, "/nobody\n");
    assert!(screen(&mut app, 80, 24).contains("Esc shows all"));
    // Letters are text while the filter is typed.
    assert_eq!(press(&mut app, "\x1b/q"), Action::Draw);
    press(&mut app, "\x1b");
    assert_eq!((app.typing, app.filter.as_str()), (false, ""));
    assert_eq!(press(&mut app, "q"), Action::Quit);
}

#[test]
fn the_bar_stays_on_its_vm() {
    let mut app = app();
    press(&mut app, "↓");
    let selected = |app: &mut App| {
        press(app, "\n");
        let page = app.page.clone();
        press(app, "\x1b");
        page
    };
    let second = Page::Vm(VmId::Kvm { pid: 1377, fd: 14 });
    assert_eq!(selected(&mut app), second);
    press(&mut app, "r");
    assert_eq!(selected(&mut app), second);
    // It goes; the bar stays where it was, and its page says so.
    press(&mut app, "r\n");
    let mut gone = snapshot("a-second-later", 102);
    gone.vms.remove(1);
    app.show(gone);
    assert!(screen(&mut app, 80, 24).contains("VM 1377-14 is gone"));
    press(&mut app, "\x1b");
    assert_eq!(
        selected(&mut app),
        Page::Vm(VmId::Kvm { pid: 1204, fd: 14 })
    );
    // None is left.
    let mut none = snapshot("a-second-later", 103);
    none.vms.clear();
    app.show(none);
    press(&mut app, "↓↑⇊⇈⇱⇲\n");
    assert_eq!(app.page, Page::List);
}

#[test]
fn a_module_that_goes_and_comes() {
    let mut app = app();
    app.look();
    let text = screen(&mut app, 100, 24);
    assert!(
        text.contains("is not there") && text.contains("1204-14"),
        "{text}"
    );
    app.trouble = Some(Error::NotLoaded);
    assert!(screen(&mut app, 100, 24).contains("is not loaded"));
    // Its counters began anew: no rates across that.
    app.show(snapshot("unmapping", 110));
    let text = screen(&mut app, 100, 24);
    assert!(
        !text.contains("is not loaded") && !text.contains("/s)"),
        "{text}"
    );
}

#[test]
fn pause_and_interval() {
    let mut app = app();
    press(&mut app, "p");
    app.look();
    assert!(app.trouble.is_none());
    assert!(screen(&mut app, 80, 24).contains("PAUSED"));
    press(&mut app, "p");
    assert_eq!(press(&mut app, "+"), Action::Look);
    assert_eq!(app.interval(), Duration::from_secs(2));
    press(&mut app, "----------");
    assert_eq!(app.interval(), Duration::from_millis(100));
    press(&mut app, "++++++++++");
    assert_eq!(app.interval(), Duration::from_secs(60));
}

#[test]
fn control_keys() {
    let mut app = app();
    press(&mut app, "/");
    let mut control = |key| app.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL));
    assert_eq!(
        (control('c'), control('z'), control('x')),
        (Action::Quit, Action::Suspend, Action::Draw)
    );
}

proptest! {
    // Drawing is slow where it is not optimised.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_size_and_no_keys_make_it_panic(
        keys in "[q?a/rscSp+\\- \n\x1b\x08↓↑⇊⇈⇱⇲w1]{0,30}",
        width in 1u16..200,
        height in 1u16..60,
        huge in any::<bool>(),
    ) {
        let mut app = app();
        if huge {
            let dir = tempfile::tempdir().unwrap();
            let max = u64::MAX.to_string();
            for name in ["host", "policy", "stats", "latency"] {
                let mut text = fs::read_to_string(tree("lazy").join(name)).unwrap();
                if name == "stats" {
                    text = Stat::ALL.map(|stat| format!("{} {max}\n", stat.field().name)).concat();
                }
                if name == "latency" {
                    text = Timing::ALL.map(|timing| {
                        let name = timing.field().name;
                        format!("{name} 0 1\n{name} 9223372036854775808 18446744073709551614\n\
                            {name} count {max}\n{name} sum_ns {max}\n")
                    }).concat();
                }
                fs::write(dir.path().join(name), &text).unwrap();
                let vm = dir.path().join("vms/4294967295-4294967295");
                fs::create_dir_all(&vm).unwrap();
                fs::write(vm.join(name), &text).unwrap();
            }
            app.show(Tree::new(dir.path()).read().unwrap());
        }
        press(&mut app, &keys);
        screen(&mut app, width, height);
    }
}

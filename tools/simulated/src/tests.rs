// SPDX-License-Identifier: GPL-2.0

//! What of the module's files stands alone.

use crate::{
    handoff::Handoff,
    latency::{Latency, Work},
    race::as_task,
};

#[test]
fn a_decision_is_its_tasks_alone_and_taken_once() {
    let decisions = Handoff::<u64, 64>::new();
    assert_eq!(decisions.take(), None);
    assert_eq!(decisions.change(|_| ()), None);
    assert!(decisions.put(1));
    assert!(decisions.put(2), "in place of the first");
    as_task(0x4000, || {
        assert_eq!(decisions.take(), None);
        assert_eq!(decisions.change(|_| ()), None);
    });
    assert_eq!(decisions.change(|decision| *decision += 3), Some(()));
    assert_eq!(decisions.take(), Some(5));
    assert_eq!(decisions.take(), None);
}

#[test]
fn what_is_taken_as_it_changes_stays_taken() {
    let decisions = Handoff::<u64, 64>::new();
    assert!(decisions.put(1));
    let taken = decisions.change(|decision| {
        *decision = 2;
        decisions.take()
    });
    assert_eq!(taken, Some(Some(1)));
    assert_eq!(decisions.take(), None);
}

/// With half of all slots in use there is still one in each task's window, wherever tasks lie.
#[test]
fn tasks_find_room() {
    // As far apart as a `struct task_struct` of today, and as those that grew to whole pages.
    for apart in [0x1640, 0x1000, 0x2000] {
        let decisions = Handoff::<usize, 256>::new();
        let tasks: Vec<_> = (1..=128).map(|number| number * apart).collect();
        for &task in &tasks {
            as_task(task, || assert!(decisions.put(task), "{task:#x}"));
        }
        for &task in &tasks {
            as_task(task, || assert_eq!(decisions.take(), Some(task)));
            as_task(task, || assert!(decisions.put(task), "{task:#x} again"));
        }
    }
}

/// 0, then by powers of two, the last one without end.
#[test]
fn a_duration_is_counted_by_its_order() {
    let latency = Latency::new();
    let last = 1 << 38;
    for ns in [0, 1, 2, 3, 4, last - 1, last, last << 8] {
        latency.add(Work::Pay, ns);
    }
    let seen: Vec<_> = latency
        .iter()
        .map(|(_, name, histogram)| {
            let buckets: Vec<_> = histogram.iter().filter(|&(_, count)| count > 0).collect();
            (name, histogram.sum(), buckets)
        })
        .filter(|(_, _, buckets)| !buckets.is_empty())
        .collect();
    let buckets = vec![(0, 1), (1, 1), (2, 2), (4, 1), (last >> 1, 1), (last, 2)];
    let sum = 10 + (last - 1) + last + (last << 8);
    assert_eq!(seen, [("pay", sum, buckets)]);

    latency.clear();
    assert!(latency
        .iter()
        .all(|(_, _, histogram)| histogram.sum() == 0 && histogram.iter().all(|(_, n)| n == 0)));
}

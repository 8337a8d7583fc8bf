// SPDX-License-Identifier: GPL-2.0
//! Schedules as text, from seeds, and on the module's files in a simulated kernel. scripts/fuzz plays
//! tens of thousands more.
#![cfg(not(target_arch = "aarch64"))]

use proptest::prelude::*;
use schedule::event::Schedule;
use schedule::generate::{play_and_shrink, schedule, schedules};
use schedule::simulated::SimulatedHost;

/// CPUs with S2FWB and without, with DIC, and kernels that do nothing, or unmap, in spite of S2FWB.
const HOSTS: [&str; 5] = [
    "fwb:1,dic:0",
    "fwb:0,dic:0",
    "fwb:1,dic:1",
    "fwb:1,dic:0,native_reset:none",
    "fwb:1,dic:0,native_reset:unmap",
];

proptest! {
    #[test]
    fn text_says_all(schedule in schedules()) {
        let text = schedule.to_string();
        prop_assert_eq!(text.parse::<Schedule>().unwrap(), schedule, "{}", text);
    }
}

/// A seed that somebody noted down is worth nothing once it makes another schedule.
#[test]
fn a_seed_makes_the_same_schedule_for_ever() {
    assert_eq!(
        schedule(28).to_string(),
        "load fwb; make 0 4; run 0.0,1,2,3,4,5,6,7 together; make 1 8; \
                run 1.0,1,2,3,4,5,6,7 together; write 0; write 0; run 2.1; \
                init 0.0,1,2,3,4,5,6,7 together; run 0.0,1,2,3,4,5,6,7 together; write 2; \
                write 0; init 0.0,1,2,3,4,5,6,7; write 0; run 0.0,1,2,3,4,5,6,7 together; \
                write 0; init 0.3,6; write 0; run 0.0,1,2,3,4,5,6,7 together; write 1; spin 0.1; \
                stop 1.5; run 0.0,2,7,1 together; write 0; init 0.0,1,2,3,4,5,6,7 together; \
                write 0; run 0.0,1,2,3,4,5,6,7; init 0.0,1,2,3,4,5,6,7; run 1.0; \
                init 1.0,1,2,3,4,5,6,7; write 0; init 0.0,1,2,3,4,5,6,7 together; \
                run 0.0,3,2,1,5,4,6,7 together; init 2.0,1,2,3,4,5,6,7; spin 2.0"
    );
    assert_ne!(schedule(29), schedule(28));
}

#[test]
fn none_fails() {
    for host in HOSTS {
        let machine = SimulatedHost::new(host, false).unwrap();
        for seed in 0..100 {
            if let Err(failure) = play_and_shrink(seed, |schedule| machine.play(schedule)) {
                panic!(
                    "{host}, seed {seed}: {}: {}",
                    failure.reason, failure.schedule
                );
            }
        }
    }
}

/// Whoever trusts a kernel that lacks the invalidation is shown the shortest way to old code.
#[test]
fn finds_what_a_wrong_kernel_does() {
    let machine = SimulatedHost::new("fwb:1,dic:0,native_reset:none", true).unwrap();
    let failures: Vec<_> = (0..50)
        .filter_map(|seed| play_and_shrink(seed, |schedule| machine.play(schedule)).err())
        .collect();
    assert!(!failures.is_empty());
    for failure in &failures {
        assert!(failure.reason.contains("version"), "{}", failure.reason);
        // By its text it fails in the same way.
        let again = failure.schedule.to_string().parse().unwrap();
        let again = machine.play(&again).unwrap_err();
        assert_eq!(format!("{again:#}"), failure.reason);
    }
    let shortest = failures.iter().map(|failure| failure.schedule.0.len());
    assert!(shortest.min().unwrap() <= 6);
}

// SPDX-License-Identifier: GPL-2.0
//! Schedules at random. A seed makes one schedule, always the same, wherever it is to be played.

use contract::{Change, Policy};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::event::{Event, Schedule, Vcpus};

/// VMs that a schedule may have at a time.
const VMS: usize = 3;
/// vCPUs of the largest of them.
const VCPUS: usize = 8;

fn policy() -> impl Strategy<Value = Policy> {
    // Those with a protocol come first, and most often.
    prop_oneof![
        4 => Just(Policy::Once),
        2 => Just(Policy::Lazy),
        1 => Just(Policy::Fwb),
        1 => Just(Policy::Native),
        1 => Just(Policy::Unmap),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    // Loading and unloading take a thousand times as long as anything else.
    prop_oneof![
        8 => policy().prop_map(Change::Switch),
        4 => any::<bool>().prop_map(Change::Kprobes),
        1 => policy().prop_map(Change::Load),
        1 => Just(Change::Unload),
    ]
}

fn vm() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 2 => Just(1), 1 => 2..VMS]
}

fn vcpu() -> impl Strategy<Value = usize> {
    // Small VMs have only the first of them.
    prop_oneof![3 => 0..2usize, 1 => 0..VCPUS]
}

fn vcpus() -> impl Strategy<Value = Vec<usize>> {
    let all: Vec<_> = (0..VCPUS).collect();
    prop_oneof![
        1 => Just(all.clone()),
        2 => subsequence(all, 1..=VCPUS).prop_shuffle(),
        1 => vcpu().prop_map(|vcpu| vec![vcpu]),
    ]
}

fn of() -> impl Strategy<Value = Vcpus> {
    (vm(), vcpus()).prop_map(|(vm, vcpus)| Vcpus { vm, vcpus })
}

fn make(vm: usize) -> impl Strategy<Value = Event> {
    select(&[1, 2, 4, VCPUS]).prop_map(move |vcpus| Event::Make { vm, vcpus })
}

fn race() -> impl Strategy<Value = Event> {
    let change = prop_oneof![2 => Just(None), 1 => change().prop_map(Some)];
    (
        of(),
        subsequence((0..VCPUS).collect::<Vec<_>>(), 0..=2),
        change,
    )
        .prop_map(|(inits, runs, change)| Event::Race {
            inits,
            runs,
            change,
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => vm().prop_map(Event::Write),
        8 => (of(), any::<bool>()).prop_map(|(of, together)| Event::Init { of, together }),
        8 => (of(), any::<bool>()).prop_map(|(of, together)| Event::Run { of, together }),
        3 => (vm(), vcpu()).prop_map(|(vm, vcpu)| Event::Immediate { vm, vcpu }),
        3 => (vm(), vcpu()).prop_map(|(vm, vcpu)| Event::Spin { vm, vcpu }),
        3 => (vm(), vcpu()).prop_map(|(vm, vcpu)| Event::Stop { vm, vcpu }),
        2 => (vm(), vcpu(), vcpu()).prop_map(|(vm, vcpu, by)| Event::CpuOn { vm, vcpu, by }),
        2 => race(),
        2 => change().prop_map(Event::Change),
        1 => vm().prop_map(Event::Destroy),
        1 => (0..VMS).prop_flat_map(make),
    ]
}

/// What a VMM does: code is written, vCPUs are re-initialised, more is written, and they run.
fn reset() -> impl Strategy<Value = Vec<Event>> {
    let all = Just((0..VCPUS).collect());
    let which = prop_oneof![2 => all, 1 => vcpus()];
    (vm(), which, vcpus(), any::<[bool; 4]>()).prop_map(
        |(vm, reset, run, [write_before, write_after, in_threads, together])| {
            let write = |wanted: bool| wanted.then_some(Event::Write(vm));
            let of = |vcpus| Vcpus { vm, vcpus };
            let init = Event::Init {
                of: of(reset),
                together: in_threads,
            };
            let run = Event::Run {
                of: of(run),
                together,
            };
            let events = [
                write(write_before),
                Some(init),
                write(write_after),
                Some(run),
            ];
            events.into_iter().flatten().collect()
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop_oneof![
        4 => event().prop_map(|event| vec![event]),
        1 => reset(),
    ]
}

/// A VM or more that has run, on a host that most often has the module, and then anything.
pub fn schedules() -> impl Strategy<Value = Schedule> {
    let load = prop_oneof![
        7 => policy().prop_map(|policy| vec![Event::Change(Change::Load(policy))]),
        1 => Just(Vec::new()),
    ];
    let start = (0..VMS).prop_flat_map(|last| (0..=last).map(make).collect::<Vec<_>>());
    let run = |vm| Event::Run {
        of: Vcpus {
            vm,
            vcpus: (0..VCPUS).collect(),
        },
        together: true,
    };
    let run = move |make: Event| match make {
        Event::Make { vm, .. } => vec![make, run(vm)],
        other => vec![other],
    };
    (load, start, prop::collection::vec(events(), 1..32)).prop_map(move |(load, start, events)| {
        let start = start.into_iter().flat_map(run);
        let events = events.into_iter().flatten();
        Schedule(load.into_iter().chain(start).chain(events).collect())
    })
}

/// What shrinks from the schedule of a seed.
fn tree(seed: u64) -> (TestRunner, impl ValueTree<Value = Schedule>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    // The strategy rejects nothing, so it always has one.
    let tree = schedules().new_tree(&mut runner);
    (runner, tree.expect("a strategy that rejects nothing"))
}

/// The schedule of a seed.
pub fn schedule(seed: u64) -> Schedule {
    tree(seed).1.current()
}

/// A schedule that fails, as small as could be found, and how.
#[derive(Debug)]
pub struct Failure {
    /// The schedule.
    pub schedule: Schedule,
    /// How it fails.
    pub reason: String,
}

/// Plays the schedule of a seed; one that fails, smaller and smaller until none does.
pub fn play_and_shrink(
    seed: u64,
    play: impl Fn(&Schedule) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let (mut runner, tree) = tree(seed);
    let test = |schedule: Schedule| {
        play(&schedule).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    };
    match runner.run_one(tree, test) {
        Ok(_) => Ok(()),
        Err(TestError::Fail(reason, schedule)) => Err(Failure {
            schedule,
            reason: reason.to_string(),
        }),
        Err(TestError::Abort(reason)) => Err(Failure {
            schedule: self::schedule(seed),
            reason: reason.to_string(),
        }),
    }
}

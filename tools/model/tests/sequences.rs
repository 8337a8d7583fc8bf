// SPDX-License-Identifier: GPL-2.0

//! The reset protocol against a reference that is too simple to be wrong, in sequences of events.

#[allow(dead_code)]
#[path = "../../../src/protocol.rs"]
mod protocol;

#[path = "."]
mod rust {
    #[path = "atomic/std.rs"]
    pub mod atomic;
}

use proptest::prelude::*;
use protocol::{Begun, Gate, Reset};

#[derive(Clone, Copy, Debug)]
enum Event {
    Reinit {
        debt: bool,
        forgive: bool,
        busy: bool,
    },
    Unmap,
    Run,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(debt, forgive, busy)| {
            Event::Reinit {
                debt,
                forgive,
                busy,
            }
        }),
        Just(Event::Unmap),
        Just(Event::Run),
    ];
    prop::collection::vec(event, 0..50)
}

/// What the protocol says, without concurrency.
#[derive(Default)]
struct Reference {
    in_reset: bool,
    debt: bool,
    unmapped: bool,
    /// A re-init has seen nobody running.
    alone: bool,
    /// Since the last run.
    reinits: u32,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn follows_the_reference(events in events()) {
        follow::<15>(&events)?;
    }

    /// A stay that soon has more re-inits than a word can tell.
    #[test]
    fn follows_the_reference_behind_many_reinits(events in events()) {
        follow::<1>(&events)?;
        follow::<2>(&events)?;
    }
}

fn follow<const BITS: u32>(events: &[Event]) -> Result<(), TestCaseError> {
    let (word, reset) = (rust::atomic::AtomicI32::new(0), Reset::<BITS>::new());
    let gate = Gate::of(&word);
    let mut expected = Reference::default();
    let mut last: Option<Begun<BITS>> = None;

    for event in events.iter().copied() {
        match event {
            Event::Reinit {
                debt,
                forgive,
                busy,
            } => {
                let told = expected.reinits < (1 << BITS) - 1;
                expected.reinits += 1;
                let begun = reset.begin(gate, debt);
                prop_assert_eq!(begun.is_first(), !expected.in_reset);
                prop_assert_eq!(begun.is_new_debt(), debt && !expected.debt);
                let mut looked = false;
                let alone = reset.is_alone(&begun, || {
                    looked = true;
                    !busy
                });
                prop_assert_eq!(looked, !(told && expected.alone));
                prop_assert_eq!(alone, !looked || !busy);
                expected.alone |= told && alone;
                let forgiven = forgive && reset.forgive(&begun);
                prop_assert_eq!(forgiven, forgive && debt && !expected.debt);
                expected.debt |= debt && !forgiven;
                expected.in_reset = true;
                prop_assert_eq!(begun.stay().is_some(), told);
                if let Some(stay) = begun.stay() {
                    prop_assert_eq!(reset.is_unmapped(stay), expected.unmapped);
                }
                last = Some(begun);
            }
            Event::Unmap => {
                // Made by a re-init, so only in reset.
                if let (true, Some(begun)) = (expected.in_reset, &last) {
                    if let Some(stay) = begun.stay() {
                        reset.set_unmapped(stay);
                        expected.unmapped = true;
                    }
                }
            }
            Event::Run => {
                let mut paid = false;
                let settled = reset.run(gate, || paid = true);
                prop_assert_eq!((paid, settled), (expected.debt, expected.debt));
                if expected.in_reset {
                    expected = Reference::default();
                }
            }
        }
        prop_assert_eq!(word.load(), i32::from(expected.in_reset));
        prop_assert_eq!(reset.is_indebted(), expected.debt);
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0
//! Schedules that are a little less than one that fails, for where only a whole boot can tell which
//! of them fail, too.

use crate::event::{Event, Schedule, Vcpus};

/// Without some of its events, or with one that does less; without duplicates.
pub fn smaller(schedule: &Schedule) -> Vec<Schedule> {
    let events = &schedule.0;
    let mut found: Vec<Schedule> = Vec::new();
    let mut add = |events: Vec<Event>| {
        let schedule = Schedule(events);
        if !schedule.0.is_empty() && !found.contains(&schedule) {
            found.push(schedule);
        }
    };
    let mut size = events.len() / 2;
    while size > 0 {
        for start in (0..events.len()).step_by(size) {
            let end = (start + size).min(events.len());
            add([&events[..start], &events[end..]].concat());
        }
        size /= 2;
    }
    for (at, event) in events.iter().enumerate() {
        for less in less(event) {
            let mut events = events.clone();
            events[at] = less;
            add(events);
        }
    }
    found
}

/// What does less than the event, and yet something.
fn less(event: &Event) -> Vec<Event> {
    let fewer = |of: &Vcpus| {
        let leave_out = |at: usize| {
            let mut vcpus = of.vcpus.clone();
            vcpus.remove(at);
            Vcpus { vm: of.vm, vcpus }
        };
        let enough = if of.vcpus.len() > 1 {
            of.vcpus.len()
        } else {
            0
        };
        (0..enough).map(leave_out).collect::<Vec<_>>()
    };
    match event {
        Event::Make { vm, vcpus } if *vcpus > 1 => vec![Event::Make {
            vm: *vm,
            vcpus: vcpus / 2,
        }],
        Event::Init { of, together } => {
            let fewer = fewer(of).into_iter().map(|of| (of, *together));
            let in_turn = together.then(|| (of.clone(), false));
            let init = |(of, together)| Event::Init { of, together };
            fewer.chain(in_turn).map(init).collect()
        }
        Event::Run { of, together } => {
            let fewer = fewer(of).into_iter().map(|of| (of, *together));
            let in_turn = together.then(|| (of.clone(), false));
            let run = |(of, together)| Event::Run { of, together };
            fewer.chain(in_turn).map(run).collect()
        }
        Event::Race {
            inits,
            runs,
            change,
        } => {
            let race = |inits: &Vcpus, runs: &[usize], change| Event::Race {
                inits: inits.clone(),
                runs: runs.to_vec(),
                change,
            };
            let mut less: Vec<_> = fewer(inits)
                .iter()
                .map(|inits| race(inits, runs, *change))
                .collect();
            if !runs.is_empty() {
                less.push(race(inits, &[], *change));
            }
            if change.is_some() {
                less.push(race(inits, runs, None));
            }
            less
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By steps of this kind alone a schedule comes down to what makes it fail.
    #[test]
    fn comes_down_to_what_matters() {
        let text = "load once; make 0 8; make 1 2; run 0.0,1,2 together; write 0; kprobes off; \
                    init 0.2,1 together; race 0.1,2 against 3 while policy fwb; run 0.1; destroy 1";
        let mut schedule: Schedule = text.parse().unwrap();
        let fails = |schedule: &Schedule| {
            let text = schedule.to_string();
            text.contains("write 0") && text.contains("init 0.") && text.contains("race")
        };
        while let Some(less) = smaller(&schedule).into_iter().find(fails) {
            schedule = less;
        }
        assert_eq!(schedule.to_string(), "write 0; init 0.1; race 0.2");
    }
}

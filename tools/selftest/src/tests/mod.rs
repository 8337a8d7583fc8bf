// SPDX-License-Identifier: GPL-2.0
//! All tests, in one table.

mod faults;
mod hooks;
mod lazy;
mod life;
mod loading;
mod mixed;
mod mode;
pub mod refusals;
mod reset;
mod scale;
mod security;
mod show;
mod storm;
mod telling;
pub mod victim;

use std::fmt;
use std::path::Path;

use anyhow::Result;
use contract::Policy;
use vmm::lab::Lab;
use vmm::{boot, btf};

use crate::faults::FAIL_NTH;

/// One test. It runs once under each of its policies with the module loaded and its counters at 0,
/// or, without any, once with the module not loaded.
pub struct Test {
    pub name: &'static str,
    pub policies: &'static [Policy],
    pub run: fn(&Lab) -> Result<()>,
}

const ALL: &[Policy] = &Policy::ALL;
/// Where only the protocol of `once` can go wrong.
const ONCE: &[Policy] = &[Policy::Once];
/// With all of an unmap's maintenance, and without.
const FULL_AND_LAZY: &[Policy] = &[Policy::Once, Policy::Lazy];
/// The protocol, and the way without it.
const BOTH: &[Policy] = &[Policy::Native, Policy::Once];
const UNLOADED: &[Policy] = &[];

// Loading and unloading take seconds: those who need it come last.
#[rustfmt::skip]
pub const TESTS: &[Test] = &[
    Test { name: "kvm_mode", policies: UNLOADED, run: mode::as_asked },
    Test { name: "first_init", policies: ALL, run: reset::first_init },
    Test { name: "sequence", policies: ALL, run: reset::sequence },
    Test { name: "parallel", policies: ALL, run: reset::parallel },
    Test { name: "one_at_a_time", policies: ALL, run: reset::one_at_a_time },
    Test { name: "guest_asks", policies: ALL, run: reset::guest_asks },
    Test { name: "immediate_exit", policies: ALL, run: reset::immediate_exit },
    Test { name: "failing_run", policies: ALL, run: reset::failing_run },
    Test { name: "out_of_reach", policies: ALL, run: reset::out_of_reach },
    Test { name: "failing_init", policies: ALL, run: reset::failing_init },
    Test { name: "cpu_on_pending", policies: ALL, run: reset::cpu_on_pending },

    Test { name: "busy", policies: ALL, run: mixed::busy },
    Test { name: "busy_storm", policies: ALL, run: mixed::busy_storm },
    Test { name: "neighbours", policies: ALL, run: mixed::neighbours },
    Test { name: "switch_between_resets", policies: ONCE, run: mixed::switch_between_resets },
    Test { name: "switch_in_reset", policies: ONCE, run: mixed::switch_in_reset },
    Test { name: "clear_in_reset", policies: ALL, run: mixed::clear_in_reset },

    Test { name: "left_out", policies: FULL_AND_LAZY, run: lazy::left_out },
    Test { name: "another_first", policies: FULL_AND_LAZY, run: lazy::another_first },
    Test { name: "replaced", policies: ALL, run: lazy::replaced },
    Test { name: "taken_away", policies: FULL_AND_LAZY, run: lazy::taken_away },

    Test { name: "info", policies: ALL, run: show::info },
    Test { name: "trace_events", policies: ALL, run: show::trace_events },

    Test { name: "modes", policies: ONCE, run: security::modes },
    Test { name: "odd_name", policies: ONCE, run: security::odd_name },
    Test { name: "quiet", policies: BOTH, run: security::quiet },

    Test { name: "destroyed_in_reset", policies: ALL, run: life::destroyed_in_reset },
    Test { name: "made_anew", policies: ALL, run: life::made_anew },
    Test { name: "same_name", policies: BOTH, run: life::same_name },
    Test { name: "killed", policies: BOTH, run: life::killed },
    Test { name: "churn", policies: BOTH, run: life::churn },
    Test { name: "many_vcpus", policies: ONCE, run: life::many_vcpus },
    Test { name: "many_vms", policies: ONCE, run: life::many_vms },

    Test { name: "disarmed_after_load", policies: ALL, run: hooks::disarmed_after_load },
    Test { name: "switch_storm", policies: ONCE, run: storm::switch_storm },
    Test { name: "kprobe_storm", policies: ONCE, run: storm::kprobe_storm },

    Test { name: "policy_file", policies: ONCE, run: loading::policy_file },
    Test { name: "load_twice", policies: ONCE, run: loading::load_twice },
    Test { name: "second_copy", policies: ONCE, run: refusals::second_copy },
    Test { name: "another_build", policies: UNLOADED, run: refusals::another_build },
    Test { name: "unload_with_open_file", policies: ONCE, run: loading::unload_with_open_file },
    Test { name: "policy_parameter", policies: UNLOADED, run: loading::policy_parameter },
    Test { name: "load_while_running", policies: UNLOADED, run: loading::load_while_running },
    Test { name: "unload_while_running", policies: UNLOADED, run: loading::unload_while_running },
    Test { name: "unload_in_reset", policies: UNLOADED, run: loading::unload_in_reset },
    Test { name: "disarmed_before_load", policies: UNLOADED, run: hooks::disarmed_before_load },
    Test { name: "traced", policies: UNLOADED, run: hooks::traced },
    Test { name: "probed", policies: UNLOADED, run: hooks::probed },
    Test { name: "programmed", policies: UNLOADED, run: hooks::programmed },
    Test { name: "unload_while_dying", policies: UNLOADED, run: life::unload_while_dying },
    Test { name: "taken_by_another", policies: UNLOADED, run: lazy::taken_by_another },
    Test { name: "lazy_refused", policies: UNLOADED, run: lazy::refused },
    Test { name: "load_storm", policies: UNLOADED, run: storm::load_storm },
    Test { name: "host_storm", policies: UNLOADED, run: storm::host_storm },
    Test { name: "faults_reinit", policies: ALL, run: faults::reinit },
    Test { name: "faults_new_vm", policies: ONCE, run: faults::new_vm },
    Test { name: "faults_files", policies: ONCE, run: faults::files },
    Test { name: "memory", policies: UNLOADED, run: security::memory },
    Test { name: "faults_load_calls", policies: UNLOADED, run: faults::load_calls },
    Test { name: "faults_load", policies: UNLOADED, run: faults::load },
    Test { name: "faults_load_probed", policies: UNLOADED, run: faults::load_probed },
    Test { name: "leaks", policies: UNLOADED, run: telling::leaks },
    Test { name: "lockdep", policies: UNLOADED, run: telling::lockdep },
    Test { name: "ftrace_stopped", policies: UNLOADED, run: hooks::ftrace_stopped },
    Test { name: "scale_vms", policies: FULL_AND_LAZY, run: scale::vms },
    Test { name: "scale_memory", policies: FULL_AND_LAZY, run: scale::memory },
    Test { name: "scale_long_unmap", policies: FULL_AND_LAZY, run: scale::long_unmap },
    Test { name: "scale_unload", policies: UNLOADED, run: scale::unload_beside_unmap },
    Test { name: "locked_down", policies: UNLOADED, run: security::locked_down },
    Test { name: "secure_boot", policies: UNLOADED, run: security::secure_boot },
];

/// Is a test run where none is named? Some take a host of their own, or a kernel that tells more than
/// Debian's. Those that take long, and that no CPU makes a difference to, are left to hosts where tests
/// repeat what they do.
pub fn is_due(test: &str, reps: usize) -> Result<bool> {
    Ok(match test {
        "ftrace_stopped" | "lazy_refused" | "locked_down" | "secure_boot" => false,
        "scale_vms" | "scale_memory" | "scale_long_unmap" | "scale_unload" => false,
        "host_storm" => boot::word("fwb.storm")?.is_some(),
        "programmed" => reps > 1 && Path::new(btf::FILE).exists(),
        "faults_load_calls" | "unload_while_dying" | "second_copy" | "another_build" => reps > 1,
        "many_vms" | "load_storm" | "memory" | "traced" | "probed" | "taken_by_another" => reps > 1,
        "faults_reinit" | "faults_new_vm" | "faults_files" | "faults_load"
        | "faults_load_probed" => Path::new(FAIL_NTH).exists(),
        "leaks" => Path::new(telling::KMEMLEAK).exists(),
        "lockdep" => Path::new(telling::LOCKDEP).exists(),
        _ => true,
    })
}

/// What a test returns that does not apply.
#[derive(Debug)]
pub struct Skip(pub &'static str);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

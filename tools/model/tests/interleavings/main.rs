// SPDX-License-Identifier: GPL-2.0

//! The reset protocol, as the module compiles it, in the interleavings of all that can happen to a VM at once: two
//! re-inits, runners, a policy switch, kprobes disarmed, the module loaded or unloaded. Each guest must get what was
//! written before its vCPU's re-init, and one that goes on what it knows to be behind another's.

#[allow(dead_code)]
#[path = "../../../../src/policy.rs"]
mod policy;
#[allow(dead_code)]
#[path = "../../../../src/protocol.rs"]
mod protocol;

#[path = ".."]
mod rust {
    #[path = "atomic/loom.rs"]
    pub mod atomic;
}

mod host;

use host::{Host, Place};
use loom::{sync::Arc, thread};
use policy::Policy;

type Party = fn(&Host);

/// Runs all `parties` at once on a host that `begin` makes, then looks whether it `end`s well: in every interleaving
/// with at most so many preemptions ($LOOM_MAX_PREEMPTIONS, if set), and with every reordering that the memory model
/// allows.
fn model<const N: usize>(
    preemptions: usize,
    begin: fn() -> Arc<Host>,
    parties: [Party; N],
    end: Party,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(move || {
        let host = begin();
        let threads = parties.map(|party| {
            let host = host.clone();
            thread::spawn(move || party(&host))
        });
        for thread in threads {
            thread.join().unwrap();
        }
        end(&host);
    });
}

/// A vCPU's code is changed; the vCPU is re-initialised and run.
fn reset<const VCPU: usize>(host: &Host) {
    host.write(VCPU, 1);
    host.reinit(VCPU);
    host.tell(VCPU, 1);
    run::<VCPU>(host);
}

/// A vCPU whose code was changed before its re-init.
fn run<const VCPU: usize>(host: &Host) {
    host.run(VCPU, || assert!(host.guest_gets(VCPU) >= 1));
}

/// A vCPU's code is changed, and its task killed as it is re-initialised.
fn reset_and_die(host: &Host) {
    host.write(1, 1);
    host.reinit(1);
    host.tell(1, 1);
}

/// A VMM with one thread resets two vCPUs, and then runs them.
fn reset_both(host: &Host) {
    host.write(0, 1);
    host.reinit(0);
    host.write(1, 1);
    host.reinit(1);
    host.tell(1, 1);
    run::<1>(host);
    run::<0>(host);
}

/// The same VMM, which has reset one of them before, and changed its code since.
fn reset_one_again(host: &Host) {
    host.reinit(1);
    reset_both(host);
}

/// A vCPU that is not reset runs code that another one will run, and runs it again: what it was told of that a re-init
/// has made sure of, it gets, too.
fn go_on(host: &Host) {
    host.run(2, || {
        _ = host.guest_gets(1);
        let told = host.told(1);
        assert!(host.guest_gets(1) >= told);
    });
}

fn switch_to_native(host: &Host) {
    host.set_policy(Policy::Native);
    host.set_policy(Policy::Once);
}

fn switch_to_fwb(host: &Host) {
    host.set_policy(Policy::Fwb);
    host.set_policy(Policy::Once);
}

fn disarm_kprobes(host: &Host) {
    host.patch(Place::Icache, false);
    host.patch(Place::Icache, true);
}

/// ftrace patches its places by address, so their order is the linker's.
fn load(host: &Host) {
    host.load([Place::Icache, Place::Run, Place::Reset, Place::Unmap]);
}

fn load_run_last(host: &Host) {
    host.load([Place::Icache, Place::Unmap, Place::Reset, Place::Run]);
}

fn unload(host: &Host) {
    host.unload([Place::Icache, Place::Unmap, Place::Reset, Place::Run]);
}

fn unload_run_first(host: &Host) {
    host.unload([Place::Icache, Place::Run, Place::Reset, Place::Unmap]);
}

/// Whoever writes the policy has the file open, which keeps the module: so never both at once.
fn switch_and_unload(host: &Host) {
    switch_to_native(host);
    unload_run_first(host);
}

/// Nothing is owed, and no reset goes on.
const SETTLED: Party = Host::settled;
/// Where the module came or went, it did not see all.
const UNSEEN: Party = |_| ();

/// CPUs with FEAT_S2FWB: an invalidation is owed and paid.
mod icache {
    use super::*;

    #[test]
    fn a_vmm_that_resets_in_parallel() {
        model(3, Host::fwb, [reset::<0>, reset::<1>], SETTLED);
    }

    #[test]
    fn two_reinits_and_a_runner() {
        model(2, Host::fwb, [reset::<0>, reset::<1>, go_on], SETTLED);
    }

    #[test]
    fn one_reset_and_a_runner() {
        model(3, Host::fwb, [reset_both, go_on], SETTLED);
    }

    /// The code is changed once more behind the re-inits, as QEMU does; then all vCPUs start.
    #[test]
    fn two_runners() {
        let begin = || {
            let host = Host::fwb();
            for vcpu in [0, 1] {
                host.reinit(vcpu);
            }
            for vcpu in [0, 1] {
                host.write(vcpu, 1);
            }
            host
        };
        model(4, begin, [run::<0>, run::<1>], SETTLED);
    }

    #[test]
    fn policy_switch() {
        let parties = [reset::<0>, reset::<1>, switch_to_native];
        model(2, Host::fwb, parties, SETTLED);
    }

    #[test]
    fn policy_switch_where_the_kernel_does_nothing() {
        let parties = [reset::<0>, reset::<1>, switch_to_fwb];
        model(2, Host::fwb_rfc, parties, SETTLED);
    }

    #[test]
    fn kprobes_disarmed() {
        model(2, Host::fwb, [reset_both, go_on, disarm_kprobes], SETTLED);
    }

    #[test]
    fn load() {
        let parties = [reset::<0>, reset::<1>, super::load];
        model(2, Host::fwb_without_module, parties, UNSEEN);
    }

    #[test]
    fn unload() {
        model(
            2,
            Host::fwb,
            [reset::<0>, reset::<1>, super::unload],
            UNSEEN,
        );
    }

    #[test]
    fn all_at_once() {
        let parties = [reset::<0>, reset::<1>, go_on, switch_and_unload];
        model(1, Host::fwb, parties, UNSEEN);
    }
}

/// CPUs without: a re-init may rely on the unmap that another one made.
mod unmap {
    use super::*;

    #[test]
    fn a_vmm_that_resets_in_parallel() {
        model(3, Host::unmap, [reset::<0>, reset::<1>], SETTLED);
    }

    #[test]
    fn two_reinits_and_a_runner() {
        model(2, Host::unmap, [reset::<0>, reset::<1>, go_on], SETTLED);
    }

    #[test]
    fn killed_while_another_unmaps() {
        let parties = [reset::<0>, reset_and_die, go_on];
        model(2, Host::unmap_killed, parties, |host| {
            go_on(host);
            host.settled();
        });
    }

    #[test]
    fn one_reset_and_a_runner() {
        model(3, Host::unmap, [reset_both, go_on], SETTLED);
    }

    /// The runner may end the first re-init's stay, and be in the guest at the second.
    #[test]
    fn one_reset_again_and_a_runner() {
        model(3, Host::unmap, [reset_one_again, go_on], SETTLED);
    }

    #[test]
    fn policy_switch() {
        let parties = [reset_both, go_on, switch_to_native];
        model(2, Host::unmap, parties, SETTLED);
    }

    #[test]
    fn load() {
        let parties = [reset_both, go_on, super::load];
        model(2, Host::unmap_without_module, parties, UNSEEN);
    }

    #[test]
    fn load_run_last() {
        let parties = [reset_both, go_on, super::load_run_last];
        model(2, Host::unmap_without_module, parties, UNSEEN);
    }

    /// A re-init while the hooks go in must not note that it saw nobody: a runner may be past the entry, unseen.
    #[test]
    fn load_between_reinits() {
        let parties = [reset_one_again, go_on, super::load_run_last];
        model(2, Host::unmap_without_module, parties, UNSEEN);
    }

    #[test]
    fn unload() {
        model(2, Host::unmap, [reset_both, go_on, super::unload], UNSEEN);
    }

    #[test]
    fn unload_run_first() {
        let parties = [reset_both, go_on, super::unload_run_first];
        model(2, Host::unmap, parties, UNSEEN);
    }

    #[test]
    fn all_at_once() {
        let parties = [reset::<0>, reset::<1>, go_on, switch_and_unload];
        model(1, Host::unmap, parties, UNSEEN);
    }
}

/// More re-inits in one stay than the word can tell: with one bit for them, that is so from the first.
mod too_many_to_tell {
    use super::protocol::{Gate, Reset};
    use loom::{
        sync::{
            atomic::{fence, AtomicU32, Ordering::Acquire, Ordering::Relaxed},
            Arc,
        },
        thread,
    };

    struct Vm {
        gate: super::rust::atomic::AtomicI32,
        reset: Reset<1>,
        written: [AtomicU32; 2],
        fetched: [AtomicU32; 2],
    }

    impl Vm {
        fn new() -> Arc<Self> {
            let zeros = || [0, 0].map(AtomicU32::new);
            let vm = Self {
                gate: super::rust::atomic::AtomicI32::new(0),
                reset: Reset::new(),
                written: zeros(),
                fetched: zeros(),
            };
            // loom's atomics are made when first used, and that must be by one thread alone.
            vm.settled();
            Arc::new(vm)
        }

        fn settled(&self) {
            assert!(!self.reset.is_indebted());
            assert_eq!(self.gate.load(), 0);
        }

        fn reset(&self, vcpu: usize, reinits: u32) {
            for version in 1..=reinits {
                self.written[vcpu].store(version, Relaxed);
                self.reset.begin(Gate::of(&self.gate), true);
            }
            self.run();
            assert_eq!(self.fetched[vcpu].load(Relaxed), reinits);
        }

        fn run(&self) {
            if self.gate.load() != 0 {
                self.reset.run(Gate::of(&self.gate), || {
                    for (written, fetched) in self.written.iter().zip(&self.fetched) {
                        fetched.fetch_max(written.load(Relaxed), Relaxed);
                    }
                });
            }
            fence(Acquire);
        }
    }

    #[test]
    fn all_are_paid_and_the_gate_is_closed() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(|| {
            let vm = Vm::new();
            let threads = [(0, 3), (1, 2)].map(|(vcpu, reinits)| {
                let vm = vm.clone();
                thread::spawn(move || vm.reset(vcpu, reinits))
            });
            for thread in threads {
                thread.join().unwrap();
            }
            vm.settled();
        });
    }
}

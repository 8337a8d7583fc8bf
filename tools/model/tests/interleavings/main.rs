// SPDX-License-Identifier: GPL-2.0

//! The reset protocol, as the module compiles it, in every interleaving of two threads.
//!
//! What the caches hold is modelled by versions of the guest's code: user space raises `written`; an
//! invalidation, or the clean and invalidate at a stage-2 fault, makes that version what guests fetch.

#[allow(dead_code)]
#[path = "../../../src/protocol.rs"]
mod protocol;

#[path = "."]
mod rust {
    #[path = "atomic/loom.rs"]
    pub mod atomic;
}

use loom::{
    sync::{
        atomic::{
            fence, AtomicBool, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst,
        },
        Arc, Mutex,
    },
    thread,
};
use protocol::{Gate, Reset};

struct Host {
    gate: Gate,
    reset: Reset,
    wants_to_run: [AtomicBool; 2],
    written: AtomicU32,
    /// The version that all instruction caches hold nothing older than.
    fetched: AtomicU32,
    /// The version that was in memory when the guest's page was mapped; `None` while it is not.
    mapped: Mutex<Option<u32>>,
    /// The module's mutex over unmaps.
    maintenance: Mutex<()>,
}

impl Host {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(),
            reset: Reset::new(),
            wants_to_run: [AtomicBool::new(false), AtomicBool::new(false)],
            written: AtomicU32::new(0),
            fetched: AtomicU32::new(0),
            mapped: Mutex::new(None),
            maintenance: Mutex::new(()),
        })
    }

    fn invalidate(&self) {
        self.fetched.fetch_max(self.written.load(Relaxed), Relaxed);
    }

    /// KVM_RUN: what KVM and the redirect's gate do before the module's handler, then the guest.
    fn run(&self, vcpu: usize, guest: impl FnOnce()) {
        self.wants_to_run[vcpu].store(true, Relaxed);
        fence(SeqCst);
        if self.gate.word().load() != 0 {
            self.reset.run(&self.gate, || self.invalidate());
        }
        // Entering the guest is a context synchronization event: what it fetches is fetched after the
        // loads that the entry depended on (Arm ARM, B2.3, "context synchronization").
        fence(Acquire);
        guest();
        self.wants_to_run[vcpu].store(false, SeqCst);
    }

    fn another_wants_to_run(&self, vcpu: usize) -> bool {
        self.wants_to_run[1 - vcpu].load(Relaxed)
    }

    /// A re-init under `once` with FEAT_S2FWB.
    fn reinit_fwb(&self, vcpu: usize) {
        let begun = self.reset.begin(&self.gate, true);
        if self.another_wants_to_run(vcpu) {
            self.reset.forgive(&begun);
            self.invalidate();
        }
    }

    /// A re-init under `once` without.
    fn reinit_unmap(&self, vcpu: usize) {
        let begun = self.reset.begin(&self.gate, false);
        let unmap = || *self.mapped.lock().unwrap() = None;
        if self.another_wants_to_run(vcpu) {
            unmap();
        } else {
            let _maintenance = self.maintenance.lock().unwrap();
            if !self.reset.is_unmapped(begun.stay()) {
                unmap();
                self.reset.set_unmapped(begun.stay());
            }
        }
    }

    /// A guest's access: faults the page in, clean, if it is not mapped. Returns what it gets.
    fn access(&self) -> u32 {
        let mut mapped = self.mapped.lock().unwrap();
        *mapped.get_or_insert_with(|| self.written.load(Relaxed))
    }
}

/// Three preemptions of a thread find all that is known to go wrong, and end in seconds.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

/// Both vCPUs are rewritten, re-initialised and run, each by a thread of its own: a VMM that resets in
/// parallel, and one whose vCPUs run while others are reset.
#[test]
fn nobody_enters_with_old_instructions() {
    model(|| {
        let host = Host::new();
        let threads: Vec<_> = (0..2)
            .map(|vcpu| {
                let host = host.clone();
                thread::spawn(move || {
                    let version = host.written.fetch_add(1, Relaxed) + 1;
                    host.reinit_fwb(vcpu);
                    host.run(vcpu, || assert!(host.fetched.load(Relaxed) >= version));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(host.gate.word().load(), 0);
        assert!(!host.reset.is_indebted());
    });
}

/// The same on a CPU without FEAT_S2FWB, where the second re-init may rely on the first one's unmap.
#[test]
fn nobody_reads_around_dirty_lines() {
    model(|| {
        let host = Host::new();
        // The first vCPU of the reset is through, and RAM unmapped.
        host.reinit_unmap(0);
        let runner = {
            let host = host.clone();
            thread::spawn(move || host.run(0, || _ = host.access()))
        };
        let version = host.written.fetch_add(1, Relaxed) + 1;
        host.reinit_unmap(1);
        host.run(1, || assert!(host.access() >= version));
        runner.join().unwrap();
        assert_eq!(host.gate.word().load(), 0);
    });
}

/// A payment by whoever unloads the module, while a vCPU is about to run.
#[test]
fn unloading_pays() {
    model(|| {
        let host = Host::new();
        host.written.store(1, Relaxed);
        host.reinit_fwb(0);
        let unloader = {
            let host = host.clone();
            thread::spawn(move || {
                host.reset.run(&host.gate, || host.invalidate());
            })
        };
        host.run(0, || assert!(host.fetched.load(Relaxed) >= 1));
        unloader.join().unwrap();
        assert_eq!(host.gate.word().load(), 0);
        assert!(!host.reset.is_indebted());
    });
}

// SPDX-License-Identifier: GPL-2.0

//! The reset protocol: who must pay for a re-init, and when a vCPU may enter the guest.
//!
//! Plain code over the atomics of `crate::rust::atomic`, and nothing else of the kernel: a model
//! checker on the build host compiles this file as it is.
//!
//! Per VM there are two generations. `owed` goes up at each re-init of a vCPU that has run; `paid`
//! is raised to it by KVM_RUN. The VM is *in reset* while they differ. With `debt` set, whoever
//! raises `paid` has to invalidate the instruction caches first.
//!
//! Two parties meet here without a lock, each with a store, a full barrier, then a load:
//!
//! | re-init ([`Reset::begin`])             | KVM_RUN                             |
//! |----------------------------------------|-------------------------------------|
//! | opens the gate, raises `owed`          | KVM sets the vCPU's `wants_to_run`  |
//! | full barrier                           | full barrier                        |
//! | looks for another vCPU's `wants_to_run`| looks at the gate, then at `owed`   |
//!
//! So at least one sees the other. A re-init that sees a runner does at once what the kernel would
//! have done; a runner that sees the reset pays and ends it ([`Reset::run`]). Once a re-init has seen
//! nobody, others of the same stay need not look ([`Reset::is_alone`]): whoever came since then sees
//! the reset, and ends the stay before it enters the guest.

use crate::rust::atomic::{full_barrier, AtomicI32, AtomicU64};

/// How many VMs are in reset, of those that share this gate; re-inits may count theirs twice for a
/// moment, never zero times. KVM_RUN of these VMs looks no further while this is zero.
#[derive(Clone, Copy)]
pub(crate) struct Gate<'a>(&'a AtomicI32);

impl<'a> Gate<'a> {
    /// The gate whose word KVM_RUN's redirect reads.
    pub(crate) const fn of(word: &'a AtomicI32) -> Self {
        Self(word)
    }

    fn open(self) {
        self.0.fetch_add(1);
    }

    fn close(self) {
        self.0.fetch_add(-1);
    }
}

/// How many bits of a VM's word tell how many re-inits are unpaid. The rest, but for the debt's, tell
/// how many there were: 48, which 25 million re-inits in each second, more than a host can make,
/// wrap once in 130 days. Who could err is a party that holds a word for just so long, within one ioctl,
/// or one that finds the note of a stay which nothing has overwritten since.
const UNPAID_BITS: u32 = 15;

/// Both generations and the debt in one word, so that they change as one.
///
/// What is kept of `paid` is by how much it is behind `owed`, up to the largest number that
/// `BITS` hold: that one means so many or more.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State<const BITS: u32> {
    owed: u64,
    unpaid: u64,
    debt: bool,
}

impl<const BITS: u32> State<BITS> {
    const MOST_UNPAID: u64 = (1 << BITS) - 1;
    const OWED: u64 = u64::MAX >> (BITS + 1);

    fn unpack(word: u64) -> Self {
        Self {
            owed: word >> (BITS + 1),
            unpaid: (word >> 1) & Self::MOST_UNPAID,
            debt: word & 1 != 0,
        }
    }

    fn pack(self) -> u64 {
        (self.owed << (BITS + 1)) | (self.unpaid << 1) | u64::from(self.debt)
    }

    fn in_reset(self) -> bool {
        self.unpaid != 0
    }

    /// One more re-init, which nobody has paid for.
    fn reinit(self, debt: bool) -> Self {
        Self {
            owed: self.owed.wrapping_add(1) & Self::OWED,
            unpaid: (self.unpaid + 1).min(Self::MOST_UNPAID),
            debt: self.debt || debt,
        }
    }

    /// All re-inits up to the generation `owed` are paid for.
    fn pay(self, owed: u64) -> Self {
        // Another re-init may have come since, or another runner gone farther: keep what is nearer
        // to `owed`. Whether a debt is only the newcomer's cannot be told, so it stays.
        let since = self.owed.wrapping_sub(owed) & Self::OWED;
        let unpaid = self.unpaid.min(since);
        Self {
            owed: self.owed,
            unpaid,
            debt: self.debt && unpaid != 0,
        }
    }

    /// The generation that is paid, unless it is too far behind to tell.
    fn paid(self) -> Option<u64> {
        let paid = self.owed.wrapping_sub(self.unpaid) & Self::OWED;
        (self.unpaid < Self::MOST_UNPAID).then_some(paid)
    }
}

/// Where a VM stands.
pub(crate) struct Reset<const BITS: u32 = UNPAID_BITS> {
    state: AtomicU64,
    /// One more than the `paid` under which all RAM was last unmapped, with nobody running; 0:
    /// never.
    unmapped: AtomicU64,
    /// One more than the `paid` under which a re-init last saw nobody running; 0: never.
    alone: AtomicU64,
}

/// A re-init as it showed in the word: the state before it, and behind it.
pub(crate) struct Begun<const BITS: u32 = UNPAID_BITS> {
    before: State<BITS>,
    after: State<BITS>,
}

impl<const BITS: u32> Begun<BITS> {
    /// Whether this is the first since the last KVM_RUN.
    pub(crate) fn is_first(&self) -> bool {
        !self.before.in_reset()
    }

    /// Whether the VM was free of debt before.
    pub(crate) fn is_new_debt(&self) -> bool {
        self.after.debt && !self.before.debt
    }

    /// What tells the VM's current stay outside the guest from others; `None` behind more re-inits
    /// in one stay than can be told, where nothing can be shared.
    pub(crate) fn stay(&self) -> Option<Stay> {
        self.before.paid().map(Stay)
    }
}

/// A time in which no vCPU of the VM entered KVM_RUN after it was seen to be in reset.
#[derive(Clone, Copy)]
pub(crate) struct Stay(pub(crate) u64);

impl<const BITS: u32> Reset<BITS> {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            unmapped: AtomicU64::new(0),
            alone: AtomicU64::new(0),
        }
    }

    /// Replaces the state by what `change` makes of it, fully ordered. Returns both.
    fn update(
        &self,
        mut change: impl FnMut(State<BITS>) -> State<BITS>,
    ) -> (State<BITS>, State<BITS>) {
        let mut word = self.state.load();
        loop {
            let before = State::unpack(word);
            let after = change(before);
            match self.state.compare_exchange(word, after.pack()) {
                Ok(()) => return (before, after),
                Err(now) => word = now,
            }
        }
    }

    /// Publishes a re-init, which leaves a debt if `debt`. The caller then looks for running vCPUs.
    pub(crate) fn begin(&self, gate: Gate<'_>, debt: bool) -> Begun<BITS> {
        // The gate goes first: once the re-init shows in the state, nobody may find the gate
        // closed. A re-init that joins a reset must not rely on the first one's having got as far
        // as its own gate.
        gate.open();
        let (before, after) = self.update(|state| state.reinit(debt));
        if before.in_reset() {
            gate.close();
        }
        full_barrier();
        Begun { before, after }
    }

    /// Whether no other vCPU is running as far as the re-init `begun` is concerned: nobody is in a
    /// KVM_RUN that could end without ending its stay first. Asks `looks_alone`, unless another
    /// re-init of this stay has got a yes from that already.
    pub(crate) fn is_alone(&self, begun: &Begun<BITS>, looks_alone: impl FnOnce() -> bool) -> bool {
        let Some(stay) = begun.stay() else {
            return looks_alone();
        };
        if self.is_seen_alone(stay) {
            return true;
        }
        let alone = looks_alone();
        if alone {
            // Behind the look: what a vCPU did that had left by then comes before what is done by
            // those who rely on it.
            self.alone.store(stay.0 + 1);
        }
        alone
    }

    /// Whether a re-init has seen nobody running during `stay`.
    pub(crate) fn is_seen_alone(&self, stay: Stay) -> bool {
        self.alone.load() == stay.0 + 1
    }

    /// Takes back the debt that `begun` left, where that is all that happened since: for a re-init
    /// that found it better to invalidate at once. Returns whether the VM is free of debt now.
    pub(crate) fn forgive(&self, begun: &Begun<BITS>) -> bool {
        begun.is_new_debt()
            && self
                .state
                .compare_exchange(
                    begun.after.pack(),
                    State {
                        debt: false,
                        ..begun.after
                    }
                    .pack(),
                )
                .is_ok()
    }

    /// A vCPU is about to enter the guest: ends the reset, if there is one, after calling `pay` if
    /// there is a debt. On return `paid` covers every re-init that happened before, and every one that
    /// did not look for this vCPU. Returns whether the VM went from owing to owing nothing.
    ///
    /// Without a lock two vCPUs may both pay; neither enters before a payment is complete.
    pub(crate) fn run(&self, gate: Gate<'_>, mut pay: impl FnMut()) -> bool {
        let seen = self.state();
        if !seen.in_reset() {
            return false;
        }
        let (before, after) = self.pay_for(gate, seen, &mut pay);
        if !after.debt {
            return before.debt;
        }
        // A re-init that came meanwhile may rely on a look from before this vCPU came. Those that come
        // from here on do not: their stay is another.
        let (before, after) = self.pay_for(gate, after, &mut pay);
        before.debt && !after.debt
    }

    /// Pays for all re-inits that are `seen`.
    fn pay_for(
        &self,
        gate: Gate<'_>,
        seen: State<BITS>,
        pay: &mut impl FnMut(),
    ) -> (State<BITS>, State<BITS>) {
        if seen.debt {
            pay();
        }
        let (before, after) = self.update(|state| state.pay(seen.owed));
        if before.in_reset() && !after.in_reset() {
            gate.close();
        }
        (before, after)
    }

    /// Whether the VM owes an invalidation.
    pub(crate) fn is_indebted(&self) -> bool {
        self.state().debt
    }

    fn state(&self) -> State<BITS> {
        State::unpack(self.state.load())
    }

    /// Notes that all RAM was unmapped during `stay`, by a re-init that saw no other vCPU running.
    pub(crate) fn set_unmapped(&self, stay: Stay) {
        self.unmapped.store(stay.0 + 1);
    }

    /// Whether an unmap made during `stay` still serves a re-init of the same: what was mapped since,
    /// by a KVM_RUN that has ended the stay, was mapped behind that re-init.
    pub(crate) fn is_unmapped(&self, stay: Stay) -> bool {
        self.unmapped.load() == stay.0 + 1
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What a re-init decided, handed by its task to the kernel's own maintenance a few instructions
//! later.
//!
//! The decision is made where `kvm_reset_vcpu` is called; the kernel's `ic ialluis` or call of
//! `stage2_unmap_vm` follows in the same ioctl, where the vCPU cannot be told. So decisions travel
//! with the task. What the kernel does is left out only if *this* re-init said so: a re-init that
//! began before the hooks, or under another policy, says nothing and gets the kernel's own way.

use crate::rust::atomic::AtomicI32;
use core::{
    cell::UnsafeCell,
    ptr::{self, NonNull},
};
use kernel::{
    sync::atomic::{Atomic, Full, Relaxed},
    task::Task,
};

/// How many slots a task may use. With none of them free its decision is not noted.
const WINDOW: usize = 32;

/// Decisions of type `T` on their way, `SLOTS` of them at most.
pub(crate) struct Handoff<T, const SLOTS: usize> {
    slots: [Slot<T>; SLOTS],
    /// How many tasks have a slot, by where their windows begin: mostly none, and nothing to look for.
    tasks: [AtomicI32; SLOTS],
}

/// # Invariants
///
/// `decision` belongs to the task in `task`, and to nobody while that is 0.
struct Slot<T> {
    task: Atomic<usize>,
    decision: UnsafeCell<Option<T>>,
}

// SAFETY: A decision is touched only by the task in its slot.
unsafe impl<T: Send, const SLOTS: usize> Sync for Handoff<T, SLOTS> {}

impl<T: Copy, const SLOTS: usize> Handoff<T, SLOTS> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    task: Atomic::new(0),
                    decision: UnsafeCell::new(None),
                }
            }; SLOTS],
            tasks: [const { AtomicI32::new(0) }; SLOTS],
        }
    }

    /// Takes the current task's decision, if it has made one. Callable in any context of that task.
    pub(crate) fn take(&self) -> Option<T> {
        let (slot, task) = self.find(current())?;
        // SAFETY: The slot is the current task's, by the type invariant.
        let decision = unsafe { ptr::replace(slot.decision.get(), None) };
        // INVARIANT: Nothing is left in it.
        slot.task.cmpxchg(task, 0, Full).ok()?;
        self.tasks[Self::home(task)].fetch_add(-1);
        decision
    }

    /// Changes the current task's decision, if it has made one. Returns what `change` does.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let (slot, task) = self.find(current())?;
        // SAFETY: The slot is the current task's, by the type invariant.
        let mut decision = unsafe { *slot.decision.get() }?;
        let result = change(&mut decision);
        if slot.task.load(Relaxed) == task {
            // SAFETY: As above, and `change` has not taken it.
            unsafe { *slot.decision.get() = Some(decision) };
        }
        Some(result)
    }

    /// Sets the current task's decision, in place of one that was not taken. Returns whether there
    /// was room for it.
    pub(crate) fn put(&self, decision: T) -> bool {
        let task = current();
        let claimed = || {
            self.window(task).find(|slot| {
                slot.task.load(Relaxed) == 0 && slot.task.cmpxchg(0, task, Full).is_ok()
            })
        };
        let slot = if let Some((slot, _)) = self.find(task) {
            slot
        } else {
            let Some(slot) = claimed() else {
                return false;
            };
            self.tasks[Self::home(task)].fetch_add(1);
            slot
        };
        // SAFETY: The slot is the current task's, by the type invariant.
        unsafe { *slot.decision.get() = Some(decision) };
        true
    }

    fn find(&self, task: usize) -> Option<(&Slot<T>, usize)> {
        // What others do to the number does not matter: the task's own part of it is there.
        if self.tasks[Self::home(task)].load() == 0 {
            return None;
        }
        self.window(task)
            .find(|slot| slot.task.load(Relaxed) == task)
            .map(|slot| (slot, task))
    }

    /// Where the window of `task` begins.
    fn home(task: usize) -> usize {
        // Fibonacci hashing: task structs are some KiB apart, in a few slabs.
        (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) % SLOTS
    }

    /// The slots that `task` may use, likeliest first.
    fn window(&self, task: usize) -> impl Iterator<Item = &Slot<T>> {
        let home = Self::home(task);
        (home..home + WINDOW).map(|at| &self.slots[at % SLOTS])
    }
}

fn current() -> usize {
    Task::current_raw() as usize
}

/// A reference to what is known to outlive its use, though no borrow says so.
pub(crate) struct Lent<T>(NonNull<T>);

impl<T> Clone for Lent<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Lent<T> {}

// SAFETY: A shared reference in all but its lifetime.
unsafe impl<T: Sync> Send for Lent<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for Lent<T> {}

impl<T> Lent<T> {
    pub(crate) fn new(value: &T) -> Self {
        Self(NonNull::from(value))
    }

    /// # Safety
    ///
    /// The value must be alive for `'a`.
    pub(crate) unsafe fn get<'a>(self) -> &'a T {
        // SAFETY: By the caller.
        unsafe { self.0.as_ref() }
    }
}

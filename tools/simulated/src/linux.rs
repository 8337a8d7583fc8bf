// SPDX-License-Identifier: GPL-2.0

//! What the module's files take from the kernel's crate.

pub(crate) mod alloc {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

    static HAS_MEMORY: AtomicBool = AtomicBool::new(true);

    /// Whether allocations succeed from now on.
    pub(crate) fn enable(on: bool) {
        HAS_MEMORY.store(on, SeqCst);
    }

    pub(super) fn has_memory() -> bool {
        HAS_MEMORY.load(SeqCst)
    }

    pub(crate) mod flags {
        /// How to allocate: here by Rust's own allocator, if at all.
        pub(crate) struct Flags;
        pub(crate) const GFP_KERNEL_ACCOUNT: Flags = Flags;
    }
}

pub(crate) mod prelude {
    use super::alloc::{flags::Flags, has_memory};
    pub(crate) use core::{ffi::CStr, pin::Pin};
    pub(crate) use pinned_init::{pin_data, pin_init};

    /// An errno.
    #[derive(Debug)]
    pub(crate) struct Error;
    pub(crate) type Result<T = (), E = Error> = core::result::Result<T, E>;

    macro_rules! pr_err {
        ($($argument:tt)*) => { eprint!($($argument)*) };
    }
    pub(crate) use pr_err;
    // One line in a log is as good as another here.
    pub(crate) use pr_err as pr_warn;

    pub(crate) type KBox<T> = Box<T>;

    /// How a `KBox` is made in place.
    pub(crate) trait PinInit<T> {
        fn pin_init(
            init: impl pinned_init::PinInit<T, core::convert::Infallible>,
            flags: Flags,
        ) -> Result<Pin<KBox<T>>>;
    }

    impl<T> PinInit<T> for KBox<T> {
        fn pin_init(
            init: impl pinned_init::PinInit<T, core::convert::Infallible>,
            _: Flags,
        ) -> Result<Pin<KBox<T>>> {
            if !has_memory() {
                return Err(Error);
            }
            let mut memory = Box::<T>::new_uninit();
            // SAFETY: The memory is for a `T`, stays where it is, and is thrown away on an error.
            unsafe { init.__pinned_init(memory.as_mut_ptr()) }.map_err(|_| Error)?;
            // SAFETY: Initialised just now.
            Ok(Box::into_pin(unsafe { memory.assume_init() }))
        }
    }
}

pub(crate) mod sync {
    use crate::race::{is_racing, step, wait};
    use core::{
        cell::UnsafeCell,
        ops::{Deref, DerefMut},
        ptr,
        sync::atomic::{AtomicBool, AtomicPtr, Ordering::SeqCst},
    };

    /// A lock whose waiters let others go on.
    pub(crate) struct Mutex<T> {
        locked: AtomicBool,
        value: UnsafeCell<T>,
    }

    // SAFETY: Only the holder of the lock gets to the value.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self {
                locked: AtomicBool::new(false),
                value: UnsafeCell::new(value),
            }
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            step();
            while self.locked.swap(true, SeqCst) {
                assert!(is_racing(), "a lock that nobody will release");
                wait();
            }
            Guard(self)
        }

        pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
            step();
            (!self.locked.swap(true, SeqCst)).then(|| Guard(self))
        }
    }

    pub(crate) struct Guard<'a, T>(&'a Mutex<T>);

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: The lock is held.
            unsafe { &*self.0.value.get() }
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: The lock is held.
            unsafe { &mut *self.0.value.get() }
        }
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            self.0.locked.store(false, SeqCst);
            step();
        }
    }

    /// A [`Mutex`] in place.
    #[macro_export]
    macro_rules! new_mutex {
        ($value:expr, $name:literal) => {
            $crate::sync::Mutex::new($value)
        };
    }

    /// A value that is set once, in the life of a module: here, in each of its lives.
    pub(crate) struct SetOnce<T>(AtomicPtr<T>);

    impl<T> Drop for SetOnce<T> {
        fn drop(&mut self) {
            let value = *self.0.get_mut();
            if !value.is_null() {
                // SAFETY: Leaked by `populate`, and nobody has a reference any more.
                drop(unsafe { Box::from_raw(value) });
            }
        }
    }

    impl<T> SetOnce<T> {
        pub(crate) const fn new() -> Self {
            Self(AtomicPtr::new(ptr::null_mut()))
        }

        pub(crate) fn populate(&self, value: T) -> bool {
            // Few bytes for each load: not worth a proof that nobody looks any more.
            self.0.store(Box::leak(Box::new(value)), SeqCst);
            true
        }

        pub(crate) fn as_ref(&self) -> Option<&T> {
            // SAFETY: Null, or leaked.
            unsafe { self.0.load(SeqCst).as_ref() }
        }
    }

    pub(crate) mod atomic {
        use std::sync::{Mutex, MutexGuard, PoisonError};

        pub(crate) struct Acquire;
        pub(crate) struct Full;
        pub(crate) struct Relaxed;
        pub(crate) struct Release;

        /// An atomic word. All orders are as good as full here.
        pub(crate) struct Atomic<T>(Mutex<T>);

        impl<T: Copy + PartialEq> Atomic<T> {
            pub(crate) const fn new(value: T) -> Self {
                Self(Mutex::new(value))
            }

            fn word(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }

            pub(crate) fn load<O>(&self, _: O) -> T {
                *self.word()
            }

            pub(crate) fn store<O>(&self, value: T, _: O) {
                *self.word() = value;
            }

            pub(crate) fn cmpxchg<O>(&self, old: T, new: T, _: O) -> Result<T, T> {
                let mut word = self.word();
                if *word != old {
                    return Err(*word);
                }
                *word = new;
                Ok(old)
            }
        }
    }
}

pub(crate) mod task {
    pub(crate) struct Task;

    impl Task {
        /// What tells the current task from others.
        pub(crate) fn current_raw() -> *const Task {
            crate::race::task() as *const Task
        }
    }
}

pub(crate) mod time {
    use core::marker::PhantomData;

    #[derive(Clone, Copy)]
    pub(crate) struct Monotonic;

    /// Time stands still.
    #[derive(Clone, Copy)]
    pub(crate) struct Instant<C>(PhantomData<C>);

    impl<C> Instant<C> {
        pub(crate) fn now() -> Self {
            Self(PhantomData)
        }

        pub(crate) fn elapsed(&self) -> Delta {
            Delta
        }
    }

    pub(crate) struct Delta;

    impl Delta {
        pub(crate) fn as_nanos(&self) -> i64 {
            0
        }
    }
}

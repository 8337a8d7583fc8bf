// SPDX-License-Identifier: GPL-2.0

//! The one probe there is.

use super::symbol::IcacheInvalidation;
use crate::{
    prelude::Result,
    race::{step, wait},
};
use core::{
    marker::PhantomData,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};
use std::sync::Mutex;

pub(crate) enum Step {
    Execute,
    Over,
}

pub(crate) trait Probe {
    fn hit() -> Step;
    fn executed();
}

/// [`Probe::hit`] and [`Probe::executed`].
type Handlers = (fn() -> Step, fn());

static HANDLERS: Mutex<Option<Handlers>> = Mutex::new(None);
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Whether the host lets kprobes fire.
static ENABLED: AtomicBool = AtomicBool::new(true);

pub(crate) struct InstructionProbe<P: Probe>(PhantomData<P>);

impl<P: Probe> InstructionProbe<P> {
    pub(crate) fn new(_target: IcacheInvalidation) -> Result<Self> {
        step();
        set(Some((P::hit, P::executed)));
        Ok(Self(PhantomData))
    }
}

impl<P: Probe> Drop for InstructionProbe<P> {
    fn drop(&mut self) {
        step();
        set(None);
        while RUNNING.load(SeqCst) != 0 {
            wait();
        }
    }
}

fn set(handlers: Option<Handlers>) {
    *HANDLERS.lock().unwrap_or_else(|error| error.into_inner()) = handlers;
}

fn handlers() -> Option<Handlers> {
    *HANDLERS.lock().unwrap_or_else(|error| error.into_inner())
}

pub(crate) fn enable(on: bool) {
    step();
    ENABLED.store(on, SeqCst);
    step();
}

/// Whether the probe is in the kernel's text.
pub(crate) fn is_armed() -> bool {
    step();
    ENABLED.load(SeqCst) && handlers().is_some()
}

/// Control reaches the instruction, which does `execute`.
pub(crate) fn reach(execute: impl FnOnce()) {
    let fires = is_armed();
    RUNNING.fetch_add(1, SeqCst);
    match handlers().filter(|_| fires) {
        None => execute(),
        Some((hit, executed)) => match hit() {
            Step::Over => {}
            Step::Execute => {
                execute();
                executed();
            }
        },
    }
    RUNNING.fetch_sub(1, SeqCst);
}

// SPDX-License-Identifier: GPL-2.0
//! The contract of kvm_fwb_reset: what each counter must read after each event, and which code a vCPU
//! is then sure to run.
//!
//! [`Expected`] is told of each event as it happens: KVM_ARM_VCPU_INIT, KVM_RUN, a policy that is written, a
//! load. Events of one VM may come from several threads as long as their order does not matter to the
//! counters: parallel re-inits, or parallel KVM_RUNs. Where both happen at once, [`Expected::race`] says
//! between what bounds the counters lie.
//!
//! It also knows what the contract says of instruction fetch: whether code that user space wrote is
//! what a vCPU that enters the guest now runs ([`Expected::covers`]).
//!
//! [`Counters`] and [`latency`] read the module's files, and [`ktap`] is how a test says what it found.
//! Nothing here needs KVM.

mod counters;
mod expected;
mod host;
pub mod ktap;
pub mod latency;
mod policy;

pub use counters::Counters;
pub use expected::{Change, Expected, covers_late_writes};
pub use host::{Host, NativeReset, facts};
pub use policy::Policy;

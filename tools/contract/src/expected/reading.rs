// SPDX-License-Identifier: GPL-2.0
//! What the module's files must read, as far as that is certain.

use std::collections::BTreeMap;

use super::Expected;
use crate::Counters;

impl Expected {
    /// What a VM is called in `vms` once it is there.
    pub fn shown<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let vm = self.vms.get(name)?;
        Some(vm.shown(name))
    }

    /// How many VMs are in reset, as far as the module knows.
    pub fn in_reset(&self) -> usize {
        self.vms.values().filter(|vm| vm.in_reset).count()
    }

    /// What `stats` must read.
    pub fn total(&self) -> Counters {
        let pending = self.vms.values().filter(|vm| vm.owed).count();
        Counters {
            pending: pending as u64,
            ..self.total
        }
    }

    /// How many re-inits of all are not in `latency`, if that is known.
    pub fn untimed(&self) -> Option<u64> {
        self.untimed.0
    }

    /// How many re-inits of one VM are not in its `latency`, if that is known.
    pub fn untimed_of(&self, shown: &str) -> Option<u64> {
        let mut vms = self.vms.iter();
        let (_, vm) = vms.find(|(name, vm)| vm.shown(name) == shown)?;
        vm.untimed.0
    }

    /// What each directory in `vms` must read.
    pub fn per_vm(&self) -> BTreeMap<&str, Counters> {
        let listed = self.vms.iter().filter(|(_, vm)| vm.listed);
        listed
            .map(|(name, vm)| {
                (
                    vm.shown(name),
                    Counters {
                        pending: vm.owed.into(),
                        ..vm.counters
                    },
                )
            })
            .collect()
    }

    /// Takes for granted what was read, of one VM or of all, as far as races left it open. What VMs
    /// owe has to be read first.
    pub fn adopt(&mut self, shown: Option<&str>, got: &Counters) {
        let mut vms = self.vms.iter_mut();
        let vm = shown.map(|shown| vms.find(|(name, vm)| vm.shown(name) == shown));
        let (counters, slack) = match vm {
            None => (&mut self.total, &mut self.slack),
            Some(Some((_, vm))) => {
                if std::mem::take(&mut vm.may_owe) {
                    vm.owed = got.pending > 0;
                }
                (&mut vm.counters, &mut vm.slack)
            }
            Some(None) => return,
        };
        let most = counters.zip(*slack, |low, slack| low + slack);
        *counters = counters.zip(*got, u64::max).zip(most, u64::min);
        *slack = Counters::default();
    }
}

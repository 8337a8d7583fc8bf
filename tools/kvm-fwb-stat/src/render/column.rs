// SPDX-License-Identifier: GPL-2.0

//! The columns of the list of VMs.

use super::units;
use crate::{
    counters::Stat,
    snapshot::{Change, Snapshot, Vm},
};
use clap::ValueEnum;
use std::cmp::Ordering;

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Column {
    /// its name in debugfs: pid and fd
    Vm,
    /// command name of the VMM
    Command,
    /// number of vCPUs
    Vcpus,
    /// size of its memory
    Memory,
    /// VM resets
    Resets,
    /// VM resets in a second
    Rate,
    /// re-inits of vCPUs
    Reinits,
    /// invalidations of all I-caches
    Icache,
    /// unmaps of stage 2
    Unmaps,
    /// what the module left out of both
    Elided,
    /// what unmaps left uncleaned (without FEAT_S2FWB)
    Uncleaned,
    /// flushes of stage 2 as its vCPUs turned their MMUs on (without FEAT_S2FWB)
    Flushes,
    /// what it cost: time that the host spent, or operations with an older module
    Cost,
    /// its part of what all VMs in the list cost
    Share,
    /// what it owes now
    Owes,
}

/// What the columns are taken from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All VMs.
    pub snapshot: &'a Snapshot,
    /// Since an earlier one, if there is one.
    pub change: Option<Change<'a>>,
    /// What all VMs cost together.
    cost: u64,
}

impl<'a> View<'a> {
    /// What `snapshot` shows, with rates since `before`.
    pub fn new(snapshot: &'a Snapshot, before: Option<&'a Snapshot>) -> Self {
        Self {
            snapshot,
            change: before.and_then(|before| Change::new(before, snapshot)),
            cost: snapshot.present_cost(),
        }
    }

    /// The VMs whose name or command holds `filter`, sorted by `column`.
    pub fn sorted(&self, column: Column, reverse: bool, filter: &str) -> Vec<&'a Vm> {
        let filter = filter.to_lowercase();
        let mut vms: Vec<_> = (self.snapshot.vms.iter())
            .filter(|vm| {
                vm.id.to_string().contains(&filter) || vm.comm().to_lowercase().contains(&filter)
            })
            .collect();
        vms.sort_by(|a, b| {
            let order = column.compare(self, a, b);
            if reverse { order.reverse() } else { order }
        });
        vms
    }

    /// The part, 0 to 1, of what all VMs cost.
    pub fn share(&self, vm: &Vm) -> f64 {
        match self.cost {
            0 => 0.0,
            all => self.snapshot.cost(&vm.figures) as f64 / all as f64,
        }
    }
}

impl Column {
    /// Its heading.
    pub fn heading(self, view: &View<'_>) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Command => "COMMAND",
            Self::Vcpus => "VCPUS",
            Self::Memory => "MEMORY",
            Self::Resets => "RESETS",
            Self::Rate => "RATE",
            Self::Reinits => "RE-INITS",
            Self::Icache => "ICACHE",
            Self::Unmaps => "UNMAPS",
            Self::Elided => "ELIDED",
            Self::Uncleaned => "UNCLEANED",
            Self::Flushes => "FLUSHES",
            Self::Cost if view.snapshot.is_timed() => "TIME",
            Self::Cost => "COST",
            Self::Share => "SHARE",
            Self::Owes => "OWES",
        }
    }

    /// The width that what is in it needs at most, as a rule.
    pub fn width(self) -> u16 {
        match self {
            Self::Vm => 11,
            Self::Command => 15,
            Self::Vcpus => 5,
            Self::Memory | Self::Reinits => 8,
            Self::Resets | Self::Icache | Self::Unmaps | Self::Elided => 7,
            Self::Cost | Self::Flushes => 7,
            Self::Uncleaned => 9,
            Self::Rate | Self::Owes => 6,
            Self::Share => 5,
        }
    }

    /// Whether it holds numbers, which are set flush right, and sorted with the largest first.
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Vm | Self::Command | Self::Owes)
    }

    /// Whether the module counts it, and this host can have it.
    pub fn is_told(self, snapshot: &Snapshot) -> bool {
        let counts = |stat| !snapshot.host.fwb && snapshot.total.stats.seen(stat).is_some();
        match self {
            Self::Uncleaned => counts(Stat::DcacheCleanElideBytes),
            Self::Flushes => counts(Stat::Stage2Flush),
            _ => true,
        }
    }

    /// What stands in it.
    pub fn cell(self, view: &View<'_>, vm: &Vm) -> String {
        use crate::counters::Size;

        let unknown = || "?".to_owned();
        let stat = |stat| vm.figures.stats.get(stat).to_string();
        match self {
            Self::Vm => vm.id.to_string(),
            Self::Command => vm.comm().to_owned(),
            Self::Vcpus => vm
                .size(Size::Vcpus)
                .map_or_else(unknown, |count| count.to_string()),
            Self::Memory => vm.size(Size::Memory).map_or_else(unknown, units::memory),
            Self::Resets => stat(Stat::VmReset),
            Self::Rate => {
                let rate = view
                    .change
                    .map(|change| change.vm(&vm.id, &vm.figures, Stat::VmReset));
                rate.map_or_else(|| "-".into(), units::rate)
            }
            Self::Reinits => stat(Stat::VcpuReset),
            Self::Icache => stat(Stat::IcacheInvalidate),
            Self::Unmaps => stat(Stat::Stage2Unmap),
            Self::Elided => vm.figures.elided().to_string(),
            Self::Uncleaned => units::memory(vm.figures.stats.get(Stat::DcacheCleanElideBytes)),
            Self::Flushes => stat(Stat::Stage2Flush),
            Self::Cost => view.snapshot.cost_text(&vm.figures),
            Self::Share => units::share(view.share(vm)),
            Self::Owes => match vm.owed() {
                "none" => "-".into(),
                owed => owed.to_owned(),
            },
        }
    }

    /// The order of two VMs by it, and then by name.
    fn compare(self, view: &View<'_>, a: &Vm, b: &Vm) -> Ordering {
        use crate::counters::Size;

        let most = |value: &dyn Fn(&Vm) -> u64| value(b).cmp(&value(a));
        let stat = |stat| most(&|vm: &Vm| vm.figures.stats.get(stat));
        let order = match self {
            Self::Vm => Ordering::Equal,
            Self::Command => a.comm().cmp(b.comm()),
            Self::Vcpus => most(&|vm| vm.size(Size::Vcpus).unwrap_or(0)),
            Self::Memory => most(&|vm| vm.size(Size::Memory).unwrap_or(0)),
            Self::Resets => stat(Stat::VmReset),
            Self::Rate => {
                let rate = |vm: &Vm| {
                    let change = view.change;
                    change.map_or(0.0, |change| change.vm(&vm.id, &vm.figures, Stat::VmReset))
                };
                rate(b).total_cmp(&rate(a))
            }
            Self::Reinits => stat(Stat::VcpuReset),
            Self::Icache => stat(Stat::IcacheInvalidate),
            Self::Unmaps => stat(Stat::Stage2Unmap),
            Self::Elided => most(&|vm| vm.figures.elided()),
            Self::Uncleaned => stat(Stat::DcacheCleanElideBytes),
            Self::Flushes => stat(Stat::Stage2Flush),
            Self::Cost | Self::Share => most(&|vm| view.snapshot.cost(&vm.figures)),
            Self::Owes => stat(Stat::Pending),
        };
        order.then(a.id.cmp(&b.id))
    }
}

/// What is left out where there is no room, the least first.
const LEAST_FIRST: [Column; 10] = [
    Column::Reinits,
    Column::Memory,
    Column::Vcpus,
    Column::Elided,
    Column::Owes,
    Column::Flushes,
    Column::Uncleaned,
    Column::Unmaps,
    Column::Icache,
    Column::Rate,
];
/// And where there is hardly any.
const LAST: [Column; 4] = [Column::Share, Column::Resets, Column::Command, Column::Cost];
/// A command can still be told by so much of it.
const LEAST_COMMAND: usize = 6;

/// Columns with what stands in them, for so much room.
#[derive(Debug)]
pub struct Layout {
    /// Each with its width. There is a space between.
    pub columns: Vec<(Column, usize)>,
    /// The width that all columns would take.
    pub wanted: usize,
}

impl Layout {
    /// The columns that fit in `width`, each as wide as all that is in it; only a command may be
    /// cut. `keep` goes last, but for the VM's name.
    pub fn new(view: &View<'_>, vms: &[&Vm], width: usize, keep: Column) -> Self {
        let needed = |column: Column| {
            let cells = vms.iter().map(|vm| column.cell(view, vm).chars().count());
            let nominal = usize::from(column.width());
            match column {
                Column::Command => nominal,
                _ => cells.fold(nominal, usize::max),
            }
        };
        let mut layout = Self {
            columns: (Column::value_variants().iter())
                .filter(|column| column.is_told(view.snapshot))
                .map(|&column| (column, needed(column)))
                .collect(),
            wanted: 0,
        };
        layout.wanted = layout.width();
        let shrink = |layout: &mut Self, least: &[Column]| {
            for &least in least {
                if layout.width() > width {
                    layout.columns.retain(|&(column, _)| column != least);
                }
            }
        };
        let others = |least: &[Column]| -> Vec<_> {
            least
                .iter()
                .copied()
                .filter(|&column| column != keep)
                .collect()
        };
        shrink(&mut layout, &others(&LEAST_FIRST));
        if layout.width() > width {
            layout.set(Column::Command, |_| LEAST_COMMAND);
        }
        shrink(&mut layout, &others(&LAST));
        if keep != Column::Vm {
            shrink(&mut layout, &[keep]);
        }
        let spare = width.saturating_sub(layout.width());
        let whole = usize::from(Column::Command.width());
        layout.set(Column::Command, |least| (least + spare).min(whole));
        // A name is the last thing to go.
        layout.set(Column::Vm, |needed| needed.min(width));
        layout
    }

    /// All of them, with the spaces.
    pub fn width(&self) -> usize {
        let widths = self.columns.iter().map(|&(_, width)| width + 1);
        widths.sum::<usize>().saturating_sub(1)
    }

    fn set(&mut self, column: Column, width: impl Fn(usize) -> usize) {
        for each in &mut self.columns {
            if each.0 == column {
                each.1 = width(each.1);
            }
        }
    }
}

/// `cell` in a column of `width`: whole, or marked. Half a number reads as another one.
pub fn fit(column: Column, cell: String, width: usize) -> String {
    let length = cell.chars().count();
    match column {
        _ if length <= width => cell,
        Column::Command => cell
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
        _ => "…".into(),
    }
}

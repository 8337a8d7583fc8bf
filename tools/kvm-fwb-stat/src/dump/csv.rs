// SPDX-License-Identifier: GPL-2.0

//! CSV: for each moment a row of all VMs together, then one for each VM.

use crate::{
    counters::{Size, Stat, Timing},
    snapshot::{Figures, Snapshot},
};
use std::io;

/// The name that the row of all VMs together has.
const ALL: &str = "all";

/// Writes rows.
pub struct Rows<W: io::Write>(csv::Writer<W>);

impl<W: io::Write> Rows<W> {
    /// Writes the names of the columns.
    ///
    /// # Errors
    ///
    /// As the writer's.
    pub fn new(writer: W) -> io::Result<Self> {
        let mut rows = Self(csv::Writer::from_writer(writer));
        let mut names: Vec<String> = ["time", "vm", "comm"].map(Into::into).into();
        names.extend(Size::ALL.map(|size| size.field().name.into()));
        names.push("owed".into());
        names.extend(Stat::ALL.map(|stat| stat.field().name.into()));
        for timing in Timing::ALL {
            let name = timing.field().name;
            names.extend([format!("{name}_count"), format!("{name}_sum_ns")]);
        }
        rows.row(names)?;
        rows.0.flush()?;
        Ok(rows)
    }

    /// Writes a snapshot, at once.
    ///
    /// # Errors
    ///
    /// As the writer's.
    pub fn write(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let time = format!("{:.3}", snapshot.time);
        let mut all = vec![time.clone(), ALL.into()];
        all.resize(all.len() + Size::ALL.len() + 2, String::new());
        self.figures(all, &snapshot.total)?;
        for vm in &snapshot.vms {
            let comm = vm.info.as_ref().map_or("", |info| &info.comm);
            let mut row = vec![time.clone(), vm.id.to_string(), comm.into()];
            row.extend(Size::ALL.map(|size| or_empty(vm.size(size))));
            row.push(vm.owed().into());
            self.figures(row, &vm.figures)?;
        }
        self.0.flush()
    }

    fn figures(&mut self, mut row: Vec<String>, figures: &Figures) -> io::Result<()> {
        row.extend(Stat::ALL.map(|stat| or_empty(figures.stats.seen(stat))));
        for timing in Timing::ALL {
            let times = figures
                .latency
                .as_ref()
                .and_then(|latency| latency.get(timing));
            row.push(or_empty(times.map(|times| times.count)));
            row.push(or_empty(times.map(|times| times.sum_ns)));
        }
        self.row(row)
    }

    fn row(&mut self, row: Vec<String>) -> io::Result<()> {
        self.0
            .write_record(row)
            .map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) => error,
                other => io::Error::other(format!("{other:?}")),
            })
    }
}

fn or_empty(value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

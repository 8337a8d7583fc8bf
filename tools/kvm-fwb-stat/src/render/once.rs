// SPDX-License-Identifier: GPL-2.0

//! `--once`: the list on paper.

use super::{
    column::{Column, View},
    summary,
};
use clap::ValueEnum;
use std::io::{self, Write};

/// Writes the host, totals and VMs.
///
/// # Errors
///
/// As `out`'s.
pub fn write(
    out: &mut impl Write,
    view: &View<'_>,
    sort: Column,
    reverse: bool,
    filter: &str,
) -> io::Result<()> {
    let host: Vec<_> = summary::host(view.snapshot)
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    writeln!(out, "{}", host.join("   "))?;
    writeln!(out)?;
    let totals = summary::totals(view);
    for (heading, value, rate) in &totals {
        let rate = rate.as_deref().unwrap_or("");
        writeln!(
            out,
            "{}",
            format!("{heading:<24}{value:>12} {rate:>10}").trim_end()
        )?;
    }
    writeln!(out)?;
    writeln!(out, "{}", summary::verdict(view))?;
    if let Some(unlisted) = summary::unlisted(view) {
        writeln!(out, "{unlisted}")?;
    }
    if let Some(uncounted) = summary::uncounted(view.snapshot) {
        writeln!(out, "{uncounted}")?;
    }

    let vms = view.sorted(sort, reverse, filter);
    if vms.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns: Vec<_> = Column::value_variants()
        .iter()
        .filter(|&&column| column != Column::Rate || view.change.is_some())
        .filter(|column| column.is_told(view.snapshot))
        .collect();
    let rows: Vec<Vec<String>> = std::iter::once(None)
        .chain(vms.into_iter().map(Some))
        .map(|vm| {
            let cell = |column: &&Column| match vm {
                Some(vm) => column.cell(view, vm),
                None => column.heading(view).into(),
            };
            columns.iter().map(cell).collect()
        })
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            rows.iter()
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .zip(&columns)
            .map(|((cell, &width), column)| {
                if column.is_number() {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! What explains the tool: the man page, and the counters.

use crate::{
    cli::Cli,
    counters::{Field, Size, Stat, Timing},
    error::STATUSES,
    snapshot::DEFAULT_ROOT,
};
use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use std::io::{self, Write};

/// The files of the module, and the fields in each.
fn files() -> [(&'static str, Vec<&'static Field>); 3] {
    [
        ("stats", Stat::ALL.map(Stat::field).into()),
        ("latency", Timing::ALL.map(Timing::field).into()),
        ("info", Size::ALL.map(Size::field).into()),
    ]
}

/// Explains each counter.
///
/// # Errors
///
/// As `out`'s.
pub fn counters(out: &mut impl Write, markdown: bool) -> io::Result<()> {
    for (i, (file, fields)) in files().into_iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        if markdown {
            writeln!(
                out,
                "| `{file}` | kind | unit | meaning | what to do |\n|---|---|---|---|---|"
            )?;
        } else {
            writeln!(out, "{file}:")?;
        }
        for Field {
            name,
            kind,
            unit,
            help,
            advice,
            ..
        } in fields
        {
            let (kind, unit) = (kind.name(), unit.name());
            if markdown {
                writeln!(out, "| `{name}` | {kind} | {unit} | {help}. | {advice} |")?;
            } else {
                writeln!(
                    out,
                    "\n  {name} ({kind}, {unit})\n      {help}.\n      {advice}"
                )?;
            }
        }
    }
    Ok(())
}

/// The man page.
///
/// # Errors
///
/// As `out`'s.
pub fn man(out: &mut impl Write) -> io::Result<()> {
    let command = Cli::command().after_help("");
    let man = Man::new(command).section("8");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;

    let mut page = Roff::new();
    let mut list = |title: &str, items: &mut dyn Iterator<Item = (String, String)>| {
        page.control("SH", [title]);
        for (name, text) in items {
            page.control("TP", []);
            page.text([bold(name)]);
            page.text([roman(text)]);
        }
    };
    list(
        "COMMANDS",
        &mut Cli::command().get_subcommands().map(|command| {
            let usage = command
                .get_positionals()
                .map(|argument| format!(" {argument}"));
            let name = format!(
                "kvm-fwb-stat {}{}",
                command.get_name(),
                usage.collect::<String>()
            );
            let about = command.get_long_about().or(command.get_about());
            (name, about.map(ToString::to_string).unwrap_or_default())
        }),
    );
    list(
        "EXIT STATUS",
        &mut STATUSES
            .iter()
            .map(|&(status, text)| (status.to_string(), text.into())),
    );
    list(
        "COUNTERS",
        &mut files().into_iter().flat_map(|(file, fields)| {
            fields.into_iter().map(move |field| {
                let name = format!("{file}: {}", field.name);
                (
                    name,
                    format!(
                        "{}. Unit: {}. {}",
                        field.help,
                        field.unit.name(),
                        field.advice
                    ),
                )
            })
        }),
    );
    list(
        "FILES",
        &mut [(
            DEFAULT_ROOT,
            "The module's files. They are root's alone. Where debugfs is mounted elsewhere, they are \
             found there.",
        )]
        .into_iter()
        .map(own),
    );
    list(
        "EXAMPLES",
        &mut [
            (
                "kvm-fwb-stat",
                "Which guest costs this host most? The first in the list.",
            ),
            (
                "kvm-fwb-stat --once --interval 10",
                "The same on paper, with rates over ten seconds.",
            ),
            (
                "kvm-fwb-stat --csv --interval 60 >resets.csv",
                "Log every minute.",
            ),
            (
                "kvm-fwb-stat --prometheus /var/lib/prometheus/node-exporter/kvm_fwb_reset.prom",
                "For node_exporter, from a timer. Without the module the file says just that, and so it \
                 does where nothing can be read. One file for each host: of two \
                 node_exporter shows one, be it the older.",
            ),
            (
                "kvm-fwb-stat doctor",
                "Is this host's kernel doing it right, and would the module load?",
            ),
            (
                "kvm-fwb-stat doctor kvm_fwb_reset.ko && insmod kvm_fwb_reset.ko",
                "Would the kernel take this very file: its release, its signature?",
            ),
        ]
        .into_iter()
        .map(own),
    );
    page.to_writer(out)
}

fn own((name, text): (&str, &str)) -> (String, String) {
    (name.into(), text.into())
}

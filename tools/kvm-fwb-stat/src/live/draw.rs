// SPDX-License-Identifier: GPL-2.0

//! How it looks.

use super::app::{App, Page};
use crate::{
    counters::Stat,
    render::{
        column::{self, Column, View},
        summary, units,
    },
    snapshot::{Figures, Histogram, VmId},
};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Cell, Clear, Paragraph, Row, Table},
};

/// Two halves side by side need so many columns.
const WIDE: u16 = 100;
/// The full cells of a share's bar.
const SHARE: usize = 10;

const HEADING: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);
const WARNING: Style = Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD);
const BAR: Style = Style::new().fg(Color::Cyan);

const KEYS: &[(&str, &str)] = &[
    ("q", "quit"),
    ("?", "this help, and away"),
    ("up, down, PgUp, PgDn", "choose a VM, or scroll"),
    ("Enter", "show the VM's counters and histograms"),
    ("a", "show those of all VMs together, since load"),
    ("Esc", "back; in the list: no filter"),
    ("s, S", "sort by the next column, by the one before"),
    ("c", "sort by cost"),
    ("r", "sort the other way round"),
    ("/", "show only VMs with a text in their pid-fd or command"),
    ("p", "pause, and go on"),
    ("+, -", "look less, more often"),
];

/// Of these, what the last line has room for.
const FOOT: &[&str] = &[
    "? help",
    "q quit",
    "Enter details",
    "s sort",
    "/ filter",
    "p pause",
];

const COLUMNS: &[(&str, &str)] = &[
    (
        "VM",
        "pid and fd, as in KVM's debugfs; vm if it has none there",
    ),
    ("COMMAND", "command name of the VMM"),
    ("RESETS, RATE", "guest resets; in a second"),
    ("RE-INITS", "vCPUs initialised again: vCPUs times resets"),
    (
        "ICACHE",
        "invalidations of the I-caches of all PEs of the host",
    ),
    ("UNMAPS", "times that all the guest's memory was unmapped"),
    ("ELIDED", "of these two, what the module left out"),
    (
        "UNCLEANED, FLUSHES",
        "without FEAT_S2FWB: what lazy left, what MMUs cost",
    ),
    (
        "TIME",
        "what its resets took; with an older module COST, in operations",
    ),
    ("SHARE", "its part of what all VMs in the list cost"),
    ("OWES", "what is to be done at its next KVM_RUN"),
];

impl App {
    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        self.settle();
        self.scroll_end.set(0);
        self.wish.set(None);
        let [head, body, foot] = Layout::vertical([
            Constraint::Length(self.head_height(frame.area())),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        if self.help {
            // All the room there is.
            let area = head.union(body);
            frame.render_widget(Clear, area);
            self.draw_help(frame, area);
            frame.render_widget(self.foot(foot.width), foot);
            return;
        }
        // The table's state is changed while the VMs that it shows are borrowed.
        let mut table = std::mem::take(&mut self.table);
        if let Some(view) = self.view() {
            frame.render_widget(head_lines(&view, head.width), head);
            match &self.page {
                Page::List => self.draw_list(frame, body, &view, &mut table),
                Page::Vm(id) => self.draw_vm(frame, body, &view, id),
                Page::All => {
                    let title = " All VMs since load, those that are gone included ".into();
                    let rate = |stat| Some(view.change?.total(&view.snapshot.total, stat));
                    self.draw_figures(frame, body, title, &view.snapshot.total, rate);
                }
            }
        }
        self.table = table;
        frame.render_widget(self.foot(foot.width), foot);
    }

    /// A line as far as there is room, in whole words.
    fn fit<'a>(&self, line: Line<'a>, width: u16) -> Line<'a> {
        let width = usize::from(width);
        if line.width() > width {
            let widest = self.wish.get().unwrap_or(0).max(line.width());
            self.wish.set(Some(widest));
        }
        whole_words(line, width)
    }

    fn head_height(&self, area: Rect) -> u16 {
        let lines = self
            .view()
            .map_or(0, |view| head_lines(&view, area.width).lines.len());
        // Of what little there is, the list has the most.
        (lines as u16).min(area.height / 2)
    }

    /// The last line: what is wrong, what is being typed, or what keys there are.
    fn foot(&self, width: u16) -> Line<'_> {
        if self.typing {
            return Line::from(vec!["/".bold(), self.filter.as_str().into(), "_".into()]);
        }
        let cut = |line| whole_words(line, width.into());
        if let Some(trouble) = &self.trouble {
            return cut(Line::styled(
                format!("{trouble} (waiting; q quits)"),
                WARNING,
            ));
        }
        let mut spans = Vec::new();
        if self.paused {
            spans.push(Span::styled("PAUSED  ", WARNING));
        }
        if !self.filter.is_empty() {
            spans.push(Span::styled(format!("only /{}  ", self.filter), WARNING));
        }
        let unread = self.now.as_ref().and_then(|now| now.problems.first());
        if let Some(problem) = unread {
            spans.push(Span::styled(problem.as_str(), WARNING));
            return cut(spans.into());
        }
        if let Some(wish) = self.wish.get() {
            spans.push(Span::styled(format!("{wish} columns show all  "), WARNING));
        }
        let mut line = Line::from(spans);
        let interval = format!("every {} s", self.interval.as_secs_f64());
        // Keys give way to what else there is to say, the last first.
        let keys = (0..=FOOT.len()).rev().map(|n| {
            let items = FOOT[..n].iter().copied().chain([interval.as_str()]);
            items.collect::<Vec<_>>().join("  ")
        });
        let room = usize::from(width).saturating_sub(line.width());
        let keys = keys.into_iter().find(|keys| keys.len() <= room);
        line.push_span(keys.unwrap_or_default());
        cut(line)
    }

    fn draw_list(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        view: &View<'_>,
        state: &mut ratatui::widgets::TableState,
    ) {
        let vms = self.listed(view);
        let layout = column::Layout::new(view, &vms, area.width.into(), self.sort);
        if layout.width() < layout.wanted {
            self.wish.set(Some(layout.wanted));
        }
        let columns = layout.columns.clone();
        // The bar beside the share is drawn only where the rest has room.
        let has_bar = layout.width() + SHARE < usize::from(area.width)
            && columns.iter().any(|&(column, _)| column == Column::Share);
        let widths: Vec<u16> = (columns.iter())
            .map(|&(column, width)| match column {
                Column::Share if has_bar => (width + SHARE + 1) as u16,
                _ => width as u16,
            })
            .collect();
        let aligned = |column: Column, text: Line<'static>| {
            let is_bar = column == Column::Share && has_bar;
            text.alignment(if column.is_number() && !is_bar {
                Alignment::Right
            } else {
                Alignment::Left
            })
        };

        let header = columns.iter().map(|&(column, width)| {
            let heading = column::fit(column, column.heading(view).into(), width);
            let style = if column == self.sort {
                HEADING.reversed()
            } else {
                HEADING
            };
            Cell::from(aligned(column, heading.into())).style(style)
        });
        let rows = vms.iter().map(|vm| {
            Row::new(columns.iter().map(|&(column, width)| {
                let cell = column::fit(column, column.cell(view, vm), width);
                let line = match column {
                    Column::Share if has_bar => {
                        let bar = units::bar(view.share(vm), SHARE);
                        Line::from(vec![
                            format!("{cell:>width$} ").into(),
                            Span::styled(bar, BAR),
                        ])
                    }
                    _ => cell.into(),
                };
                Cell::from(aligned(column, line))
            }))
        });
        let table = Table::new(rows, widths.into_iter().map(Constraint::Length))
            .header(Row::new(header))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, state);
        if vms.is_empty() && area.height > 2 {
            let text = if self.filter.is_empty() {
                "No VM here was reset since it started. A VM appears at its first reset."
            } else {
                "No VM has this in its pid-fd or command. Esc shows all."
            };
            let below = Rect {
                y: area.y + 2,
                height: 1,
                ..area
            };
            let line = self.fit(Line::styled(text, FAINT), below.width);
            frame.render_widget(line, below);
        }
    }

    fn draw_vm(&self, frame: &mut Frame<'_>, area: Rect, view: &View<'_>, id: &VmId) {
        let Some(vm) = view.snapshot.vms.iter().find(|vm| vm.id == *id) else {
            let text = format!("VM {id} is gone. Esc goes back to the list.");
            frame.render_widget(self.fit(Line::styled(text, WARNING), area.width), area);
            return;
        };
        let cell = |column: Column| column.cell(view, vm);
        let title = format!(
            " {id} {}, {} vCPUs, {}, {} of the cost, owes {} ",
            vm.comm(),
            cell(Column::Vcpus),
            cell(Column::Memory),
            cell(Column::Share),
            vm.owed()
        );
        let rate = |stat| Some(view.change?.vm(id, &vm.figures, stat));
        self.draw_figures(frame, area, title, &vm.figures, rate);
    }

    /// Counters with their rates, and histograms.
    fn draw_figures(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: String,
        figures: &Figures,
        rate: impl Fn(Stat) -> Option<f64>,
    ) {
        let title = self.fit(title.bold().into(), area.width.saturating_sub(2));
        let block = Block::bordered().title(title);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let names = (figures.stats.iter()).map(|(stat, _)| stat.field().name.len());
        let name = names.max().unwrap_or(0) + 1;
        let name = name.max(20);
        let mut lines: Vec<_> = figures
            .stats
            .iter()
            .map(|(stat, value)| {
                let moved = |&rate: &f64| rate > 0.0 && stat != Stat::Pending;
                let field = stat.field();
                let rate = rate(stat)
                    .filter(moved)
                    .map(|rate| units::growth(rate, field.unit))
                    .unwrap_or_default();
                let value = units::value(value, field.unit);
                Line::from(format!("{:<name$}{value:>12} {rate:>9}", field.name))
            })
            .collect();
        let widest = lines.iter().map(Line::width).max().unwrap_or(0);
        let (left, right) = if inner.width + 2 >= WIDE {
            let [left, _, right] = Layout::horizontal([
                Constraint::Length(widest.try_into().unwrap_or(u16::MAX)),
                Constraint::Length(2),
                Constraint::Min(0),
            ])
            .areas(inner);
            (left, Some(right))
        } else {
            (inner, None)
        };
        let histograms = histograms(figures, right.unwrap_or(left).width);
        match right {
            Some(right) => self.draw_scrolled(frame, right, histograms),
            None => {
                lines.push(Line::default());
                lines.extend(histograms);
            }
        }
        self.draw_scrolled(frame, left, lines);
    }

    fn draw_help(&self, frame: &mut Frame<'_>, area: Rect) {
        let section = |title: &'static str, items: &[(&'static str, &'static str)]| {
            let mut lines = vec![Line::styled(title, HEADING)];
            lines.extend(items.iter().map(|&(name, text)| {
                Line::from(vec![format!("  {name:<21}").bold(), text.into()])
            }));
            lines.push(Line::default());
            lines
        };
        let mut lines = section("Keys", KEYS);
        lines.extend(section("Columns", COLUMNS));
        lines.push("kvm-fwb-stat counters explains every counter, and what to do about it.".into());
        self.draw_scrolled(frame, area, lines);
    }

    /// As far down as it was scrolled, but no farther than the end.
    fn draw_scrolled(&self, frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
        let most = lines.len().saturating_sub(area.height.into());
        self.scroll_end.set(self.scroll_end.get().max(most));
        let scroll = self.scroll.min(most).try_into().unwrap_or(u16::MAX);
        let lines = lines.into_iter().map(|line| self.fit(line, area.width));
        let lines: Vec<_> = lines.collect();
        frame.render_widget(Paragraph::new(lines).scroll((scroll, 0)), area);
    }
}

/// The lines above the list: who costs most, the host, and the totals.
fn head_lines<'a>(view: &View<'a>, width: u16) -> Text<'a> {
    let host = summary::host(view.snapshot)
        .into_iter()
        .map(|(name, value)| {
            let style = match value {
                "degraded" => WARNING,
                _ => Style::new(),
            };
            vec![
                Span::styled(format!("{name} "), FAINT),
                Span::styled(value, style),
            ]
        });
    let totals = summary::totals(view)
        .into_iter()
        .map(|(heading, value, rate)| {
            let rate = rate.map_or_else(String::new, |rate| format!(" ({rate})"));
            let style = if heading == "busy" && value != "0" {
                WARNING
            } else {
                HEADING
            };
            vec![
                Span::styled(format!("{heading} "), FAINT),
                Span::styled(value, style),
                Span::raw(rate),
            ]
        });
    // What the operator came for stays even where there is little room.
    let words = |text: String, style| {
        let words = text
            .split(' ')
            .map(|word| vec![Span::styled(word.to_owned(), style)]);
        flow(words.collect::<Vec<_>>().into_iter(), " ", width)
    };
    let mut lines = words(summary::verdict(view), HEADING);
    if let Some(unlisted) = summary::unlisted(view) {
        lines.extend(words(unlisted, Style::new()));
    }
    if let Some(uncounted) = summary::uncounted(view.snapshot) {
        lines.extend(words(uncounted, Style::new()));
    }
    lines.extend(flow(host, GAP, width));
    lines.extend(flow(totals, GAP, width));
    lines.push(Line::default());
    lines.into()
}

/// Between two items of a line.
const GAP: &str = "   ";

/// Items one after the other, with `gap` between, in as many lines as they need.
fn flow<'a>(
    items: impl Iterator<Item = Vec<Span<'a>>>,
    gap: &'static str,
    width: u16,
) -> Vec<Line<'a>> {
    let width = usize::from(width);
    let mut lines = vec![Line::default()];
    for item in items {
        let item = whole_words(item.into(), width);
        let is_full = lines.last().is_some_and(|line| {
            line.width() > 0 && line.width() + gap.len() + item.width() > width
        });
        if is_full {
            lines.push(Line::default());
        }
        if let Some(line) = lines.last_mut() {
            if line.width() > 0 {
                line.push_span(gap);
            }
            line.spans.extend(item.spans);
        }
    }
    lines
}

/// As many words of `line` as `width` holds, and a mark where some are left out: half a number
/// reads as another one.
fn whole_words(line: Line<'_>, width: usize) -> Line<'_> {
    if line.width() <= width {
        return line;
    }
    let text: String = line
        .spans
        .iter()
        .map(|span| span.content.as_ref())
        .collect();
    let ends = text.match_indices(' ').map(|(at, _)| at);
    let fits = |&end: &usize| Span::raw(&text[..end]).width() + 2 <= width;
    let mut left = ends.filter(fits).last().unwrap_or(0);
    let mut cut = Line::default().style(line.style);
    for span in line.spans {
        let part: String = span
            .content
            .chars()
            .take_while(|c| {
                let is_in = c.len_utf8() <= left;
                left = if is_in { left - c.len_utf8() } else { 0 };
                is_in
            })
            .collect();
        cut.push_span(Span::styled(part, span.style));
    }
    if cut.width() > 0 {
        cut.push_span(" ");
    }
    if width > 0 {
        cut.push_span("…");
    }
    cut
}

fn histograms(figures: &Figures, width: u16) -> Vec<Line<'static>> {
    let Some(latency) = &figures.latency else {
        return vec![Line::styled(
            "The module is too old to measure time.",
            FAINT,
        )];
    };
    let mut lines = Vec::new();
    for (timing, times) in latency.iter() {
        lines.extend(histogram(timing.field().name, times, width));
        lines.push(Line::default());
    }
    lines
}

/// A bar for each power of two, the longest over all the width there is.
fn histogram(name: &'static str, times: &Histogram, width: u16) -> Vec<Line<'static>> {
    let summary = match times.mean_ns() {
        Some(mean) => {
            let (mean, sum) = (units::time(mean), units::time(times.sum_ns));
            format!("  {} times, {mean} in the mean, {sum} in all", times.count)
        }
        None => "  never".into(),
    };
    let mut lines = vec![Line::from(vec![
        Span::styled(name, HEADING),
        summary.into(),
    ])];
    let buckets = times.span();
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    let digits = most.to_string().len();
    // From, and the count.
    let room = usize::from(width)
        .saturating_sub(9 + 1 + digits + 1)
        .min(60);
    lines.extend(buckets.into_iter().map(|bucket| {
        let bar = units::bar(bucket.count as f64 / most.max(1) as f64, room);
        Line::from(vec![
            Span::styled(format!("{:>9} ", units::time(bucket.from_ns)), FAINT),
            Span::styled(format!("{:>digits$} ", bucket.count), Style::new()),
            Span::styled(bar, BAR),
        ])
    }));
    lines
}

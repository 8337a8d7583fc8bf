// SPDX-License-Identifier: GPL-2.0

//! What the screen shows, and what keys do to it. Knows nothing of a terminal.

use crate::{
    error::{Error, Result},
    render::column::{Column, View},
    snapshot::{Snapshot, Tree, Vm, VmId},
};
use clap::ValueEnum;
use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    widgets::TableState,
};
use std::{cell::Cell, time::Duration};

/// Between two looks, unless told otherwise.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The intervals that a key can choose, in milliseconds.
const INTERVALS: [u64; 9] = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// How far a page of keys goes.
const PAGE: usize = 10;

/// What a key asks of the one who waits for keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Draw again.
    Draw,
    /// Look again, at once.
    Look,
    /// Stop the process, as a shell's job.
    Suspend,
    /// End.
    Quit,
}

/// What fills the screen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Page {
    /// The list of VMs.
    List,
    /// One VM.
    Vm(VmId),
    /// All VMs together, since load.
    All,
}

/// The live screen's state.
#[derive(Debug)]
pub struct App {
    tree: Tree,
    pub(super) interval: Duration,
    pub(super) sort: Column,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) page: Page,
    /// How far the page, or the help, is scrolled.
    pub(super) scroll: usize,
    /// How far it can be, as it was drawn last.
    pub(super) scroll_end: Cell<usize>,
    /// The width that it would take to show all, where it was drawn narrower.
    pub(super) wish: Cell<Option<usize>>,
    /// The VM that the bar is on. It stays on it as others come, go and change places.
    selected: Option<VmId>,
    pub(super) table: TableState,
    pub(super) now: Option<Snapshot>,
    pub(super) before: Option<Snapshot>,
    /// Why the last look failed.
    pub(super) trouble: Option<Error>,
}

impl App {
    /// A screen that looks at `tree`.
    pub fn new(
        tree: Tree,
        interval: Duration,
        sort: Column,
        reverse: bool,
        filter: String,
    ) -> Self {
        Self {
            tree,
            interval,
            sort,
            reverse,
            filter,
            typing: false,
            paused: false,
            help: false,
            page: Page::List,
            scroll: 0,
            scroll_end: Cell::new(0),
            wish: Cell::new(None),
            selected: None,
            table: TableState::default().with_selected(0),
            now: None,
            before: None,
            trouble: None,
        }
    }

    /// The first look: nothing is drawn where there is nothing to see.
    ///
    /// # Errors
    ///
    /// As [`Tree::read`].
    pub fn start(&mut self) -> Result<()> {
        self.show(self.tree.read()?);
        Ok(())
    }

    /// Looks again, unless paused. What it cannot see now may come back: the module, say.
    pub fn look(&mut self) {
        if self.paused {
            return;
        }
        match self.tree.read() {
            Ok(snapshot) => self.show(snapshot),
            Err(error) => {
                // What was counted before it went has nothing to do with what will be counted.
                self.before = None;
                self.trouble = Some(error);
            }
        }
    }

    /// Shows `snapshot` from now on.
    pub(super) fn show(&mut self, snapshot: Snapshot) {
        self.before = match self.trouble.take() {
            None => self.now.take(),
            Some(_) => None,
        };
        self.now = Some(snapshot);
    }

    /// How long to wait between two looks.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// What there is to show, if anything was ever seen.
    pub(super) fn view(&self) -> Option<View<'_>> {
        let now = self.now.as_ref()?;
        Some(View::new(now, self.before.as_ref()))
    }

    /// The VMs in the list.
    pub(super) fn listed<'a>(&self, view: &View<'a>) -> Vec<&'a Vm> {
        view.sorted(self.sort, self.reverse, &self.filter)
    }

    /// Puts the bar on the VM that it was on, or where that was.
    pub(super) fn settle(&mut self) {
        let ids = self.listed_ids();
        let at = self
            .selected
            .as_ref()
            .and_then(|id| ids.iter().position(|each| each == id));
        let at = at
            .or(self.table.selected())
            .unwrap_or(0)
            .min(ids.len().saturating_sub(1));
        self.table.select((!ids.is_empty()).then_some(at));
    }

    fn listed_ids(&self) -> Vec<VmId> {
        let view = self.view();
        let vms = view.map_or_else(Vec::new, |view| self.listed(&view));
        vms.into_iter().map(|vm| vm.id.clone()).collect()
    }

    /// Moves the bar, or scrolls.
    fn go(&mut self, step: impl Fn(usize) -> usize) {
        if self.help || self.page != Page::List {
            self.scroll = step(self.scroll).min(self.scroll_end.get());
            return;
        }
        let ids = self.listed_ids();
        let at = step(self.table.selected().unwrap_or(0)).min(ids.len().saturating_sub(1));
        self.selected = ids.get(at).cloned();
        self.table.select(self.selected.as_ref().map(|_| at));
    }

    /// Does what `key` asks for.
    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::Draw,
            };
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                self.help = !self.help;
                self.scroll = 0;
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Up | KeyCode::Char('k') => self.go(|at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(|at| at + 1),
            KeyCode::PageUp => self.go(|at| at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.go(|at| at + PAGE),
            KeyCode::Home => self.go(|_| 0),
            KeyCode::End => self.go(|_| usize::from(u16::MAX)),
            _ if self.help => (),
            KeyCode::Enter | KeyCode::Right => {
                let at = self.table.selected().unwrap_or(0);
                if let (Page::List, Some(id)) = (&self.page, self.listed_ids().get(at)) {
                    self.open(Page::Vm(id.clone()));
                }
            }
            KeyCode::Char('a') => self.open(Page::All),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('s' | '>') => self.sort_by(1),
            KeyCode::Char('S' | '<') => self.sort_by(-1),
            KeyCode::Char('c') => self.sort = Column::Cost,
            KeyCode::Char('/') => {
                self.page = Page::List;
                self.typing = true;
            }
            KeyCode::Char('+' | '=') => return self.next_interval(true),
            KeyCode::Char('-') => return self.next_interval(false),
            _ => (),
        }
        Action::Draw
    }

    fn open(&mut self, page: Page) {
        if let Page::Vm(id) = &page {
            self.selected = Some(id.clone());
        }
        self.page = page;
        self.scroll = 0;
    }

    /// One step back: from the help, from a page, from a filter.
    fn back(&mut self) {
        self.scroll = 0;
        if self.help {
            self.help = false;
        } else if self.page != Page::List {
            self.page = Page::List;
        } else {
            self.filter.clear();
        }
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.push(c),
            _ => (),
        }
    }

    fn sort_by(&mut self, step: isize) {
        let is_told = |column: &Column| {
            let now = self.now.as_ref();
            now.is_none_or(|now| column.is_told(now))
        };
        let columns: Vec<_> = (Column::value_variants().iter().copied())
            .filter(is_told)
            .collect();
        let at = columns
            .iter()
            .position(|&column| column == self.sort)
            .unwrap_or(0);
        let next = (at as isize + step).rem_euclid(columns.len() as isize);
        self.sort = columns[next as usize];
        self.reverse = false;
    }

    fn next_interval(&mut self, longer: bool) -> Action {
        let now = self.interval.as_millis() as u64;
        let next = if longer {
            INTERVALS.into_iter().find(|&each| each > now)
        } else {
            INTERVALS.into_iter().rev().find(|&each| each < now)
        };
        self.interval = next.map_or(self.interval, Duration::from_millis);
        Action::Look
    }
}

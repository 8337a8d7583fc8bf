// SPDX-License-Identifier: GPL-2.0

//! The terminal: taken, and given back as it was, however this ends.

use super::app::{Action, App};
use crate::error::Result;
use ratatui::{
    crossterm::{
        cursor::Show,
        event::{self, Event},
        execute,
        terminal::{
            self, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
        },
    },
    layout::Rect,
    prelude::CrosstermBackend,
    {TerminalOptions, Viewport},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP},
    flag, low_level,
};
use std::{
    io::{self, Stdout},
    mem::ManuallyDrop,
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a signal may have to wait.
const SIGNAL: Duration = Duration::from_millis(100);

/// Shows the live screen until the user or a signal ends it.
///
/// # Errors
///
/// Where there is nothing to show from the start, or the terminal fails.
pub fn run(mut app: App) -> Result<()> {
    app.start()?;
    let signal = Arc::new(AtomicUsize::new(0));
    for each in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
        flag::register_usize(each, Arc::clone(&signal), each as usize)?;
    }
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        hook(info);
    }));

    let mut screen = Screen::new()?;
    let ended = screen.show(&mut app, &signal);
    drop(screen);
    // As if it had not been caught, for the shell's sake.
    match signal.load(Ordering::Relaxed) {
        0 => (),
        signal => low_level::emulate_default_handler(signal as i32)?,
    }
    Ok(ended?)
}

/// What a terminal has that does not say its size, as a serial console does.
const USUAL: (u16, u16) = (80, 24);

/// What there is to draw on, by the width and height that the terminal tells.
fn area((width, height): (u16, u16)) -> Rect {
    let or = |told, usual| if told == 0 { usual } else { told };
    Rect::new(0, 0, or(width, USUAL.0), or(height, USUAL.1))
}

/// The terminal in raw mode, on its other screen, while this lives.
struct Screen {
    /// Not dropped: with the terminal gone it would fail to show the cursor, and panic to say so.
    terminal: ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stdout>>>,
    area: Rect,
}

impl Screen {
    fn new() -> io::Result<Self> {
        let area = area(terminal::size()?);
        let terminal = ratatui::Terminal::with_options(
            CrosstermBackend::new(io::stdout()),
            // Or it would ask the terminal for its size, and believe it.
            TerminalOptions {
                viewport: Viewport::Fixed(area),
            },
        )?;
        let mut screen = Self {
            terminal: ManuallyDrop::new(terminal),
            area,
        };
        screen.take()?;
        Ok(screen)
    }

    fn take(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.terminal.clear()
    }

    fn show(&mut self, app: &mut App, signal: &AtomicUsize) -> io::Result<()> {
        let mut looked = Instant::now();
        while signal.load(Ordering::Relaxed) == 0 {
            let area = area(terminal::size()?);
            if area != self.area {
                self.area = area;
                self.terminal.resize(area)?;
            }
            self.terminal.draw(|frame| app.draw(frame))?;
            let action = next(app, looked, signal)?;
            match action {
                Action::Quit => break,
                Action::Draw => (),
                Action::Look => {
                    app.look();
                    looked = Instant::now();
                }
                Action::Suspend => {
                    restore();
                    low_level::emulate_default_handler(SIGTSTP)?;
                    self.take()?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// What to do next, at the latest when it is time to look again.
fn next(app: &mut App, looked: Instant, signal: &AtomicUsize) -> io::Result<Action> {
    while signal.load(Ordering::Relaxed) == 0 {
        let left = app.interval().saturating_sub(looked.elapsed());
        if left.is_zero() {
            return Ok(Action::Look);
        }
        if event::poll(left.min(SIGNAL))? {
            return Ok(match event::read()? {
                Event::Key(key) => app.key(key),
                _ => Action::Draw,
            });
        }
    }
    Ok(Action::Draw)
}

/// Gives the terminal back. If it is gone, there is nobody to tell.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        assert_eq!(area((0, 0)), Rect::new(0, 0, 80, 24));
        assert_eq!(area((132, 0)), Rect::new(0, 0, 132, 24));
        assert_eq!(area((20, 4)), Rect::new(0, 0, 20, 4));
    }
}

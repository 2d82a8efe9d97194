//! `celeriac top`: all queues in a terminal, what needs a person first, anew each second.
//!
//! What is on the screen is a function of the [state](state::TopState), and what a key does is one, too. This reads the keys,
//! asks for the figures, and draws. The terminal is given back as it was, also after a panic and a SIGTERM.

mod screen;
mod state;

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::Failure;
use super::figures::{FigureSource, FiguresArgs};
use crate::core::report::{Diagnosis, diagnose};
use state::{TopEffect, TopKey, TopState};

/// The time between the end of a look and the next one.
const EVERY: Duration = Duration::from_secs(1);
/// How often the reader of keys sees whether it is still wanted.
const POLL: Duration = Duration::from_millis(200);
/// The width of a frame that is printed.
const WIDTH: u16 = 120;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    figures: FiguresArgs,
    /// Print one frame, and end. It needs no terminal.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: &TopArgs, out: &mut impl Write) -> Result<(), Failure> {
    if !args.once && !stdout().is_terminal() {
        let text = "standard output is no terminal: print one frame with --once, or use `celeriac report`";
        return Err(Failure::CommandLine(text.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let source = args.figures.open().await?;
        let done = if args.once { once(&source, out).await } else { live(&source).await };
        let closed = source.close().await;
        done?;
        closed
    })
}

async fn look(source: &FigureSource, pause: Duration) -> Result<Diagnosis, Failure> {
    tokio::time::sleep(pause).await;
    Ok(diagnose(source.look().await?))
}

async fn once(source: &FigureSource, out: &mut impl Write) -> Result<(), Failure> {
    let mut state = TopState::new(source.place(), false);
    state.looked(Ok(look(source, Duration::ZERO).await?));
    for line in screen::printed(&state, WIDTH) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

async fn live(source: &FigureSource) -> Result<(), Failure> {
    let state = TopState::new(source.place(), std::env::var_os("NO_COLOR").is_none());
    // Before the terminal is changed: from then on it is always given back.
    let ended = told_to_end()?;
    // It restores the terminal if this panics, too.
    let mut terminal = ratatui::try_init()?;
    let done = watch(source, state, &mut terminal, ended).await;
    let restored = ratatui::try_restore();
    done?;
    Ok(restored?)
}

async fn watch(
    source: &FigureSource,
    mut state: TopState,
    terminal: &mut DefaultTerminal,
    ended: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut keys = keys();
    let mut next = Box::pin(look(source, Duration::ZERO));
    let mut ended = std::pin::pin!(ended);
    loop {
        terminal.draw(|frame| {
            let area = frame.area();
            screen::draw(&state, area, frame.buffer_mut());
        })?;
        tokio::select! {
            seen = &mut next => {
                state.looked(seen.map_err(|failure| failure.to_string()));
                next = Box::pin(look(source, EVERY));
            }
            key = keys.recv() => {
                let Some(key) = key else { return Ok(()) }; // nobody reads keys any more
                match state.press(key) {
                    TopEffect::Quit => return Ok(()),
                    TopEffect::SetPaused { queue, pause } => {
                        let said = source.set_paused(&queue, pause).await;
                        state.told(said.unwrap_or_else(|failure| failure.to_string()));
                        next = Box::pin(look(source, Duration::ZERO));
                    }
                    TopEffect::Nothing => {}
                }
            }
            () = &mut ended => return Ok(()),
        }
    }
}

/// Listens for a SIGTERM from now on. The future ends with it.
#[cfg(unix)]
fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        signal.recv().await;
    })
}

#[cfg(not(unix))]
fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// Reads the keys on a thread of its own, which ends when nobody wants them.
fn keys() -> mpsc::UnboundedReceiver<TopKey> {
    let (tell, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !tell.is_closed() {
            match event::poll(POLL) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let Ok(event) = event::read() else { return };
            if let Some(key) = of_event(&event)
                && tell.send(key).is_err()
            {
                return;
            }
        }
    });
    keys
}

/// What an event of the terminal means; `None`: nothing.
fn of_event(event: &Event) -> Option<TopKey> {
    match event {
        Event::Resize(..) => Some(TopKey::Other),
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(of_key(key)),
        _ => None,
    }
}

fn of_key(key: &KeyEvent) -> TopKey {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => TopKey::Quit,
        KeyCode::Char('q') => TopKey::Quit,
        KeyCode::Up | KeyCode::Char('k') => TopKey::Up,
        KeyCode::Down | KeyCode::Char('j') => TopKey::Down,
        KeyCode::Enter => TopKey::Open,
        KeyCode::Esc | KeyCode::Backspace => TopKey::Back,
        KeyCode::Char('p') => TopKey::Pause,
        KeyCode::Char('y') => TopKey::Yes,
        KeyCode::Char('?') => TopKey::Help,
        _ => TopKey::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_the_help_names() {
        let plain = |code| of_event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        assert_eq!(plain(KeyCode::Char('q')), Some(TopKey::Quit));
        assert_eq!(plain(KeyCode::Char('j')), plain(KeyCode::Down));
        assert_eq!(plain(KeyCode::Char('k')), plain(KeyCode::Up));
        assert_eq!(plain(KeyCode::Char('c')), Some(TopKey::Other));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(of_event(&Event::Key(control)), Some(TopKey::Quit));
        assert_eq!(of_event(&Event::Resize(10, 10)), Some(TopKey::Other));
        assert_eq!(of_event(&Event::FocusLost), None);
    }
}

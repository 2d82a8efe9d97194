//! What the Rust side of the fleets has logged last, for the message of a case that fails.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// So many lines are kept.
const LINES: usize = 2000;

/// The last lines, and how many have come before them.
struct LastLines {
    lines: VecDeque<String>,
    gone: usize,
}

static LAST: Mutex<LastLines> = Mutex::new(LastLines { lines: VecDeque::new(), gone: 0 });

fn last() -> MutexGuard<'static, LastLines> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on keeps what this process logs.
pub fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| ToLastLines);
        subscriber.init();
    });
}

/// How many lines were logged so far.
pub fn position() -> usize {
    let last = last();
    last.gone + last.lines.len()
}

/// What was logged since then, as far as it is kept.
pub fn since(position: usize) -> String {
    let last = last();
    let from = position.saturating_sub(last.gone).min(last.lines.len());
    last.lines.range(from..).map(|line| format!("{line}\n")).collect()
}

/// Takes what the subscriber writes: one event at a time, as one line or several.
struct ToLastLines;

impl io::Write for ToLastLines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut last = last();
        last.lines.extend(String::from_utf8_lossy(text).lines().map(str::to_owned));
        let over = last.lines.len().saturating_sub(LINES);
        last.lines.drain(..over);
        last.gone += over;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

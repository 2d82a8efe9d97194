//! The states that tasks which are not over have told of themselves, in a small file of its own.
//!
//! The file is there for progress: a bar that a user has seen must not go back because the process was killed. A
//! state is written but not synced, as a start is. A write survives `kill -9`; after a power cut a bar may start
//! over, which harms no task. So a state costs some microseconds and no place in the group commit.
//!
//! Each line is a JSON document, and the last line of an id counts. A line that does not parse, such as a torn
//! last line, is passed over. The first state makes the file. It is started over when it is opened and when it has
//! grown: then it holds the last state of each task that is not over.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::home::private;
use crate::task::{Json, TaskId, TrackedState};

/// The size in bytes above which the file is started over, if that at least halves it.
const LARGE: u64 = 1 << 20;

/// The file of states.
pub(super) struct States {
    inner: Mutex<StateTable>,
}

struct StateTable {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    /// The size of the file when it was started over.
    least: u64,
    failed: bool,
}

#[derive(Serialize, Deserialize)]
struct TaskStateLine {
    id: TaskId,
    state: String,
    meta: Json,
}

impl States {
    /// Reads the file. Answers with the handle, which has not touched the file yet, and the last state of each
    /// task.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<TrackedState>)> {
        let path = dir.join("states");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut last = std::collections::HashMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<TaskStateLine>(line).ok()) {
            last.insert(line.id.clone(), line);
        }
        let state = |line: TaskStateLine| TrackedState {
            id: line.id,
            state: line.state,
            meta: line.meta,
            traceback: None,
            lineage: None,
        };
        let inner = StateTable { path, file: None, len: text.len() as u64, least: 0, failed: false };
        Ok((Self { inner: Mutex::new(inner) }, last.into_values().map(state).collect()))
    }

    /// Writes a state. `all` gives the states of all tasks that are not over, in case the file is started over. A
    /// failure is logged once and reported to nobody, because no task should fail for a state.
    pub(super) fn write(&self, state: &TrackedState, all: impl FnOnce() -> Vec<TrackedState>) {
        let mut inner = self.inner.lock();
        let written = if inner.len > LARGE && inner.len > 2 * inner.least {
            let mut all = all();
            all.retain(|other| other.id != state.id);
            all.push(state.clone());
            inner.start_over(&all)
        } else {
            inner.append(state)
        };
        inner.tell(written);
    }

    /// Makes the file hold these states and nothing else.
    pub(super) fn start_over(&self, all: &[TrackedState]) {
        let mut inner = self.inner.lock();
        if inner.len > 0 || !all.is_empty() {
            let written = inner.start_over(all);
            inner.tell(written);
        }
    }
}

impl StateTable {
    fn append(&mut self, state: &TrackedState) -> io::Result<()> {
        let line = line(state)?;
        if self.file.is_none() {
            self.file = Some(private().create(true).append(true).open(&self.path)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&line)?;
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Writes the states to another file first and renames it, so that a crash leaves the old file.
    fn start_over(&mut self, all: &[TrackedState]) -> io::Result<()> {
        let mut text = Vec::new();
        for state in all {
            text.extend_from_slice(&line(state)?);
        }
        let aside = self.path.with_extension("new");
        private().create(true).truncate(true).write(true).open(&aside)?.write_all(&text)?;
        std::fs::rename(&aside, &self.path)?;
        self.file = None;
        (self.len, self.least) = (text.len() as u64, text.len() as u64);
        Ok(())
    }

    fn tell(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                let path = self.path.display();
                tracing::warn!(%path, %error, "the progress of tasks is not written; after a crash their bars start over");
            }
            Err(_) => {}
        }
    }
}

fn line(state: &TrackedState) -> io::Result<Vec<u8>> {
    let line = TaskStateLine { id: state.id.clone(), state: state.state.clone(), meta: state.meta.clone() };
    let mut line = serde_json::to_vec(&line)?;
    // The application's JSON may be formatted over several lines; inside of a JSON string there is no such byte.
    line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn state(id: &str, step: u64) -> TrackedState {
        let meta = serde_json::json!({ "current": step, "total": 1_000_000 });
        TrackedState {
            id: id.into(),
            state: "PROGRESS".into(),
            meta: meta.into(),
            traceback: None,
            lineage: None,
        }
    }

    fn read(dir: &Path) -> Vec<TrackedState> {
        let mut found = States::open(dir).unwrap().1;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    #[test]
    fn the_last_state_of_each_task_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_empty() && !dir.path().join("states").exists());
        let (states, _) = States::open(dir.path()).unwrap();
        for step in 0..100 {
            states.write(&state("a", step), Vec::new);
            states.write(&state("b", step * 2), Vec::new);
        }
        assert_eq!(read(dir.path()), [state("a", 99), state("b", 198)]);
        let mut file = OpenOptions::new().append(true).open(dir.path().join("states")).unwrap();
        file.write_all(b"{\"id\":\"a\",\"sta").unwrap(); // torn
        assert_eq!(read(dir.path()), [state("a", 99), state("b", 198)]);
        states.start_over(&[state("b", 5)]);
        assert_eq!(read(dir.path()), [state("b", 5)]);
    }

    #[test]
    fn the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let (states, _) = States::open(dir.path()).unwrap();
        let mut last = state("a", 0);
        for step in 0..60_000 {
            let next = state("a", step);
            states.write(&next, || vec![last.clone()]);
            last = next;
        }
        let len = std::fs::metadata(dir.path().join("states")).unwrap().len();
        assert!(len < 2 * LARGE, "{len}");
        assert_eq!(read(dir.path()), [last]);
    }
}

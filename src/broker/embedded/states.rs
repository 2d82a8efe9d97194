//! What tasks that are not over have told of themselves, in a small file of its own.
//!
//! It is there for progress: a bar that somebody has seen must not go back because the process was killed. A state is
//! written but not synced, as a start is: a write survives `kill -9`; after a power cut a bar may start over, and no task
//! is the worse for it. So a state costs some microseconds and no place in the group commit.
//!
//! One JSON document a line, the last one of an id counts; what does not parse, such as a torn last line, is passed over.
//! The file is made with the first state, and started over when it is opened and when it has grown: then it holds the last
//! state of each task that is not over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::task::{TaskId, TrackedState};

/// The file is started over when it is larger than this, and than twice what it would be then.
const LARGE: u64 = 1 << 20;

/// The file.
pub(super) struct States {
    inner: Mutex<Inner>,
}

struct Inner {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    /// What it took when it was started over.
    least: u64,
    failed: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: TaskId,
    state: String,
    meta: Value,
}

impl States {
    /// What the file says, the last state of each task, and the file, which is not touched yet.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<TrackedState>)> {
        let path = dir.join("states");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut last = std::collections::HashMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            last.insert(line.id.clone(), line);
        }
        let state = |line: Line| TrackedState {
            id: line.id,
            state: line.state,
            meta: line.meta,
            traceback: None,
            lineage: None,
        };
        let inner = Inner { path, file: None, len: text.len() as u64, least: 0, failed: false };
        Ok((Self { inner: Mutex::new(inner) }, last.into_values().map(state).collect()))
    }

    /// Writes a state; `all` are those of all tasks that are not over, should the file be started over. A failure is told once:
    /// states are not worth a task.
    pub(super) fn write(&self, state: &TrackedState, all: impl FnOnce() -> Vec<TrackedState>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Has the file hold these, and nothing else.
    pub(super) fn start_over(&self, all: &[TrackedState]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.len > 0 || !all.is_empty() {
            let written = inner.start_over(all);
            inner.tell(written);
        }
    }
}

impl Inner {
    fn append(&mut self, state: &TrackedState) -> io::Result<()> {
        let line = line(state)?;
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&line)?;
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Under another name first, so that a crash leaves the old one.
    fn start_over(&mut self, all: &[TrackedState]) -> io::Result<()> {
        let mut text = Vec::new();
        for state in all {
            text.extend_from_slice(&line(state)?);
        }
        let aside = self.path.with_extension("new");
        std::fs::write(&aside, &text)?;
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
    let line = Line { id: state.id.clone(), state: state.state.clone(), meta: state.meta.clone() };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, step: u64) -> TrackedState {
        let meta = serde_json::json!({ "current": step, "total": 1_000_000 });
        TrackedState { id: id.into(), state: "PROGRESS".into(), meta, traceback: None, lineage: None }
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

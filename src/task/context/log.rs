//! The last lines that the body of a run has logged.

use std::sync::Arc;

use super::Context;
use crate::task::run_log::{LogExcerpt, RunLog, are_seen};

impl Context {
    /// Keeps what the body logs, if anybody sees it and the task wants it kept. It is called before the body starts.
    pub(crate) fn open_log(&self, is_wanted: impl FnOnce() -> bool) {
        if are_seen() && is_wanted() {
            let _ = self.run.log.set(Arc::default());
        }
    }

    /// The log of the run, if there is one.
    pub(crate) fn log(&self) -> Option<&Arc<RunLog>> {
        self.run.log.get()
    }

    /// Takes out what the body has logged.
    pub(crate) fn take_log(&self) -> LogExcerpt {
        self.log().map(|log| log.take()).unwrap_or_default()
    }
}

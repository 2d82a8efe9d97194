//! Where a body's reports go.

use std::sync::{Arc, Weak};

use super::download::DownloadSink;
use super::event_funnel::EventFunnel;
use super::progress::ProgressSink;
use super::{Client, DataMap, TrackedState};

/// Publishes the states that bodies report. An implementation must not block.
pub(crate) trait StateSink: Send + Sync {
    fn update(&self, state: TrackedState);

    /// Publishes the state of a progress bar.
    fn update_bar(&self, state: TrackedState) {
        self.update(state);
    }

    /// The body has failed the task with these errors, whatever it does next.
    fn failed(&self, _errors: &[String]) {}
}

/// The receivers of what a body reports, and the client that sends for it. A
/// [detached](super::Context::detached) context has none.
#[derive(Clone, Default)]
pub(crate) struct Sinks {
    pub(crate) states: Option<Arc<dyn StateSink>>,
    pub(crate) progress: Option<Arc<dyn ProgressSink>>,
    pub(crate) downloads: Option<Arc<dyn DownloadSink>>,
    pub(crate) events: Option<Arc<EventFunnel>>,
    /// The client of the runtime that runs the body. With `None` the body uses the one that `delay` uses.
    pub(crate) client: Option<Weak<dyn Client>>,
    /// What the program has given to the runtime.
    pub(crate) data: Arc<DataMap>,
}

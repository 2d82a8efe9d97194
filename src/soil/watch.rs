//! A stream of the statuses of one task, each pushed when it changes.
//!
//! A task that runs in this program wakes its watchers itself: at its start, with each report of progress and at its
//! end. A task that waits is looked at again now and then, because nobody reports its place in line. A task that runs
//! in another program is looked at in the same way.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::{Soil, SoilError, SoilState, Status};
use crate::runtime::progress::{Watcher, watch};
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{TaskId, TaskResult};

/// The interval of the looks at a task that nobody reports on.
const LOOK: Duration = Duration::from_secs(2);
/// The interval of the looks at a task that reports itself, in case its reporter died.
const CHECK: Duration = Duration::from_secs(15);

type Record = Pin<Box<dyn Future<Output = Result<TaskResult, StoreError>> + Send>>;

struct StatusWatch {
    soil: Soil,
    id: TaskId,
    /// None yet, or none any more.
    watcher: Option<Watcher>,
    record: Record,
    last: Option<Status>,
    over: bool,
}

impl Soil {
    /// Streams the status of a task now and each time that it has changed. The last item is the status of a task that
    /// is over or that nobody knows, or an error. Drop the stream to stop watching.
    pub fn watch(&self, id: &TaskId) -> BoxStream<'static, Result<Status, SoilError>> {
        let (store, own) = (Arc::clone(&self.runtime().store), id.clone());
        let watch = StatusWatch {
            soil: self.clone(),
            id: id.clone(),
            watcher: None,
            record: Box::pin(async move { store.wait(&own).await }),
            last: None,
            over: false,
        };
        futures_util::stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next, watch))
        })
        .boxed()
    }
}

/// Looks up the status without the cache, because something may have changed just now.
async fn look(soil: &Soil, id: &TaskId) -> Result<Status, SoilError> {
    match soil.runtime().store.get(id, now()).await? {
        Some(_) => soil.status(id).await,
        None => soil.look(id).await,
    }
}

impl StatusWatch {
    async fn next(&mut self) -> Option<Result<Status, SoilError>> {
        while !self.over {
            // The watcher is armed before the look, so that no change is lost between the two.
            match &mut self.watcher {
                Some(watcher) => watcher.mark(),
                None => self.watcher = watch(&self.soil.runtime().progress_hub, &self.id).await,
            }
            let status = match look(&self.soil, &self.id).await {
                Ok(status) => status,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            };
            self.over = status.is_over() || status.state == SoilState::Missing;
            if self.last.as_ref() != Some(&status) {
                self.last = Some(status.clone());
                return Some(Ok(status));
            }
            let runs_here = status.state == SoilState::Started && status.line.is_some();
            let pause = if runs_here && self.watcher.is_some() { CHECK } else { LOOK };
            let watcher = &mut self.watcher;
            let changed = async {
                match watcher {
                    Some(watcher) => watcher.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_kept = changed => {
                    if !is_kept {
                        self.watcher = None;
                    }
                }
                record = &mut self.record => {
                    if let Err(error) = record {
                        self.over = true;
                        return Some(Err(error.into()));
                    }
                    // This future is polled to its end once; the next look finds the record.
                    self.record = Box::pin(std::future::pending());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        None
    }
}

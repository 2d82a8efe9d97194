//! A status as it changes, pushed.
//!
//! What runs in this program wakes its watchers itself: the start, each telling of progress, the end. What waits is looked at
//! again now and then, because its place in line is told by nobody; so is what runs elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::{Soil, SoilError, SoilState, Status};
use crate::actors::progress::Watcher;
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{TaskId, TaskResult};

/// What nobody tells is looked at so often.
const LOOK: Duration = Duration::from_secs(2);
/// And what is told, in case that somebody died while telling.
const CHECK: Duration = Duration::from_secs(15);

type Record = Pin<Box<dyn Future<Output = Result<TaskResult, StoreError>> + Send>>;

struct Watch {
    soil: Soil,
    id: TaskId,
    watcher: Watcher,
    record: Record,
    last: Option<Status>,
    over: bool,
}

impl Soil {
    /// The status of a task now, and each time that it has changed, up to the last one: of a task that is over or that nobody
    /// knows. An error is the end as well. Drop it to stop watching.
    pub fn watch(&self, id: &TaskId) -> BoxStream<'static, Result<Status, SoilError>> {
        let (store, own) = (Arc::clone(&self.runtime().store), id.clone());
        let watch = Watch {
            soil: self.clone(),
            id: id.clone(),
            watcher: self.runtime().board.watch(id),
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

/// Something may have changed just now, so what was seen before does not count.
async fn look(soil: &Soil, id: &TaskId) -> Result<Status, SoilError> {
    match soil.runtime().store.get(id, now()).await? {
        Some(_) => soil.status(id).await,
        None => soil.look(id).await,
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Status, SoilError>> {
        while !self.over {
            // Asked for before the look, so that no change falls between the two.
            let changed = self.watcher.changed();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
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
            let pause = if runs_here { CHECK } else { LOOK };
            tokio::select! {
                () = changed => {}
                record = &mut self.record => {
                    if let Err(error) = record {
                        self.over = true;
                        return Some(Err(error.into()));
                    }
                    // It is polled once; the next look finds the record.
                    self.record = Box::pin(std::future::pending());
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        None
    }
}

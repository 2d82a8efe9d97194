//! A runtime that runs nothing: it looks at what waits for other programs, and acts on it. A console by itself is one.

use super::handle::{Celeriac, ControlError};
use super::replies::Replies;
use crate::actors::QueueStatus;
use crate::actors::queue::BrokerBacklog;
use crate::core::report::QueueService;
use crate::task::clock::now;

#[cfg(all(feature = "cli", feature = "web"))]
impl super::builder::Builder {
    /// Serves no queue, whatever the catalogue says; sends no ticks, carries no orders of operators out, declares no queue, and
    /// writes no history.
    pub(crate) fn client_only(self) -> Self {
        let mut builder = self.beat(false).keep_history(false);
        builder.client_only = true;
        builder
    }
}

impl Celeriac {
    /// Whether any queue is served here.
    pub(crate) fn serves_any(&self) -> bool {
        self.catalogue().queues.iter().any(|row| row.served)
    }

    /// Whether somebody takes the tasks of the queues that this program looks at.
    pub(crate) fn service(&self) -> QueueService {
        // Nobody else can open the store that this program has open.
        let is_alone = !self.runtime().broker.facts().is_shared;
        if is_alone && !self.serves_any() { QueueService::NoProgram } else { QueueService::Served }
    }

    /// As [`queues`](Self::queues). Where no queue is served, it has those of the catalogue with what waits in them, by what the
    /// broker says.
    pub(crate) async fn queues_to_look_at(&self) -> Result<Replies<QueueStatus>, ControlError> {
        if self.serves_any() {
            return self.queues().await;
        }
        let runtime = self.runtime();
        let asked = self.catalogue().queues.iter().map(async |row| {
            let waiting = BrokerBacklog::in_broker(&*runtime.broker, &row.name).await?;
            let mut status = QueueStatus::without_actors(row, waiting, now());
            status.away = waiting.away;
            status.paused = runtime.kept_pauses.lock().contains(&row.name);
            Ok::<_, ControlError>((row.name.clone(), Some(status)))
        });
        Ok(Replies::of(futures_util::future::try_join_all(asked).await?))
    }
}

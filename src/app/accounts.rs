//! The accounts of all queues. Metrics and programs that show figures in a way of their own read them here.

use std::time::Duration;

use tokio::time::timeout;

use super::handle::Celeriac;
use super::replies::Replies;
use crate::actors::QueueAccounts;
#[cfg(feature = "testing")]
use crate::actors::QueueStatus;
use crate::actors::queue::BrokerBacklog;
use crate::catalogue::QueueRow;
#[cfg(feature = "testing")]
use crate::task::clock::now;

/// How long the broker may take to say what waits in it.
pub(super) const BROKER_PATIENCE: Duration = Duration::from_secs(5);

impl Celeriac {
    /// The statuses of all queues that are served here, in the catalogue's order, each with the accounts of its tasks: how
    /// often each came, started and ended in which way, how long it waited and ran.
    ///
    /// All queues are asked at once. A queue that does not answer, or whose broker does not, is left out and named in
    /// [`Replies::missing`]. The accounts begin with the program and outlive the actor of a queue;
    /// [`history`](Self::history) has what was before the start.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) {
    /// for queue in celeriac.accounts().await {
    ///     for (task, counts) in queue.accounts.tasks() {
    ///         println!("{} {task}: {} succeeded, {} failed", queue.status.name, counts.succeeded, counts.failed.total());
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn accounts(&self) -> Replies<QueueAccounts> {
        let rows = self.catalogue().queues.iter().filter(|row| row.served);
        let asked = rows.map(async |row| (row.name.clone(), self.accounts_of(row).await));
        Replies::of(futures_util::future::join_all(asked).await)
    }

    async fn accounts_of(&self, row: &QueueRow) -> Option<QueueAccounts> {
        let waiting = BrokerBacklog::in_broker(&*self.inner.runtime.broker, &row.name);
        let waiting = timeout(BROKER_PATIENCE, waiting).await.ok()?.ok()?;
        #[cfg(feature = "testing")]
        if self.is_in_test() {
            return Some(QueueAccounts::without_actors(QueueStatus::without_actors(row, waiting, now())));
        }
        self.inner.queues.accounts(&row.name, waiting).await
    }
}

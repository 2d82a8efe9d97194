//! Dead letters go back to their queues, and their records go.

use super::handle::ControlError;
use crate::broker::Broker;
use crate::store::Store;
use crate::task::TaskId;
use crate::task::clock::now;

/// Puts these dead letters back into their queues, where the records are in a store apart from the broker; answers with those
/// that there were.
///
/// The records go first: the next run may end before anything else is done here, and the first record stays. They come back if
/// their letter was not there.
pub(crate) async fn revive_with_records(
    broker: &dyn Broker,
    store: &dyn Store,
    ids: &[TaskId],
) -> Result<Vec<TaskId>, ControlError> {
    let mut records = Vec::new();
    for id in ids {
        records.extend(store.get(id, now()).await?);
        store.forget(id).await?;
    }
    let revived = broker.revive_all(ids).await;
    let back = revived.as_ref().map(Vec::as_slice).unwrap_or_default();
    for record in records.into_iter().filter(|record| !back.contains(&record.id)) {
        store.put(record).await?;
    }
    Ok(revived?)
}

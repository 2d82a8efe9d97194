//! Revocations that were ordered while the program did not run, by `celeriac revoke --directory`.
//!
//! Only the program knows what follows from the end of a task: its hooks, and the queues of its tasks. So the command
//! leaves notes with the ids in the embedded store, and the program carries them out before it starts anything.

use std::sync::Arc;
use std::time::Duration;

use super::handle::CeleriacInner;
use super::routing::Routing;
use crate::runtime::Runtime;
use crate::store::{CompareAndSet, StoreError};
use crate::task::{Client, TaskId};

/// The start of the names of the notes.
const PREFIX: &str = "revoke/";
/// The most ids of one note.
#[cfg(feature = "cli")]
const OF_A_NOTE: usize = 1000;

/// Leaves an order to revoke these tasks.
#[cfg(feature = "cli")]
pub(crate) async fn order(broker: &dyn crate::broker::Broker, ids: &[TaskId]) -> Result<(), StoreError> {
    let Some(notes) = broker.notes() else {
        return Err(StoreError::Unsupported(format!("the broker `{}` keeps no notes", broker.name())));
    };
    for ids in ids.chunks(OF_A_NOTE) {
        let key = format!("{PREFIX}{}", TaskId::new());
        let value = Some(serde_json::Value::from_iter(ids.iter().map(TaskId::as_str)).to_string());
        // The name is new, so nobody has changed the note.
        notes.notes().compare_and_set(CompareAndSet { key, expected: None, value }).await?;
    }
    Ok(())
}

/// Revokes what was ordered to be, in a store that nobody else has. Nothing runs yet.
pub(super) async fn carry_out(runtime: &Arc<Runtime>, routing: &Arc<Routing>) -> Result<(), StoreError> {
    let Some(notes) = runtime.broker.notes().filter(|_| !runtime.broker.facts().is_shared) else {
        return Ok(());
    };
    let orders = notes.notes().notes(PREFIX).await?;
    if orders.is_empty() {
        return Ok(());
    }
    // Without actors: they would begin to start tasks.
    let inner = CeleriacInner::new(Arc::clone(runtime), Arc::clone(routing), None, Duration::ZERO);
    let (mut revoked, mut failed) = (0_u64, 0_u64);
    for (key, value) in orders {
        let ids: Vec<TaskId> = serde_json::from_str(&value).unwrap_or_default();
        let failed_before = failed;
        for id in &ids {
            match inner.revoke(id, false).await {
                Ok(is_known) => revoked += u64::from(is_known),
                Err(error) => {
                    failed += 1;
                    tracing::error!(%id, %error, "a task that is to be revoked cannot be; the next start tries again");
                }
            }
        }
        if failed == failed_before {
            let done = CompareAndSet { key, expected: Some(value), value: None };
            notes.notes().compare_and_set(done).await?;
        }
    }
    tracing::info!(revoked, failed, "tasks were revoked, as ordered while the program did not run");
    Ok(())
}

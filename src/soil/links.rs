//! Download links that can be revoked. Each download has a generation number for its links, and only links of the
//! current generation open.

use super::{Soil, SoilError};
use crate::store::{CompareAndSet, StoreError};
use crate::task::TaskId;

fn key(id: &TaskId) -> String {
    format!("soil/links/{id}")
}

impl Soil {
    /// The generation of the links of a download or a group. It is 0 until [`revoke_links`](Self::revoke_links) is
    /// called. Without a store of notes that all processes share, links cannot be revoked, so the generation stays 0.
    ///
    /// # Errors
    /// The notes could not be read.
    pub async fn link_generation(&self, id: &TaskId) -> Result<u64, SoilError> {
        let runtime = self.runtime();
        if !runtime.shares_notes() {
            return Ok(0);
        }
        let note = runtime.notes().note(&key(id)).await?;
        // A generation that cannot be read opens no link.
        Ok(note.map_or(0, |note| note.parse().unwrap_or(u64::MAX)))
    }

    /// Revokes all links of a download or a group that were made so far, and answers with the new generation. The old
    /// links are void for everybody, on all servers that share the store, also after a restart. The task and its file
    /// stay. `StartResponse::renewed` of Soil's pages makes links that open again.
    ///
    /// # Errors
    /// The notes could not be written, or no store keeps notes that all processes share (RabbitMQ without Redis).
    pub async fn revoke_links(&self, id: &TaskId) -> Result<u64, SoilError> {
        let runtime = self.runtime();
        if !runtime.shares_notes() {
            let told = "links cannot be taken back: nobody keeps notes for all processes; with RabbitMQ, keep results in Redis (`.result_backend(\"redis://…\")`)";
            return Err(StoreError::Unsupported(told.to_owned()).into());
        }
        loop {
            let expected = runtime.notes().note(&key(id)).await?;
            // As `link_generation` reads it: a generation that cannot be read opened no link.
            let before: u64 = expected.as_deref().map_or(0, |note| note.parse().unwrap_or(u64::MAX));
            let next = before.saturating_add(1);
            let change = CompareAndSet { key: key(id), expected, value: Some(next.to_string()) };
            if runtime.notes().compare_and_set(change).await? {
                return Ok(next);
            }
        }
    }
}

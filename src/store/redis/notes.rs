//! Notes in Redis. A hash has their texts, and a sorted set beside it has their names, so that the notes with a common
//! prefix are found without reading all others. The leader of an election has a hash of its own. Leases end by Redis's
//! clock.

use std::time::Duration;

use super::records::whole_seconds;
use super::{RedisInner, RedisStore};
use crate::core::Timestamp;
use crate::store::{CompareAndSet, DuplicateClaim, Leadership, Notes, StoreError, Term};
use crate::task::clock::now;
use async_trait::async_trait;

/// The most notes that are read in one step.
const PAGE: usize = 1000;

impl RedisInner {
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let [notes, _] = &self.keys.notes();
        self.link
            .run(notes, |mut connection, _| async move {
                redis::cmd("HGET").arg(notes).arg(name).query_async(&mut connection).await
            })
            .await
    }

    async fn list_notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let [notes, names] = &self.keys.notes();
        // No text contains a byte 255.
        let until = &[b"(", prefix.as_bytes(), b"\xff"].concat();
        let mut from = format!("[{prefix}");
        let mut all = Vec::new();
        loop {
            let begin = &from;
            let page: Vec<(String, String)> = self
                .link
                .run(notes, |mut connection, _| async move {
                    let mut call = self.scripts.list_notes.prepare_invoke();
                    call.key(notes).key(names).arg(begin).arg(until).arg(PAGE);
                    call.invoke_async(&mut connection).await
                })
                .await?;
            let is_last = page.len() < PAGE;
            if let Some((name, _)) = page.last() {
                from = format!("({name}");
            }
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn compare_and_set_all(
        &self,
        changes: &[CompareAndSet],
        under: Option<&Term>,
    ) -> Result<bool, StoreError> {
        let [notes, names] = &self.keys.notes();
        let election = &self.keys.election(under.map_or("", |term| &term.election));
        let candidate = under.map_or("", |term| &term.candidate);
        let term = &under.map_or_else(String::new, |term| term.term.to_string());
        self.link
            .run(notes, |mut connection, again| async move {
                let mut call = self.scripts.compare_and_set_all.prepare_invoke();
                call.key(notes).key(names).key(election);
                call.arg(candidate).arg(term).arg(u8::from(again));
                for change in changes {
                    call.arg(&change.key);
                    for text in [&change.expected, &change.value] {
                        call.arg(u8::from(text.is_some())).arg(text.as_deref().unwrap_or_default());
                    }
                }
                call.invoke_async(&mut connection).await
            })
            .await
    }

    async fn lead(&self, election: &str, candidate: &str, lease: Duration) -> Result<Leadership, StoreError> {
        let key = &self.keys.election(election);
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).min(1 << 50);
        let (term, lasts): (u64, u64) = self
            .link
            .run(key, |mut connection, _| async move {
                let mut call = self.scripts.lead.prepare_invoke();
                call.key(key).arg(candidate).arg(lease);
                call.invoke_async(&mut connection).await
            })
            .await?;
        Ok(match term {
            0 => Leadership::Follower { until: now() + Duration::from_millis(lasts) },
            term => Leadership::Leader { term },
        })
    }

    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        let key = &self.keys.election(election);
        self.link
            .run(key, |mut connection, _| async move {
                let mut call = self.scripts.resign.prepare_invoke();
                call.key(key).arg(candidate);
                call.invoke_async::<i64>(&mut connection).await
            })
            .await
            .map(drop)
    }

    pub(super) async fn claim(&self, claims: &[DuplicateClaim]) -> Result<Vec<bool>, StoreError> {
        let Some(first) = claims.first() else { return Ok(Vec::new()) };
        let now = now();
        self.link
            .run(&self.keys.once(first.id.as_str()), |mut connection, _| async move {
                let mut call = self.scripts.claim.prepare_invoke();
                for DuplicateClaim { id, copy, until } in claims {
                    call.key(self.keys.once(id.as_str())).arg(copy).arg(whole_seconds(until.since(now)));
                }
                call.invoke_async(&mut connection).await
            })
            .await
    }
}

#[async_trait]
impl Notes for RedisStore {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.run(|core| async move { core.note(&key).await }).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let prefix = prefix.to_owned();
        self.run(|core| async move { core.list_notes(&prefix).await }).await
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        self.run(|core| async move { core.compare_and_set_all(&changes, under.as_ref()).await }).await
    }

    // This clock is the clock of the one server that all candidates ask.
    async fn lead(
        &self,
        election: &str,
        candidate: &str,
        lease: Duration,
        _now: Timestamp,
    ) -> Result<Leadership, StoreError> {
        let (election, candidate) = (election.to_owned(), candidate.to_owned());
        self.run(move |core| async move { core.lead(&election, &candidate, lease).await }).await
    }

    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        let (election, candidate) = (election.to_owned(), candidate.to_owned());
        self.run(|core| async move { core.resign(&election, &candidate).await }).await
    }
}

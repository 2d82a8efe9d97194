//! Counting the members of chords, together with Celery's workers.
//!
//! Keys beside the group's own, all of Celery 5.7: `.s` how many members the header has, `.t` how many were added since,
//! `.j` the parts by index, `.d` who was counted, `.c` who sends the body, or that it was sent. Ours is `.a`: who was added, so
//! that a member that runs twice adds nobody twice.

use std::time::Duration;

use serde_json::Value;

use super::Core;
use super::records::whole_seconds;
use crate::store::chord::not_open;
use crate::store::{ChordJoin, ChordPart, GroupResult, StoreError};
use crate::task::{State, TaskId};

/// How long late duplicates find that the body was sent.
const DONE: Duration = Duration::from_secs(300);
/// A claim's end is looked for this much later than Redis says.
const MARGIN: Duration = Duration::from_millis(10);

impl Core {
    pub(super) async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        let (claim, key) = (&self.keys.chord(group, ".c"), &self.keys.chord(group, ".s"));
        let seconds = whole_seconds(self.options.result_expires);
        self.link
            .run(key, |mut connection, _| async move {
                redis::pipe()
                    .del(claim)
                    .ignore()
                    .cmd("SET")
                    .arg(key)
                    .arg(size)
                    .arg("EX")
                    .arg(seconds)
                    .ignore()
                    .query_async(&mut connection)
                    .await
            })
            .await
    }

    pub(super) async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        let keys: &Vec<String> = &[".t", ".a", ".c"].map(|suffix| self.keys.chord(group, suffix)).into();
        let open: bool = self
            .link
            .run(&keys[0], |mut connection, _| async move {
                let mut call = self.scripts.extend_chord.prepare_invoke();
                call.key(keys).arg(id.as_str()).arg(whole_seconds(self.options.result_expires));
                call.invoke_async(&mut connection).await
            })
            .await?;
        if open { Ok(()) } else { Err(StoreError::Refused(not_open(group))) }
    }

    pub(super) async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        let token = uuid::Uuid::now_v7().simple().to_string();
        let member = serde_json::json!([1, part.id, part.state.as_str(), part.value]).to_string();
        let score = part.index.map_or("+inf".to_owned(), |index| index.to_string());
        let group = &part.group;
        let keys: &Vec<String> =
            &[".j", ".t", ".s", ".d", "", ".c"].map(|suffix| self.keys.chord(group, suffix)).into();
        loop {
            let (token, member, score, id) = (&token, &member, &score, &part.id);
            let (came_to, lasts): (String, i64) = self
                .link
                .run(&keys[0], |mut connection, _| async move {
                    let mut call = self.scripts.join.prepare_invoke();
                    call.key(keys)
                        .arg(id.as_str())
                        .arg(member)
                        .arg(score)
                        .arg(whole_seconds(self.options.result_expires))
                        .arg(whole_seconds(self.options.chord_lease))
                        .arg(token);
                    call.invoke_async(&mut connection).await
                })
                .await?;
            match came_to.as_str() {
                "claimed" => {
                    let parts = self.parts(group).await?;
                    return Ok(ChordJoin::Complete { token: token.clone(), parts });
                }
                // All are there and this one was counted before, so it runs again because its first process died. The
                // one who claimed may be the same, and then nobody but this one comes to send the body.
                "taken" => {
                    let left = Duration::from_millis(u64::try_from(lasts).unwrap_or_default());
                    tokio::time::sleep(left + MARGIN).await;
                }
                _ => return Ok(ChordJoin::Waiting),
            }
        }
    }

    /// The parts of a chord, by index, those without one last.
    async fn parts(&self, group: &str) -> Result<Vec<ChordPart>, StoreError> {
        let key = &self.keys.chord(group, ".j");
        let members: Vec<(Vec<u8>, f64)> = self
            .link
            .run(key, |mut connection, _| async move {
                redis::cmd("ZRANGE")
                    .arg(key)
                    .arg(0)
                    .arg(-1)
                    .arg("WITHSCORES")
                    .query_async(&mut connection)
                    .await
            })
            .await?;
        members
            .into_iter()
            .map(|(member, score)| {
                part(group, &member, score).ok_or_else(|| {
                    StoreError::Refused(format!(
                        "a part of chord {group} cannot be read: `{}`, in redis at {} under `{key}`",
                        String::from_utf8_lossy(&member[..member.len().min(200)]),
                        self.link.address
                    ))
                })
            })
            .collect()
    }

    pub(super) async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let keys: &Vec<String> =
            &[".c", ".j", ".t", ".s", ".d", ".a"].map(|suffix| self.keys.chord(group, suffix)).into();
        let closed: bool = self
            .link
            .run(&keys[0], |mut connection, _| async move {
                let mut call = self.scripts.close.prepare_invoke();
                call.key(keys).arg(token).arg(whole_seconds(DONE));
                call.invoke_async(&mut connection).await
            })
            .await?;
        if !closed {
            tracing::debug!(group, "a chord was closed by somebody else, or its claim had run out");
        }
        Ok(())
    }

    pub(super) async fn save_group(
        &self,
        group: &GroupResult,
        lifetime: Option<Duration>,
    ) -> Result<(), StoreError> {
        let key = &self.keys.group(&group.id);
        let document = &serde_json::json!({ "result": group.to_tuple() }).to_string();
        let seconds = whole_seconds(lifetime.unwrap_or(self.options.result_expires));
        self.link
            .run(key, |mut connection, _| async move {
                redis::pipe()
                    .atomic()
                    .cmd("SETEX")
                    .arg(key)
                    .arg(seconds)
                    .arg(document)
                    .ignore()
                    .publish(key, document)
                    .ignore()
                    .query_async(&mut connection)
                    .await
            })
            .await
    }

    pub(super) async fn group(&self, id: &str) -> Result<Option<GroupResult>, StoreError> {
        let key = &self.keys.group(id);
        let held: Option<Vec<u8>> = self
            .link
            .run(key, |mut connection, _| async move {
                redis::cmd("GET").arg(key).query_async(&mut connection).await
            })
            .await?;
        let Some(held) = held else { return Ok(None) };
        let document: Option<Value> = serde_json::from_slice(&held).ok();
        let group = document.as_ref().and_then(|document| GroupResult::from_tuple(document.get("result")?));
        group.map(Some).ok_or_else(|| {
            StoreError::Refused(format!(
                "what redis at {} holds under `{key}` is no saved group: look at it, and delete it if it is nobody's",
                self.link.address
            ))
        })
    }
}

/// Reads `[1, id, state, value]`.
fn part(group: &str, member: &[u8], score: f64) -> Option<ChordPart> {
    let (_, id, state, value): (Value, String, State, Value) = serde_json::from_slice(member).ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Checked to be an index.
    let index =
        (score >= 0.0 && score <= f64::from(u32::MAX) && score.fract() == 0.0).then_some(score as u32);
    Some(ChordPart { group: group.to_owned(), id: id.into(), index, state, value })
}

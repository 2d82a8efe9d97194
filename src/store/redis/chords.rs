//! Counts the members of chords together with Celery's workers.
//!
//! The keys of a chord are its group's key with a suffix. These are Celery 5.7's:
//! - `.s`: the number of members in the header.
//! - `.t`: the number of members that were added since.
//! - `.j`: the parts by index.
//! - `.d`: the members that were counted.
//! - `.c`: the process that sends the body, or `done`.
//!
//! Celeriac has one more, `.a`: the members that were added. A member that runs twice is then not added twice.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::RedisInner;
use super::records::whole_seconds;
use crate::core::Backoff;
use crate::protocol::result::Exception;
use crate::store::chord::too_large;
use crate::store::{ChordJoin, ChordPart, GroupMember, GroupResult, StoreError};
use crate::task::token::{not_finite, readable};
use crate::task::{Json, State, TaskId};

/// How long a late duplicate of a member can still find that the body was sent.
const DONE: Duration = Duration::from_secs(300);
/// How much later than Redis says this process looks whether a claim has ended.
const MARGIN: Duration = Duration::from_millis(10);
/// The pauses between two looks at a chord whose body is being sent, or was sent.
const LOOKS: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// How long a member that finds its chord done waits for somebody to open the chord again.
///
/// A client of Celery's that sends a chord again under the same ids opens it late: it sends all members but the last,
/// and then deletes the mark `done` and stores the size. A member may have ended by then. If it were not counted, the
/// chord would wait for it for ever. The wait costs nothing else than the time of a late duplicate.
const REOPENED_WITHIN: Duration = Duration::from_secs(5);

impl RedisInner {
    pub(super) async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        let keys: &Vec<String> =
            &[".c", ".s", ".j", ".t", ".d", ".a"].map(|suffix| self.keys.chord(group, suffix)).into();
        let seconds = whole_seconds(self.options.result_expires);
        self.link
            .run(&keys[1], |mut connection, _| async move {
                let mut call = self.scripts.open_chord.prepare_invoke();
                call.key(keys).arg(size).arg(seconds).invoke_async(&mut connection).await
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
        if open { Ok(()) } else { Err(StoreError::NoChord(group.to_owned())) }
    }

    pub(super) async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        let token = uuid::Uuid::now_v7().simple().to_string();
        let member = serde_json::to_string(&(1, &part.id, part.state.as_str(), &part.value));
        let member = member.map_err(|error| StoreError::io_because(error.to_string(), error))?;
        let score = part.index.map_or("+inf".to_owned(), |index| index.to_string());
        let group = &part.group;
        let keys: &Vec<String> =
            &[".j", ".t", ".s", ".d", "", ".c"].map(|suffix| self.keys.chord(group, suffix)).into();
        let (mut looks, mut done_since) = (LOOKS, None);
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
                    let bytes = self.size_of_parts(group).await?;
                    let parts = if bytes > self.options.max_chord_size {
                        vec![too_large(group, self.options.max_chord_size)]
                    } else {
                        self.in_form(group, self.parts(group).await?, bytes).await?
                    };
                    return Ok(ChordJoin::Complete { token: token.clone(), parts });
                }
                // All parts are there, and this part was counted before. There are two reasons for that:
                // - The member runs again because its first process died. The same process may have claimed the body,
                //   and then no other process comes to send the body.
                // - The chord is sent again while its first body is being sent. When the claim has ended, the member
                //   counts in the second sending. That is seen long before the claim would have run out.
                "taken" => {
                    let left = Duration::from_millis(u64::try_from(lasts).unwrap_or_default());
                    tokio::time::sleep(looks.pause().min(left + MARGIN)).await;
                }
                // The member is a late duplicate, or the chord is sent again and not open yet.
                "done" if done_since.get_or_insert_with(Instant::now).elapsed() < REOPENED_WITHIN => {
                    tokio::time::sleep(looks.pause()).await;
                }
                _ => return Ok(ChordJoin::Waiting),
            }
        }
    }

    /// The number of bytes of the parts of a chord. The script stops counting when the parts exceed the limit.
    async fn size_of_parts(&self, group: &str) -> Result<usize, StoreError> {
        let key = &self.keys.chord(group, ".j");
        self.link
            .run(key, |mut connection, _| async move {
                let mut call = self.scripts.chord_size.prepare_invoke();
                call.key(key).arg(self.options.max_chord_size).invoke_async(&mut connection).await
            })
            .await
    }

    /// The parts of a chord by index. Parts without an index come last.
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
                        "a part of chord {group} cannot be read: one of {} bytes, in redis at {} under `{key}`",
                        member.len(),
                        self.link.address
                    ))
                })
            })
            .collect()
    }

    /// Brings the parts into the form that the body gets. A member of the header may end in a group. Celery's clients
    /// then send the members of this group as if they were the header's own, with places that other members have too.
    /// They also save the tree of results, and Celery's workers join the parts by this tree.
    async fn in_form(
        &self,
        group: &str,
        parts: Vec<ChordPart>,
        mut bytes: usize,
    ) -> Result<Vec<ChordPart>, StoreError> {
        let tree = match self.group(group).await {
            Ok(Some(tree)) if tree.is_nested() => tree,
            Ok(_) => return Ok(parts),
            Err(error @ StoreError::Refused(_)) => {
                tracing::warn!(group, %error, "the parts of a chord are taken in their own order");
                return Ok(parts);
            }
            Err(error) => return Err(error),
        };
        let mut known: HashMap<TaskId, ChordPart> =
            parts.iter().map(|part| (part.id.clone(), part.clone())).collect();
        for id in tree.tasks() {
            if let Entry::Vacant(free) = known.entry(id) {
                bytes = bytes.saturating_add(self.size_of_record(free.key()).await?);
                if bytes > self.options.max_chord_size {
                    return Ok(vec![too_large(group, self.options.max_chord_size)]);
                }
                let part = self.part_of_record(group, free.key()).await?;
                free.insert(part);
            }
        }
        Ok(formed(&tree, &known, parts))
    }

    async fn size_of_record(&self, id: &TaskId) -> Result<usize, StoreError> {
        let key = &self.keys.task(id.as_str());
        self.link
            .run(key, |mut connection, _| async move {
                redis::cmd("STRLEN").arg(key).query_async(&mut connection).await
            })
            .await
    }

    /// The part of a member that was not counted under its id. It is made of the member's record.
    async fn part_of_record(&self, group: &str, id: &TaskId) -> Result<ChordPart, StoreError> {
        let gone = |text: String| {
            Json::from(json!({"exc_type": "KeyError", "exc_message": [text], "exc_module": "builtins"}))
        };
        let (state, value) = match self.read(id).await? {
            Some(record) if record.state == State::Success => {
                let text = record.result.as_deref().unwrap_or("null");
                match text.parse() {
                    Ok(value) => (State::Success, value),
                    Err(error) => (State::Failure, gone(format!("the result of {id} is no JSON: {error}"))),
                }
            }
            Some(record) => (State::Failure, Json::from(json!(Exception::of(&record)))),
            None => (State::Failure, gone(format!("there is no result of {id}, which chord {group} wants"))),
        };
        Ok(ChordPart { group: group.to_owned(), id: id.clone(), index: None, state, value })
    }

    pub(super) async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.close(group, token, &[".c", ".j", ".t", ".s", ".d", ".a"], DONE).await
    }

    /// Ends a chord that has failed. Its parts stay until they expire. Until then a member that runs again finds that
    /// the chord is over.
    pub(super) async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.close(group, token, &[".c", ".t", ".s", ".a"], DONE.max(self.options.result_expires)).await
    }

    async fn close(
        &self,
        group: &str,
        token: &str,
        suffixes: &[&str],
        known_for: Duration,
    ) -> Result<(), StoreError> {
        let keys: &Vec<String> = &suffixes.iter().map(|suffix| self.keys.chord(group, suffix)).collect();
        let closed: bool = self
            .link
            .run(&keys[0], |mut connection, _| async move {
                let mut call = self.scripts.close.prepare_invoke();
                call.key(keys).arg(token).arg(whole_seconds(known_for));
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

/// Puts the parts of a header into the order of its tree of results. A group in the tree is one part: the list of its
/// values, or the failure of its first member that failed. The parts of members that were added are not in the tree,
/// and come last.
fn formed(tree: &GroupResult, known: &HashMap<TaskId, ChordPart>, parts: Vec<ChordPart>) -> Vec<ChordPart> {
    let in_tree: HashSet<TaskId> = tree.tasks().into_iter().collect();
    let own = tree.members.iter().filter_map(|member| piece(member, known));
    let added = parts.into_iter().filter(|part| !in_tree.contains(&part.id));
    let all = own.chain(added).enumerate();
    all.map(|(index, part)| ChordPart { index: u32::try_from(index).ok(), ..part }).collect()
}

fn piece(member: &GroupMember, known: &HashMap<TaskId, ChordPart>) -> Option<ChordPart> {
    let group = match member {
        GroupMember::Task(id) => return known.get(id).cloned(),
        GroupMember::Group(group) => group,
    };
    let pieces: Vec<_> = group.members.iter().filter_map(|member| piece(member, known)).collect();
    if let Some(failed) = pieces.iter().find(|piece| piece.state != State::Success) {
        return Some(failed.clone());
    }
    let values: Vec<Json> = pieces.into_iter().map(|piece| piece.value).collect();
    let value = Json::list(&values);
    let id = TaskId::from(group.id.as_str());
    Some(ChordPart { group: group.id.clone(), id, index: None, state: State::Success, value })
}

/// Reads `[1, id, state, value]`. A value from Python that is no JSON, because it contains a NaN, cannot be passed
/// on. Its member then counts as failed, and the caller who waits for the chord learns why. The exception of a member
/// that failed anyway keeps its words, NaN included.
fn part(group: &str, member: &[u8], score: f64) -> Option<ChordPart> {
    let member = std::str::from_utf8(member).ok()?;
    let read = |text: &str| serde_json::from_str::<(IgnoredAny, String, State, Json)>(text);
    let (id, state, value) = match read(member) {
        Ok((_, id, state, value)) => (id, state, value),
        Err(_) => {
            let named = not_finite(member)?;
            let (_, id, state, value) = read(&readable(member)).ok()?;
            let error = Exception {
                exc_type: "ValueError".to_owned(),
                exc_message: vec![
                    format!("there is {named} in the value of the task, which JSON does not know: return None, or text").into(),
                ],
                exc_module: Some("builtins".to_owned()),
            };
            // A member that failed has an exception of its own. The exception is only shown.
            let value = if state == State::Success { Json::encode(&error).ok()? } else { value };
            (id, State::Failure, value)
        }
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Checked to be an index.
    let index =
        (score >= 0.0 && score <= f64::from(u32::MAX) && score.fract() == 0.0).then_some(score as u32);
    Some(ChordPart { group: group.to_owned(), id: id.into(), index, state, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str, state: State, value: Value) -> (TaskId, ChordPart) {
        (id.into(), ChordPart { group: "g".into(), id: id.into(), index: None, state, value: value.into() })
    }

    #[test]
    fn a_header_has_the_form_of_its_tree() {
        let task = |id: &str| GroupMember::Task(id.into());
        let group = |id: &str, members: Vec<GroupMember>| GroupMember::Group(GroupResult::new(id, members));
        let innermost = group("ii", vec![task("d")]);
        let inner = group("i", vec![task("b"), innermost, task("c")]);
        let tree = GroupResult::new("g", [task("a"), inner, group("e", Vec::new()), task("f")]);
        let mut all: HashMap<_, _> =
            ["a", "b", "c", "d", "f", "added"].map(|id| known(id, State::Success, json!(id))).into();
        // These are the parts as they were counted. Other members have the places of the inner ones too.
        let order = ["b", "a", "c", "d", "f", "added"];
        let parts = |all: &HashMap<TaskId, ChordPart>| order.map(|id| all[id].clone()).to_vec();
        let formed_parts = formed(&tree, &all, parts(&all));
        let values: Vec<_> = formed_parts.iter().map(|part| part.value.clone()).collect();
        assert_eq!(values, [json!("a"), json!(["b", ["d"], "c"]), json!([]), json!("f"), json!("added")]);
        assert_eq!(formed_parts.iter().filter_map(|part| part.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        all.extend([known("d", State::Failure, json!({"exc_type": "KeyError"}))]);
        let formed_parts = formed(&tree, &all, parts(&all));
        assert_eq!((formed_parts[1].id.as_str(), formed_parts[1].state), ("d", State::Failure));
    }

    #[test]
    fn a_part_is_what_its_member_wrote_or_a_failure_that_says_why() {
        let read = |member: &str| part("g", member.as_bytes(), 3.0);
        let odd = r#"{"z": [1e400, 1000000000000000000000000000000], "a": -0.0}"#;
        let good = read(&format!(r#"[1, "a", "SUCCESS", {odd}]"#)).unwrap();
        assert_eq!(
            (good.id.as_str(), good.index, good.state, good.value.text()),
            ("a", Some(3), State::Success, odd)
        );
        for number in ["NaN", "Infinity", "-Infinity"] {
            let failed = read(&format!(r#"[1, "a", "SUCCESS", {{"x": [{number}, "NaN"]}}]"#)).unwrap();
            assert_eq!((failed.id.as_str(), failed.state), ("a", State::Failure));
            assert_eq!(failed.value["exc_type"], "ValueError");
            let text = failed.value["exc_message"][0].as_str().unwrap();
            assert!(text.starts_with(&format!("there is {number} in the value")), "{text}");
        }
        let odd = r#"{"exc_type": "KeyError", "exc_message": [NaN, "\ud83d"]}"#;
        let failed = read(&format!(r#"[1, "a", "FAILURE", {odd}]"#)).unwrap();
        assert_eq!((failed.state, &failed.value["exc_type"]), (State::Failure, &json!("KeyError")));
        assert_eq!(failed.value["exc_message"], json!(["NaN", "\u{fffd}"]));
        assert_eq!(read(r#"[1, "a", "SUCCESS""#), None);
    }
}

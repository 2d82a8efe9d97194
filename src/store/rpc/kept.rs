//! The results that have come back and were not forgotten yet, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use crate::core::Timestamp;
use crate::protocol::result::Meta;
use crate::store::StoreError;
use crate::task::canvas::json_len;
use crate::task::{TaskId, TaskResult, TrackedState};

/// What has come back of a task.
pub(super) enum KeptReply {
    /// The result or the state of the task.
    Read(Meta),
    /// A message about the end of the task that cannot be read: the reason, and when the reason is forgotten.
    Unreadable(StoreError, Timestamp),
}

/// The last result or state of each task. If there are too many, or if they take too many bytes, the task that was heard
/// of first goes.
pub(super) struct RecentReplies {
    replies: HashMap<TaskId, (u64, KeptReply)>,
    by_age: BTreeMap<u64, TaskId>,
    next: u64,
    most: usize,
    /// What all of them take, about, and may take.
    bytes: usize,
    most_bytes: usize,
}

impl RecentReplies {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            replies: HashMap::new(),
            by_age: BTreeMap::new(),
            next: 0,
            most: most.max(1),
            bytes: 0,
            most_bytes,
        }
    }

    /// Keeps what has come back. `false`: the task is over already, and what says so stays. Only a result takes the
    /// place of an unreadable message.
    pub(super) fn keep(&mut self, id: TaskId, reply: KeptReply) -> bool {
        let size = bytes(&id, &reply);
        match self.replies.get_mut(&id) {
            Some((_, KeptReply::Read(Meta::Over(_)))) => return false,
            Some((_, KeptReply::Unreadable(..))) if !matches!(reply, KeptReply::Read(Meta::Over(_))) => {
                return false;
            }
            Some((_, held)) => {
                self.bytes -= bytes(&id, held);
                *held = reply;
            }
            None => {
                self.by_age.insert(self.next, id.clone());
                self.replies.insert(id.clone(), (self.next, reply));
                self.next += 1;
            }
        }
        self.bytes += size;
        while self.replies.len() > self.most || self.bytes > self.most_bytes {
            // What has just come stays, however large it is, because somebody waits for it.
            let Some(oldest) = self.by_age.values().find(|held| **held != id).cloned() else { break };
            self.forget(&oldest);
            let (most, most_bytes) = (self.most, self.most_bytes);
            tracing::warn!(id = %oldest, most, most_bytes, "more results than are kept: the oldest one is dropped");
        }
        true
    }

    /// The result of a task that is over.
    ///
    /// # Errors
    /// The task is over, but the message that says so could not be read.
    pub(super) fn over(&self, id: &TaskId) -> Result<Option<&TaskResult>, StoreError> {
        match self.replies.get(id) {
            Some((_, KeptReply::Read(Meta::Over(record)))) => Ok(Some(record)),
            Some((_, KeptReply::Unreadable(error, _))) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    pub(super) fn tracked(&self, id: &TaskId) -> Option<&TrackedState> {
        match self.replies.get(id) {
            Some((_, KeptReply::Read(Meta::Tracked(state)))) => Some(state),
            _ => None,
        }
    }

    pub(super) fn forget(&mut self, id: &TaskId) -> bool {
        let Some((age, reply)) = self.replies.remove(id) else { return false };
        self.by_age.remove(&age);
        self.bytes -= bytes(id, &reply);
        !matches!(reply, KeptReply::Read(Meta::Tracked(_)))
    }

    /// Forgets the records that have expired. Answers with their number.
    pub(super) fn sweep(&mut self, now: Timestamp) -> usize {
        let gone = |reply: &KeptReply| match reply {
            KeptReply::Read(Meta::Over(record)) => record.expires_at <= now,
            KeptReply::Read(Meta::Tracked(_)) => false,
            KeptReply::Unreadable(_, expires_at) => *expires_at <= now,
        };
        let ids: Vec<TaskId> =
            self.replies.iter().filter(|(_, (_, reply))| gone(reply)).map(|(id, _)| id.clone()).collect();
        ids.iter().filter(|id| self.forget(id)).count()
    }
}

/// About how much this takes of memory.
fn bytes(id: &TaskId, reply: &KeptReply) -> usize {
    /// What one takes beside its texts.
    const ENTRY: usize = 512;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let (texts, lineage) = match reply {
        KeptReply::Unreadable(error, _) => (error.to_string().len(), &None),
        KeptReply::Read(Meta::Over(record)) => {
            let errors: usize = record.errors.iter().map(|error| size_of::<String>() + error.len()).sum();
            (text(&record.result) + errors + text(&record.traceback), &record.lineage)
        }
        KeptReply::Read(Meta::Tracked(state)) => {
            (state.meta.text().len() + text(&state.traceback), &state.lineage)
        }
    };
    ENTRY + id.as_str().len() + texts + lineage.as_ref().map_or(0, |lineage| json_len(&**lineage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, Judge, Verdict};

    fn record(id: &str) -> TaskResult {
        let mut message = Context::detached().message().clone();
        message.id = id.into();
        message.result_expires = std::time::Duration::from_secs(60);
        match Judge::unstarted(&message, Timestamp::from_millis(1000)).judge(Ok("1".to_owned())) {
            Verdict::Over(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    fn over(id: &str) -> (TaskId, KeptReply) {
        (id.into(), KeptReply::Read(Meta::Over(Box::new(record(id)))))
    }

    fn progress(id: &str) -> (TaskId, KeptReply) {
        let meta = 5.into();
        let state =
            TrackedState { id: id.into(), state: "PROGRESS".into(), meta, traceback: None, lineage: None };
        (id.into(), KeptReply::Read(Meta::Tracked(state)))
    }

    fn unreadable(id: &str) -> (TaskId, KeptReply) {
        (
            id.into(),
            KeptReply::Unreadable(StoreError::Refused("NaN".to_owned()), Timestamp::from_millis(2000)),
        )
    }

    fn keep(kept: &mut RecentReplies, (id, reply): (TaskId, KeptReply)) -> bool {
        kept.keep(id, reply)
    }

    /// Whether the record of a task is there and can be read.
    fn is_over(kept: &RecentReplies, id: &TaskId) -> bool {
        kept.over(id).is_ok_and(|record| record.is_some())
    }

    #[test]
    fn the_end_of_a_task_stays_and_memory_is_bounded() {
        let mut kept = RecentReplies::new(2, usize::MAX);
        let [a, b, c] = ["a", "b", "c"].map(TaskId::from);
        assert!(keep(&mut kept, progress("a")) && keep(&mut kept, progress("a")));
        assert!(kept.tracked(&a).is_some() && !is_over(&kept, &a));
        assert!(keep(&mut kept, over("a")));
        assert!(!keep(&mut kept, progress("a")) && !keep(&mut kept, over("a")));
        assert!(kept.tracked(&a).is_none() && is_over(&kept, &a));
        assert!(keep(&mut kept, progress("b")) && keep(&mut kept, over("c")));
        assert!(!is_over(&kept, &a), "the oldest one went");
        assert!(kept.tracked(&b).is_some() && is_over(&kept, &c));
        assert!(!kept.forget(&b) && kept.forget(&c) && !kept.forget(&c));
        assert!(kept.replies.is_empty() && kept.by_age.is_empty() && kept.bytes == 0);
        let record = record("d");
        assert!(keep(&mut kept, over("d")));
        assert_eq!((kept.sweep(record.finished_at), kept.sweep(record.expires_at)), (0, 1));
    }

    #[test]
    fn large_results_are_counted_by_their_bytes_and_the_last_one_stays() {
        const LARGE: usize = 1 << 20;
        let large = |id: &str, bytes: usize| {
            let value = Some(format!("\"{}\"", "x".repeat(bytes)));
            (
                TaskId::from(id),
                KeptReply::Read(Meta::Over(Box::new(TaskResult { result: value, ..record(id) }))),
            )
        };
        let held = |kept: &RecentReplies| ["a", "b", "c", "d"].map(|id| is_over(kept, &id.into()));
        let mut kept = RecentReplies::new(10_000, 2 * LARGE + LARGE / 2);
        assert!(keep(&mut kept, progress("a")));
        for id in ["a", "b"] {
            assert!(keep(&mut kept, large(id, LARGE)) && !keep(&mut kept, large(id, LARGE)));
        }
        assert!((2 * LARGE..2 * LARGE + 4096).contains(&kept.bytes), "{}", kept.bytes);
        assert!(keep(&mut kept, large("c", LARGE)));
        assert_eq!(held(&kept), [false, true, true, false], "the oldest one went");
        assert!(keep(&mut kept, large("d", 64 * LARGE)));
        assert_eq!(held(&kept), [false, false, false, true], "it is more than all may be, and the last");
        assert!(keep(&mut kept, large("a", 1)));
        assert_eq!(held(&kept), [true, false, false, false]);
        assert!(kept.forget(&"a".into()) && kept.bytes == 0);
    }

    #[test]
    fn an_unreadable_end_is_an_error_until_a_result_comes_or_its_time_is_over() {
        let mut kept = RecentReplies::new(9, usize::MAX);
        let [a, b] = ["a", "b"].map(TaskId::from);
        let refused = Err(StoreError::Refused("NaN".to_owned()));
        assert!(keep(&mut kept, progress("a")) && keep(&mut kept, unreadable("a")));
        assert_eq!((kept.over(&a), kept.tracked(&a)), (refused.clone(), None));
        assert!(!keep(&mut kept, progress("a")) && !keep(&mut kept, unreadable("a")));
        assert!(keep(&mut kept, over("a")) && is_over(&kept, &a));
        assert!(!keep(&mut kept, unreadable("a")) && is_over(&kept, &a));
        assert!(keep(&mut kept, unreadable("b")) && kept.forget(&b) && keep(&mut kept, unreadable("b")));
        let just_before = Timestamp::from_millis(1999);
        assert_eq!((kept.sweep(just_before), kept.over(&b)), (0, refused));
        assert_eq!((kept.sweep(Timestamp::from_millis(2000)), kept.over(&b)), (1, Ok(None)));
    }
}

//! The results that have come back and were not forgotten yet, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use crate::core::Timestamp;
use crate::protocol::result::Meta;
use crate::task::canvas::json_len;
use crate::task::{TaskId, TaskResult, TrackedState};

/// The last result or state of each task. If there are too many, or if they take too many bytes, the task that was heard
/// of first goes.
pub(super) struct RecentReplies {
    metas: HashMap<TaskId, (u64, Meta)>,
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
            metas: HashMap::new(),
            by_age: BTreeMap::new(),
            next: 0,
            most: most.max(1),
            bytes: 0,
            most_bytes,
        }
    }

    /// Keeps a result or a state. `false`: the task is over already, and its result stays.
    pub(super) fn keep(&mut self, id: TaskId, meta: Meta) -> bool {
        let size = bytes(&id, &meta);
        match self.metas.get_mut(&id) {
            Some((_, Meta::Over(_))) => return false,
            Some((_, held)) => {
                self.bytes -= bytes(&id, held);
                *held = meta;
            }
            None => {
                self.by_age.insert(self.next, id.clone());
                self.metas.insert(id.clone(), (self.next, meta));
                self.next += 1;
            }
        }
        self.bytes += size;
        while self.metas.len() > self.most || self.bytes > self.most_bytes {
            // What has just come stays, however large it is, because somebody waits for it.
            let Some(oldest) = self.by_age.values().find(|held| **held != id).cloned() else { break };
            self.forget(&oldest);
            let (most, most_bytes) = (self.most, self.most_bytes);
            tracing::warn!(id = %oldest, most, most_bytes, "more results than are kept: the oldest one is dropped");
        }
        true
    }

    pub(super) fn over(&self, id: &TaskId) -> Option<&TaskResult> {
        match self.metas.get(id) {
            Some((_, Meta::Over(record))) => Some(record),
            _ => None,
        }
    }

    pub(super) fn tracked(&self, id: &TaskId) -> Option<&TrackedState> {
        match self.metas.get(id) {
            Some((_, Meta::Tracked(state))) => Some(state),
            _ => None,
        }
    }

    pub(super) fn forget(&mut self, id: &TaskId) -> bool {
        let Some((age, meta)) = self.metas.remove(id) else { return false };
        self.by_age.remove(&age);
        self.bytes -= bytes(id, &meta);
        matches!(meta, Meta::Over(_))
    }

    /// Forgets the records that have expired. Answers with their number.
    pub(super) fn sweep(&mut self, now: Timestamp) -> usize {
        let gone = |meta: &Meta| matches!(meta, Meta::Over(record) if record.expires_at <= now);
        let ids: Vec<TaskId> =
            self.metas.iter().filter(|(_, (_, meta))| gone(meta)).map(|(id, _)| id.clone()).collect();
        ids.iter().filter(|id| self.forget(id)).count()
    }
}

/// About how much this takes of memory.
fn bytes(id: &TaskId, meta: &Meta) -> usize {
    /// What one takes beside its texts.
    const ENTRY: usize = 512;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let (texts, lineage) = match meta {
        Meta::Over(record) => {
            let errors: usize = record.errors.iter().map(|error| size_of::<String>() + error.len()).sum();
            (text(&record.result) + errors + text(&record.traceback), &record.lineage)
        }
        Meta::Tracked(state) => (state.meta.text().len() + text(&state.traceback), &state.lineage),
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

    fn over(id: &str) -> (TaskId, Meta) {
        (id.into(), Meta::Over(Box::new(record(id))))
    }

    fn progress(id: &str) -> (TaskId, Meta) {
        let meta = 5.into();
        let state =
            TrackedState { id: id.into(), state: "PROGRESS".into(), meta, traceback: None, lineage: None };
        (id.into(), Meta::Tracked(state))
    }

    fn keep(kept: &mut RecentReplies, (id, meta): (TaskId, Meta)) -> bool {
        kept.keep(id, meta)
    }

    #[test]
    fn the_end_of_a_task_stays_and_memory_is_bounded() {
        let mut kept = RecentReplies::new(2, usize::MAX);
        let [a, b, c] = ["a", "b", "c"].map(TaskId::from);
        assert!(keep(&mut kept, progress("a")) && keep(&mut kept, progress("a")));
        assert!(kept.tracked(&a).is_some() && kept.over(&a).is_none());
        assert!(keep(&mut kept, over("a")));
        assert!(!keep(&mut kept, progress("a")) && !keep(&mut kept, over("a")));
        assert!(kept.tracked(&a).is_none() && kept.over(&a).is_some());
        assert!(keep(&mut kept, progress("b")) && keep(&mut kept, over("c")));
        assert!(kept.over(&a).is_none(), "the oldest one went");
        assert!(kept.tracked(&b).is_some() && kept.over(&c).is_some());
        assert!(!kept.forget(&b) && kept.forget(&c) && !kept.forget(&c));
        assert!(kept.metas.is_empty() && kept.by_age.is_empty() && kept.bytes == 0);
        let record = record("d");
        assert!(keep(&mut kept, over("d")));
        assert_eq!((kept.sweep(record.finished_at), kept.sweep(record.expires_at)), (0, 1));
    }

    #[test]
    fn large_results_are_counted_by_their_bytes_and_the_last_one_stays() {
        const LARGE: usize = 1 << 20;
        let large = |id: &str, bytes: usize| {
            let value = Some(format!("\"{}\"", "x".repeat(bytes)));
            (TaskId::from(id), Meta::Over(Box::new(TaskResult { result: value, ..record(id) })))
        };
        let held = |kept: &RecentReplies| ["a", "b", "c", "d"].map(|id| kept.over(&id.into()).is_some());
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
}

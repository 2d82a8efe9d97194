//! The results that have come back and were not forgotten yet, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use crate::core::Timestamp;
use crate::protocol::result::Meta;
use crate::task::{TaskId, TaskResult, TrackedState};

/// The last result or state of each task. If there are too many, the task that was heard of first goes.
pub(super) struct RecentReplies {
    metas: HashMap<TaskId, (u64, Meta)>,
    by_age: BTreeMap<u64, TaskId>,
    next: u64,
    most: usize,
}

impl RecentReplies {
    pub(super) fn new(most: usize) -> Self {
        Self { metas: HashMap::new(), by_age: BTreeMap::new(), next: 0, most: most.max(1) }
    }

    /// Keeps a result or a state. `false`: the task is over already, and its result stays.
    pub(super) fn keep(&mut self, id: TaskId, meta: Meta) -> bool {
        match self.metas.get_mut(&id) {
            Some((_, Meta::Over(_))) => return false,
            Some((_, held)) => *held = meta,
            None => {
                self.by_age.insert(self.next, id.clone());
                self.metas.insert(id, (self.next, meta));
                self.next += 1;
            }
        }
        if self.metas.len() > self.most
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.metas.remove(&oldest);
            tracing::warn!(id = %oldest, most = self.most, "more results than are kept: the oldest one is dropped");
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
        let mut kept = RecentReplies::new(2);
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
        assert!(kept.metas.is_empty() && kept.by_age.is_empty());
        let record = record("d");
        assert!(keep(&mut kept, over("d")));
        assert_eq!((kept.sweep(record.finished_at), kept.sweep(record.expires_at)), (0, 1));
    }
}

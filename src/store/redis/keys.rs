//! The names of keys. Celery's are also the names of its channels.

use crate::task::UniqueKey;

/// Makes key names, all with the same prefix in front.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// With Celery's `global_keyprefix`: a `_` follows it unless it ends in one of `: _ - .`.
    pub(super) fn new(global_keyprefix: Option<&str>) -> Self {
        let mut prefix = global_keyprefix.unwrap_or_default().to_owned();
        if !prefix.is_empty() && !prefix.ends_with([':', '_', '-', '.']) {
            prefix.push('_');
        }
        Self { prefix }
    }

    /// What became of a task.
    pub(super) fn task(&self, id: &str) -> String {
        format!("{}celery-task-meta-{id}", self.prefix)
    }

    /// The task whose key, or channel, this is.
    pub(super) fn id_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("celery-task-meta-")
    }

    /// A saved group.
    pub(super) fn group(&self, id: &str) -> String {
        format!("{}celery-taskset-meta-{id}", self.prefix)
    }

    /// One of the keys of a chord: its group's, with a suffix.
    pub(super) fn chord(&self, group: &str, suffix: &str) -> String {
        format!("{}celery-taskset-meta-{group}{suffix}", self.prefix)
    }

    /// Our own: who holds a dedupe window.
    pub(super) fn window(&self, key: &UniqueKey) -> String {
        format!("{}celeriac:unique:{key}", self.prefix)
    }

    /// Our own: which window a task holds.
    pub(super) fn window_of(&self, id: &str) -> String {
        format!("{}celeriac:unique-of:{id}", self.prefix)
    }

    /// Our own: who holds a permit, and until when.
    pub(super) fn permit(&self, name: &str) -> String {
        format!("{}celeriac:permit:{name}", self.prefix)
    }

    /// Our own: the tokens of those who hold a permit.
    pub(super) fn permit_tokens(&self, name: &str) -> String {
        format!("{}celeriac:permit-tokens:{name}", self.prefix)
    }

    /// Our own: what the keys of the lanes begin with.
    pub(super) fn lanes(&self) -> String {
        format!("{}celeriac:lanes:", self.prefix)
    }

    /// Our own: until when a task is revoked.
    pub(super) fn revoked(&self, id: &str) -> String {
        format!("{}celeriac:revoked:{id}", self.prefix)
    }

    /// Our own: which copy of a task has its id.
    pub(super) fn once(&self, id: &str) -> String {
        format!("{}celeriac:once:{id}", self.prefix)
    }

    /// Our own: the notes by name, and their names in order.
    pub(super) fn notes(&self) -> [String; 2] {
        ["notes", "note-names"].map(|key| format!("{}celeriac:{key}", self.prefix))
    }

    /// Our own: who leads.
    pub(super) fn election(&self, name: &str) -> String {
        format!("{}celeriac:election:{name}", self.prefix)
    }

    /// Our own: there as long as any task is revoked.
    pub(super) fn any_revoked(&self) -> String {
        format!("{}celeriac:revoked", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_set_off_as_celery_does() {
        for (prefix, key) in [
            (None, "celery-task-meta-a"),
            (Some(""), "celery-task-meta-a"),
            (Some("hq"), "hq_celery-task-meta-a"),
            (Some("hq:"), "hq:celery-task-meta-a"),
            (Some("hq-"), "hq-celery-task-meta-a"),
            (Some("hq."), "hq.celery-task-meta-a"),
            (Some("hq_"), "hq_celery-task-meta-a"),
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.task("a"), key);
            assert_eq!(keys.id_of(key), Some("a"));
            assert_eq!(keys.id_of(&keys.revoked("a")), None);
        }
    }
}

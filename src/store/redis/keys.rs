//! The names of keys. Celery's keys are also the names of the channels on which it announces results.

use crate::task::UniqueKey;

/// Makes the names of keys, all with the same prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// Takes Celery's `global_keyprefix`. A `_` follows the prefix unless it ends in one of `: _ - .`.
    pub(super) fn new(global_keyprefix: Option<&str>) -> Self {
        let mut prefix = global_keyprefix.unwrap_or_default().to_owned();
        if !prefix.is_empty() && !prefix.ends_with([':', '_', '-', '.']) {
            prefix.push('_');
        }
        Self { prefix }
    }

    /// Celery's key of a task's result document.
    pub(super) fn task(&self, id: &str) -> String {
        format!("{}celery-task-meta-{id}", self.prefix)
    }

    /// The id of the task whose key or channel this is.
    pub(super) fn id_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("celery-task-meta-")
    }

    /// Celery's key of a saved group.
    pub(super) fn group(&self, id: &str) -> String {
        format!("{}celery-taskset-meta-{id}", self.prefix)
    }

    /// One of Celery's keys of a chord: its group's key with a suffix.
    pub(super) fn chord(&self, group: &str, suffix: &str) -> String {
        format!("{}celery-taskset-meta-{group}{suffix}", self.prefix)
    }

    /// Celeriac's key of a unique window. Its value is the id of the window's holder. The key has scope and key as
    /// JSON, `["scope","key"]`, so that no two windows share a key.
    pub(super) fn window(&self, key: &UniqueKey) -> String {
        format!("{}celeriac:unique:{}", self.prefix, scoped(key))
    }

    /// Celeriac's key of the mark that a window's task is not yet known to be published.
    pub(super) fn window_publishing(&self, key: &UniqueKey) -> String {
        format!("{}celeriac:unique-publishing:{}", self.prefix, scoped(key))
    }

    /// The name that older builds gave a unique window. Other windows may have the same name. So this store only ends
    /// such a window, and only by the id of its holder.
    pub(super) fn window_before(&self, key: &UniqueKey) -> String {
        format!("{}celeriac:unique:{key}", self.prefix)
    }

    /// Celeriac's key of the window that a task holds.
    pub(super) fn window_of(&self, id: &str) -> String {
        format!("{}celeriac:unique-of:{id}", self.prefix)
    }

    /// Celeriac's key of the holders of a permit, by the ends of their leases.
    pub(super) fn permit(&self, name: &str) -> String {
        format!("{}celeriac:permit:{name}", self.prefix)
    }

    /// Celeriac's key of the tokens of a permit's holders.
    pub(super) fn permit_tokens(&self, name: &str) -> String {
        format!("{}celeriac:permit-tokens:{name}", self.prefix)
    }

    /// Celeriac's key of a rate that all processes share. Its value is the time before which no further start lies.
    pub(super) fn rate(&self, name: &str) -> String {
        format!("{}celeriac:rate:{name}", self.prefix)
    }

    /// The beginning of Celeriac's keys of lanes.
    pub(super) fn lanes(&self) -> String {
        format!("{}celeriac:lanes:", self.prefix)
    }

    /// Celeriac's key of a task's revocation. Its value is the time at which the revocation ends.
    pub(super) fn revoked(&self, id: &str) -> String {
        format!("{}celeriac:revoked:{id}", self.prefix)
    }

    /// Celeriac's key of the copy of a message that came first, by the task's id.
    pub(super) fn once(&self, id: &str) -> String {
        format!("{}celeriac:once:{id}", self.prefix)
    }

    /// Celeriac's keys of the notes: one has the texts by name, the other has the names in order.
    pub(super) fn notes(&self) -> [String; 2] {
        ["notes", "note-names"].map(|key| format!("{}celeriac:{key}", self.prefix))
    }

    /// Celeriac's key of the leader of an election.
    pub(super) fn election(&self, name: &str) -> String {
        format!("{}celeriac:election:{name}", self.prefix)
    }

    /// Celeriac's key of the ids of all revoked tasks, by the ends of their revocations in seconds.
    pub(super) fn revocations(&self) -> String {
        format!("{}celeriac:revocations", self.prefix)
    }

    /// The channel on which revocations are announced. Its name has the number of the database, because channels belong
    /// to the whole server.
    pub(super) fn revocation_channel(&self, database: i64) -> String {
        format!("{}:{database}", self.revocations())
    }
}

/// Joins a scope and a key in it to one text from which both can be told.
fn scoped(key: &UniqueKey) -> String {
    // Two texts always have a form in JSON.
    serde_json::to_string(&(key.scope(), key.key())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_two_tasks_never_share_a_name() {
        let keys = Keys::new(None);
        let (one, other) = (UniqueKey::new("export", "admin-7"), UniqueKey::new("export-admin", "7"));
        assert_eq!(one.to_string(), other.to_string());
        assert_eq!(keys.window(&one), r#"celeriac:unique:["export","admin-7"]"#);
        assert_eq!(keys.window(&other), r#"celeriac:unique:["export-admin","7"]"#);
        let quoted = UniqueKey::new("export\",\"admin", "7");
        assert_ne!(keys.window(&quoted), keys.window(&UniqueKey::new("export", "admin\",\"7")));
    }

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

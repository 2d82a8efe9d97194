//! The members of a group: Celery's `GroupResult`.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::StoreError;
use crate::core::Timestamp;
use crate::task::TaskId;
use crate::task::canvas::Promise;

/// How long a group is kept if the caller does not say: as long as results.
pub(crate) const GROUPS_GO: Duration = Duration::from_secs(24 * 60 * 60);

/// An ability of stores: they keep the members of groups.
#[async_trait]
pub trait GroupStore: Send + Sync {
    /// Keeps the members of a group for this lifetime. `None`: as long as the store keeps results whose tasks
    /// state no time, which is a day unless it was told otherwise. A group of the same id that was saved before is
    /// replaced. It is Celery's `GroupResult.save`.
    ///
    /// # Errors
    /// The group is not kept.
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError>;

    /// A group that was saved, unless it has expired by `now`. It is Celery's `GroupResult.restore`.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError>;

    /// Forgets the members of a group. Says whether they were known. The records of the members stay.
    ///
    /// # Errors
    /// The group is not forgotten.
    async fn forget_group(&self, id: &str) -> Result<bool, StoreError>;
}

/// The members of a group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupResult {
    /// The id of the group.
    pub id: String,
    /// What the group follows, as Celery's result tuple; null if it follows nothing.
    pub parent: Value,
    /// The members of the group, in order.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMember {
    /// The member is a task of this id.
    Task(TaskId),
    /// The member is a group inside of this one.
    Group(GroupResult),
}

impl GroupResult {
    /// A group of tasks that follows nothing.
    pub fn new(id: impl Into<String>, members: impl IntoIterator<Item = GroupMember>) -> Self {
        Self { id: id.into(), parent: Value::Null, members: members.into_iter().collect() }
    }

    /// The group in which a canvas ends; `None`: it does not end in a group.
    pub fn of(promise: &Promise) -> Option<Self> {
        let member = |member: &Promise| match Self::of(member) {
            Some(group) => GroupMember::Group(group),
            None => GroupMember::Task(member.id.clone()),
        };
        let members = promise.members.as_ref()?.iter().map(member).collect();
        Some(Self { id: promise.id.to_string(), parent: Value::Null, members })
    }

    /// The promise by which the group's results are found.
    pub fn promise(&self) -> Promise {
        let members = self.members.iter().map(|member| match member {
            GroupMember::Group(group) => group.promise(),
            GroupMember::Task(id) => Promise { id: id.clone(), members: None, parent: None, ignored: false },
        });
        let members = Some(members.collect());
        Promise { id: self.id.as_str().into(), members, parent: None, ignored: false }
    }

    /// Whether there are groups among the members.
    #[cfg(feature = "redis")]
    pub(crate) fn is_nested(&self) -> bool {
        self.members.iter().any(|member| matches!(member, GroupMember::Group(_)))
    }

    /// All tasks, those of inner groups too, in order.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.members
            .iter()
            .flat_map(|member| match member {
                GroupMember::Task(id) => vec![id.clone()],
                GroupMember::Group(group) => group.tasks(),
            })
            .collect()
    }

    /// Celery's result tuple: `[[id, parent], [member, …]]`, in which a task is `[[id, null], null]`.
    pub fn to_tuple(&self) -> Value {
        let members: Vec<Value> = self
            .members
            .iter()
            .map(|member| match member {
                GroupMember::Task(id) => serde_json::json!([[id, null], null]),
                GroupMember::Group(group) => group.to_tuple(),
            })
            .collect();
        serde_json::json!([[self.id, self.parent], members])
    }

    /// Reads a result tuple; `None` if it is not that of a group. Members may be bare ids, as old clients wrote
    /// them.
    pub fn from_tuple(tuple: &Value) -> Option<Self> {
        let [head, members] = tuple.as_array()?.as_slice() else { return None };
        let [id, parent] = head.as_array()?.as_slice() else { return None };
        let members = members.as_array()?.iter().map(member).collect::<Option<_>>()?;
        Some(Self { id: id.as_str()?.to_owned(), parent: parent.clone(), members })
    }
}

fn member(tuple: &Value) -> Option<GroupMember> {
    if let Some(id) = tuple.as_str() {
        return Some(GroupMember::Task(id.into()));
    }
    let [head, inner] = tuple.as_array()?.as_slice() else { return None };
    if inner.is_array() {
        return GroupResult::from_tuple(tuple).map(GroupMember::Group);
    }
    let id = match head {
        Value::String(id) => id,
        Value::Array(head) => head.first()?.as_str()?,
        _ => return None,
    };
    Some(GroupMember::Task(id.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_group_reads_back() {
        let task = |id: &str| GroupMember::Task(id.into());
        let inner = GroupResult::new("inner", [task("b"), task("c")]);
        let group = GroupResult::new("outer", [task("a"), GroupMember::Group(inner), task("d")]);
        let tuple = group.to_tuple();
        let text = r#"[["outer",null],[[["a",null],null],[["inner",null],[[["b",null],null],[["c",null],null]]],[["d",null],null]]]"#;
        assert_eq!(tuple.to_string(), text);
        assert_eq!(GroupResult::from_tuple(&tuple), Some(group.clone()));
        assert_eq!(group.tasks(), ["a", "b", "c", "d"].map(TaskId::from));
    }

    #[test]
    fn what_is_no_group_is_none() {
        for text in ["null", "[]", r#"[["a",null],null]"#, r#"[["a",null],[7]]"#, r#"[[1,null],[]]"#] {
            assert_eq!(GroupResult::from_tuple(&serde_json::from_str(text).unwrap()), None, "{text}");
        }
    }
}

//! The index of the arguments by which tasks are searched for: the ids of the tasks that are not over, by argument and value.
//!
//! A message is in it as long as it is among those of the broker; what it is found by follows from the message alone.

use std::collections::{HashMap, HashSet};

use crate::task::{Message, TaskId};

/// The ids by the names of arguments, and then by their values.
#[derive(Default)]
pub(super) struct MemoryArgumentIndex(HashMap<String, HashMap<String, HashSet<TaskId>>>);

impl MemoryArgumentIndex {
    pub(super) fn add(&mut self, message: &Message) {
        for (name, value) in message.searched() {
            let values = self.0.entry(name.to_owned()).or_default();
            values.entry(value).or_default().insert(message.id.clone());
        }
    }

    pub(super) fn remove(&mut self, message: &Message) {
        for (name, value) in message.searched() {
            let Some(values) = self.0.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(&value) {
                ids.remove(&message.id);
                if ids.is_empty() {
                    values.remove(&value);
                }
            }
            if values.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// The tasks that have this value for this argument.
    pub(super) fn find(&self, (name, value): (&str, &str)) -> impl Iterator<Item = &TaskId> {
        self.0.get(name).and_then(|values| values.get(value)).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Context, SEARCH};

    fn message(id: &str, args: &str) -> Message {
        let mut message = Context::detached().message().clone();
        message.id = id.into();
        message.arguments.args = args.to_owned();
        message.headers.0.insert(SEARCH.to_owned(), json!({ "form_id": 0, "user": 1 }));
        message
    }

    #[test]
    fn what_is_taken_out_leaves_nothing_behind() {
        let mut index = MemoryArgumentIndex::default();
        let all = [message("a", r#"[17,"x"]"#), message("b", r#"[17]"#), message("c", "[8,17]")];
        all.iter().for_each(|message| index.add(message));
        let found = |index: &MemoryArgumentIndex, name, value| {
            let mut ids: Vec<String> = index.find((name, value)).map(ToString::to_string).collect();
            ids.sort();
            ids
        };
        assert_eq!(found(&index, "form_id", "17"), ["a", "b"]);
        assert_eq!(found(&index, "user", "17"), ["c"]);
        assert!(found(&index, "form_id", "x").is_empty() && found(&index, "other", "17").is_empty());
        index.remove(&all[0]);
        assert_eq!(
            (found(&index, "form_id", "17"), found(&index, "user", "x")),
            (vec!["b".to_owned()], vec![])
        );
        all.iter().for_each(|message| index.remove(message));
        assert!(index.0.is_empty());
    }
}

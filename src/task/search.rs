//! The arguments by which a task is searched for: those that it declares, `#[task(search = ["form_id", "user"])]`.
//!
//! A message of such a task says in the header [`SEARCH`] which of its arguments they are, and at which positions. So a broker
//! that keeps an index of them knows from the message alone under which values to put it, and takes it out under the same
//! values, whatever the program declares by then. The header has no values. The message of a call that hides its arguments has
//! no such header, and no value of it is told here.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Message;

/// The header of a task that declares by which of its arguments it is searched for: an object, from the names of these
/// parameters to their positions, from 0. It is sent only where a broker keeps an [index](Message::searched) of them.
pub const SEARCH: &str = "celeriac_search";

/// Whether an index of arguments can have this text. Lists and objects are in none, because one value may have many texts.
pub(crate) fn is_searchable(text: &str) -> bool {
    !text.starts_with(['[', '{'])
}

impl Message {
    /// The arguments by which the task is searched for, each with its value: a text as it is, without quotes, and a number,
    /// `true`, `false` or `null` as JSON, with the digits that it was sent with. Arguments that the call leaves out are left out,
    /// and so are lists, objects, and all arguments of a call that [hides](Self::hides_arguments) them.
    pub fn searched(&self) -> Vec<(&str, String)> {
        let Some(Value::Object(declared)) = self.headers.0.get(SEARCH) else { return Vec::new() };
        if self.hides_arguments() {
            return Vec::new();
        }
        let by_position: Vec<&RawValue> = serde_json::from_str(&self.arguments.args).unwrap_or_default();
        let by_name: BTreeMap<String, &RawValue> =
            serde_json::from_str(&self.arguments.kwargs).unwrap_or_default();
        let value = |name: &String, at: &Value| {
            let by_position = || by_position.get(usize::try_from(at.as_u64()?).ok()?);
            let json = by_name.get(name).or_else(by_position)?.get();
            Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()))
        };
        let values = declared.iter().filter_map(|(name, at)| Some((name.as_str(), value(name, at)?)));
        values.filter(|(_, text)| is_searchable(text)).collect()
    }

    /// The value of one of these arguments.
    pub(crate) fn searched_argument(&self, name: &str) -> Option<String> {
        self.searched().into_iter().find(|(known, _)| *known == name).map(|(_, text)| text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Arguments, Context};

    fn message(args: &str, kwargs: &str) -> Message {
        let mut message = Context::detached().message().clone();
        message.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
        message.headers.0.insert(SEARCH.to_owned(), json!({ "form_id": 0, "user": 2 }));
        message
    }

    fn searched(message: &Message) -> Vec<(String, String)> {
        message.searched().into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    fn values<const N: usize>(values: [(&str, &str); N]) -> Vec<(String, String)> {
        values.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
    }

    #[test]
    fn values_are_found_by_name_and_by_position() {
        let found = searched(&message(r#"[17,[1],"amina"]"#, ""));
        assert_eq!(found, values([("form_id", "17"), ("user", "amina")]));
        let found = searched(&message("[17.50]", r#"{"user":"\u00fc","x":1}"#));
        assert_eq!(found, values([("form_id", "17.50"), ("user", "ü")]));
        let found = searched(&message("[true,0,null]", "{}"));
        assert_eq!(found, values([("form_id", "true"), ("user", "null")]));
        assert_eq!(message("[\"17\"]", "").searched_argument("form_id").as_deref(), Some("17"));
        assert_eq!(message("[17]", "").searched_argument("x"), None, "it is not declared");
    }

    #[test]
    fn what_cannot_be_searched_for_is_left_out() {
        for (args, kwargs) in [
            ("", ""),
            ("[]", ""),
            ("no JSON", "no JSON"),
            (r#"[[17],0,{"a":1}]"#, ""),
            (r#"["[17]"]"#, ""),
            ("[]", r#"{"other":1}"#),
        ] {
            assert!(message(args, kwargs).searched().is_empty(), "{args} {kwargs}");
        }
        let mut odd = message("[17]", "");
        for header in [json!("form_id"), json!({ "form_id": "0" }), json!({ "form_id": -1 }), json!(null)] {
            odd.headers.0.insert(SEARCH.to_owned(), header);
            assert!(odd.searched().is_empty(), "{:?}", odd.headers);
        }
        odd.headers.0.remove(SEARCH);
        assert!(odd.searched().is_empty(), "nothing is declared");
        let mut hidden = message("[17]", "");
        hidden.headers.0.insert("argsrepr".to_owned(), "***".into());
        assert!(hidden.searched().is_empty(), "none of it is told");
    }
}

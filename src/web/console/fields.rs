//! The fields of a form, as they were sent.

use std::collections::HashMap;

use super::address::{LONGEST, PageName, ScreenAddress};
use super::problem::ConsoleProblem;
use super::words;
use crate::task::{Arguments, TaskId};

/// The most bytes of edited arguments.
const MOST_ARGUMENTS: usize = 256 << 10;

/// The fields of a form.
pub(super) struct FormFields(HashMap<String, String>);

impl FormFields {
    pub(super) fn of(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(fields.into_iter().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All fields, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a field that must be there and is short.
    pub(super) fn required(&self, name: &str) -> Result<String, ConsoleProblem> {
        match self.get(name).map(str::trim) {
            None | Some("") => Err(ConsoleProblem::malformed(format!("The act lacks `{name}`."))),
            Some(text) if text.len() > LONGEST => Err(ConsoleProblem::malformed(format!(
                "`{name}` has {} bytes; it has at most {LONGEST}.",
                text.len()
            ))),
            Some(text) => Ok(text.to_owned()),
        }
    }

    /// The value of a field that may be left out, and is short.
    pub(super) fn optional(&self, name: &str) -> Result<Option<String>, ConsoleProblem> {
        match self.get(name).map(str::trim) {
            None | Some("") => Ok(None),
            Some(_) => self.required(name).map(Some),
        }
    }

    pub(super) fn id(&self) -> Result<TaskId, ConsoleProblem> {
        let id = TaskId::from(self.required("id")?);
        if id.is_usable() { Ok(id) } else { Err(ConsoleProblem::malformed("An id has 1 to 255 bytes.")) }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, ConsoleProblem> {
        let text = self.required(name)?;
        let shown = words::line(&text, 40);
        text.parse().map_err(|_| ConsoleProblem::malformed(format!("`{shown}` is no number for `{name}`.")))
    }

    /// What chooses failed tasks, and up to when they were counted.
    pub(super) fn chosen(&self) -> Result<ScreenAddress, ConsoleProblem> {
        let names = ["task", "queue", "tenant", "argument", "error", "kind", "until"];
        let fields = names.into_iter().filter_map(|name| Some((name.to_owned(), self.get(name)?.to_owned())));
        ScreenAddress::checked(PageName::Failed, fields.collect()).map_err(ConsoleProblem::malformed)
    }

    /// The arguments of an edit, checked as far as they are JSON.
    pub(super) fn arguments(&self) -> Result<Arguments, ConsoleProblem> {
        let text = |name: &str| self.get(name).unwrap_or_default().trim().to_owned();
        let (args, kwargs) = (text("args"), text("kwargs"));
        if args.len() + kwargs.len() > MOST_ARGUMENTS {
            return Err(ConsoleProblem::malformed(
                "These arguments are too large for a form; use `celeriac failed retry`.",
            ));
        }
        let is_list = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&args);
        if let Err(error) = is_list {
            return Err(ConsoleProblem::malformed(format!(
                "The arguments by position are no JSON array: {error}."
            )));
        }
        if !kwargs.is_empty() {
            let is_map = serde_json::from_str::<HashMap<String, serde::de::IgnoredAny>>(&kwargs);
            is_map.map_err(|error| {
                ConsoleProblem::malformed(format!("The arguments by name are no JSON object: {error}."))
            })?;
        }
        Ok(Arguments { args, kwargs: if kwargs == "{}" { String::new() } else { kwargs } })
    }
}

//! The fields of a form, as they were sent.

use std::collections::HashMap;

use super::address::{LONGEST, PageName, ScreenAddress};
use super::problem::ConsoleProblem;
use super::words;
use crate::task::TaskId;

/// The fields of a form.
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
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
}

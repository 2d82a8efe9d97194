//! The text in which the brakes of a fleet are kept: a list in JSON.
//!
//! An entry that this version cannot read, because a newer one has written it, stays in the text when other entries change.

use serde_json::Value;

use super::{Brake, BrakeError, MOST_BRAKES};
use crate::core::Timestamp;

/// The brakes of a fleet, as they are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrakeNote {
    entries: Vec<Value>,
}

impl BrakeNote {
    /// Reads the text; without one there are no brakes.
    ///
    /// # Errors
    /// The text is no list in JSON, with the reason. Nothing can be read from it.
    pub fn read(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::default()) };
        serde_json::from_str(text).map(|entries| Self { entries }).map_err(|error| error.to_string())
    }

    /// The text; `None`: there are no brakes.
    pub fn text(&self) -> Option<String> {
        (!self.entries.is_empty()).then(|| Value::from(self.entries.clone()).to_string())
    }

    /// The brakes that can be read, and how many cannot be.
    pub fn brakes(&self) -> (Vec<Brake>, usize) {
        let brakes: Vec<Brake> = self.entries.iter().filter_map(read).collect();
        let unread = self.entries.len() - brakes.len();
        (brakes, unread)
    }

    /// The same brakes with this one, which takes the place of one of the same id. Brakes that have ended are left out.
    ///
    /// # Errors
    /// There are too many.
    pub fn with(&self, brake: &Brake, now: Timestamp) -> Result<Self, BrakeError> {
        let mut entries: Vec<Value> =
            self.living(now).filter(|entry| id(entry) != brake.id).cloned().collect();
        if entries.len() >= MOST_BRAKES {
            return Err(BrakeError::TooMany);
        }
        entries.extend(serde_json::to_value(brake).ok()); // a brake has texts and numbers, so it has a form in JSON
        Ok(Self { entries })
    }

    /// The same brakes without the one of this id, and that one if there was one. Brakes that have ended are left out.
    pub fn without(&self, wanted: &str, now: Timestamp) -> (Self, Option<Brake>) {
        let taken = self.entries.iter().find(|entry| id(entry) == wanted).and_then(read);
        let entries = self.living(now).filter(|entry| id(entry) != wanted).cloned().collect();
        (Self { entries }, taken)
    }

    /// Whether there is an entry of this id, whether it can be read or not.
    pub fn has(&self, wanted: &str) -> bool {
        self.entries.iter().any(|entry| id(entry) == wanted)
    }

    fn living(&self, now: Timestamp) -> impl Iterator<Item = &Value> {
        self.entries.iter().filter(move |entry| read(entry).is_none_or(|brake| !brake.has_ended(now)))
    }
}

fn id(entry: &Value) -> &str {
    entry.get("id").and_then(Value::as_str).unwrap_or_default()
}

fn read(entry: &Value) -> Option<Brake> {
    serde_json::from_value(entry.clone()).ok()
}

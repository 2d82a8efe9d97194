//! What beat remembers, as notes in the store.
//!
//! | note | says |
//! |---|---|
//! | `beat/fired/ENTRY` | up to when its ticks are decided, by which schedule, and the task of the last one |
//! | `beat/day/ENTRY`, newline, `TENANT` | the last day that the tenant had |
//! | `beat/entry/ENTRY` | an entry that was added or changed at run time |
//! | `beat/paused/ENTRY` | that it is paused |

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::status::Origin;
use super::{BeatParts, Live};
use crate::core::Timestamp;
use crate::store::{NoteChange, Notes, StoreError};
use crate::task::clock::now;
use crate::task::{Periodic, TaskId};

const FIRED: &str = "beat/fired/";
const DAY: &str = "beat/day/";
const ENTRY: &str = "beat/entry/";
const PAUSED: &str = "beat/paused/";

/// Up to when an entry's ticks are decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fired {
    pub(super) last: Timestamp,
    /// The schedule that they are ticks of: another one begins anew.
    pub(super) schedule: String,
    /// The last tick that was published, and when it stops being of use.
    pub(super) id: Option<TaskId>,
    pub(super) expires: Option<Timestamp>,
}

impl Fired {
    pub(super) fn text(&self) -> String {
        // Numbers and text: there is nothing in it that has no form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(super) fn fired_key(entry: &str) -> String {
    format!("{FIRED}{entry}")
}

pub(super) fn day_key(entry: &str, tenant: &str) -> String {
    format!("{DAY}{entry}\n{tenant}")
}

pub(super) fn entry_key(entry: &str) -> String {
    format!("{ENTRY}{entry}")
}

pub(super) fn paused_key(entry: &str) -> String {
    format!("{PAUSED}{entry}")
}

/// Sets a note, whatever it says.
pub(super) async fn set(notes: &dyn Notes, key: String, value: Option<String>) -> Result<(), StoreError> {
    loop {
        let expected = notes.note(&key).await?;
        if expected == value {
            return Ok(());
        }
        let change = NoteChange { key: key.clone(), expected, value: value.clone() };
        if notes.change_note(change).await? {
            return Ok(());
        }
    }
}

/// All entries as they are to go on: those of the program and its catalogue, and those of run time. An entry that is seen
/// for the first time, or with another schedule than before, begins now, and that is noted before it begins.
pub(super) async fn recall(parts: &BeatParts) -> Result<Vec<Live>, StoreError> {
    let notes = parts.runtime.notes();
    let suffix = |key: String, prefix: &str| key[prefix.len()..].to_owned();
    let mut entries: HashMap<String, (Periodic, Origin)> =
        parts.entries.iter().map(|(entry, origin)| (entry.name.clone(), (entry.clone(), *origin))).collect();
    for (key, text) in notes.notes(ENTRY).await? {
        let name = suffix(key, ENTRY);
        match Periodic::from_text(&name, &text) {
            Ok(mut entry) => {
                // The source of tenants is code.
                entry.tenants = entries.get(&name).and_then(|(written, _)| written.tenants);
                entries.insert(name, (entry, Origin::RunTime));
            }
            Err(error) => {
                tracing::error!(
                    entry = name,
                    error,
                    "an entry that was kept cannot be read and does not fire"
                );
            }
        }
    }
    let mut fired: HashMap<String, String> =
        notes.notes(FIRED).await?.into_iter().map(|(key, text)| (suffix(key, FIRED), text)).collect();
    let paused: HashMap<String, String> =
        notes.notes(PAUSED).await?.into_iter().map(|(key, text)| (suffix(key, PAUSED), text)).collect();
    let mut all = Vec::new();
    for (name, (entry, origin)) in entries {
        let mut live = Live::new(entry, origin, fired.remove(&name));
        live.paused = paused.contains_key(&name);
        begin(notes, &mut live).await?;
        if live.entry.tenants.is_some() {
            let prefix = day_key(&name, "");
            let days = notes.notes(&prefix).await?;
            live.days = days.into_iter().map(|(key, day)| (suffix(key, &prefix), day)).collect();
        }
        all.push(live);
    }
    Ok(all)
}

/// Lets an entry begin now if it never fired by its schedule.
async fn begin(notes: &dyn Notes, live: &mut Live) -> Result<(), StoreError> {
    let key = fired_key(&live.entry.name);
    let schedule = live.entry.schedule.to_string();
    while live.note.is_none() || live.fired.schedule != schedule {
        let begun = Fired { last: now(), schedule: schedule.clone(), ..live.fired.clone() };
        let value = Some(begun.text());
        let change = NoteChange { key: key.clone(), expected: live.note.clone(), value: value.clone() };
        if notes.change_note(change).await? {
            (live.note, live.fired) = (value, begun);
        } else {
            live.remember(notes.note(&key).await?); // somebody else has begun it
        }
    }
    Ok(())
}

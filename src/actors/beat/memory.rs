//! What beat remembers: notes in the store, or in the broker if it keeps notes. A leader reads them all when it
//! begins, and changes them by compare-and-set only, so that two processes cannot overwrite each other.
//!
//! | note | says |
//! |---|---|
//! | `beat/fired/ENTRY` | up to when the entry's ticks are decided, by which schedule, and the task of the last one |
//! | `beat/day/ENTRY`, newline, `TENANT` | the last local day whose tick the tenant had |
//! | `beat/entry/ENTRY` | an entry that was added or changed at run time |
//! | `beat/paused/ENTRY` | that the entry is paused, and since when |

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::status::EntryOrigin;
use super::{BeatParts, LiveEntry};
use crate::core::Timestamp;
use crate::store::{CompareAndSet, Notes, StoreError};
use crate::task::clock::now;
use crate::task::{Periodic, TaskId};

const FIRED: &str = "beat/fired/";
const DAY: &str = "beat/day/";
const ENTRY: &str = "beat/entry/";
const PAUSED: &str = "beat/paused/";

/// The note of an entry: up to when its ticks are decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fired {
    /// All ticks up to this time are decided.
    pub(super) last: Timestamp,
    /// The schedule of these ticks. With another schedule the entry begins anew.
    pub(super) schedule: String,
    /// The task of the last published tick, and when that task expires.
    pub(super) id: Option<TaskId>,
    pub(super) expires: Option<Timestamp>,
}

impl Fired {
    /// The note's text.
    pub(super) fn text(&self) -> String {
        // The struct has only numbers and text, so it always has a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The key of the note of what is decided of an entry.
pub(super) fn fired_key(entry: &str) -> String {
    format!("{FIRED}{entry}")
}

/// The key of the note of a tenant's last day.
pub(super) fn day_key(entry: &str, tenant: &str) -> String {
    format!("{DAY}{entry}\n{tenant}")
}

/// The key of the note of an entry that was added or changed at run time.
pub(super) fn entry_key(entry: &str) -> String {
    format!("{ENTRY}{entry}")
}

/// The key of the note that exists while an entry is paused.
pub(super) fn paused_key(entry: &str) -> String {
    format!("{PAUSED}{entry}")
}

/// All entries as they go on: those of the program and its catalogue, and those of run time. An entry that is new,
/// or has another schedule than before, begins now; that is noted before its first tick.
pub(super) async fn recall(parts: &BeatParts) -> Result<Vec<LiveEntry>, StoreError> {
    let notes = parts.runtime.notes();
    let suffix = |key: String, prefix: &str| key[prefix.len()..].to_owned();
    let mut entries: HashMap<String, (Periodic, EntryOrigin)> =
        parts.entries.iter().map(|(entry, origin)| (entry.name.clone(), (entry.clone(), *origin))).collect();
    for (key, text) in notes.notes(ENTRY).await? {
        let name = suffix(key, ENTRY);
        match Periodic::from_text(&name, &text) {
            Ok(mut entry) => {
                // The source of tenants is code, so it is in no note: it comes from the program's entry.
                entry.tenants = entries.get(&name).and_then(|(written, _)| written.tenants);
                entries.insert(name, (entry, EntryOrigin::RunTime));
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
        let mut live = LiveEntry::new(entry, origin, fired.remove(&name));
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

/// Has an entry begin now if it never fired by its schedule.
async fn begin(notes: &dyn Notes, live: &mut LiveEntry) -> Result<(), StoreError> {
    let key = fired_key(&live.entry.name);
    let schedule = live.entry.schedule.to_string();
    while live.note.is_none() || live.fired.schedule != schedule {
        let begun = Fired { last: now(), schedule: schedule.clone(), ..live.fired.clone() };
        let value = Some(begun.text());
        let change = CompareAndSet { key: key.clone(), expected: live.note.clone(), value: value.clone() };
        if notes.compare_and_set(change).await? {
            (live.note, live.fired) = (value, begun);
        } else {
            live.remember(notes.note(&key).await?); // another process has begun it
        }
    }
    Ok(())
}

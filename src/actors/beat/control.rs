//! What an operator asks of beat: list, add, change, take out, pause, resume, trigger. The free functions do the
//! work on the notes; the actor's handlers use them, and so does the beat of a test (`stepped.rs`), which has no
//! actor.
//!
//! Invariant: only a beat that leads answers. Another one's entries may be out of date.

use std::sync::Arc;

use actix::{ActorFutureExt, Handler, Message, ResponseActFuture, WrapFuture};

use super::memory::{Fired, day_key, entry_key, fired_key, paused_key};
use super::status::{BeatError, EntryOrigin, EntryStatus};
use super::tick::options;
use super::{Beat, BeatParts, LiveEntry};
use crate::core::calendar::{Agenda, Tenants};
use crate::core::did_you_mean;
use crate::store::{CompareAndSet, StoreError, set_note};
use crate::task::clock::now;
use crate::task::{NewTask, Periodic, Receipt};

impl Beat {
    /// Whether this beat may answer for the entries. If it does not lead, or its lease is over, another process
    /// knows better.
    fn answers(&self) -> bool {
        self.leads && self.is_in_office()
    }

    fn live(&self, name: &str) -> Result<&LiveEntry, BeatError> {
        if !self.answers() {
            return Err(BeatError::NotAnswering);
        }
        self.entries.get(name).ok_or_else(|| unknown(self.entries.keys(), name))
    }
}

/// The error for a name that no entry has, with the nearest known name as a hint.
pub(super) fn unknown<'a>(known: impl Iterator<Item = &'a String>, name: &str) -> BeatError {
    BeatError::Unknown { name: name.to_owned(), hint: did_you_mean::hint(name, known) }
}

/// The status of an entry now.
pub(super) fn status_of(name: &str, live: &LiveEntry, agenda: &Agenda) -> EntryStatus {
    EntryStatus {
        name: name.to_owned(),
        task: live.entry.task.clone(),
        schedule: live.entry.schedule.to_string(),
        entry: Arc::clone(&live.entry),
        origin: live.origin,
        paused: live.paused,
        next: match &live.tenants {
            Some(tenants) if !live.paused => tenants.next(),
            _ => agenda.next_of(name),
        },
        last: live.fired.last,
        last_id: live.fired.id.as_ref().map(ToString::to_string),
        held: live.waits_for.is_some(),
        tenants: live.tenants.as_ref().map(Tenants::len),
        published: live.published,
        coalesced: live.coalesced,
        past: live.past.iter().cloned().collect(),
        error: live.error.clone(),
    }
}

/// Keeps an entry that an operator adds or changes. `written` is the entry that had its name before; if the new one
/// names no tenants, it keeps those, because a source of tenants is code and cannot be written into a note.
pub(super) async fn keep(
    parts: &BeatParts,
    mut entry: Periodic,
    written: Option<Arc<Periodic>>,
) -> Result<(), BeatError> {
    if entry.tenants.is_none() {
        entry.tenants = written.and_then(|written| written.tenants);
    }
    if let Some(fault) = entry.fault() {
        return Err(BeatError::Entry { name: entry.name.clone(), fault });
    }
    set_note(parts.runtime.notes(), entry_key(&entry.name), Some(entry.to_text())).await?;
    Ok(())
}

/// Deletes the notes about an entry that was added or changed at run time. `days` are the tenants that have a note
/// of their last day. If the program has an entry of this name, its own notes stay.
pub(super) async fn take_out(parts: &BeatParts, name: &str, days: Vec<String>) -> Result<(), BeatError> {
    let notes = parts.runtime.notes();
    set_note(notes, entry_key(name), None).await?;
    if !parts.entries.iter().any(|(entry, _)| entry.name == name) {
        set_note(notes, fired_key(name), None).await?;
        set_note(notes, paused_key(name), None).await?;
        for tenant in days {
            set_note(notes, day_key(name, &tenant), None).await?;
        }
    }
    Ok(())
}

/// Notes that an entry is paused, or that its pause is over. Ticks that came due in the pause are not made up for,
/// not even after a restart; therefore the end of a pause notes that all ticks up to now are decided. `before` is
/// what the entry's note said, if the entry is paused. Returns what it says now, if it was changed.
pub(super) async fn note_pause(
    parts: &BeatParts,
    entry: &str,
    paused: bool,
    before: Option<(Fired, Option<String>)>,
) -> Result<Option<(String, Fired)>, BeatError> {
    let notes = parts.runtime.notes();
    set_note(notes, paused_key(entry), paused.then(|| now().to_string())).await?;
    let Some((fired, note)) = before.filter(|_| !paused) else { return Ok(None) };
    let begun = Fired { last: fired.last.max(now()), ..fired };
    let value = begun.text();
    let change = CompareAndSet { key: fired_key(entry), expected: note, value: Some(value.clone()) };
    // If the note says something else by now, another process has decided more ticks, and this change fails.
    Ok(notes.compare_and_set(change).await?.then_some((value, begun)))
}

/// The call that a trigger makes, beside the entry's schedule.
pub(super) fn call_of(parts: &BeatParts, live: &LiveEntry) -> Result<NewTask, BeatError> {
    if live.entry.tenants.is_some() {
        return Err(BeatError::PerTenant(live.entry.name.clone()));
    }
    let mut call = NewTask::new(&live.entry.task, options(parts, &live.entry));
    call.arguments = live.entry.arguments.clone();
    call.headers.0.insert("celery_beat_task".to_owned(), true.into());
    Ok(call)
}

/// Asks for all entries, ordered by name.
#[derive(Message)]
#[rtype(result = "Result<Vec<EntryStatus>, BeatError>")]
pub(super) struct GetEntries;

impl Handler<GetEntries> for Beat {
    type Result = Result<Vec<EntryStatus>, BeatError>;

    fn handle(&mut self, _: GetEntries, _: &mut Self::Context) -> Self::Result {
        if !self.answers() {
            return Err(BeatError::NotAnswering);
        }
        let mut all: Vec<_> =
            self.entries.iter().map(|(name, live)| status_of(name, live, &self.agenda)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// Adds or changes an entry, and keeps it in the notes.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(super) struct Put(pub(super) Box<Periodic>);

impl Handler<Put> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, Put(entry): Put, _: &mut Self::Context) -> Self::Result {
        let written = self.entries.get(&entry.name).map(|live| Arc::clone(&live.entry));
        let refused = (!self.answers()).then_some(BeatError::NotAnswering);
        let parts = Arc::clone(&self.parts);
        let kept = async move {
            match refused {
                Some(refusal) => Err(refusal),
                None => keep(&parts, *entry, written).await,
            }
        };
        Box::pin(kept.into_actor(self).map(|kept, beat, ctx| {
            kept?;
            beat.load(ctx);
            Ok(())
        }))
    }
}

/// Takes out an entry that was added at run time. An entry of the program that was changed is as the program says
/// again.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(super) struct Remove(pub(super) String);

impl Handler<Remove> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, Remove(name): Remove, _: &mut Self::Context) -> Self::Result {
        let refused = match self.live(&name) {
            Err(error) => Some(error),
            Ok(live) if live.origin != EntryOrigin::RunTime => Some(BeatError::Written(name.clone())),
            Ok(_) => None,
        };
        let days: Vec<String> =
            self.entries.get(&name).map(|live| live.days.keys().cloned().collect()).unwrap_or_default();
        let parts = Arc::clone(&self.parts);
        let removed = async move {
            match refused {
                Some(refusal) => Err(refusal),
                None => take_out(&parts, &name, days).await,
            }
        };
        Box::pin(removed.into_actor(self).map(|removed, beat, ctx| {
            removed?;
            beat.load(ctx);
            Ok(())
        }))
    }
}

/// Pauses an entry or ends its pause. A pause lasts through restarts.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(super) struct PauseEntry {
    pub(crate) entry: String,
    pub(crate) paused: bool,
}

impl Handler<PauseEntry> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, PauseEntry { entry, paused }: PauseEntry, _: &mut Self::Context) -> Self::Result {
        let (refused, before) = match self.live(&entry) {
            Ok(live) => (None, live.in_pause()),
            Err(error) => (Some(error), None),
        };
        let parts = Arc::clone(&self.parts);
        let name = entry.clone();
        let noted = async move {
            match refused {
                Some(refusal) => Err(refusal),
                None => note_pause(&parts, &name, paused, before).await,
            }
        };
        Box::pin(noted.into_actor(self).map(move |noted, beat, ctx| {
            let noted = noted?;
            if let Some(live) = beat.entries.get_mut(&entry) {
                live.paused = paused;
                live.take_note(noted);
            }
            if paused {
                beat.agenda.pause(&entry);
            } else {
                beat.agenda.resume(&entry, now());
            }
            beat.pump(ctx);
            Ok(())
        }))
    }
}

/// Calls an entry's task now, whatever its schedule says. The schedule goes on as before.
#[derive(Message)]
#[rtype(result = "Result<Receipt, BeatError>")]
pub(super) struct Trigger(pub(super) String);

impl Handler<Trigger> for Beat {
    type Result = ResponseActFuture<Self, Result<Receipt, BeatError>>;

    fn handle(&mut self, Trigger(name): Trigger, _: &mut Self::Context) -> Self::Result {
        let call = self.live(&name).and_then(|live| call_of(&self.parts, live));
        let parts = Arc::clone(&self.parts);
        let triggered = async move {
            let client = parts.client().ok_or(BeatError::Store(StoreError::Closed))?;
            Ok(client.enqueue(Box::new(call?)).await?)
        };
        Box::pin(triggered.into_actor(self))
    }
}

//! What an operator asks of beat: look, add, change, take out, pause, resume, trigger.

use std::sync::Arc;

use actix::{ActorFutureExt, Handler, Message, ResponseActFuture, WrapFuture};

use super::memory::{self, day_key, entry_key, fired_key, paused_key};
use super::status::{BeatError, EntryStatus, Origin};
use super::tick::options;
use super::{Beat, Live};
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{NewTask, Periodic, Receipt};

impl Beat {
    /// Whether what it says of the entries is so: another one may know better, or is about to.
    fn answers(&self) -> bool {
        self.leads && self.is_in_office()
    }

    fn live(&self, name: &str) -> Result<&Live, BeatError> {
        if !self.answers() {
            return Err(BeatError::NotAnswering);
        }
        self.entries.get(name).ok_or_else(|| {
            let nearest = self
                .entries
                .keys()
                .map(|known| (strsim::jaro_winkler(known, name), known))
                .filter(|(score, _)| *score > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = nearest.map_or(String::new(), |(_, known)| format!("; did you mean `{known}`?"));
            BeatError::Unknown { name: name.to_owned(), hint }
        })
    }
}

/// All entries, by name.
#[derive(Message)]
#[rtype(result = "Result<Vec<EntryStatus>, BeatError>")]
pub(crate) struct GetEntries;

impl Handler<GetEntries> for Beat {
    type Result = Result<Vec<EntryStatus>, BeatError>;

    fn handle(&mut self, _: GetEntries, _: &mut Self::Context) -> Self::Result {
        if !self.answers() {
            return Err(BeatError::NotAnswering);
        }
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(name, live)| EntryStatus {
                name: name.clone(),
                task: live.entry.task.clone(),
                schedule: live.entry.schedule.to_string(),
                origin: live.origin,
                paused: live.paused,
                next: match &live.tenants {
                    Some(tenants) if !live.paused => tenants.next(),
                    _ => self.agenda.next_of(name),
                },
                last: live.fired.last,
                last_id: live.fired.id.as_ref().map(ToString::to_string),
                held: live.waits_for.is_some(),
                tenants: live.tenants.as_ref().map(crate::core::calendar::Tenants::len),
                published: live.published,
                coalesced: live.coalesced,
                error: live.error.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

/// Add or change an entry, and keep it.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(crate) struct Put(pub(crate) Box<Periodic>);

impl Handler<Put> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, Put(entry): Put, _: &mut Self::Context) -> Self::Result {
        let name = entry.name.clone();
        let written = self.entries.get(&name);
        let mut entry = *entry;
        if entry.tenants.is_none() {
            entry.tenants = written.and_then(|live| live.entry.tenants);
        }
        let refused = if !self.answers() {
            Some(BeatError::NotAnswering)
        } else {
            entry.fault().map(|fault| BeatError::Entry { name: name.clone(), fault })
        };
        let parts = Arc::clone(&self.parts);
        let kept = async move {
            if let Some(refusal) = refused {
                return Err(refusal);
            }
            memory::set(parts.runtime.notes(), entry_key(&name), Some(entry.to_text())).await?;
            Ok(())
        };
        Box::pin(kept.into_actor(self).map(|kept, beat, ctx| {
            kept?;
            beat.load(ctx);
            Ok(())
        }))
    }
}

/// Take an entry of run time out. A changed one is again what the program says.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(crate) struct Remove(pub(crate) String);

impl Handler<Remove> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, Remove(name): Remove, _: &mut Self::Context) -> Self::Result {
        let refused = match self.live(&name) {
            Err(error) => Some(error),
            Ok(live) if live.origin != Origin::RunTime => Some(BeatError::Written(name.clone())),
            Ok(_) => None,
        };
        let days: Vec<String> =
            self.entries.get(&name).map(|live| live.days.keys().cloned().collect()).unwrap_or_default();
        let parts = Arc::clone(&self.parts);
        let is_written = parts.entries.iter().any(|(entry, _)| entry.name == name);
        let removed = async move {
            if let Some(refusal) = refused {
                return Err(refusal);
            }
            let notes = parts.runtime.notes();
            memory::set(notes, entry_key(&name), None).await?;
            if !is_written {
                memory::set(notes, fired_key(&name), None).await?;
                memory::set(notes, paused_key(&name), None).await?;
                for tenant in days {
                    memory::set(notes, day_key(&name, &tenant), None).await?;
                }
            }
            Ok(())
        };
        Box::pin(removed.into_actor(self).map(|removed, beat, ctx| {
            removed?;
            beat.load(ctx);
            Ok(())
        }))
    }
}

/// Pause an entry, or end its pause. It lasts through restarts.
#[derive(Message)]
#[rtype(result = "Result<(), BeatError>")]
pub(crate) struct Pause {
    pub(crate) entry: String,
    pub(crate) paused: bool,
}

impl Handler<Pause> for Beat {
    type Result = ResponseActFuture<Self, Result<(), BeatError>>;

    fn handle(&mut self, Pause { entry, paused }: Pause, _: &mut Self::Context) -> Self::Result {
        let refused = self.live(&entry).err();
        let parts = Arc::clone(&self.parts);
        let name = entry.clone();
        let noted = async move {
            if let Some(refusal) = refused {
                return Err(refusal);
            }
            let value = paused.then(|| now().to_string());
            memory::set(parts.runtime.notes(), paused_key(&name), value).await?;
            Ok(())
        };
        Box::pin(noted.into_actor(self).map(move |noted, beat, ctx| {
            noted?;
            if let Some(live) = beat.entries.get_mut(&entry) {
                live.paused = paused;
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

/// Call an entry's task now, whatever its schedule says, and without touching that.
#[derive(Message)]
#[rtype(result = "Result<Receipt, BeatError>")]
pub(crate) struct Trigger(pub(crate) String);

impl Handler<Trigger> for Beat {
    type Result = ResponseActFuture<Self, Result<Receipt, BeatError>>;

    fn handle(&mut self, Trigger(name): Trigger, _: &mut Self::Context) -> Self::Result {
        let call = self.live(&name).and_then(|live| {
            if live.entry.tenants.is_some() {
                return Err(BeatError::PerTenant(name));
            }
            let mut call = NewTask::new(&live.entry.task, options(&self.parts, &live.entry));
            call.arguments = live.entry.arguments.clone();
            call.headers.0.insert("celery_beat_task".to_owned(), true.into());
            Ok(call)
        });
        let parts = Arc::clone(&self.parts);
        let triggered = async move {
            let client = parts.client().ok_or(BeatError::Store(StoreError::Closed))?;
            Ok(client.enqueue(call?).await?)
        };
        Box::pin(triggered.into_actor(self))
    }
}

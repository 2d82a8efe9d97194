//! Beat for tests: it has the same notes, agenda and way of publishing as the actor, but nobody sleeps. The test's
//! clock asks when the next tick is due, moves there, and has the tick published.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use super::control::{call_of, keep, note_pause, status_of, take_out, unknown};
use super::round::{RoundOutcome, RoundStop, publish_all};
use super::tenants::{list_here, publish};
use super::{AGAIN, BeatError, BeatParts, EntryOrigin, EntryStatus, LOOK, LiveEntry, memory};
use crate::core::Timestamp;
use crate::core::calendar::Agenda;
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::scope::Scope;
use crate::task::{NewTask, Periodic, Receipt, State};

/// Leads the levers of a test's [`BeatHandle`](crate::app::BeatHandle) to the test's beat, and puts them under the
/// test's clock.
pub(crate) struct Stepping {
    pub(crate) beat: Weak<Mutex<Option<SteppedBeat>>>,
    pub(crate) scope: Scope,
}

impl Stepping {
    /// Moves a lever, under the test's clock.
    pub(crate) async fn step<T: Send>(
        &self,
        step: impl for<'a> AsyncFnOnce(&'a mut SteppedBeat) -> Result<T, BeatError>,
    ) -> Result<T, BeatError> {
        let beat = self.beat.upgrade().ok_or(BeatError::NotAnswering)?;
        let stepped = async {
            match &mut *beat.lock().await {
                Some(beat) => step(beat).await,
                None => Err(BeatError::NotAnswering),
            }
        };
        self.scope.around(std::pin::pin!(stepped)).await
    }

    /// Ends beat for good.
    pub(crate) async fn end(&self) -> Result<(), BeatError> {
        let beat = self.beat.upgrade().ok_or(BeatError::NotAnswering)?;
        beat.lock().await.take().map(drop).ok_or(BeatError::NotAnswering)
    }

    /// Makes a call in the way the test makes its calls.
    pub(crate) async fn enqueue(&self, call: NewTask) -> Result<Receipt, BeatError> {
        let client = self.scope.client.upgrade().ok_or(BeatError::NotAnswering)?;
        Ok(client.enqueue(Box::new(call)).await?)
    }
}

/// The beat of one test.
pub(crate) struct SteppedBeat {
    parts: Arc<BeatParts>,
    agenda: Agenda,
    entries: BTreeMap<String, LiveEntry>,
}

impl SteppedBeat {
    /// Reads the notes and begins at the test's present time.
    pub(crate) async fn begin(parts: Arc<BeatParts>) -> Result<Self, StoreError> {
        let mut agenda = Agenda::default();
        let mut entries = BTreeMap::new();
        for mut live in memory::recall(&parts).await? {
            let entry = Arc::clone(&live.entry);
            if !live.expect_tenants() {
                let last = Some(live.fired.last);
                agenda.put(&entry.name, entry.schedule.clone(), entry.misfire, last, now());
                if live.paused {
                    agenda.pause(&entry.name);
                }
            }
            entries.insert(entry.name.clone(), live);
        }
        Ok(Self { parts, agenda, entries })
    }

    /// Reads the notes anew, as the actor does when an entry was changed.
    async fn load(&mut self) -> Result<(), BeatError> {
        let before = std::mem::replace(self, Self::begin(Arc::clone(&self.parts)).await?);
        for (name, live) in &mut self.entries {
            if let Some(before) = before.entries.get(name) {
                live.take_counts(before);
            }
        }
        Ok(())
    }

    fn live(&self, name: &str) -> Result<&LiveEntry, BeatError> {
        self.entries.get(name).ok_or_else(|| unknown(self.entries.keys(), name))
    }

    /// All entries, ordered by name.
    pub(crate) fn all(&self) -> Vec<EntryStatus> {
        self.entries.iter().map(|(name, live)| status_of(name, live, &self.agenda)).collect()
    }

    /// Adds or changes an entry.
    pub(crate) async fn put(&mut self, entry: Periodic) -> Result<(), BeatError> {
        let written = self.entries.get(&entry.name).map(|live| Arc::clone(&live.entry));
        keep(&self.parts, entry, written).await?;
        self.load().await
    }

    /// Takes out an entry that was added at run time, or undoes the change of one.
    pub(crate) async fn remove(&mut self, name: &str) -> Result<(), BeatError> {
        let live = self.live(name)?;
        if live.origin != EntryOrigin::RunTime {
            return Err(BeatError::Written(name.to_owned()));
        }
        let days = live.days.keys().cloned().collect();
        take_out(&self.parts, name, days).await?;
        self.load().await
    }

    /// Pauses an entry, or ends its pause.
    pub(crate) async fn pause(&mut self, name: &str, paused: bool) -> Result<(), BeatError> {
        let before = self.live(name)?.in_pause();
        let noted = note_pause(&self.parts, name, paused, before).await?;
        if let Some(live) = self.entries.get_mut(name) {
            live.paused = paused;
            live.take_note(noted);
        }
        if paused {
            self.agenda.pause(name);
        } else {
            self.agenda.resume(name, now());
        }
        Ok(())
    }

    /// The call that a trigger of this entry makes.
    pub(crate) fn call(&self, name: &str) -> Result<NewTask, BeatError> {
        call_of(&self.parts, self.live(name)?)
    }

    /// When the next tick is due, or the next list of tenants.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let tenants = self.entries.values().filter_map(LiveEntry::tenants_due);
        self.agenda.next().into_iter().chain(tenants).min()
    }

    /// Publishes all ticks that are due at the test's present time.
    pub(crate) async fn fire(&mut self) {
        self.look_at_held().await;
        self.fire_for_tenants().await;
        for fire in self.agenda.due(now()) {
            let Some(live) = self.entries.get_mut(&fire.entry) else { continue };
            let (entry, note, fired) = (Arc::clone(&live.entry), live.note.clone(), live.fired.clone());
            let outcome = publish_all(&self.parts, &entry, &fire, note, fired).await;
            let RoundOutcome { note, fired, decided, stop } = outcome;
            live.take_decided(decided);
            live.error = match &stop {
                Some(RoundStop::Failed(error)) => Some(error.clone()),
                _ => None,
            };
            let last = fired.last;
            (live.note, live.fired, live.waits_for) = (note, fired, None);
            match stop {
                None => self.agenda.done(&fire.entry, last),
                Some(RoundStop::Held(id)) => {
                    let later = entry.schedule.next_after(now()).unwrap_or_else(|| now() + LOOK);
                    live.waits_for = Some(id);
                    self.agenda.advance(&fire.entry, last);
                    self.agenda.failed(&fire.entry, later);
                }
                Some(RoundStop::Outdated) => self.agenda.failed(&fire.entry, now() + AGAIN),
                Some(RoundStop::Failed(error)) => {
                    tracing::warn!(entry = fire.entry, error, "a tick could not be published; trying again");
                    self.agenda.advance(&fire.entry, last);
                    self.agenda.failed(&fire.entry, now() + AGAIN);
                }
            }
        }
    }

    /// Lists tenants when that is due, on the test's own thread, and publishes their due ticks.
    async fn fire_for_tenants(&mut self) {
        for live in self.entries.values_mut() {
            let Some(plan) = live.entry.tenants.filter(|_| live.tenants.is_some()) else { continue };
            if live.list_at <= now() {
                live.take_list(list_here(plan.source).await);
            }
            let entry = Arc::clone(&live.entry);
            loop {
                let ticks = live.tenant_ticks();
                if ticks.is_empty() {
                    break;
                }
                for (day, tick) in ticks {
                    let (tick, told) = publish(&self.parts, &entry, day, tick).await;
                    if !live.take_told(&tick, told, AGAIN) {
                        tracing::error!(
                            entry = entry.name,
                            tick.tenant,
                            "somebody else has changed the notes"
                        );
                    }
                }
            }
        }
    }

    /// Lets go the held ticks whose predecessor is over.
    async fn look_at_held(&mut self) {
        let Some(client) = self.parts.client() else { return };
        for (name, live) in &mut self.entries {
            let Some(id) = live.waits_for.clone() else { continue };
            if client.state(&id).await.is_ok_and(|state| state != State::Started) {
                live.waits_for = None;
                self.agenda.hasten(name, now());
            }
        }
    }
}

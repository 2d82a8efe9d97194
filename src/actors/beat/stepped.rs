//! Beat for tests: the same memory, agenda and way of publishing, but nobody sleeps. Whoever moves the clock asks when the
//! next tick is due, and has it fired.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::round::{Outcome, Stop, publish_all};
use super::{AGAIN, BeatParts, LOOK, Live, memory};
use crate::core::Timestamp;
use crate::core::calendar::Agenda;
use crate::store::StoreError;
use crate::task::State;
use crate::task::clock::now;

/// The entries of one test.
pub(crate) struct SteppedBeat {
    parts: Arc<BeatParts>,
    agenda: Agenda,
    entries: BTreeMap<String, Live>,
}

impl SteppedBeat {
    /// Begins now. Entries that fire for each tenant do not.
    pub(crate) async fn begin(parts: Arc<BeatParts>) -> Result<Self, StoreError> {
        let mut agenda = Agenda::default();
        let mut entries = BTreeMap::new();
        for live in memory::recall(&parts).await? {
            let entry = &live.entry;
            if entry.tenants.is_none() {
                let last = Some(live.fired.last);
                agenda.put(&entry.name, entry.schedule.clone(), entry.misfire, last, now());
            }
            entries.insert(entry.name.clone(), live);
        }
        Ok(Self { parts, agenda, entries })
    }

    /// When the next tick is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.agenda.next()
    }

    /// Publishes what is due.
    pub(crate) async fn fire(&mut self) {
        self.look_at_held().await;
        for fire in self.agenda.due(now()) {
            let Some(live) = self.entries.get_mut(&fire.entry) else { continue };
            let (entry, note, fired) = (Arc::clone(&live.entry), live.note.clone(), live.fired.clone());
            let outcome = publish_all(&self.parts, &entry, &fire, note, fired).await;
            let Outcome { note, fired, stop, .. } = outcome;
            let last = fired.last;
            (live.note, live.fired, live.waits_for) = (note, fired, None);
            match stop {
                None => self.agenda.done(&fire.entry, last),
                Some(Stop::Held(id)) => {
                    let later = entry.schedule.next_after(now()).unwrap_or_else(|| now() + LOOK);
                    live.waits_for = Some(id);
                    self.agenda.advance(&fire.entry, last);
                    self.agenda.failed(&fire.entry, later);
                }
                Some(Stop::Outdated) => self.agenda.failed(&fire.entry, now() + AGAIN),
                Some(Stop::Failed(error)) => {
                    tracing::warn!(entry = fire.entry, error, "a tick could not be published; trying again");
                    self.agenda.advance(&fire.entry, last);
                    self.agenda.failed(&fire.entry, now() + AGAIN);
                }
            }
        }
    }

    /// Lets out the ticks whose predecessor is over.
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

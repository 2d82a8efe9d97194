//! Beat for tests: the same memory, agenda and way of publishing, but nobody sleeps. Whoever moves the clock asks when the
//! next tick is due, and has it fired.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::round::{Outcome, Stop, publish_all};
use super::tenants::{list_here, publish};
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
    /// Begins now.
    pub(crate) async fn begin(parts: Arc<BeatParts>) -> Result<Self, StoreError> {
        let mut agenda = Agenda::default();
        let mut entries = BTreeMap::new();
        for mut live in memory::recall(&parts).await? {
            let entry = Arc::clone(&live.entry);
            if !live.expect_tenants() {
                let last = Some(live.fired.last);
                agenda.put(&entry.name, entry.schedule.clone(), entry.misfire, last, now());
            }
            entries.insert(entry.name.clone(), live);
        }
        Ok(Self { parts, agenda, entries })
    }

    /// When the next tick is due, or tenants are to be listed.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let tenants = self.entries.values().filter_map(Live::tenants_due);
        self.agenda.next().into_iter().chain(tenants).min()
    }

    /// Publishes what is due.
    pub(crate) async fn fire(&mut self) {
        self.look_at_held().await;
        self.fire_for_tenants().await;
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

    /// Lists tenants when it is time, on the test's own thread, and publishes what is due for them.
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

//! Beat: the actor that publishes each tick of each periodic entry, as the entry's policies say. It is Celery's
//! beat, with a leader among the processes that share a broker.
//!
//! [`core::calendar`](crate::core::calendar) decides when which tick is due; this actor reads the clock, sleeps
//! until the next tick, and publishes it. The root builds it, operators reach it through [`BeatParts`]
//! (`levers.rs`), and after a death its successor goes on from the notes.
//!
//! Invariants:
//! - A tick is neither lost nor doubled by a crash at any moment: that it is published is noted in the commit that
//!   publishes it, or it is decided in the notes before (`publication.rs`).
//! - A publish that fails is tried again until it succeeds or a later tick takes its place.
//! - Of several processes one leads (`election.rs`). The changes of a deposed leader fail, because each change
//!   names what its maker believes the note to say, and the term.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture};
use parking_lot::Mutex;

use crate::runtime::Runtime;
use tokio::sync::RwLock;

use crate::core::Timestamp;
use crate::core::calendar::{Agenda, Fire, Tenants};
use crate::task::clock::now;
use crate::task::{Client, Periodic, TaskId};
use memory::Fired;
use round::{RoundOutcome, RoundStop, publish_all};

mod control;
mod election;
mod levers;
mod memory;
mod publication;
mod round;
mod status;
#[cfg(feature = "testing")]
pub(crate) mod stepped;
mod tenants;
mod tick;

pub use status::{BeatError, EntryOrigin, EntryStatus, PastTick};
pub(crate) use tick::TickPublisher;

/// How many of its past ticks an entry remembers.
const MOST_PAST: usize = 20;
/// The longest sleep. Beat looks at the clock at least this often, because somebody may set the clock, and the
/// machine may sleep.
const LOOK: Duration = Duration::from_secs(60);
/// The first pause after a publish that failed, and the longest; each failure in a row doubles it.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);
/// How long beat waits for publishes that are under way, before it reads the notes or ends.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// How long a leader leads without renewing its lease, unless the builder's `beat_lease` says otherwise.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// What beat is made of. It outlives the actor, which the root builds from it each time.
pub(crate) struct BeatParts {
    pub(crate) runtime: Arc<Runtime>,
    /// The entries of the program and of its catalogue that fire in this environment.
    pub(crate) entries: Vec<(Periodic, EntryOrigin)>,
    /// The runtime, which publishes. It owns beat, so beat must not own it.
    pub(crate) publisher: Weak<dyn TickPublisher>,
    /// This process's name in the election.
    pub(crate) candidate: String,
    /// How long this process leads without renewing its lease.
    lease: Duration,
    /// The last term that this process has led in; 0: none.
    term: AtomicU64,
    /// A tick was decided, and nobody knows whether it is published. The leader reads the notes again soon.
    unfinished: AtomicBool,
    /// Beat has ended here for good: the root does not build it anew.
    pub(super) resigned: AtomicBool,
    /// Each publish under way holds it for reading. Whoever takes it for writing waits for their end, and keeps new
    /// ones out.
    busy: Arc<RwLock<()>>,
    /// The address of the living actor.
    pub(super) address: Mutex<Option<Addr<Beat>>>,
    /// Set in a test, which has no actor: the test itself steps from tick to tick.
    #[cfg(feature = "testing")]
    pub(crate) stepping: std::sync::OnceLock<stepped::Stepping>,
}

impl BeatParts {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        entries: Vec<(Periodic, EntryOrigin)>,
        publisher: Weak<dyn TickPublisher>,
        lease: Duration,
    ) -> Self {
        Self {
            lease,
            term: AtomicU64::new(0),
            unfinished: AtomicBool::new(false),
            runtime,
            entries,
            publisher,
            candidate: TaskId::new().to_string(),
            resigned: AtomicBool::new(false),
            busy: Arc::default(),
            address: Mutex::new(None),
            #[cfg(feature = "testing")]
            stepping: std::sync::OnceLock::new(),
        }
    }

    fn publisher(&self) -> Option<Arc<dyn TickPublisher>> {
        self.publisher.upgrade()
    }

    fn client(&self) -> Option<Arc<dyn Client>> {
        self.publisher().map(|publisher| publisher as Arc<dyn Client>)
    }

    /// The address of the actor that was built last. It may have died since; then it does not answer.
    pub(super) fn living(&self) -> Option<Addr<Beat>> {
        self.address.lock().clone()
    }
}

/// The actor of beat. What it knows of the entries comes from the notes when it begins to lead, and is gone when it
/// steps down.
pub(crate) struct Beat {
    parts: Arc<BeatParts>,
    agenda: Agenda,
    entries: HashMap<String, LiveEntry>,
    timer: Option<SpawnHandle>,
    leads: bool,
    /// The end of the leader's lease; `None`: no other process can lead, so it leads without one.
    leads_until: Option<Instant>,
    /// It has asked whether it leads, and has no answer yet.
    asking: bool,
    campaign: Option<SpawnHandle>,
    /// Grows when the notes are read anew and when it steps down. An answer of an earlier generation is ignored.
    generation: u64,
    failures: u32,
}

/// A periodic entry that fires.
struct LiveEntry {
    entry: Arc<Periodic>,
    origin: EntryOrigin,
    /// The text of the entry's note as it is believed to be; each change names it.
    note: Option<String>,
    fired: Fired,
    paused: bool,
    published: u64,
    coalesced: u64,
    /// The last ticks that are decided, the newest first.
    past: VecDeque<PastTick>,
    error: Option<String>,
    /// The run that a held tick waits for, by the entry's overlap policy.
    waits_for: Option<TaskId>,
    /// The tenants, if the entry fires for each, and the last day of each tenant as noted.
    tenants: Option<Tenants>,
    days: HashMap<String, String>,
    /// When the tenants are listed again.
    list_at: Timestamp,
    listing: bool,
}

impl LiveEntry {
    fn new(entry: Periodic, origin: EntryOrigin, note: Option<String>) -> Self {
        let mut live = Self {
            entry: Arc::new(entry),
            origin,
            note: None,
            fired: Fired::default(),
            paused: false,
            published: 0,
            coalesced: 0,
            past: VecDeque::new(),
            error: None,
            waits_for: None,
            tenants: None,
            days: HashMap::new(),
            list_at: Timestamp::ZERO,
            listing: false,
        };
        live.remember(note);
        live
    }

    /// The entry's decided ticks and its note, if it is paused.
    fn in_pause(&self) -> Option<(Fired, Option<String>)> {
        self.paused.then(|| (self.fired.clone(), self.note.clone()))
    }

    /// Takes over what the note says since a change, if there was one.
    fn take_note(&mut self, noted: Option<(String, Fired)>) {
        if let Some((note, fired)) = noted {
            (self.note, self.fired) = (Some(note), fired);
        }
    }

    /// Counts and remembers what became of ticks, in their order.
    fn take_decided(&mut self, decided: Vec<PastTick>) {
        let published = decided.iter().filter(|tick| tick.id.is_some()).count() as u64;
        self.published += published;
        self.coalesced += decided.len() as u64 - published;
        decided.into_iter().for_each(|tick| self.past.push_front(tick));
        self.past.truncate(MOST_PAST);
    }

    /// Takes over what is in no note from the same entry before the notes were read anew.
    fn take_counts(&mut self, before: &Self) {
        (self.published, self.coalesced) = (before.published, before.coalesced);
        self.past.clone_from(&before.past);
    }

    /// Takes over the text of the note. A text that cannot be read counts as no note.
    fn remember(&mut self, note: Option<String>) {
        self.fired = note.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        self.note = note;
    }
}

impl Beat {
    pub(super) fn new(parts: Arc<BeatParts>) -> Self {
        Self {
            parts,
            agenda: Agenda::default(),
            entries: HashMap::new(),
            timer: None,
            leads: false,
            leads_until: None,
            asking: false,
            campaign: None,
            generation: 0,
            failures: 0,
        }
    }

    /// Reads the notes and goes on from them. The actor handles nothing else until then.
    fn load(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        let parts = Arc::clone(&self.parts);
        let recalled = async move {
            // Publishes under way end first: `finish` would publish their messages once more.
            let _quiet = actix_rt::time::timeout(UNDER_WAY, parts.busy.write()).await;
            publication::finish(&parts).await.map_err(|error| error.to_string())?;
            memory::recall(&parts).await.map_err(|error| error.to_string())
        };
        ctx.wait(recalled.into_actor(self).map(|recalled, beat, ctx| match recalled {
            Ok(entries) => {
                beat.agenda = Agenda::default();
                // The counters are not in the notes; entries that stay keep theirs.
                let before = std::mem::take(&mut beat.entries);
                for mut live in entries {
                    if let Some(before) = before.get(&live.entry.name) {
                        live.take_counts(before);
                    }
                    beat.adopt(live);
                }
                beat.pump(ctx);
            }
            Err(error) => {
                let pause = beat.pause_after_failure();
                tracing::error!(error, ?pause, "beat cannot go on from what it remembers; trying again");
                let generation = beat.generation;
                ctx.run_later(pause, move |beat, ctx| {
                    if beat.leads && beat.generation == generation {
                        beat.load(ctx);
                    }
                });
            }
        }));
    }

    /// Takes an entry into the agenda, or makes room for its tenants.
    fn adopt(&mut self, mut live: LiveEntry) {
        let entry = Arc::clone(&live.entry);
        if live.expect_tenants() {
            self.agenda.take(&entry.name);
        } else {
            let last = Some(live.fired.last);
            self.agenda.put(&entry.name, entry.schedule.clone(), entry.misfire, last, now());
            if live.paused {
                self.agenda.pause(&entry.name);
            }
        }
        self.entries.insert(entry.name.clone(), live);
    }

    /// Publishes the ticks that are due, and sets the timer for the next.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.leads && self.is_in_office() {
            for fire in self.agenda.due(now()) {
                self.fire(fire, ctx);
            }
            self.pump_tenants(ctx);
        }
        self.set_timer(ctx);
    }

    fn set_timer(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        if !self.leads || !self.is_in_office() {
            return; // the answer to the next campaign pumps again
        }
        let tenants = self.entries.values().filter_map(LiveEntry::tenants_due);
        let Some(next) = self.agenda.next().into_iter().chain(tenants).min() else { return };
        let pause = next.since(now()).min(LOOK);
        self.timer = Some(ctx.run_later(pause, |beat, ctx| {
            beat.timer = None;
            beat.pump(ctx);
        }));
    }

    fn fire(&mut self, fire: Fire, ctx: &mut Context<Self>) {
        let Some(live) = self.entries.get(&fire.entry) else { return };
        let (parts, entry) = (Arc::clone(&self.parts), Arc::clone(&live.entry));
        let (note, fired) = (live.note.clone(), live.fired.clone());
        let (address, generation) = (ctx.address(), self.generation);
        let Ok(busy) = Arc::clone(&parts.busy).try_read_owned() else { return }; // beat ends or reloads
        actix_rt::spawn(async move {
            let outcome = publish_all(&parts, &entry, &fire, note, fired).await;
            drop(busy);
            address.do_send(TicksTold { entry: fire.entry, generation, outcome });
        });
    }

    /// Counts a failure and returns the pause after it, which doubles with each failure in a row.
    fn pause_after_failure(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(16);
        (AGAIN * 2_u32.pow(self.failures - 1)).min(AGAIN_AT_MOST)
    }
}

impl Actor for Beat {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.parts.runtime.broker.facts().is_shared {
            if !self.parts.runtime.shares_notes() && !self.parts.entries.is_empty() {
                tracing::error!(
                    "neither the broker nor the store keeps notes, so beat remembers nothing through a restart and cannot tell whether another process has one: let one process only have it, with `.beat(false)` in the others"
                );
            }
            self.campaign(ctx);
        } else {
            self.leads = true;
            self.load(ctx);
        }
    }
}

/// How far the publishes of an entry's due ticks have got.
#[derive(Message)]
#[rtype(result = "()")]
struct TicksTold {
    entry: String,
    generation: u64,
    outcome: RoundOutcome,
}

impl Handler<TicksTold> for Beat {
    type Result = ();

    fn handle(&mut self, told: TicksTold, ctx: &mut Self::Context) {
        if told.generation != self.generation {
            return;
        }
        let pause = match &told.outcome.stop {
            Some(RoundStop::Failed(_)) => self.pause_after_failure(),
            _ => {
                self.failures = 0;
                AGAIN
            }
        };
        let Some(live) = self.entries.get_mut(&told.entry) else { return };
        let RoundOutcome { note, fired, decided, stop } = told.outcome;
        let last = fired.last;
        (live.note, live.fired) = (note, fired);
        live.take_decided(decided);
        live.error = None;
        match stop {
            None => {
                live.waits_for = None;
                self.agenda.done(&told.entry, last);
            }
            Some(RoundStop::Held(id)) => {
                // The held tick is decided again when that run ends. If the run takes longer, the next tick takes
                // its place.
                let later = live.entry.schedule.next_after(now()).unwrap_or_else(|| now() + LOOK);
                self.agenda.advance(&told.entry, last);
                self.agenda.failed(&told.entry, later);
                self.wait_for(told.entry, id, ctx);
            }
            Some(RoundStop::Outdated) => {
                // Another process has changed the note, so only the notes are to be believed now.
                tracing::warn!(
                    entry = told.entry,
                    "a tick was decided before, or in a later term; reading the notes"
                );
                self.doubt(ctx);
                return;
            }
            Some(RoundStop::Failed(error)) => {
                tracing::warn!(
                    entry = told.entry,
                    error,
                    ?pause,
                    "a tick could not be published; trying again"
                );
                live.error = Some(error);
                self.agenda.advance(&told.entry, last);
                self.agenda.failed(&told.entry, now() + pause);
            }
        }
        self.pump(ctx);
    }
}

impl Beat {
    /// Has the held tick of an entry decided again when this run is over.
    fn wait_for(&mut self, entry: String, id: TaskId, ctx: &mut Context<Self>) {
        let Some(live) = self.entries.get_mut(&entry) else { return };
        if live.waits_for.replace(id.clone()).is_some_and(|before| before == id) {
            return;
        }
        let Some(client) = self.parts.client() else { return };
        let (address, generation) = (ctx.address(), self.generation);
        actix_rt::spawn(async move {
            if client.wait(&id).await.is_err() {
                // The task keeps no result, so nobody announces its end. Its state is looked at again after a second.
                actix_rt::time::sleep(Duration::from_secs(1)).await;
            }
            address.do_send(RunOver { entry, id, generation });
        });
    }
}

/// The run that a held tick waits for is over, or its state is to be looked at again.
#[derive(Message)]
#[rtype(result = "()")]
struct RunOver {
    entry: String,
    id: TaskId,
    generation: u64,
}

impl Handler<RunOver> for Beat {
    type Result = ();

    fn handle(&mut self, over: RunOver, ctx: &mut Self::Context) {
        let Some(live) = self.entries.get_mut(&over.entry).filter(|_| over.generation == self.generation)
        else {
            return;
        };
        if live.waits_for.take_if(|id| *id == over.id).is_some() {
            self.agenda.hasten(&over.entry, now());
            self.pump(ctx);
        }
    }
}

/// The runtime shuts down: beat publishes nothing more, and gives the lead back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndBeat;

impl Handler<EndBeat> for Beat {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: EndBeat, ctx: &mut Self::Context) -> Self::Result {
        let led = self.leads && self.parts.runtime.broker.facts().is_shared;
        self.step_down(ctx);
        actix::ActorContext::stop(ctx);
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            // The publishes under way are noted before the next leader reads the notes.
            let _ = actix_rt::time::timeout(UNDER_WAY, parts.busy.write()).await;
            if led && let Err(error) = parts.resign().await {
                tracing::warn!(%error, "beat could not give its lead back; it ends with the lease");
            }
        })
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
impl Handler<super::queue::Crash> for Beat {
    type Result = ();

    fn handle(&mut self, _: super::queue::Crash, _: &mut Self::Context) {
        panic!("asked to die");
    }
}

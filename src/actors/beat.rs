//! Beat: publishes each tick of each periodic entry, as the entry's policies say.
//!
//! When what is due is for [`core::calendar`](crate::core::calendar); this actor reads the clock, sleeps until the next
//! tick and carries out. That a tick is published is noted in the commit that publishes it, or decided before it, so a crash
//! at any moment neither loses nor doubles one (`publication.rs`); a publish that fails is tried again until it succeeds or a
//! later tick stands for it. Where several processes share a broker one of them leads (`election.rs`), and a deposed leader's
//! changes fail, because each names what it believes the note to say, and the term.
//!
//! Beat that dies is built anew by the root, and goes on with what the notes say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture};

use super::runtime::Runtime;
use tokio::sync::RwLock;

use crate::core::Timestamp;
use crate::core::calendar::{Agenda, Fire, Tenants};
use crate::task::clock::now;
use crate::task::{Client, Periodic, TaskId};
use memory::Fired;
use round::{Outcome, Stop, publish_all};

mod control;
mod election;
mod memory;
mod publication;
mod round;
mod status;
#[cfg(feature = "testing")]
pub(crate) mod stepped;
mod tenants;
mod tick;

pub(crate) use control::{GetEntries, Pause, Put, Remove, Trigger};
pub use status::{BeatError, EntryStatus, Origin};
pub(crate) use tick::Publisher;

/// The clock is looked at so often at least, because it may be set, and the machine may sleep.
const LOOK: Duration = Duration::from_secs(60);
/// The first pause after a publish that failed, and the longest.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);
/// What is under way at the end gets so long.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// How long a leader leads without saying so again, unless the program says otherwise.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// What beat is made of, for each time that it is built.
pub(crate) struct BeatParts {
    pub(crate) runtime: Arc<Runtime>,
    /// The entries of the program and of its catalogue that fire here.
    pub(crate) entries: Vec<(Periodic, Origin)>,
    /// The runtime owns beat, so beat does not own the runtime.
    pub(crate) publisher: Weak<dyn Publisher>,
    /// Who this is in an election.
    pub(crate) candidate: String,
    /// How long it leads without saying so again.
    lease: Duration,
    /// The last term that it has led in.
    term: AtomicU64,
    /// Something was decided, and is not known to be published.
    unfinished: AtomicBool,
    /// It has ended for good.
    pub(crate) resigned: AtomicBool,
    /// Held by each publish that is under way.
    busy: Arc<RwLock<()>>,
    /// The living actor.
    pub(crate) address: Mutex<Option<Addr<Beat>>>,
}

impl BeatParts {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        entries: Vec<(Periodic, Origin)>,
        publisher: Weak<dyn Publisher>,
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
        }
    }

    fn publisher(&self) -> Option<Arc<dyn Publisher>> {
        self.publisher.upgrade()
    }

    fn client(&self) -> Option<Arc<dyn Client>> {
        self.publisher().map(|publisher| publisher as Arc<dyn Client>)
    }

    pub(crate) fn living(&self) -> Option<Addr<Beat>> {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The actor.
pub(crate) struct Beat {
    parts: Arc<BeatParts>,
    agenda: Agenda,
    entries: HashMap<String, Live>,
    timer: Option<SpawnHandle>,
    leads: bool,
    /// The end of its lease; `None`: nobody else can lead.
    leads_until: Option<Instant>,
    /// It asks whether it leads.
    asking: bool,
    campaign: Option<SpawnHandle>,
    /// Goes up with each load: what was begun before is not listened to any more.
    generation: u64,
    failures: u32,
}

/// An entry that fires.
struct Live {
    entry: Arc<Periodic>,
    origin: Origin,
    /// What its note says.
    note: Option<String>,
    fired: Fired,
    paused: bool,
    published: u64,
    coalesced: u64,
    error: Option<String>,
    /// The run that its held tick waits for.
    waits_for: Option<TaskId>,
    /// Its tenants, and the last day of each as noted.
    tenants: Option<Tenants>,
    days: HashMap<String, String>,
    /// When its tenants are listed again.
    list_at: Timestamp,
    listing: bool,
}

impl Live {
    fn new(entry: Periodic, origin: Origin, note: Option<String>) -> Self {
        let mut live = Self {
            entry: Arc::new(entry),
            origin,
            note: None,
            fired: Fired::default(),
            paused: false,
            published: 0,
            coalesced: 0,
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

    /// Takes over what the note says. One that cannot be read is as good as none.
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

    /// Reads what is remembered and goes on from there. Nothing else is done meanwhile.
    fn load(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        let parts = Arc::clone(&self.parts);
        let recalled = async move {
            // What is on its way from here is not published once more.
            let _quiet = actix_rt::time::timeout(UNDER_WAY, parts.busy.write()).await;
            publication::finish(&parts).await.map_err(|error| error.to_string())?;
            memory::recall(&parts).await.map_err(|error| error.to_string())
        };
        ctx.wait(recalled.into_actor(self).map(|recalled, beat, ctx| match recalled {
            Ok(entries) => {
                beat.agenda = Agenda::default();
                let before = std::mem::take(&mut beat.entries);
                for mut live in entries {
                    if let Some(before) = before.get(&live.entry.name) {
                        (live.published, live.coalesced) = (before.published, before.coalesced);
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

    /// Takes an entry into the agenda.
    fn adopt(&mut self, mut live: Live) {
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

    /// Publishes what is due, and sleeps until the next.
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
            return; // the next answer sets it again
        }
        let tenants = self.entries.values().filter_map(Live::tenants_due);
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
        let Ok(busy) = Arc::clone(&parts.busy).try_read_owned() else { return }; // it ends
        actix_rt::spawn(async move {
            let outcome = publish_all(&parts, &entry, &fire, note, fired).await;
            drop(busy);
            address.do_send(TicksTold { entry: fire.entry, generation, outcome });
        });
    }

    /// How long to wait after so many failures in a row.
    fn pause_after_failure(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(16);
        (AGAIN * 2_u32.pow(self.failures - 1)).min(AGAIN_AT_MOST)
    }
}

impl Actor for Beat {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.parts.runtime.broker.is_shared() {
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

/// The ticks of an entry got so far.
#[derive(Message)]
#[rtype(result = "()")]
struct TicksTold {
    entry: String,
    generation: u64,
    outcome: Outcome,
}

impl Handler<TicksTold> for Beat {
    type Result = ();

    fn handle(&mut self, told: TicksTold, ctx: &mut Self::Context) {
        if told.generation != self.generation {
            return;
        }
        let pause = match &told.outcome.stop {
            Some(Stop::Failed(_)) => self.pause_after_failure(),
            _ => {
                self.failures = 0;
                AGAIN
            }
        };
        let Some(live) = self.entries.get_mut(&told.entry) else { return };
        let Outcome { note, fired, published, coalesced, stop } = told.outcome;
        let last = fired.last;
        (live.note, live.fired) = (note, fired);
        live.published += published;
        live.coalesced += coalesced;
        live.error = None;
        match stop {
            None => {
                live.waits_for = None;
                self.agenda.done(&told.entry, last);
            }
            Some(Stop::Held(id)) => {
                // A later tick takes the place of the held one; the end of that run lets it out before.
                let later = live.entry.schedule.next_after(now()).unwrap_or_else(|| now() + LOOK);
                self.agenda.advance(&told.entry, last);
                self.agenda.failed(&told.entry, later);
                self.wait_for(told.entry, id, ctx);
            }
            Some(Stop::Outdated) => {
                // Somebody else decides here too; what the notes say is what is.
                tracing::warn!(
                    entry = told.entry,
                    "a tick was decided before, or in a later term; reading the notes"
                );
                self.doubt(ctx);
                return;
            }
            Some(Stop::Failed(error)) => {
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
    /// Has the held tick of an entry decided again when a run is over.
    fn wait_for(&mut self, entry: String, id: TaskId, ctx: &mut Context<Self>) {
        let Some(live) = self.entries.get_mut(&entry) else { return };
        if live.waits_for.replace(id.clone()).is_some_and(|before| before == id) {
            return;
        }
        let Some(client) = self.parts.client() else { return };
        let (address, generation) = (ctx.address(), self.generation);
        actix_rt::spawn(async move {
            if client.wait(&id).await.is_err() {
                // It keeps no result, so nobody tells of its end; it is looked at again soon.
                actix_rt::time::sleep(Duration::from_secs(1)).await;
            }
            address.do_send(RunOver { entry, id, generation });
        });
    }
}

/// The run that a held tick waits for is over, or is to be looked at again.
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

/// The runtime shuts down: nothing more fires.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct End;

impl Handler<End> for Beat {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: End, ctx: &mut Self::Context) -> Self::Result {
        let led = self.leads && self.parts.runtime.broker.is_shared();
        self.step_down(ctx);
        actix::ActorContext::stop(ctx);
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            // What is under way is noted before somebody else reads the notes.
            let _ = actix_rt::time::timeout(UNDER_WAY, parts.busy.write()).await;
            if led && let Err(error) = parts.resign().await {
                tracing::warn!(%error, "the next leader of beat waits for the end of this one's lease");
            }
        })
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
impl Handler<super::queue::Die> for Beat {
    type Result = ();

    fn handle(&mut self, _: super::queue::Die, _: &mut Self::Context) {
        panic!("asked to die");
    }
}

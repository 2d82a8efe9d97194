//! The register of the serial actors, by lane. A queue brings each run of a serial task here, and the register hands it to
//! the actor of its lane. A lane without an actor gets one that rests on this event loop, or a new one. The register builds
//! the actor of a lane anew when it dies.
//!
//! Invariants:
//! - The register knows what runs in each lane by itself, so the successor of a dead actor starts from what runs.
//! - A lane has one actor at most, and an actor one lane. Runs come to an actor through the register alone, so an actor
//!   whose lane the register has forgotten gets no more runs of it, and may rest or end.
//! - An actor that rests is given a lane on its own event loop only, where it cannot die at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use actix::Addr;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use super::super::patience::{PATIENCE, answered};
use super::super::supervisor::{self, Exit};
use super::super::worker::Unstarted;
use super::runs::LaneRunEntry;
use super::{Enter, GetRuns, Over, Pull, Runs, Serial, SerialCandidate};
use crate::broker::{BrokerError, LaneLever};
use crate::core::{Intensity, RestartVerdict, Restarts};
use crate::runtime::Runtime;
use crate::runtime::run::LanePlace;
use crate::task::LaneName;
use crate::task::clock::now;

/// The pause before an actor is built anew that has died more often than its restart intensity allows.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// The most actors that rest on one event loop. They take a few hundred bytes each.
const MOST_RESTING: usize = 256;

/// The lane that an actor has. `None`: the actor rests, or is gone.
pub(super) type Post = Arc<Mutex<Option<LaneName>>>;

/// The lane's actor did not answer within the deadline.
#[derive(Debug)]
pub(crate) struct Silent;

/// The serial actors.
#[derive(Default)]
pub(crate) struct Serials {
    /// The actors that have a lane, by lane.
    lanes: DashMap<LaneName, LiveRun>,
    /// The actors that rest, by the threads of their event loops.
    resting: Mutex<HashMap<ThreadId, Vec<Resting>>>,
}

/// An actor that rests.
struct Resting {
    address: Addr<Serial>,
    post: Post,
}

struct LiveRun {
    address: Addr<Serial>,
    /// The actor has died and is not built anew yet: nothing of its lane starts.
    is_dead: bool,
    restarts: Restarts,
    /// The runs of the lane that go on here, by the tags of their deliveries.
    runs: Runs,
    /// The number of candidates that were brought to the actor and are neither started nor refused yet.
    undecided: usize,
}

impl Serials {
    /// Brings a run of a serial task to the actor of its lane, which starts it or refuses it. A dead actor refuses
    /// it. Must be called on an arbiter, for it may build the actor.
    pub(in super::super) fn enter(
        self: &Arc<Self>,
        lane: LaneName,
        candidate: SerialCandidate,
        runtime: &Arc<Runtime>,
    ) {
        let mut live = self.lanes.entry(lane.clone()).or_insert_with(|| LiveRun {
            address: self.rested(&lane).unwrap_or_else(|| self.build(lane.clone(), Runs::default(), runtime)),
            is_dead: false,
            restarts: Restarts::new(intensity()),
            runs: Runs::default(),
            undecided: 0,
        });
        if live.is_dead {
            drop(live);
            candidate.hand_back(Unstarted::LaneIsDown);
        } else {
            live.undecided += 1;
            live.address.do_send(Enter { lane, candidate });
        }
    }

    /// Notes that the lane's actor starts a run. The run keeps its place in the lane until the returned value is
    /// dropped.
    pub(super) fn admitted(self: &Arc<Self>, lane: &LaneName, tag: u64, run: Arc<LaneRunEntry>) -> LanePlace {
        if let Some(mut live) = self.lanes.get_mut(lane) {
            live.runs.insert(tag, run);
            live.undecided = live.undecided.saturating_sub(1);
        }
        let (serials, lane) = (Arc::clone(self), lane.clone());
        LanePlace::new(move || serials.over(&lane, tag))
    }

    fn over(&self, lane: &LaneName, tag: u64) {
        let Some(mut live) = self.lanes.get_mut(lane) else { return };
        live.runs.remove(&tag);
        live.address.do_send(Over(tag));
    }

    /// A candidate that was brought to the actor was refused or dropped.
    pub(super) fn not_started(&self, lane: &LaneName) {
        if let Some(mut live) = self.lanes.get_mut(lane) {
            live.undecided = live.undecided.saturating_sub(1);
        }
    }

    /// Forgets the actor of a lane in which nothing runs, so that the actor can leave it. `false`: a candidate is on its
    /// way to the actor. No run of the lane is sent to the actor after that.
    pub(super) fn forget_idle(&self, lane: &LaneName) -> bool {
        self.lanes.remove_if(lane, |_, live| live.undecided == 0 && live.runs.is_empty()).is_some()
    }

    /// Takes an actor that has left its lane, so that another lane gets it. Returns `false` if enough actors rest on this event
    /// loop; then the actor is to end. The actor calls this, on its own event loop.
    pub(super) fn rest(&self, address: Addr<Serial>, post: &Post) -> bool {
        *post.lock() = None;
        let mut resting = self.resting.lock();
        let here = resting.entry(thread::current().id()).or_default();
        let has_room = here.len() < MOST_RESTING;
        if has_room {
            here.push(Resting { address, post: Arc::clone(post) });
        }
        has_room
    }

    /// Gives the lane to an actor that rests on this event loop, if there is one.
    fn rested(&self, lane: &LaneName) -> Option<Addr<Serial>> {
        let mut resting = self.resting.lock();
        let here = resting.get_mut(&thread::current().id())?;
        while let Some(Resting { address, post }) = here.pop() {
            // One that has died while it rested takes nothing in.
            if address.connected() {
                *post.lock() = Some(lane.clone());
                return Some(address);
            }
        }
        None
    }

    /// The address of a lane's actor, if the lane has one.
    pub(in super::super) fn address(&self, lane: &LaneName) -> Option<Addr<Serial>> {
        self.lanes.get(lane).map(|live| live.address.clone())
    }

    /// Asks the lane's actor for its runs here. A lane without an actor has none.
    pub(crate) async fn runs(&self, lane: &LaneName) -> Result<Runs, Silent> {
        let Some(actor) = self.address(lane) else { return Ok(Runs::default()) };
        let answer = answered(PATIENCE, actor.send(GetRuns(lane.clone()))).await.map_err(|_| Silent)?;
        match answer {
            Ok(Some(runs)) => Ok(runs),
            // The actor has left the lane with its last run, and the lane has none.
            Ok(None) | Err(_) if self.address(lane).is_none() => Ok(Runs::default()),
            Ok(None) | Err(_) => Err(Silent),
        }
    }

    /// Has the lane's actor move a lever. `None`: the lane has no actor, or it does not answer.
    pub(crate) async fn pull(&self, lane: &LaneName, lever: LaneLever) -> Option<Result<bool, BrokerError>> {
        self.address(lane)?.send(Pull(lane.clone(), lever)).await.ok()
    }

    /// The number of actors that have a lane.
    #[cfg(test)]
    pub(in super::super) fn len(&self) -> usize {
        self.lanes.len()
    }

    fn build(self: &Arc<Self>, lane: LaneName, runs: Runs, runtime: &Arc<Runtime>) -> Addr<Serial> {
        let post = Post::new(Mutex::new(Some(lane.clone())));
        let (parent, own, of_exit) = (Arc::clone(self), Arc::clone(runtime), Arc::clone(&post));
        let serial = Serial::new(lane, post, runs, Arc::clone(self), Arc::clone(runtime));
        supervisor::spawn(
            |_| serial,
            move |exit| {
                let lane = of_exit.lock().take();
                match (exit, lane) {
                    (Exit::Panicked(text), Some(lane)) => parent.died(lane, &text, own),
                    (Exit::Panicked(text), None) => {
                        tracing::error!(%text, "an actor that had no lane died; nothing is lost by that");
                    }
                    (Exit::Stopped, _) => {}
                }
            },
        )
    }

    fn died(self: &Arc<Self>, lane: LaneName, text: &str, runtime: Arc<Runtime>) {
        let Some(mut live) = self.lanes.get_mut(&lane) else { return };
        live.is_dead = true;
        live.undecided = 0; // candidates in its mailbox were dropped with it, so they went back
        let pause = match live.restarts.failed(now()) {
            RestartVerdict::Restart { after } => after,
            RestartVerdict::GiveUp { .. } => COOL_DOWN,
        };
        drop(live);
        tracing::error!(%lane, text, ?pause, "the actor of a lane died; what runs goes on, and nothing of the lane starts until it is built anew");
        let serials = Arc::clone(self);
        actix_rt::spawn(async move {
            tokio::time::sleep(pause).await;
            serials.rebuild(lane, &runtime);
        });
    }

    fn rebuild(self: &Arc<Self>, lane: LaneName, runtime: &Arc<Runtime>) {
        let Entry::Occupied(mut live) = self.lanes.entry(lane) else { return };
        if live.get().runs.is_empty() {
            live.remove(); // the next run of the lane has another actor built
            return;
        }
        let address = self.build(live.key().clone(), live.get().runs.clone(), runtime);
        (live.get_mut().address, live.get_mut().is_dead) = (address, false);
    }
}

/// The restart intensity of a serial actor. Its first pauses are short, because nothing of the lane starts during
/// them.
fn intensity() -> Intensity {
    Intensity { backoff: Duration::from_millis(10), ..Intensity::default() }
}

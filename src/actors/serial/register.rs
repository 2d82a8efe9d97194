//! The register of the living serial actors, by lane. A queue brings each run of a serial task here, and the
//! register hands it to the actor of its lane; it builds that actor if there is none, and builds it anew when it
//! dies.
//!
//! Invariants:
//! - The register knows what runs in each lane by itself, so the successor of a dead actor starts from what runs.
//! - Only the register has the actors' addresses. An actor that it has forgotten gets no more messages and may end.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

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

/// The lane's actor did not answer within the deadline.
#[derive(Debug)]
pub(crate) struct Silent;

/// The living serial actors, by lane.
#[derive(Default)]
pub(crate) struct Serials(DashMap<LaneName, LiveRun>);

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
        let mut live = self.0.entry(lane.clone()).or_insert_with(|| LiveRun {
            address: self.build(lane, Runs::new(), runtime),
            is_dead: false,
            restarts: Restarts::new(intensity()),
            runs: Runs::new(),
            undecided: 0,
        });
        if live.is_dead {
            drop(live);
            candidate.hand_back(Unstarted::LaneIsDown);
        } else {
            live.undecided += 1;
            live.address.do_send(Enter(candidate));
        }
    }

    /// Notes that the lane's actor starts a run. The run keeps its place in the lane until the returned value is
    /// dropped.
    pub(super) fn admitted(self: &Arc<Self>, lane: &LaneName, tag: u64, run: Arc<LaneRunEntry>) -> LanePlace {
        if let Some(mut live) = self.0.get_mut(lane) {
            live.runs.insert(tag, run);
        }
        let (serials, lane) = (Arc::clone(self), lane.clone());
        LanePlace::new(move || serials.over(&lane, tag))
    }

    fn over(&self, lane: &LaneName, tag: u64) {
        let Some(mut live) = self.0.get_mut(lane) else { return };
        live.runs.remove(&tag);
        live.address.do_send(Over(tag));
    }

    /// A candidate that was brought to the actor was started, refused or dropped.
    pub(super) fn decided(&self, lane: &LaneName) {
        if let Some(mut live) = self.0.get_mut(lane) {
            live.undecided = live.undecided.saturating_sub(1);
        }
    }

    /// Forgets the actor of a lane in which nothing runs, so that it can end. `false`: a candidate is on its way to
    /// it. The register alone has its address, so nothing is sent to it after that.
    pub(super) fn forget_idle(&self, lane: &LaneName) -> bool {
        self.0.remove_if(lane, |_, live| live.undecided == 0 && live.runs.is_empty()).is_some()
    }

    /// The address of a lane's actor, if the lane has one.
    pub(in super::super) fn address(&self, lane: &LaneName) -> Option<Addr<Serial>> {
        self.0.get(lane).map(|live| live.address.clone())
    }

    /// Asks the lane's actor for its runs here. A lane without an actor has none.
    pub(crate) async fn runs(&self, lane: &LaneName) -> Result<Runs, Silent> {
        let Some(actor) = self.address(lane) else { return Ok(Runs::new()) };
        let answer = answered(PATIENCE, actor.send(GetRuns)).await.map_err(|_| Silent)?;
        match answer {
            Ok(runs) => Ok(runs),
            // The actor has ended with its last run, and the lane has none.
            Err(_) if self.address(lane).is_none() => Ok(Runs::new()),
            Err(_) => Err(Silent),
        }
    }

    /// Has the lane's actor move a lever. `None`: the lane has no actor, or it does not answer.
    pub(crate) async fn pull(&self, lane: &LaneName, lever: LaneLever) -> Option<Result<bool, BrokerError>> {
        self.address(lane)?.send(Pull(lever)).await.ok()
    }

    /// The number of living actors.
    #[cfg(test)]
    pub(in super::super) fn len(&self) -> usize {
        self.0.len()
    }

    fn build(self: &Arc<Self>, lane: LaneName, runs: Runs, runtime: &Arc<Runtime>) -> Addr<Serial> {
        let (parent, own, name) = (Arc::clone(self), Arc::clone(runtime), lane.clone());
        let serial = Serial::new(lane, runs, Arc::clone(self), Arc::clone(runtime));
        supervisor::spawn(
            |_| serial,
            move |exit| {
                if let Exit::Panicked(text) = exit {
                    parent.died(name, &text, own);
                }
            },
        )
    }

    fn died(self: &Arc<Self>, lane: LaneName, text: &str, runtime: Arc<Runtime>) {
        let Some(mut live) = self.0.get_mut(&lane) else { return };
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
        let Entry::Occupied(mut live) = self.0.entry(lane) else { return };
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

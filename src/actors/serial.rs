//! The actor of one lane: it makes sure that no more runs of a serial key go on in this process than the lane
//! allows. The register ([`Serials`]) gives a lane its actor with the lane's first run here. With the last one the actor leaves
//! the lane. It rests then until another lane needs an actor, or ends if enough actors rest: to build one takes longer than
//! all that a short run needs of it.
//!
//! Every run of the key that starts in this process is admitted by this actor, by the rules of
//! [`core::lane`](crate::core::lane). A run that would overlap does not start, even if the broker has let it in.
//! Who waits and who is next is the broker's decision, in one step with the end of the run before; therefore the
//! death of this actor loses nothing. Runs then go on, and nothing of the lane starts until the register has built
//! a successor from them.
//!
//! Invariants:
//! - The actor admits a run before the worker hears of it, and the run leaves the actor before the broker hears of
//!   its end. So the next run, which the broker lets in by that end, never finds the one before still here.
//! - An actor has one lane at a time. An actor that rests knows nothing of the lane that it had. What is said to it about
//!   another lane than its own changes nothing here.
//! - As many runs go on at a time as the lane's tasks state, or as somebody has set by hand, whichever is more.
//!   When the limit was lowered, runs that the broker had let in before still have their turn.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseActFuture, WrapFuture,
};

use super::patience::{PATIENCE, answered};
use super::worker::{Start, Unstarted, Worker};
use crate::broker::{BrokerError, LaneLever};
use crate::core::lane::{Admission, Lane, Newcomer};
use crate::runtime::Runtime;
use crate::task::clock::now;
use crate::task::{LaneName, TaskId};
pub use lane_status::{LaneHolder, LaneRun, LaneStatus};
use register::Post;
pub(crate) use register::Serials;
use runs::LaneRunEntry;
pub(crate) use runs::{Runs, status};

mod lane_status;
mod register;
mod runs;

/// The pause before a task that did not start goes back to the broker: a broker that let it in wrongly would do so
/// again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// A run that is to start, with the worker that is to run it.
pub(super) struct SerialCandidate {
    pub(super) worker: Addr<Worker>,
    pub(super) start: Start,
}

impl SerialCandidate {
    fn id(&self) -> &TaskId {
        self.start.run.context.id()
    }

    fn tag(&self) -> u64 {
        self.start.delivery.tag()
    }

    /// How many runs of its lane may go on at a time, as the task itself states it.
    fn stated(&self) -> u32 {
        self.start.run.context.message().serial.as_ref().map_or(1, |serial| serial.concurrency)
    }

    /// Gives the task up without a start: its slot is free at once, and its delivery goes back to the broker after
    /// [`PAUSE`].
    fn hand_back(self, why: Unstarted) {
        let Start { run, delivery, permit } = self.start;
        permit.refuse(why);
        drop(run);
        actix_rt::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            drop(delivery);
        });
    }
}

/// The actor of one lane.
pub(crate) struct Serial {
    /// The lane; while the actor rests, the one that it had last.
    name: LaneName,
    /// The lane that the register has given to the actor.
    post: Post,
    /// The runs that were admitted, by the tags of their deliveries. With ids, a second delivery of one task could
    /// run beside the first.
    lane: Lane<u64>,
    runs: Runs,
    register: Arc<Serials>,
    runtime: Arc<Runtime>,
}

impl Actor for Serial {
    type Context = Context<Self>;
}

impl Serial {
    /// An actor whose lane has these runs already: none for a new lane, those that go on for the successor of a
    /// dead actor.
    fn new(name: LaneName, post: Post, runs: Runs, register: Arc<Serials>, runtime: Arc<Runtime>) -> Self {
        let mut lane = Lane::new(0);
        for tag in runs.keys() {
            lane.arrive(tag, u32::MAX, Newcomer::Wait, now());
        }
        Self { name, post, lane, runs, register, runtime }
    }

    /// Whether this is the lane of the actor now. A message for another lane was sent before the actor left that one.
    fn is_of(&self, lane: &LaneName) -> bool {
        self.post.lock().as_ref() == Some(lane) && self.name == *lane
    }

    /// Starts a run if the lane has room; otherwise gives the candidate back.
    fn admit(&mut self, candidate: SerialCandidate) -> Result<(), Box<SerialCandidate>> {
        let newcomer = Newcomer::FailAfter(Duration::ZERO);
        match self.lane.arrive(&candidate.tag(), candidate.stated(), newcomer, now()) {
            Admission::Enter => {
                self.begin(candidate);
                Ok(())
            }
            _ => Err(Box::new(candidate)),
        }
    }

    fn begin(&mut self, candidate: SerialCandidate) {
        let SerialCandidate { worker, mut start } = candidate;
        let (tag, run) = (start.delivery.tag(), Arc::new(LaneRunEntry::of(&start.run)));
        self.runs.insert(tag, Arc::clone(&run));
        start.run.place = Some(self.register.admitted(&self.name, tag, run));
        worker.do_send(start);
    }

    /// Takes over the limit that somebody has set by hand. It cannot fall below what the lane's tasks state.
    fn adjust(&mut self, limit: Option<u32>, stated: u32) {
        self.lane.adjust(limit.filter(|limit| *limit > stated));
    }

    /// Asks the broker about a run for which the lane has no room here. Either somebody has raised the limit, or
    /// the broker has let the run in wrongly; then it is refused.
    fn doubt(&mut self, candidate: SerialCandidate, ctx: &mut Context<Self>) {
        let (runtime, name) = (Arc::clone(&self.runtime), self.name.clone());
        let facts = async move { answered(PATIENCE, runtime.lane(&name)).await };
        ctx.spawn(facts.into_actor(self).map(|facts, serial, ctx| {
            if let Ok(Ok(Some(facts))) = facts {
                serial.adjust(facts.is_adjusted.then_some(facts.concurrency), candidate.stated());
            }
            if let Err(candidate) = serial.admit(candidate) {
                serial.refuse(*candidate);
                serial.register.not_started(&serial.name);
            }
            serial.leave_if_idle(ctx);
        }));
    }

    fn refuse(&self, candidate: SerialCandidate) {
        let message = candidate.start.run.context.message();
        let running: Vec<_> = self.runs.values().map(|run| run.id().as_str()).collect();
        tracing::error!(
            lane = %self.name,
            id = %candidate.id(),
            task = message.task,
            ?running,
            broker = self.runtime.broker.name(),
            "the broker let a serial task in while as many of its key run as may; it does not start, and goes back to its queue"
        );
        candidate.hand_back(Unstarted::Overlaps);
    }

    /// Leaves the lane after the last run, unless another one is on its way to the actor.
    fn leave_if_idle(&mut self, ctx: &mut Context<Self>) {
        if !self.runs.is_empty() || !self.register.forget_idle(&self.name) {
            return;
        }
        self.lane.adjust(None);
        if !self.register.rest(ctx.address(), &self.post) {
            ctx.stop();
        }
    }
}

/// The worker of this candidate has a slot for it: it may start, if the lane has room.
#[derive(Message)]
#[rtype(result = "()")]
struct Enter {
    lane: LaneName,
    candidate: SerialCandidate,
}

impl Handler<Enter> for Serial {
    type Result = ();

    fn handle(&mut self, Enter { lane, candidate }: Enter, ctx: &mut Self::Context) {
        self.name = lane;
        if candidate.start.delivery.has_lapsed() {
            drop(candidate); // the delivery goes back with it; another process may have the message by now
            self.register.not_started(&self.name);
        } else if let Err(candidate) = self.admit(candidate) {
            return self.doubt(*candidate, ctx);
        }
        self.leave_if_idle(ctx);
    }
}

/// The body of the run with this tag is over.
#[derive(Message)]
#[rtype(result = "()")]
struct Over(u64);

impl Handler<Over> for Serial {
    type Result = ();

    fn handle(&mut self, Over(tag): Over, ctx: &mut Self::Context) {
        self.lane.release(&tag, None, now());
        self.runs.remove(&tag);
        self.leave_if_idle(ctx);
    }
}

/// Asks for the runs that go on in this lane here. The answer is `None` if the actor has left the lane.
#[derive(Message)]
#[rtype(result = "Option<Runs>")]
struct GetRuns(LaneName);

impl Handler<GetRuns> for Serial {
    type Result = MessageResult<GetRuns>;

    fn handle(&mut self, GetRuns(lane): GetRuns, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.is_of(&lane).then(|| self.runs.clone()))
    }
}

/// Asks for the lane's facts, with the runs here.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "Result<Option<LaneStatus>, BrokerError>")]
pub(super) struct GetLane;

#[cfg(test)]
impl Handler<GetLane> for Serial {
    type Result = actix::ResponseFuture<Result<Option<LaneStatus>, BrokerError>>;

    fn handle(&mut self, _: GetLane, _: &mut Self::Context) -> Self::Result {
        let (runtime, name, runs) = (Arc::clone(&self.runtime), self.name.clone(), self.runs.clone());
        Box::pin(async move { Ok(runtime.lane(&name).await?.map(|facts| status(facts, &runs))) })
    }
}

/// Moves a lever of a lane, which may have another actor by now. The answer is the broker's: whether there was anything
/// to move.
#[derive(Message)]
#[rtype(result = "Result<bool, BrokerError>")]
pub(super) struct Pull(pub(super) LaneName, pub(super) LaneLever);

impl Handler<Pull> for Serial {
    type Result = ResponseActFuture<Self, Result<bool, BrokerError>>;

    fn handle(&mut self, Pull(lane, lever): Pull, _: &mut Self::Context) -> Self::Result {
        // A higher limit holds here before the broker hears of it: it lets runs in by it at once.
        if let LaneLever::Concurrency(Some(limit)) = lever
            && limit > self.lane.limit()
            && self.is_of(&lane)
        {
            self.lane.adjust(Some(limit));
        }
        let runtime = Arc::clone(&self.runtime);
        let moved = async move { runtime.steer_lane(&lane, lever).await };
        Box::pin(moved.into_actor(self))
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CrashSerial;

#[cfg(test)]
impl Handler<CrashSerial> for Serial {
    type Result = ();

    fn handle(&mut self, _: CrashSerial, _: &mut Self::Context) {
        panic!("asked to die");
    }
}

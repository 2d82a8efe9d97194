//! A serial actor: one for each lane that has a run here, started with the first and gone with the last.
//!
//! It knows the runs (who, since when, which attempt, on which worker), answers questions about its lane, and is where the
//! lane's levers arrive. It decides nothing: who runs next is settled in the broker together with the end of the run before,
//! so its death loses nothing, and another one is built from what the register knows.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message, ResponseFuture};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use serde::Serialize;

use super::runtime::Runtime;
use super::supervisor::{self, Exit};
use crate::broker::{Broker, BrokerError, LaneFacts, LaneLever, Waiting};
use crate::core::Timestamp;
use crate::core::lane::Block;
use crate::task::{self, Judge, LaneName, TaskDefinition, TaskId, Verdict};

/// An actor that has died so often is not built again; its lane goes on, and the broker answers for it.
const DEATHS: u32 = 5;

/// A lane as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Whose key it is: a task's name, or what the tasks that share it state.
    pub scope: String,
    /// The key.
    pub key: String,
    /// How many may run at a time.
    pub concurrency: u32,
    /// Whether that was set by hand.
    pub is_adjusted: bool,
    /// Those who are let in.
    pub holders: Vec<LaneHolder>,
    /// How many wait.
    pub waiting: u64,
    /// The first of those who wait, at most a hundred; none in a list of lanes.
    pub next: Vec<Waiting>,
    /// Why nobody is let in, if so.
    pub blocked: Option<Block<TaskId>>,
}

/// One that is let in: it runs, waits for a worker, or waits for its next attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneHolder {
    /// Its id.
    pub id: TaskId,
    /// When it was let in.
    pub since: Timestamp,
    /// Its run, if it runs in this process.
    pub run: Option<LaneRun>,
}

/// A run in a lane.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneRun {
    /// The task.
    pub task: String,
    /// The worker, `queue#slot`.
    pub worker: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Its token, see [`Context::fencing_token`](crate::Context::fencing_token).
    pub fencing_token: Option<u64>,
}

/// The runs of one lane, by tag. The register and the actor both know them.
type Runs = HashMap<u64, Arc<(TaskId, LaneRun)>>;

/// The living serial actors.
#[derive(Default)]
pub(crate) struct Serials(DashMap<LaneName, Live>);

struct Live {
    address: Addr<Serial>,
    runs: Runs,
    deaths: u32,
}

impl Serials {
    /// A run starts; does nothing unless it is serial. Called on an arbiter.
    pub(super) fn began(&self, runtime: &Arc<Runtime>, context: &task::Context, tag: u64, now: Timestamp) {
        let Some(serial) = &context.message().serial else { return };
        let run = LaneRun {
            task: context.task().to_owned(),
            worker: context.worker().to_owned(),
            started_at: now,
            attempt: context.attempt(),
            fencing_token: context.fencing_token(),
        };
        let run = Arc::new((context.id().clone(), run));
        match self.0.entry(serial.lane.clone()) {
            Entry::Occupied(mut live) => {
                let live = live.get_mut();
                live.runs.insert(tag, Arc::clone(&run));
                live.address.do_send(Began(tag, run));
            }
            Entry::Vacant(vacant) => {
                let runs = Runs::from([(tag, run)]);
                let address = build(vacant.key().clone(), runs.clone(), runtime);
                vacant.insert(Live { address, runs, deaths: 0 });
            }
        }
    }

    /// A run has ended. With the last one of its lane the actor goes; nobody can have its address but by this register, so
    /// nothing is sent to it after that.
    pub(super) fn ended(&self, message: &task::Message, tag: u64) {
        let Some(serial) = &message.serial else { return };
        let Entry::Occupied(mut live) = self.0.entry(serial.lane.clone()) else { return };
        live.get_mut().runs.remove(&tag);
        if live.get().runs.is_empty() {
            live.remove().address.do_send(Stop);
        } else {
            live.get().address.do_send(Over(tag));
        }
    }

    /// The actor of a lane, if it lives.
    pub(crate) fn address(&self, lane: &LaneName) -> Option<Addr<Serial>> {
        self.0.get(lane).map(|live| live.address.clone())
    }

    /// How many live.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn died(&self, lane: LaneName, text: &str, runtime: &Arc<Runtime>) {
        let Entry::Occupied(mut live) = self.0.entry(lane) else { return };
        tracing::error!(lane = %live.key(), text, "the actor of a lane died; the lane goes on");
        live.get_mut().deaths += 1;
        if live.get().deaths <= DEATHS {
            live.get_mut().address = build(live.key().clone(), live.get().runs.clone(), runtime);
        }
    }
}

fn build(lane: LaneName, runs: Runs, runtime: &Arc<Runtime>) -> Addr<Serial> {
    let (parent, name) = (Arc::clone(runtime), lane.clone());
    let serial = Serial { lane, runs, runtime: Arc::clone(runtime) };
    supervisor::spawn(
        |_| serial,
        move |exit| {
            if let Exit::Panicked(text) = exit {
                parent.serials.died(name, &text, &parent);
            }
        },
    )
}

/// What becomes of a delivery whose task is serial, or whose lane has decided, instead of a run; `None`: it may run.
pub(super) fn before_start(
    judge: &Judge<'_>,
    definition: &TaskDefinition,
    broker: &dyn Broker,
) -> Option<Verdict> {
    let message = judge.message;
    let refusal = match (&message.serial, definition.serial) {
        (None, None) => return None,
        (Some(serial), _) if broker.keeps_lanes() => serial.refusal.as_ref(),
        // It came from a program that knows of no lanes, or the task has become serial since.
        (None, Some(serial)) if broker.keeps_lanes() => {
            return Some(match serial(&message.arguments) {
                Ok(serial) => judge.lined_up(serial),
                Err(error) => judge.dead(&error.to_string()),
            });
        }
        _ => {
            let name = broker.name();
            let text =
                format!("the task is serial, and the broker `{name}` keeps no lanes: its runs could overlap");
            return Some(judge.dead(&text));
        }
    };
    refusal.map(|refusal| judge.refused(refusal))
}

/// The actor.
pub(crate) struct Serial {
    lane: LaneName,
    runs: Runs,
    runtime: Arc<Runtime>,
}

impl Actor for Serial {
    type Context = Context<Self>;
}

/// Facts of a lane with the runs that are known here; `None`: it is idle.
pub(crate) fn status(facts: Option<LaneFacts>, runs: &Runs) -> Option<LaneStatus> {
    let facts = facts?;
    let run_of = |id: &TaskId| runs.values().find(|run| run.0 == *id).map(|run| run.1.clone());
    let holders = facts.holders.into_iter();
    Some(LaneStatus {
        scope: facts.name.scope().to_owned(),
        key: facts.name.key().to_owned(),
        concurrency: facts.concurrency,
        is_adjusted: facts.is_adjusted,
        holders: holders.map(|h| LaneHolder { run: run_of(&h.id), id: h.id, since: h.since }).collect(),
        waiting: facts.waiting,
        next: facts.next,
        blocked: facts.blocked,
    })
}

/// A run has started.
#[derive(Message)]
#[rtype(result = "()")]
struct Began(u64, Arc<(TaskId, LaneRun)>);

impl Handler<Began> for Serial {
    type Result = ();

    fn handle(&mut self, Began(tag, run): Began, _: &mut Self::Context) {
        self.runs.insert(tag, run);
    }
}

/// A run has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Over(u64);

impl Handler<Over> for Serial {
    type Result = ();

    fn handle(&mut self, Over(tag): Over, _: &mut Self::Context) {
        self.runs.remove(&tag);
    }
}

/// No run is left.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Serial {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Asks for the facts.
#[derive(Message)]
#[rtype(result = "Result<Option<LaneStatus>, BrokerError>")]
pub(crate) struct GetLane;

impl Handler<GetLane> for Serial {
    type Result = ResponseFuture<Result<Option<LaneStatus>, BrokerError>>;

    fn handle(&mut self, _: GetLane, _: &mut Self::Context) -> Self::Result {
        let (runtime, lane, runs) = (Arc::clone(&self.runtime), self.lane.clone(), self.runs.clone());
        Box::pin(async move { Ok(status(runtime.broker.lane(&lane).await?, &runs)) })
    }
}

/// Moves a lever.
#[derive(Message)]
#[rtype(result = "Result<bool, BrokerError>")]
pub(crate) struct Pull(pub(crate) LaneLever);

impl Handler<Pull> for Serial {
    type Result = ResponseFuture<Result<bool, BrokerError>>;

    fn handle(&mut self, Pull(lever): Pull, _: &mut Self::Context) -> Self::Result {
        let (runtime, lane) = (Arc::clone(&self.runtime), self.lane.clone());
        Box::pin(async move { runtime.broker.steer_lane(&lane, lever).await })
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Die;

#[cfg(test)]
impl Handler<Die> for Serial {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Self::Context) {
        panic!("asked to die");
    }
}

//! The forwarder of a commit table: an actor that gives the broker the tasks of committed rows, and deletes the rows. The
//! root builds it, on its own thread, where no task body can block it; operators reach it through [`CommitForwarderParts`].
//!
//! Invariants:
//! - A row is deleted after the broker has its task, and not before ([`forwarding`](crate::runtime::forwarding)).
//! - Publishes begin in the order of the rows; those of one lane wait for each other. One that fails holds up no row but
//!   those behind it in its lane; its row [rests](crate::core::resting_rows) and is tried again.
//! - A row that cannot be forwarded as it is stays in the table with the reason, and holds nothing up.
//! - When it looks is decided by [`core::look_pauses`](crate::core::look_pauses).

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, WrapFuture};
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::commit_table::{CommitRow, CommitTable, RowEnds};
use crate::core::Timestamp;
use crate::core::look_pauses::LookPauses;
use crate::core::resting_rows::RestingRows;
use crate::core::text::{ERROR, shortened};
use crate::runtime::Runtime;
use crate::runtime::forwarding::Forwarding;
use crate::task::clock::{now, steady};
use crate::task::{LaneName, Message, TaskId, writes};

/// The most rows that are in hand at a time, beside those that rest.
const BATCH: usize = 256;
/// How many of their publishes are under way at a time. They begin in order, and share commits of the broker.
const AT_A_TIME: usize = 64;

/// What a forwarder is made of. It outlives the actor, which the root builds from it each time.
pub(crate) struct CommitForwarderParts {
    runtime: Arc<Runtime>,
    table: Arc<dyn CommitTable>,
    /// Held during a look.
    looking: tokio::sync::Mutex<LookState>,
    /// Told when somebody wants a look now.
    hurry: Notify,
    closing: CancellationToken,
    address: Mutex<Option<Addr<CommitForwarder>>>,
    status: Mutex<CommitTableStatus>,
}

/// What one look leaves to the next.
#[derive(Default)]
struct LookState {
    /// Whether the notes of rows that are gone are gone, too.
    is_tidy: bool,
    /// The rows that the broker could not take.
    resting: RestingRows<TaskId, LaneName>,
}

/// Rows that are forwarded one after the other: those of a lane, or one row that stands in none.
struct InTurn {
    lane: Option<LaneName>,
    rows: Vec<(CommitRow, Result<Message, Forwarding>)>,
}

/// A commit table as this process forwards it. The numbers count from the start of this process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CommitTableStatus {
    /// The name of the database: `postgres`, `sqlite`.
    pub database: String,
    /// Whether this process has forwarded at its last look; otherwise another one may have.
    pub forwards: bool,
    /// Whether it waits for the broker, which cannot be reached.
    pub waits_for_broker: bool,
    /// When it looked into the table last.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub last_look: Option<Timestamp>,
    /// How many rows were forwarded, or had been before.
    pub forwarded: u64,
    /// How many rows could not be forwarded as they are. They are in the table, each with the reason.
    pub refused: u64,
    /// How often a look has failed, or has met a row that the broker could not take.
    pub failures: u64,
    /// Why the last look has failed, or why the broker could not take a row that is there still; `None`: all is well.
    pub last_error: Option<String>,
}

impl CommitForwarderParts {
    pub(crate) fn new(runtime: Arc<Runtime>, table: Arc<dyn CommitTable>) -> Self {
        let status = CommitTableStatus {
            database: table.name().to_owned(),
            forwards: false,
            waits_for_broker: false,
            last_look: None,
            forwarded: 0,
            refused: 0,
            failures: 0,
            last_error: None,
        };
        Self {
            runtime,
            table,
            looking: tokio::sync::Mutex::default(),
            hurry: Notify::new(),
            closing: CancellationToken::new(),
            address: Mutex::new(None),
            status: Mutex::new(status),
        }
    }

    pub(crate) fn status(&self) -> CommitTableStatus {
        self.status.lock().clone()
    }

    /// Has the forwarder look now, whatever it waits for.
    pub(crate) fn look_now(&self) {
        self.hurry.notify_one();
    }

    pub(super) fn living(&self) -> Option<Addr<CommitForwarder>> {
        self.address.lock().clone()
    }

    pub(super) fn lives_at(&self, address: Addr<CommitForwarder>) {
        *self.address.lock() = Some(address);
    }

    fn change(&self, change: impl FnOnce(&mut CommitTableStatus)) {
        change(&mut self.status.lock());
    }

    /// Looks and waits, until a shutdown begins.
    async fn run(&self) {
        let (mut writes, mut pauses) = (writes(), LookPauses::default());
        while !self.closing.is_cancelled() {
            let found = self.look().await;
            let is_well = found.is_some();
            let pause = match found {
                Some(rows) => pauses.looked(rows),
                None => pauses.failed(),
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = self.closing.cancelled() => {}
                () = self.hurry.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.table.committed(), if is_well => {}
                Ok(()) = writes.changed(), if is_well && !self.table.tells() => {
                    tokio::time::sleep(pauses.written()).await;
                }
            }
        }
    }

    /// One look: forwards the rows that are committed, at most a batch of them. Returns how many it found. `None`: it
    /// failed; the status says why.
    pub(crate) async fn look(&self) -> Option<usize> {
        let mut state = self.looking.lock().await;
        if self.closing.is_cancelled() {
            return Some(0);
        }
        let looked = self.forward_rows(&mut state).await;
        let some_rest = !state.resting.is_empty();
        drop(state);
        let (found, error) = match looked {
            Ok((found, late)) => (Some(found), late),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = &error {
            let database = self.table.name();
            tracing::warn!(database, %error, "not all of the commit table can be forwarded now; it is tried again after a pause");
        }
        self.change(|status| {
            status.last_look = Some(now());
            status.failures += u64::from(error.is_some());
            if error.is_some() || !some_rest {
                status.last_error = error;
            }
        });
        found
    }

    /// Returns how many rows were tried, and why the broker could not take one of them now.
    async fn forward_rows(&self, state: &mut LookState) -> Result<(usize, Option<String>), String> {
        let waits_for_broker = self.runtime.broker.condition().is_unavailable;
        self.change(|status| status.waits_for_broker = waits_for_broker);
        if waits_for_broker {
            // The rows wait in their table as well as anywhere.
            return Ok((0, None));
        }
        let begin = steady();
        state.resting.forget_old(begin);
        let limit = BATCH + state.resting.len();
        let taken = self.table.take(limit).await.map_err(|error| error.to_string())?;
        self.change(|status| status.forwards = taken.is_some());
        let Some(taken) = taken else { return Ok((0, None)) };
        if taken.rows().is_empty() {
            if !state.is_tidy {
                self.runtime.forget_all_forwarded().await.map_err(|error| error.to_string())?;
                state.is_tidy = true;
            }
            return Ok((0, None));
        }
        let (turns, mut late) = self.turns(taken.rows(), &mut state.resting, begin);
        let found = turns.iter().map(|turn| turn.rows.len()).sum::<usize>();
        let mut all_rest = late.is_none();
        let forwarded = stream::iter(turns).map(|turn| self.forward_in_turn(turn));
        let forwarded: Vec<_> = forwarded.buffered(AT_A_TIME).collect().await;
        let (mut ends, end) = (RowEnds::default(), steady());
        for (row, lane, forwarding) in forwarded.into_iter().flatten() {
            match forwarding {
                Forwarding::Done => {
                    state.resting.over(&row.id);
                    ends.forwarded.push(row.id);
                }
                Forwarding::Refused(reason) => {
                    let reason = kept(&reason);
                    let (id, task) = (&row.id, &row.task);
                    tracing::error!(%id, task, reason, "a committed call cannot be forwarded; its row stays in the commit table, with the reason");
                    state.resting.over(id);
                    ends.refused.push((row.id, reason));
                }
                Forwarding::Later(reason) => {
                    all_rest &= state.resting.put(row.id, lane, end);
                    late.get_or_insert(reason);
                }
            }
        }
        let (done, refused) = (ends.forwarded.clone(), ends.refused.len() as u64);
        taken.settle(ends).await.map_err(|error| error.to_string())?;
        self.change(|status| {
            status.forwarded += done.len() as u64;
            status.refused += refused;
        });
        // The rows are gone, so their notes are needed no more.
        state.is_tidy &= matches!(self.runtime.forget_forwarded(&done).await, Ok(true));
        match late {
            // A row that may not rest would be tried again at once.
            Some(reason) if !all_rest => Err(reason),
            late => Ok((found, late)),
        }
    }

    /// The rows that are to be forwarded now. The others rest, or stand in a lane behind one that rests; the answer says why
    /// one of those may not rest.
    fn turns(
        &self,
        rows: &[CommitRow],
        resting: &mut RestingRows<TaskId, LaneName>,
        now: Timestamp,
    ) -> (Vec<InTurn>, Option<String>) {
        let (mut turns, mut late) = (Vec::<InTurn>::new(), None);
        let mut of_lane: HashMap<LaneName, usize> = HashMap::new();
        for row in rows {
            if resting.contains(&row.id, now) {
                continue;
            }
            let message = self.runtime.message_of(row);
            let lane = message.as_ref().ok().and_then(|message| Some(message.serial.as_ref()?.lane.clone()));
            if let Some(lane) = &lane
                && resting.holds_up(lane, now)
            {
                if !resting.put(row.id.clone(), Some(lane.clone()), now) {
                    late = Some(format!("too many calls wait behind one of the lane `{lane}`"));
                }
                continue;
            }
            let row = (row.clone(), message);
            if let Some(turn) = lane.as_ref().and_then(|lane| of_lane.get(lane)) {
                turns[*turn].rows.push(row);
                continue;
            }
            if let Some(lane) = &lane {
                of_lane.insert(lane.clone(), turns.len());
            }
            turns.push(InTurn { lane, rows: vec![row] });
        }
        (turns, late)
    }

    /// Forwards rows one after the other, up to one that the broker cannot take now.
    async fn forward_in_turn(&self, turn: InTurn) -> Vec<(CommitRow, Option<LaneName>, Forwarding)> {
        let InTurn { lane, rows } = turn;
        let (mut forwarded, mut late) = (Vec::with_capacity(rows.len()), None::<String>);
        for (row, message) in rows {
            let forwarding = match (&late, message) {
                (Some(reason), _) => Forwarding::Later(reason.clone()),
                (None, Ok(message)) => self.runtime.forward(message).await,
                (None, Err(unmade)) => unmade,
            };
            if let Forwarding::Later(reason) = &forwarding {
                late.get_or_insert_with(|| reason.clone());
            }
            forwarded.push((row, lane.clone(), forwarding));
        }
        forwarded
    }
}

/// A reason as a table keeps it: not too long, and without the one character that a text in Postgres cannot have.
fn kept(reason: &str) -> String {
    shortened(reason, ERROR).replace('\0', "\u{fffd}")
}

/// The actor of a commit table: its loop.
pub(crate) struct CommitForwarder {
    parts: Arc<CommitForwarderParts>,
}

impl CommitForwarder {
    pub(super) fn new(parts: Arc<CommitForwarderParts>) -> Self {
        Self { parts }
    }
}

impl Actor for CommitForwarder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let parts = Arc::clone(&self.parts);
        let run = async move { parts.run().await };
        ctx.spawn(run.into_actor(self));
    }
}

/// A shutdown has begun: the forwarder ends what it has in hand, and takes no more rows.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct EndForwarding;

impl Handler<EndForwarding> for CommitForwarder {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: EndForwarding, _: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        parts.closing.cancel();
        Box::pin(async move {
            let _looking = parts.looking.lock().await;
            parts.table.close().await;
        })
    }
}

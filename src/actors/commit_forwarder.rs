//! The forwarder of a commit table: an actor that gives the broker the tasks of committed rows, and deletes the rows. The
//! root builds it, on its own thread, where no task body can block it; operators reach it through [`CommitForwarderParts`].
//!
//! Invariants:
//! - A row is deleted after the broker has its task, and not before ([`forwarding`](crate::runtime::forwarding)).
//! - Publishes begin in the order of the rows. One that fails holds up no other; its row
//!   [rests](crate::core::resting_rows) and is tried again.
//! - A row that cannot be forwarded as it is stays in the table with the reason, and holds nothing up.
//! - When it looks is decided by [`core::look_pauses`](crate::core::look_pauses).

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
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
use crate::task::{TaskId, writes};

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
    resting: RestingRows<TaskId>,
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
        let awake = taken.rows().iter().filter(|row| !state.resting.contains(&row.id, begin));
        let rows: Vec<CommitRow> = awake.cloned().collect();
        let found = rows.len();
        let runtime = &self.runtime;
        let forwarded = stream::iter(rows).map(|row| async move {
            let forwarding = runtime.forward(&row).await;
            (row, forwarding)
        });
        let forwarded: Vec<_> = forwarded.buffered(AT_A_TIME).collect().await;
        let (mut ends, mut late, mut all_rest) = (RowEnds::default(), None, true);
        let end = steady();
        for (row, forwarding) in forwarded {
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
                    all_rest &= state.resting.put(row.id, end);
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
#[derive(Message)]
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

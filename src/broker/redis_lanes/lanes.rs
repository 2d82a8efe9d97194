//! The lanes of serial keys. Redis keeps them, where all processes see them, and the script `lanes.lua` decides each
//! step.
//!
//! A run that is let in gets a [`Pass`] and is due to be sent. Until its publish is confirmed, any process may send it
//! again. A run that starts gets a token. Its process holds the run under this token for as long as the process renews
//! its lease. Once Redis has given the run to another process, no report of the first process counts any more.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, ScriptInvocation};
use serde_json::Value;

use crate::core::Timestamp;
use crate::core::lane::{Block, Holder, Newcomer};
use crate::core::time::FOR_EVER;
use crate::store::{RedisStore, StoreError};
use crate::task::{LaneName, Message, Pass, SerialHeader, TaskId};

/// The most entries of each kind that one sweep takes.
const SWEPT: usize = 200;

/// The lanes in one database.
pub(crate) struct RedisLaneTable {
    store: RedisStore,
    script: Arc<Script>,
    prefix: String,
    lease: Duration,
}

/// The answer to a run that comes to its lane.
#[derive(Debug, PartialEq)]
pub(crate) enum ArrivalReply {
    /// The run is let in. It must be sent with this pass.
    In(Pass),
    /// There is nothing to do: the run waits, or Redis knew it before.
    Waits,
    /// The lane does not take the run. The run must be told so.
    Refused,
    /// The run is left out, because this other task will do its work.
    Joined(TaskId),
    /// The run's id is taken.
    Taken,
}

/// The answer to a process that asks to start a delivery.
#[derive(Debug, PartialEq)]
pub(crate) enum Started {
    /// The run may start. `before` is `Some` if another process held the run before, and counts the runs of it that
    /// have ended with their process.
    Run { token: u64, before: Option<u32> },
    /// Another process holds the run and may be alive. Its lease ends at `until`, by Redis's clock in microseconds,
    /// unless it renews the lease.
    Held { process: String, until: u64 },
    /// The delivery is a copy: its run is over, or has another pass.
    Stale,
    /// Redis has forgotten the run.
    Gone,
    /// The delivery has no pass. Its run waits in its lane from now on.
    Waits,
    /// The delivery has no pass, and the lane does not take its run.
    Refused,
    /// Redis has given up the process that asks.
    Lapsed,
}

/// The process that asks to start a delivery.
pub(crate) struct StartRequest<'a> {
    /// The name of the process.
    pub(crate) process: &'a str,
    /// The tag of its delivery.
    pub(crate) tag: u64,
    /// The name of a process that is known to be dead, or empty.
    pub(crate) dead: &'a str,
}

/// How a process ends a start that it holds. The end has no effect if the process does not hold the start any more.
pub(crate) enum StartReport<'a> {
    /// The run is over. If its end blocks its lane, the text is the reason.
    Release(Option<String>),
    /// This message takes the place of the run, and does not start before `due`.
    Requeue { message: &'a Message, due: Timestamp, crashed: bool },
    /// The run goes back, and can be started again.
    Back,
}

/// The answer to the end of a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReportReply {
    Done,
    /// The run went back, and is sent anew.
    Anew,
    /// The process did not hold the start any more.
    Stale,
    /// Redis has forgotten who holds the start.
    Forgotten,
}

/// The place of a member of a lane.
#[derive(Debug)]
pub(crate) enum Seat {
    Unknown,
    Waiting(Box<Message>),
    Held,
}

/// The answer to taking a member out of its lane.
#[derive(Debug)]
pub(crate) enum TakenMember {
    Unknown,
    Held { queue: String },
    Removed(Box<Message>),
}

/// The messages that must be sent.
#[derive(Debug, Default)]
pub(crate) struct DueSend(Vec<QueuedPost>, u64);

#[derive(Debug)]
struct QueuedPost {
    id: String,
    message: String,
    pass: Option<u64>,
    let_in_at: Option<u64>,
    refusal: Option<String>,
    crashes: Option<u32>,
}

/// The facts of a lane.
#[derive(Debug)]
pub(crate) struct RedisLaneFacts {
    pub(crate) name: LaneName,
    pub(crate) stated: u32,
    pub(crate) adjusted: Option<u32>,
    pub(crate) blocked: Option<Block<TaskId>>,
    pub(crate) holders: Vec<Holder<TaskId>>,
    pub(crate) waiting: u64,
    pub(crate) first: Vec<Message>,
}

type PostRow = (String, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
type ScriptReply = (String, Option<String>, Option<String>, Vec<PostRow>);
type FactsRow =
    (String, Option<String>, Option<String>, Option<String>, Vec<(String, String)>, u64, Vec<Option<String>>);

impl DueSend {
    /// Whether there are no messages.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages. A message that cannot be read keeps its place in Redis, and the log names it.
    pub(crate) fn messages(self) -> impl Iterator<Item = Message> {
        let era = self.1;
        self.0.into_iter().filter_map(move |post| {
            let QueuedPost { id, message, pass, let_in_at, refusal, crashes } = post;
            let read = || -> Result<Message, serde_json::Error> {
                let mut message: Message = serde_json::from_str(&message)?;
                message.crashes = message.crashes.max(crashes.unwrap_or_default());
                if let Some(serial) = &mut message.serial {
                    serial.refusal = refusal.as_deref().map(serde_json::from_str).transpose()?;
                    serial.pass =
                        pass.filter(|_| refusal.is_none()).map(|token| Pass { token, era });
                    serial.let_in_at = let_in_at.map(Timestamp::from_micros).or(serial.let_in_at);
                }
                Ok(message)
            };
            let lost = |error| tracing::error!(id, %error, "what a lane let in is no message of this version, and holds it");
            read().map_err(lost).ok()
        })
    }
}

impl RedisLaneTable {
    /// The lanes in the database of this store.
    pub(crate) fn new(store: RedisStore) -> Self {
        let (prefix, lease) = (store.lanes_prefix(), store.options().lane_lease.min(FOR_EVER));
        Self { store, script: Arc::new(Script::new(include_str!("lanes.lua"))), prefix, lease }
    }

    /// How long Redis takes a silent process for alive.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether this process checks if the other processes on its machine are alive.
    pub(crate) fn knows_neighbours(&self) -> bool {
        self.store.options().lane_neighbours
    }

    /// The store in whose database the lanes are.
    pub(crate) fn store(&self) -> &RedisStore {
        &self.store
    }

    /// Brings a message to its lane. If it `is_new`, the task's policy for a busy lane applies. Otherwise the message
    /// was promised that it may wait.
    pub(crate) async fn arrive(
        &self,
        message: &Message,
        serial: &SerialHeader,
        is_new: bool,
        unique: bool,
    ) -> Result<(ArrivalReply, DueSend), StoreError> {
        let mut arguments = vec![message.id.to_string(), if unique { "1" } else { "0" }.to_owned()];
        arguments.extend(newcomer(message, serial, is_new)?);
        // If the answer was lost and the step is asked for once more, the message would be its own duplicate.
        let again = unique.then_some((1, "0"));
        let (word, a, b, due) = self.ask("arrive", arguments, again).await?;
        let arrived = match word.as_str() {
            "in" => ArrivalReply::In(Pass { token: number(b), era: number(a) }),
            "refused" => ArrivalReply::Refused,
            "joined" => ArrivalReply::Joined(TaskId::from(a.unwrap_or_default())),
            "taken" => ArrivalReply::Taken,
            _ => ArrivalReply::Waits,
        };
        Ok((arrived, due))
    }

    /// Takes out a message that was let in and could not be sent.
    pub(crate) async fn undo(&self, id: &TaskId, pass: Pass) -> Result<DueSend, StoreError> {
        let (_, era, _, due) = self.ask("undo", vec![id.to_string(), pass.token.to_string()], None).await?;
        Ok(with_era(due, era))
    }

    /// Asks whether a delivery may start.
    pub(crate) async fn start(
        &self,
        message: &Message,
        serial: &SerialHeader,
        claim: &StartRequest<'_>,
    ) -> Result<Started, StoreError> {
        let (pass, era) = match serial.pass {
            Some(pass) => (pass.token.to_string(), pass.era.to_string()),
            None => (String::new(), String::new()),
        };
        let (tag, process, dead) = (claim.tag.to_string(), claim.process.to_owned(), claim.dead.to_owned());
        let mut arguments = vec![message.id.to_string(), tag, process, pass, era, dead];
        if serial.pass.is_none() {
            arguments.extend(newcomer(message, serial, false)?);
        }
        let (word, a, b, _) = self.ask("start", arguments, None).await?;
        Ok(match word.as_str() {
            "run" => Started::Run { token: number(a), before: b.map(|crashes| crashes.parse().unwrap_or(0)) },
            "held" => Started::Held { process: a.unwrap_or_default(), until: number(b) },
            "gone" => Started::Gone,
            "waits" => Started::Waits,
            "refused" => Started::Refused,
            "lapsed" => Started::Lapsed,
            _ => Started::Stale,
        })
    }

    /// Leaves a delivery to the process that holds its run. Returns `false` if that process does not hold the run any
    /// more.
    pub(crate) async fn park(
        &self,
        id: &TaskId,
        pass: Option<Pass>,
        process: &str,
    ) -> Result<bool, StoreError> {
        let pass = pass.map_or_else(String::new, |pass| pass.token.to_string());
        let word = self.ask("park", vec![id.to_string(), pass, process.to_owned()], None).await?.0;
        Ok(word == "done")
    }

    /// Renews the lease of a process. Returns `false` if Redis has given the process up.
    pub(crate) async fn renew(&self, process: &str) -> Result<bool, StoreError> {
        Ok(self.ask("renew", vec![process.to_owned()], None).await?.0 == "done")
    }

    /// Ends the lease of a process that holds nothing.
    pub(crate) async fn depart(&self, process: &str) -> Result<(), StoreError> {
        self.ask("depart", vec![process.to_owned()], None).await.map(|_| ())
    }

    /// Whether this start is the one that counts.
    pub(crate) async fn check_fence(&self, id: &TaskId, token: u64) -> Result<bool, StoreError> {
        Ok(self.ask("affirm", vec![id.to_string(), token.to_string()], None).await?.0 == "done")
    }

    /// Notes that a body begins. If its process dies during the body, `crashes` runs have ended with their process.
    pub(crate) async fn note(&self, id: &TaskId, token: u64, crashes: u32) -> Result<(), StoreError> {
        let arguments = vec![id.to_string(), token.to_string(), crashes.to_string()];
        self.ask("note", arguments, None).await.map(|_| ())
    }

    /// Ends a start.
    pub(crate) async fn end(
        &self,
        id: &TaskId,
        token: u64,
        end: &StartReport<'_>,
    ) -> Result<(ReportReply, DueSend), StoreError> {
        let mut arguments = vec![id.to_string(), token.to_string()];
        let command = match end {
            StartReport::Release(block) => {
                arguments.push(block.clone().unwrap_or_default());
                "release"
            }
            StartReport::Requeue { message, due, crashed } => {
                arguments.extend([json(message)?, due.as_micros().to_string()]);
                arguments.extend([u8::from(*crashed).to_string(), message.queue.clone()]);
                "requeue"
            }
            StartReport::Back => "back",
        };
        let (word, era, _, due) = self.ask_twice(command, arguments).await?;
        let ended = match word.as_str() {
            "done" => ReportReply::Done,
            "sent" => ReportReply::Anew,
            "forgotten" => ReportReply::Forgotten,
            _ => ReportReply::Stale,
        };
        Ok((ended, with_era(due, era)))
    }

    /// Tells Redis that these messages were published.
    pub(crate) async fn confirm(&self, sent: &[(TaskId, Option<Pass>)]) -> Result<(), StoreError> {
        let pass = |pass: &Option<Pass>| pass.map_or_else(String::new, |pass| pass.token.to_string());
        let arguments = sent.iter().flat_map(|(id, p)| [id.to_string(), pass(p)]).collect();
        self.ask("confirm", arguments, None).await.map(|_| ())
    }

    /// Takes a run that no process holds out of its lane, because the run has become a dead letter.
    pub(crate) async fn bury(
        &self,
        id: &TaskId,
        pass: Pass,
        block: Option<String>,
    ) -> Result<DueSend, StoreError> {
        let arguments = vec![id.to_string(), pass.token.to_string(), block.unwrap_or_default()];
        let (_, era, _, due) = self.ask("bury", arguments, None).await?;
        Ok(with_era(due, era))
    }

    /// Takes a run that no process holds out of its lane.
    pub(crate) async fn remove(&self, id: &TaskId) -> Result<(TakenMember, DueSend), StoreError> {
        let (word, a, b, due) = self.ask("remove", vec![id.to_string()], None).await?;
        Ok(match word.as_str() {
            "removed" => (TakenMember::Removed(read(&a.unwrap_or_default())?), with_era(due, b)),
            "held" => (TakenMember::Held { queue: a.unwrap_or_default() }, due),
            _ => (TakenMember::Unknown, due),
        })
    }

    /// The place of a run.
    pub(crate) async fn find(&self, id: &TaskId) -> Result<Seat, StoreError> {
        let (word, a, _, _) = self.ask("find", vec![id.to_string()], None).await?;
        Ok(match (word.as_str(), a) {
            ("waits", Some(message)) => Seat::Waiting(read(&message)?),
            ("held", _) => Seat::Held,
            _ => Seat::Unknown,
        })
    }

    /// Ends the block of a lane. Returns `false` if the lane was not blocked.
    pub(crate) async fn unblock(&self, lane: &LaneName) -> Result<(bool, DueSend), StoreError> {
        self.steer(vec![key(lane)?, "unblock".to_owned(), String::new()]).await
    }

    /// Sets the limit of a lane by hand. With `None`, the limit of the runs themselves applies again.
    pub(crate) async fn adjust(
        &self,
        lane: &LaneName,
        limit: Option<u32>,
    ) -> Result<(bool, DueSend), StoreError> {
        let limit = limit.map_or_else(String::new, |limit| limit.to_string());
        self.steer(vec![key(lane)?, "adjust".to_owned(), limit]).await
    }

    async fn steer(&self, arguments: Vec<String>) -> Result<(bool, DueSend), StoreError> {
        let (word, era, _, due) = self.ask("steer", arguments, None).await?;
        Ok((word == "done", with_era(due, era)))
    }

    /// The facts of a lane, with the first runs that wait in it, or `None` if the lane is idle.
    pub(crate) async fn facts(
        &self,
        lane: &LaneName,
        shown: usize,
    ) -> Result<Option<RedisLaneFacts>, StoreError> {
        let rows: Vec<FactsRow> = self.invoke("facts", vec![key(lane)?, shown.to_string()], None).await?;
        rows.into_iter().next().map(facts).transpose()
    }

    /// The facts of the lanes that are not idle, by name.
    pub(crate) async fn all(&self, limit: usize) -> Result<Vec<RedisLaneFacts>, StoreError> {
        let rows: Vec<FactsRow> = self.invoke("lanes", vec![limit.to_string()], None).await?;
        rows.into_iter().map(facts).collect()
    }

    /// The number of runs of a queue that wait in lanes.
    pub(crate) async fn in_line(&self, queue: &str) -> Result<u64, StoreError> {
        Ok(number(self.ask("in_line", vec![queue.to_owned()], None).await?.1))
    }

    /// Does the work that is due. Returns the messages to send, and the time at which something is due next.
    pub(crate) async fn sweep(&self) -> Result<(DueSend, Duration), StoreError> {
        let (_, era, wait, due) = self.ask("sweep", vec![SWEPT.to_string()], None).await?;
        Ok((with_era(due, era), Duration::from_micros(number(wait))))
    }

    /// The settings of Redis that may make it lose what it was told.
    pub(crate) async fn doubts(&self) -> Vec<String> {
        let config = |name: &'static str| self.store.setting(name);
        let mut doubts = Vec::new();
        if config("appendonly").await.as_deref() == Some("no") {
            doubts.push("`appendonly` is `no`: serial tasks that wait are lost when Redis stops".to_owned());
        }
        let policy = config("maxmemory-policy").await.filter(|policy| policy.starts_with("allkeys"));
        if let (Some(policy), Some(memory)) = (policy, config("maxmemory").await)
            && memory != "0"
        {
            doubts.push(format!(
                "`maxmemory-policy` is `{policy}`: Redis may forget who waits when its memory is full; \
                 set it to `noeviction` or `volatile-lru`"
            ));
        }
        doubts
    }

    /// Asks Redis for a step. If the answer was lost and the step is asked for again, `again` replaces one argument.
    async fn ask(
        &self,
        command: &'static str,
        arguments: Vec<String>,
        again: Option<(usize, &'static str)>,
    ) -> Result<(String, Option<String>, Option<String>, DueSend), StoreError> {
        let (word, a, b, rows): ScriptReply = self.invoke(command, arguments, again).await?;
        let era = if word == "in" { number(a.clone()) } else { 0 };
        Ok((word, a, b, DueSend(rows.into_iter().map(post).collect(), era)))
    }

    /// Asks for a step that ends a start. If the answer was lost and Redis does not know the start any more, the start
    /// has ended.
    async fn ask_twice(
        &self,
        command: &'static str,
        mut arguments: Vec<String>,
    ) -> Result<(String, Option<String>, Option<String>, DueSend), StoreError> {
        arguments.push("0".to_owned());
        let last = arguments.len() - 1;
        self.ask(command, arguments, Some((last, "1"))).await
    }

    async fn invoke<T: redis::FromRedisValue + Send + 'static>(
        &self,
        command: &'static str,
        arguments: Vec<String>,
        again: Option<(usize, &'static str)>,
    ) -> Result<T, StoreError> {
        let lease = self.lease.as_micros().to_string();
        let (script, prefix) = (Arc::clone(&self.script), self.prefix.clone());
        let key = prefix.clone();
        let fill = move |call: &mut ScriptInvocation<'_>, was_asked: bool| {
            call.key(&prefix).arg(command).arg(&lease);
            for (n, argument) in arguments.iter().enumerate() {
                match again.filter(|(at, _)| was_asked && *at == n) {
                    Some((_, instead)) => call.arg(instead),
                    None => call.arg(argument),
                };
            }
        };
        self.store.call_script(key, script, fill).await
    }
}

/// The arguments of the script for a message that comes to its lane.
fn newcomer(message: &Message, serial: &SerialHeader, is_new: bool) -> Result<[String; 6], StoreError> {
    let (word, patience) = match serial.newcomer {
        Newcomer::Skip if is_new => ("skip", Duration::ZERO),
        Newcomer::Replace if is_new => ("replace", Duration::ZERO),
        Newcomer::FailAfter(patience) => ("fail", patience),
        Newcomer::Wait | Newcomer::Skip | Newcomer::Replace => ("wait", Duration::ZERO),
    };
    Ok([
        key(&serial.lane)?,
        serial.concurrency.to_string(),
        word.to_owned(),
        patience.as_micros().to_string(),
        message.queue.clone(),
        json(message)?,
    ])
}

fn post((id, message, pass, let_in_at, refusal, crashes): PostRow) -> QueuedPost {
    QueuedPost {
        id,
        message: message.unwrap_or_default(),
        pass: pass.and_then(|token| token.parse().ok()),
        let_in_at: let_in_at.and_then(|at| at.parse().ok()),
        refusal,
        crashes: crashes.and_then(|crashes| crashes.parse().ok()),
    }
}

fn with_era(DueSend(posts, _): DueSend, era: Option<String>) -> DueSend {
    DueSend(posts, number(era))
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Refused(format!("a member of a lane is in no form that this version knows: {error}"))
}

fn json(message: &Message) -> Result<String, StoreError> {
    serde_json::to_string(message).map_err(|error| unreadable(&error))
}

fn read(message: &str) -> Result<Box<Message>, StoreError> {
    serde_json::from_str(message).map(Box::new).map_err(|error| unreadable(&error))
}

/// The name of a lane in keys: `["scope","key"]`.
fn key(lane: &LaneName) -> Result<String, StoreError> {
    serde_json::to_string(&(lane.scope(), lane.key())).map_err(|error| unreadable(&error))
}

fn facts(
    (lane, stated, adjusted, blocked, holders, waiting, first): FactsRow,
) -> Result<RedisLaneFacts, StoreError> {
    let (scope, key): (String, String) = serde_json::from_str(&lane).map_err(|error| unreadable(&error))?;
    let block = |text: String| -> Option<Block<TaskId>> {
        let block: Value = serde_json::from_str(&text).ok()?;
        let since = Timestamp::from_micros(block[1].as_str()?.parse().ok()?);
        Some(Block { by: TaskId::from(block[0].as_str()?), since, reason: block[2].as_str()?.to_owned() })
    };
    let holder = |(id, since): (String, String)| {
        let since = Timestamp::from_micros(since.parse().unwrap_or_default());
        Holder { id: TaskId::from(id), since }
    };
    Ok(RedisLaneFacts {
        name: LaneName::new(scope, key),
        stated: stated.and_then(|limit| limit.parse().ok()).unwrap_or(1),
        adjusted: adjusted.and_then(|limit| limit.parse().ok()),
        blocked: blocked.and_then(block),
        holders: holders.into_iter().map(holder).collect(),
        waiting,
        first: first.into_iter().flatten().map(|m| read(&m).map(|m| *m)).collect::<Result<_, _>>()?,
    })
}

//! The lanes of serial keys, kept where all processes see them: `lanes.lua` decides, each time in one step.
//!
//! Whoever is let in is given a [`Pass`] and is to be sent; until that is confirmed, it is due to be sent again by anybody.
//! Whoever starts it is given a token, under which the process holds it for as long as that renews its lease. Nothing that a
//! process says of a start counts after it was given to another one.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use serde_json::Value;

use super::RedisStore;
use crate::core::Timestamp;
use crate::core::lane::{Block, Holder, Newcomer};
use crate::store::StoreError;
use crate::task::{LaneName, Message, Pass, Serial, TaskId};

/// So many are swept at a time.
const SWEPT: usize = 200;

/// The lanes in one database.
pub(crate) struct Lanes {
    store: RedisStore,
    script: Arc<Script>,
    prefix: String,
    lease: Duration,
}

/// What becomes of somebody who comes.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrived {
    /// It is to be sent, with this pass.
    In(Pass),
    /// Nothing is to be done: it waits, or was known before.
    Waits,
    /// It is to be told that its lane does not take it.
    Refused,
    /// That one will do its work.
    Joined(TaskId),
    /// Its id is taken.
    Taken,
}

/// What becomes of a delivery.
#[derive(Debug, PartialEq)]
pub(crate) enum Started {
    /// It may start. `before`: it was somebody's before, and so many runs of it have ended with their process.
    Run { token: u64, before: Option<u32> },
    /// This process has it, and may be alive: it is sure to be until then, unless it is sure to be for longer by the next time.
    Held { process: String, until: u64 },
    /// A copy, of what is over or has another pass.
    Stale,
    /// Its lane has forgotten it.
    Gone,
    /// It came without a pass, and waits in its lane from now on.
    Waits,
    /// It came without a pass, and its lane does not take it.
    Refused,
    /// The process that asks was given up.
    Lapsed,
}

/// Who asks to start a delivery.
pub(crate) struct Claim<'a> {
    /// The process.
    pub(crate) process: &'a str,
    /// Its delivery.
    pub(crate) tag: u64,
    /// A process that is known to be dead.
    pub(crate) dead: &'a str,
}

/// What a process says of a start that it holds. Each is without effect if it is not its own any more.
pub(crate) enum End<'a> {
    /// It is over; why it blocks its lane, if it does.
    Release(Option<String>),
    /// This one takes its place, not before that time.
    Requeue { message: &'a Message, due: Timestamp, crashed: bool },
    /// It goes back.
    Back,
}

/// What came of that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    /// It goes back by being sent anew.
    Anew,
    /// It was not its own any more.
    Stale,
    /// Redis has forgotten whose it is.
    Forgotten,
}

/// Where a member of a lane is.
#[derive(Debug)]
pub(crate) enum Seat {
    Unknown,
    Waiting(Box<Message>),
    Held,
}

/// What came of taking a member out.
#[derive(Debug)]
pub(crate) enum Taken {
    Unknown,
    Held { queue: String },
    Removed(Box<Message>),
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Due(Vec<Post>, u64);

#[derive(Debug)]
struct Post {
    id: String,
    message: String,
    pass: Option<u64>,
    let_in_at: Option<u64>,
    refusal: Option<String>,
    crashes: Option<u32>,
}

/// The facts of a lane.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) name: LaneName,
    pub(crate) stated: u32,
    pub(crate) adjusted: Option<u32>,
    pub(crate) blocked: Option<Block<TaskId>>,
    pub(crate) holders: Vec<Holder<TaskId>>,
    pub(crate) waiting: u64,
    pub(crate) first: Vec<Message>,
}

type PostRow = (String, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
type Reply = (String, Option<String>, Option<String>, Vec<PostRow>);
type FactsRow =
    (String, Option<String>, Option<String>, Option<String>, Vec<(String, String)>, u64, Vec<Option<String>>);

impl Due {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The messages. What cannot be read stays where it is, and in the log.
    pub(crate) fn messages(self) -> impl Iterator<Item = Message> {
        let era = self.1;
        self.0.into_iter().filter_map(move |post| {
            let Post { id, message, pass, let_in_at, refusal, crashes } = post;
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

impl Lanes {
    /// Those in the database of this store.
    pub(crate) fn new(store: RedisStore) -> Self {
        let (prefix, lease) = (store.core.keys.lanes(), store.core.options.lane_lease);
        Self { store, script: Arc::new(Script::new(include_str!("lanes.lua"))), prefix, lease }
    }

    /// For how long a process is sure to be alive.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether others on this machine are looked at.
    pub(crate) fn knows_neighbours(&self) -> bool {
        self.store.core.options.lane_neighbours
    }

    /// The store.
    pub(crate) fn store(&self) -> &RedisStore {
        &self.store
    }

    /// Somebody comes to its lane. If it `is_new`, the policy for newcomers applies; else it was promised to wait.
    pub(crate) async fn arrive(
        &self,
        message: &Message,
        serial: &Serial,
        is_new: bool,
        unique: bool,
    ) -> Result<(Arrived, Due), StoreError> {
        let mut arguments = vec![message.id.to_string(), if unique { "1" } else { "0" }.to_owned()];
        arguments.extend(newcomer(message, serial, is_new)?);
        // Asked once more, it would be its own duplicate.
        let again = unique.then_some((1, "0"));
        let (word, a, b, due) = self.ask("arrive", arguments, again).await?;
        let arrived = match word.as_str() {
            "in" => Arrived::In(Pass { token: number(b), era: number(a) }),
            "refused" => Arrived::Refused,
            "joined" => Arrived::Joined(TaskId::from(a.unwrap_or_default())),
            "taken" => Arrived::Taken,
            _ => Arrived::Waits,
        };
        Ok((arrived, due))
    }

    /// The first one that came could not be sent.
    pub(crate) async fn undo(&self, id: &TaskId, pass: Pass) -> Result<Due, StoreError> {
        let (_, era, _, due) = self.ask("undo", vec![id.to_string(), pass.token.to_string()], None).await?;
        Ok(with_era(due, era))
    }

    /// A process asks to start a delivery.
    pub(crate) async fn start(
        &self,
        message: &Message,
        serial: &Serial,
        claim: &Claim<'_>,
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

    /// A delivery is left to the process that has it. `false`: that does not have it any more.
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

    /// A process is alive. `false`: it was given up.
    pub(crate) async fn renew(&self, process: &str) -> Result<bool, StoreError> {
        Ok(self.ask("renew", vec![process.to_owned()], None).await?.0 == "done")
    }

    /// A process that has nothing ends.
    pub(crate) async fn depart(&self, process: &str) -> Result<(), StoreError> {
        self.ask("depart", vec![process.to_owned()], None).await.map(|_| ())
    }

    /// Whether this start is the one that counts.
    pub(crate) async fn affirm(&self, id: &TaskId, token: u64) -> Result<bool, StoreError> {
        Ok(self.ask("affirm", vec![id.to_string(), token.to_string()], None).await?.0 == "done")
    }

    /// A body begins; should its process end with it, so many have.
    pub(crate) async fn note(&self, id: &TaskId, token: u64, crashes: u32) -> Result<(), StoreError> {
        let arguments = vec![id.to_string(), token.to_string(), crashes.to_string()];
        self.ask("note", arguments, None).await.map(|_| ())
    }

    /// A start ends.
    pub(crate) async fn end(
        &self,
        id: &TaskId,
        token: u64,
        end: &End<'_>,
    ) -> Result<(Ended, Due), StoreError> {
        let mut arguments = vec![id.to_string(), token.to_string()];
        let command = match end {
            End::Release(block) => {
                arguments.push(block.clone().unwrap_or_default());
                "release"
            }
            End::Requeue { message, due, crashed } => {
                arguments.extend([json(message)?, due.as_micros().to_string()]);
                arguments.push(u8::from(*crashed).to_string());
                "requeue"
            }
            End::Back => "back",
        };
        let (word, era, _, due) = self.ask_twice(command, arguments).await?;
        let ended = match word.as_str() {
            "done" => Ended::Done,
            "sent" => Ended::Anew,
            "forgotten" => Ended::Forgotten,
            _ => Ended::Stale,
        };
        Ok((ended, with_era(due, era)))
    }

    /// These were sent, and are where they belong.
    pub(crate) async fn confirm(&self, sent: &[(TaskId, Option<Pass>)]) -> Result<(), StoreError> {
        let pass = |pass: &Option<Pass>| pass.map_or_else(String::new, |pass| pass.token.to_string());
        let arguments = sent.iter().flat_map(|(id, p)| [id.to_string(), pass(p)]).collect();
        self.ask("confirm", arguments, None).await.map(|_| ())
    }

    /// One that nobody has went to the dead letters.
    pub(crate) async fn bury(
        &self,
        id: &TaskId,
        pass: Pass,
        block: Option<String>,
    ) -> Result<Due, StoreError> {
        let arguments = vec![id.to_string(), pass.token.to_string(), block.unwrap_or_default()];
        let (_, era, _, due) = self.ask("bury", arguments, None).await?;
        Ok(with_era(due, era))
    }

    /// Takes one out.
    pub(crate) async fn remove(&self, id: &TaskId) -> Result<(Taken, Due), StoreError> {
        let (word, a, b, due) = self.ask("remove", vec![id.to_string()], None).await?;
        Ok(match word.as_str() {
            "removed" => (Taken::Removed(read(&a.unwrap_or_default())?), with_era(due, b)),
            "held" => (Taken::Held { queue: a.unwrap_or_default() }, due),
            _ => (Taken::Unknown, due),
        })
    }

    /// Where one is.
    pub(crate) async fn find(&self, id: &TaskId) -> Result<Seat, StoreError> {
        let (word, a, _, _) = self.ask("find", vec![id.to_string()], None).await?;
        Ok(match (word.as_str(), a) {
            ("waits", Some(message)) => Seat::Waiting(read(&message)?),
            ("held", _) => Seat::Held,
            _ => Seat::Unknown,
        })
    }

    /// Ends a block. `false`: there was none.
    pub(crate) async fn unblock(&self, lane: &LaneName) -> Result<(bool, Due), StoreError> {
        self.steer(vec![key(lane)?, "unblock".to_owned(), String::new()]).await
    }

    /// Sets a limit by hand, or ends that.
    pub(crate) async fn adjust(
        &self,
        lane: &LaneName,
        limit: Option<u32>,
    ) -> Result<(bool, Due), StoreError> {
        let limit = limit.map_or_else(String::new, |limit| limit.to_string());
        self.steer(vec![key(lane)?, "adjust".to_owned(), limit]).await
    }

    async fn steer(&self, arguments: Vec<String>) -> Result<(bool, Due), StoreError> {
        let (word, era, _, due) = self.ask("steer", arguments, None).await?;
        Ok((word == "done", with_era(due, era)))
    }

    /// The facts of a lane, with the first who wait; `None`: it is idle.
    pub(crate) async fn facts(&self, lane: &LaneName, shown: usize) -> Result<Option<Facts>, StoreError> {
        let rows: Vec<FactsRow> = self.invoke("facts", vec![key(lane)?, shown.to_string()], None).await?;
        rows.into_iter().next().map(facts).transpose()
    }

    /// The facts of those that are not idle, by name.
    pub(crate) async fn all(&self, limit: usize) -> Result<Vec<Facts>, StoreError> {
        let rows: Vec<FactsRow> = self.invoke("lanes", vec![limit.to_string()], None).await?;
        rows.into_iter().map(facts).collect()
    }

    /// How many of a queue wait.
    pub(crate) async fn in_line(&self, queue: &str) -> Result<u64, StoreError> {
        Ok(number(self.ask("in_line", vec![queue.to_owned()], None).await?.1))
    }

    /// Does what is due; when something is next.
    pub(crate) async fn sweep(&self) -> Result<(Due, Duration), StoreError> {
        let (_, era, wait, due) = self.ask("sweep", vec![SWEPT.to_string()], None).await?;
        Ok((with_era(due, era), Duration::from_micros(number(wait))))
    }

    /// Whether Redis keeps what it was told: the reasons why it may not.
    pub(crate) async fn doubts(&self) -> Vec<String> {
        let config = |name: &'static str| async move {
            let asked = self.store.run(move |core| async move {
                core.link
                    .run(name, |mut connection, _| async move {
                        let mut command = redis::cmd("CONFIG");
                        command.arg("GET").arg(name);
                        command.query_async::<Vec<String>>(&mut connection).await
                    })
                    .await
            });
            asked.await.ok().and_then(|pair| pair.into_iter().nth(1))
        };
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

    /// Asks for a step, whose argument is another one if it was asked for before and the answer was lost.
    async fn ask(
        &self,
        command: &'static str,
        arguments: Vec<String>,
        again: Option<(usize, &'static str)>,
    ) -> Result<(String, Option<String>, Option<String>, Due), StoreError> {
        let (word, a, b, rows): Reply = self.invoke(command, arguments, again).await?;
        let era = if word == "in" { number(a.clone()) } else { 0 };
        Ok((word, a, b, Due(rows.into_iter().map(post).collect(), era)))
    }

    /// Asks for a step that ends a start. If the answer was lost and the start is not known any more, it has ended.
    async fn ask_twice(
        &self,
        command: &'static str,
        mut arguments: Vec<String>,
    ) -> Result<(String, Option<String>, Option<String>, Due), StoreError> {
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
        let work = move |core: Arc<super::Core>| async move {
            let (script, prefix, lease, arguments) = (&script, &prefix, &lease, &arguments);
            core.link
                .run(prefix, |mut connection, was_asked| async move {
                    let mut call = script.prepare_invoke();
                    call.key(prefix).arg(command).arg(lease);
                    for (n, argument) in arguments.iter().enumerate() {
                        match again.filter(|(at, _)| was_asked && *at == n) {
                            Some((_, instead)) => call.arg(instead),
                            None => call.arg(argument),
                        };
                    }
                    call.invoke_async(&mut connection).await
                })
                .await
        };
        self.store.run(work).await
    }
}

/// What the script is told of somebody who comes.
fn newcomer(message: &Message, serial: &Serial, is_new: bool) -> Result<[String; 6], StoreError> {
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

fn post((id, message, pass, let_in_at, refusal, crashes): PostRow) -> Post {
    Post {
        id,
        message: message.unwrap_or_default(),
        pass: pass.and_then(|token| token.parse().ok()),
        let_in_at: let_in_at.and_then(|at| at.parse().ok()),
        refusal,
        crashes: crashes.and_then(|crashes| crashes.parse().ok()),
    }
}

fn with_era(Due(posts, _): Due, era: Option<String>) -> Due {
    Due(posts, number(era))
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

fn facts((lane, stated, adjusted, blocked, holders, waiting, first): FactsRow) -> Result<Facts, StoreError> {
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
    Ok(Facts {
        name: LaneName::new(scope, key),
        stated: stated.and_then(|limit| limit.parse().ok()).unwrap_or(1),
        adjusted: adjusted.and_then(|limit| limit.parse().ok()),
        blocked: blocked.and_then(block),
        holders: holders.into_iter().map(holder).collect(),
        waiting,
        first: first.into_iter().flatten().map(|m| read(&m).map(|m| *m)).collect::<Result<_, _>>()?,
    })
}

//! `kill -9` in the middle of each act of the console whose effect outlasts the program: it is done or not done, and never half.
//! What a page was told to be done is done.
//!
//! Each life looks what came of the act of the life before, prepares something for the next act, and sends its form.

use std::time::Duration;

use actix_web::body::to_bytes;
use actix_web::dev::Service as _;
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error};
use celeriac::broker::TaskFilter;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::core::calendar::{Schedule, Zone};
use celeriac::web::Console;
use celeriac::{Celeriac, Periodic, Signature, State, TaskError, TaskId, serial_task, task};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::child::{Child, Failure, Orders, say};
use crate::process::{Home, Life, PATIENCE};

/// How often each act is cut off.
const KILLS: u64 = 5;
/// The tasks of an act on several.
const SEVERAL: usize = 20;
/// The tasks of an act that is cancelled, which takes several steps, and how many tasks are done in a step.
const MANY: usize = 4_000;
const STEP: u64 = 1_024;

/// What the console can do that is there after a restart. The pause and resumption of a queue, the weight of a tenant, the revocation
/// of a task that runs, and a resize that is not to be kept hold until then.
const ACTS: [&str; 25] = [
    "revoke",
    "revoke_fetched",
    "retry",
    "edit",
    "delete",
    "retry_all",
    "delete_all",
    "enqueue",
    "run_now",
    "pause_entry",
    "resume_entry",
    "set_brake",
    "release_brake",
    "pause_tenant",
    "release_tenant",
    "resize",
    "set_concurrency",
    "as_stated",
    "unblock",
    "bulk_purge",
    "bulk_revoke",
    "bulk_retry",
    "bulk_move",
    "cancel_bulk",
    "undo_bulk",
];

/// Its queue is paused, so it waits.
#[task(name = "kept.waits", queue = "io")]
async fn waits(to: String) -> usize {
    to.len()
}

/// What the periodic entry calls.
#[task(name = "kept.yearly", queue = "io")]
async fn yearly() {}

#[task(name = "kept.fails", queue = "io2", max_retries = 0)]
async fn fails(text: String) -> Result<(), TaskError> {
    Err(TaskError::permanent(text))
}

#[serial_task(name = "kept.stands", key = "{key}", queue = "io")]
async fn stands(key: String) -> usize {
    key.len()
}

/// Fails, and blocks its lane.
#[serial_task(name = "kept.blocks", key = "{key}", queue = "io2", max_retries = 0, after_failure = "block")]
async fn blocks(key: String) -> Result<(), TaskError> {
    Err(TaskError::permanent(key))
}

/// A program, and its console for a script that may do everything.
struct Desk {
    celeriac: Celeriac,
    console: Console,
}

/// A life: it is told the act of the life before and its own, and the number of the round.
pub async fn child(child: Child) -> Result<(), Failure> {
    tokio::task::LocalSet::new().run_until(life(child)).await
}

async fn life(child: Child) -> Result<(), Failure> {
    let [before, act] = child.orders.taken.as_slice() else { return Err("two acts are told".into()) };
    let round = child.orders.seed;
    let entry = Schedule::crontab("0 0 1 1 *".parse().expect("a crontab"), Zone::UTC);
    let builder = child.builder().periodic(Periodic::calling("yearly", yearly::s(), entry));
    let celeriac = builder.start().await?;
    let console = Console::new(&celeriac).authorize(|_, _| Some("amina"));
    let desk = Desk { celeriac, console };
    if before.is_empty() {
        for queue in ["io", "io2", "cpu"] {
            desk.celeriac.persistent().pause(queue).await?;
        }
        say("was nothing");
    } else {
        let is_done = desk.found(before, round - 1).await.map_err(|why| format!("{before}: {why}"))?;
        say(if is_done { "was done" } else { "was not done" });
    }
    if act.is_empty() {
        desk.celeriac.shutdown().await?;
        return Ok(());
    }
    desk.prepare(act, round).await.map_err(|why| format!("{act} is not prepared: {why}"))?;
    let fields = desk.fields(act, round).await?;
    say("acts");
    let (status, body) = desk.act(fields).await?;
    // Whoever comes too late to cancel an act is told so, and it is not cancelled.
    let is_late = act == "cancel_bulk" && body.contains("it was over");
    match status {
        _ if is_late => {}
        StatusCode::OK => say("did"),
        _ => return Err(format!("{act}: {status}: {body}").into()),
    }
    std::future::pending().await
}

fn id(round: u64) -> String {
    format!("of-{round}")
}

fn ids(round: u64) -> impl Iterator<Item = String> {
    (0..SEVERAL).map(move |n| format!("of-{round}-{n}"))
}

/// The tenant of a round, whose name is in no other one.
fn tenant(round: u64) -> String {
    format!("tenant-{round}-")
}

impl Desk {
    async fn ask(&self, request: TestRequest) -> Result<(StatusCode, String), Failure> {
        let app = init_service(App::new().service(self.console.clone())).await;
        let response = app.call(request.to_request()).await.map_err(|error: Error| error.to_string())?;
        let status = response.status();
        let body = to_bytes(response.into_body()).await.map_err(|_| "the body broke off")?;
        Ok((status, String::from_utf8(body.to_vec())?))
    }

    async fn act(&self, fields: Vec<(&str, String)>) -> Result<(StatusCode, String), Failure> {
        let request = TestRequest::post().uri("/console/act?format=json");
        self.ask(request.insert_header(("Celeriac-Console", "act")).set_form(fields)).await
    }

    /// The data of a page, as soon as it can be told.
    async fn data(&self, path: &str) -> Result<Value, Failure> {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let patience = tokio::time::Instant::now() + PATIENCE / 2;
        loop {
            look.tick().await;
            let (status, body) = self.ask(TestRequest::get().uri(&format!("/console/{path}"))).await?;
            if status == StatusCode::OK {
                let told: Value = serde_json::from_str(&body)?;
                return Ok(told["data"].clone());
            }
            if tokio::time::Instant::now() > patience {
                return Err(format!("{path}: {status}: {body}").into());
            }
        }
    }

    /// Makes what the act of this round is about.
    async fn prepare(&self, act: &str, round: u64) -> Result<(), Failure> {
        match act {
            // It waits for its time, so the store itself ends it.
            "revoke" => {
                let hour = Duration::from_secs(3_600);
                waits::s("amina".into()).id(id(round)).countdown(hour).delay().await?;
                Ok(())
            }
            // It is in the hands of its queue, which ends it.
            "revoke_fetched" => {
                waits::s("amina".into()).id(id(round)).delay().await?;
                self.until_fetched(&TaskId::from(id(round))).await
            }
            "retry" | "edit" | "delete" => self.fail([id(round)], round).await,
            "retry_all" | "delete_all" | "bulk_retry" => self.fail(ids(round), round).await,
            "run_now" => {
                // Those of the rounds before go, so that there is none or one. Beat answers when it leads.
                for waiting in self.waiting(&TaskFilter::new().task("kept.yearly")?).await? {
                    self.celeriac.client().revoke(&waiting, false).await?;
                }
                self.data("entry?name=yearly&format=json").await.map(drop)
            }
            "pause_entry" | "resume_entry" => {
                self.data("entry?name=yearly&format=json").await?;
                let other = if act == "pause_entry" { "resume_entry" } else { "pause_entry" };
                let (status, body) =
                    self.act(vec![("act", other.into()), ("entry", "yearly".into())]).await?;
                if status == StatusCode::OK { Ok(()) } else { Err(body.into()) }
            }
            "release_brake" => {
                let brake = Brake::new(BrakeRule::new().tenant(tenant(round)), BrakeAction::Pause);
                self.celeriac.brakes().set(brake.id(id(round))).await?;
                Ok(())
            }
            "release_tenant" => {
                let fields = vec![("act", "pause_tenant".into()), ("tenant", tenant(round))];
                let (status, body) = self.act(fields).await?;
                if status == StatusCode::OK { Ok(()) } else { Err(body.into()) }
            }
            "set_concurrency" => {
                stands::s(id(round)).delay().await?;
                Ok(())
            }
            "as_stated" => {
                stands::s(id(round)).delay().await?;
                self.celeriac.set_concurrency("kept.stands", &id(round), Some(0)).await?;
                Ok(())
            }
            "cancel_bulk" => {
                let tenant = tenant(round);
                let calls = (0..MANY).map(|_| waits::s("amina".into()).tenant(tenant.clone()));
                Signature::delay_many(calls).await?;
                Ok(())
            }
            "unblock" => {
                self.celeriac.persistent().reset("io2").await?;
                let failed = blocks::s(id(round)).delay().await?;
                let ended = failed.get(PATIENCE).await;
                self.celeriac.persistent().pause("io2").await?;
                if ended.is_err() { Ok(()) } else { Err("it has not failed".into()) }
            }
            "bulk_purge" | "bulk_revoke" | "bulk_move" => self.send(ids(round), round).await,
            "undo_bulk" => {
                self.send(ids(round), round).await?;
                let act = self.celeriac.bulk().purge(&BrakeRule::new().tenant(tenant(round))).await?;
                self.celeriac.bulk().wait(&act.id).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The form of the act of this round.
    async fn fields(&self, act: &str, round: u64) -> Result<Vec<(&'static str, String)>, Failure> {
        let form = match act {
            "revoke_fetched" => "revoke",
            "as_stated" => "set_concurrency",
            act => act,
        };
        let mut fields = vec![("act", form.to_owned())];
        match act {
            "revoke" | "revoke_fetched" | "retry" | "delete" => fields.push(("id", id(round))),
            "edit" => {
                fields.extend([("id", id(round)), ("args", "[\"right\"]".into()), ("kwargs", "{}".into())])
            }
            "retry_all" | "delete_all" => fields.push(("error", tenant(round))),
            "enqueue" => {
                fields.extend([
                    ("task", "kept.waits".into()),
                    ("id", id(round)),
                    ("arg.to", "\"amina\"".into()),
                ]);
            }
            "run_now" | "pause_entry" | "resume_entry" => fields.push(("entry", "yearly".into())),
            "set_brake" => fields.extend([
                ("tenant", tenant(round)),
                ("action", "pause".into()),
                ("for", "1h".into()),
                ("reason", "a flood".into()),
            ]),
            "release_brake" => fields.push(("id", id(round))),
            "pause_tenant" | "release_tenant" => fields.push(("tenant", tenant(round))),
            "resize" => {
                let workers = workers_of(round).to_string();
                fields.extend([("queue", "io".into()), ("workers", workers), ("keep", "1".into())]);
            }
            "set_concurrency" => {
                fields.extend([
                    ("scope", "kept.stands".into()),
                    ("key", id(round)),
                    ("concurrency", "0".into()),
                ]);
            }
            "as_stated" => fields.extend([("scope", "kept.stands".into()), ("key", id(round))]),
            "unblock" => fields.extend([("scope", "kept.blocks".into()), ("key", id(round))]),
            "bulk_purge" | "bulk_revoke" | "bulk_retry" => fields.push(("tenant", tenant(round))),
            "bulk_move" => fields.extend([("tenant", tenant(round)), ("to", "cpu".into())]),
            "cancel_bulk" => {
                let begun = self.celeriac.bulk().purge(&BrakeRule::new().tenant(tenant(round))).await?;
                fields.extend([("id", begun.id), ("action", "purge".into())]);
            }
            "undo_bulk" => {
                let acts = self.celeriac.bulk().acts().await?;
                let rule = BrakeRule::new().tenant(tenant(round));
                let undone = acts.into_iter().find(|act| act.rule == rule).ok_or("no act")?;
                fields.extend([("id", undone.id), ("action", "purge".into())]);
            }
            other => return Err(format!("there is no act {other}").into()),
        }
        Ok(fields)
    }

    /// Whether the act of this round was done. What is half done is an error.
    async fn found(&self, act: &str, round: u64) -> Result<bool, Failure> {
        match act {
            "revoke" | "revoke_fetched" => {
                match (self.waits(id(round)).await?, self.is_revoked(id(round)).await?) {
                    (true, false) => Ok(false),
                    (false, true) => Ok(true),
                    half => Err(format!("it waits, and is revoked: {half:?}").into()),
                }
            }
            "retry" => self.is_back(id(round)).await,
            "edit" => {
                let is_back = self.is_back(id(round)).await?;
                let filter = TaskFilter::new().ids([id(round)]);
                let args: Vec<String> = match is_back {
                    true => {
                        let found = self.celeriac.unfinished_tasks(&filter, 9).await?;
                        found.into_iter().map(|task| task.message.arguments.args).collect()
                    }
                    false => {
                        let found = self.celeriac.failed_tasks(&filter, 9).await?;
                        found.into_iter().map(|task| task.message.arguments.args).collect()
                    }
                };
                let [args] = args.as_slice() else { return Err(format!("it is there as {args:?}").into()) };
                let expected = if is_back { json!(["right"]) } else { json!([tenant(round)]) };
                let args: Value = serde_json::from_str(args)?;
                if args == expected { Ok(is_back) } else { Err(format!("{is_back}, with {args}").into()) }
            }
            "delete" => Ok(!self.is_kept(id(round)).await?),
            // Each of them is in one place, and whoever was told so finds all of them there.
            "retry_all" => self.all(ids(round), async |id| self.is_back(id).await).await,
            "delete_all" => self.all(ids(round), async |id| Ok(!self.is_kept(id).await?)).await,
            "enqueue" => self.waits(id(round)).await,
            "run_now" => match self.waiting(&TaskFilter::new().task("kept.yearly")?).await?.len() {
                0 => Ok(false),
                1 => Ok(true),
                more => Err(format!("the entry was run {more} times").into()),
            },
            "pause_entry" | "resume_entry" => {
                let told = self.data("entry?name=yearly&format=json").await?;
                let is_paused =
                    told["paused"].as_bool().ok_or("the entry does not say whether it is paused")?;
                Ok(is_paused == (act == "pause_entry"))
            }
            "set_brake" | "pause_tenant" => match self.brakes_of(round).await?.as_slice() {
                [] => Ok(false),
                [brake] if brake.action == BrakeAction::Pause && brake.until.is_some() => Ok(true),
                half => Err(format!("{half:?}").into()),
            },
            "release_brake" | "release_tenant" => Ok(self.brakes_of(round).await?.is_empty()),
            "resize" => {
                let mut look = tokio::time::interval(Duration::from_millis(10));
                loop {
                    look.tick().await;
                    // A queue whose event loop has no time does not answer.
                    if let Ok(status) = self.celeriac.queue("io").await {
                        return Ok(status.workers as u64 == workers_of(round));
                    }
                }
            }
            "set_concurrency" | "as_stated" => {
                let lane = self.lane("kept.stands", round).await?;
                let is_adjusted = match (&lane["concurrency"], &lane["is_adjusted"]) {
                    (most, Value::Bool(true)) if *most == json!(0) => true,
                    (most, Value::Bool(false)) if *most == json!(1) => false,
                    half => return Err(format!("{half:?}").into()),
                };
                Ok(is_adjusted == (act == "set_concurrency"))
            }
            "unblock" => Ok(self.lane("kept.blocks", round).await?["blocked"].is_null()),
            "bulk_purge" | "bulk_revoke" | "bulk_retry" | "bulk_move" | "undo_bulk" => {
                self.found_bulk(act, round).await
            }
            "cancel_bulk" => self.found_cancelled(round).await,
            other => Err(format!("there is no act {other}").into()),
        }
    }

    /// As [`found`](Self::found), for what goes on in the background, also after a restart, once it was noted.
    async fn found_bulk(&self, act: &str, round: u64) -> Result<bool, Failure> {
        let rule = BrakeRule::new().tenant(tenant(round));
        let acts = self.celeriac.bulk().acts().await?;
        let noted = acts.into_iter().find(|act| act.rule == rule);
        let is_done = match &noted {
            Some(noted) if act == "undo_bulk" => noted.undo.is_some(),
            noted => noted.is_some(),
        };
        if let Some(noted) = noted {
            let ended = self.celeriac.bulk().wait(&noted.id).await?;
            if ended.error.is_some() || ended.failed > 0 {
                return Err(format!("{ended:?}").into());
            }
        }
        if act == "bulk_retry" {
            return self.each(ids(round), is_done, async |id| self.is_back(id).await).await;
        }
        if act == "bulk_revoke" {
            self.each(ids(round), is_done, async |id| self.is_revoked(id).await).await?;
        }
        let count = self.celeriac.bulk().count_waiting(&rule).await?;
        let in_queue = |queue: &str| count.by_queue.get(queue).copied().unwrap_or_default();
        let several = SEVERAL as u64;
        let expected = match (act, is_done) {
            ("bulk_move", true) => (0, several),
            ("bulk_purge" | "bulk_revoke", true) | ("undo_bulk", false) => (0, 0),
            _ => (several, 0),
        };
        let there = (in_queue("io"), in_queue("cpu"));
        if there == expected { Ok(is_done) } else { Err(format!("{is_done}, and {there:?} wait").into()) }
    }

    /// As [`found`](Self::found), for an act that was cancelled while it went on. Cancelled or not, it ends; what it has not done
    /// by then waits if it was cancelled, and there is nothing of that if it was not.
    async fn found_cancelled(&self, round: u64) -> Result<bool, Failure> {
        let rule = BrakeRule::new().tenant(tenant(round));
        let acts = self.celeriac.bulk().acts().await?;
        let noted = acts.into_iter().find(|act| act.rule == rule).ok_or("the act is not noted")?;
        let ended = self.celeriac.bulk().wait(&noted.id).await?;
        let left = self.celeriac.bulk().count_waiting(&rule).await?.tasks;
        let is_cancelled = ended.cancel.is_some();
        // Whoever was killed may have done a step more than was noted.
        let counted = ended.done + left;
        let is_right = match is_cancelled {
            true => counted <= ended.found && counted + STEP >= ended.found,
            false => left == 0,
        };
        if ended.error.is_some() || ended.failed > 0 || ended.found != MANY as u64 || !is_right {
            return Err(format!("{left} wait after {ended:?}").into());
        }
        let rest = self.celeriac.bulk().purge(&rule).await?;
        self.celeriac.bulk().wait(&rest.id).await?;
        Ok(is_cancelled)
    }

    /// Sends tasks of the tenant of this round, which wait.
    async fn send(&self, ids: impl IntoIterator<Item = String>, round: u64) -> Result<(), Failure> {
        for id in ids {
            waits::s("amina".into()).id(id).tenant(tenant(round)).delay().await?;
        }
        Ok(())
    }

    /// Has tasks fail, whose queue is paused again when they have.
    async fn fail(&self, ids: impl IntoIterator<Item = String>, round: u64) -> Result<(), Failure> {
        self.celeriac.persistent().reset("io2").await?;
        for id in ids {
            let failed = fails::s(tenant(round)).id(id.clone()).tenant(tenant(round)).delay().await?;
            if failed.get(PATIENCE).await.is_ok() {
                return Err(format!("{id} has not failed").into());
            }
        }
        Ok(self.celeriac.persistent().pause("io2").await?)
    }

    /// The ids of tasks that wait.
    async fn waiting(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, Failure> {
        let found = self.celeriac.unfinished_tasks(filter, 1_000).await?;
        Ok(found.into_iter().map(|task| task.message.id).collect())
    }

    /// Whether the task waits, once.
    async fn waits(&self, id: String) -> Result<bool, Failure> {
        match self.waiting(&TaskFilter::new().ids([id])).await?.len() {
            0 => Ok(false),
            1 => Ok(true),
            more => Err(format!("it waits {more} times").into()),
        }
    }

    /// Waits until the queue of a task has it.
    async fn until_fetched(&self, id: &TaskId) -> Result<(), Failure> {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while self.celeriac.client().state(id).await? != State::Received {
            look.tick().await;
        }
        Ok(())
    }

    /// Whether the task has ended as a revoked one.
    async fn is_revoked(&self, id: String) -> Result<bool, Failure> {
        let record = self.celeriac.client().result(&TaskId::from(id)).await?;
        Ok(record.is_some_and(|record| record.state == State::Revoked))
    }

    /// Whether the task is kept as a failed one.
    async fn is_kept(&self, id: String) -> Result<bool, Failure> {
        match self.celeriac.failed_tasks(&TaskFilter::new().ids([id]), 9).await?.len() {
            0 => Ok(false),
            1 => Ok(true),
            more => Err(format!("it is kept {more} times").into()),
        }
    }

    /// Whether the failed task waits again: it is in one of the two places.
    async fn is_back(&self, id: String) -> Result<bool, Failure> {
        match (self.waits(id.clone()).await?, self.is_kept(id.clone()).await?) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            half => Err(format!("{id} waits, and is kept: {half:?}").into()),
        }
    }

    /// Whether that is so of all.
    async fn all(
        &self,
        ids: impl IntoIterator<Item = String>,
        is_so: impl AsyncFn(String) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let mut all = true;
        for id in ids {
            all &= is_so(id).await?;
        }
        Ok(all)
    }

    /// Looks that what an act does is done to each if it `is_done`, and to none if it is not.
    async fn each(
        &self,
        ids: impl IntoIterator<Item = String>,
        is_done: bool,
        is_so: impl AsyncFn(String) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        for id in ids {
            if is_so(id.clone()).await? != is_done {
                return Err(format!("the act was noted: {is_done}, and to {id} it was not so").into());
            }
        }
        Ok(is_done)
    }

    /// The brakes about the tenant of this round.
    async fn brakes_of(&self, round: u64) -> Result<Vec<Brake>, Failure> {
        let (brakes, tenant) = (self.celeriac.brakes().list().await?, tenant(round));
        Ok(brakes.into_iter().filter(|brake| brake.rule.tenant.as_deref() == Some(&tenant)).collect())
    }

    async fn lane(&self, scope: &str, round: u64) -> Result<Value, Failure> {
        self.data(&format!("lane?scope={scope}&key={}&format=json", id(round))).await
    }
}

/// The workers that the act of a round gives the queue: as many as no act before it.
fn workers_of(round: u64) -> u64 {
    20 + round
}

pub fn killed_in_the_middle_of_each_act() {
    let seed = rand::rng().random_range(0..1_000_000);
    println!("    seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let orders = |round: u64, before: &str, act: &str| {
        Orders { seed: round, taken: vec![before.to_owned(), act.to_owned()], ..Orders::default() }.line()
    };
    // How many acts were told to be done, were done and not told, and were not done.
    let mut tally = [0_u64; 3];
    let mut before = ("", false);
    let mut round = 0;
    for act in (0..KILLS).flat_map(|_| ACTS) {
        round += 1;
        let life = home.spawn("console", &orders(round, before.0, act));
        judge(&life, before, &mut tally);
        life.expect("acts");
        // The moment of the kill is what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..8_000)));
        let was_told = life.has_said("did");
        life.kill_9().assert_no_panic();
        before = (act, was_told);
    }
    let life = home.spawn("console", &orders(round + 1, before.0, ""));
    judge(&life, before, &mut tally);
    life.death().assert_clean();
    let [told, untold, undone] = tally;
    println!("    told to be done {told}, done and not told {untold}, not done {undone}");
    assert_eq!(told + untold + undone, round, "each was looked at");
}

/// Compares what came of an act with what was told of it.
fn judge(life: &Life, (act, was_told): (&str, bool), tally: &mut [u64; 3]) {
    match life.expect("was ").as_str() {
        "was nothing" => assert_eq!(act, ""),
        "was done" => tally[usize::from(!was_told)] += 1,
        _ => {
            assert!(!was_told, "{act} was told to be done, and is not");
            tally[2] += 1;
        }
    }
}

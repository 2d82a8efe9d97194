//! `celeriac why`: says why a task does not run, and when it will start.
//!
//! Over RabbitMQ the programs know that, so they are asked by remote control, and Celery's workers for what they hold. The program
//! that has an embedded store open is asked, too, and a store whose program does not run says by itself what it knows. In all cases the text is made of the JSON of
//! an explanation, whoever has written it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::Failure;
use super::local::{StoreOrProgram, open_or_ask};
use super::place::{BrokerSource, Place, connect};
use super::remote::patience;
use crate::app::variables::RESULT_BACKEND;
use crate::app::{Backend, Fleet, ended, of_message, paused_since, told, wait_in_broker};
use crate::broker::{Broker, EmbeddedBroker, Inspect, MessageLocation};
use crate::catalogue::one_line;
use crate::core::explanation::{
    ElsewhereFacts, Explanation, NotServed, PauseFacts, RunFacts, Service, TaskFacts, explain,
};
use crate::runtime::brakes::kept_hold;
use crate::store::chord::LARGEST_CHORD;
use crate::store::{EmbeddedStore, Store};
use crate::task::TaskId;
use crate::task::clock::now;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The id of the task.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    #[command(flatten)]
    source: BrokerSource,
    /// Where the results are, as `redis://host:6379/0`. An embedded store has its own.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
    /// How many seconds to wait for replies of workers.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    timeout: f64,
    /// Print the explanation as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(args: &WhyArgs, out: &mut impl Write) -> Result<(), Failure> {
    let place = args.source.chosen()?;
    let patience = patience(args.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let id = TaskId::from(args.id.as_str());
    let told = runtime.block_on(async {
        match place {
            Place::Directory(directory) => in_store(directory, &id).await,
            Place::RabbitMq(url) => {
                let broker = connect(url).await?;
                let fleet = Fleet::over(Arc::clone(&broker)).within(patience);
                let told = in_fleet(&fleet, &id, url, args.result_backend.as_deref()).await;
                let _ = broker.close().await;
                told
            }
        }
    })?;
    match args.json {
        true => writeln!(out, "{told}")?,
        false => write!(out, "{}", report(&told))?,
    }
    Ok(())
}

/// What the program knows that has a store open, or the store whose program does not run.
async fn in_store(directory: &Path, id: &TaskId) -> Result<Value, Failure> {
    let broker = match open_or_ask(directory).await? {
        StoreOrProgram::Store(broker) => broker,
        StoreOrProgram::Program(program) => {
            return program.answer("why", json!({ "id": id.as_str() })).await;
        }
    };
    let explained = explain_stopped(&broker, id).await;
    let closed = broker.close().await;
    let explained = explained?;
    closed?;
    Ok(json!(explained))
}

async fn explain_stopped(broker: &EmbeddedBroker, id: &TaskId) -> Result<Explanation, Failure> {
    let mut facts = TaskFacts::new(id.as_str(), now());
    if !id.is_usable() {
        return Ok(explain(facts));
    }
    facts.scope.asked.push("store".to_owned());
    facts.scope.cannot_know.push(
        "The program does not run, so how its queues stand and what it would start first is not known."
            .to_owned(),
    );
    let found = broker.find(id).await?;
    if let Some(MessageLocation::Waiting(message)) = found {
        of_message(&mut facts, &message);
        let mut wait = wait_in_broker(broker, &message, &mut facts.scope).await;
        if let Some(notes) = broker.notes() {
            let is_kept = paused_since(notes.notes(), &message.queue).await?.is_some();
            wait.pause = is_kept.then(|| PauseFacts { is_kept, ..PauseFacts::default() });
            wait.holds.extend(kept_hold(notes.notes(), &message).await?);
        }
        wait.service = Service::NotHere(NotServed::ProgramStopped);
        facts.wait = Some(wait);
    } else if let Some(record) = EmbeddedStore::new(broker.clone()).get(id, now()).await? {
        ended(&mut facts, record);
    }
    Ok(explain(facts))
}

/// What the programs on RabbitMQ and the store of their results know.
async fn in_fleet(
    fleet: &Fleet,
    id: &TaskId,
    url: &str,
    result_backend: Option<&str>,
) -> Result<Value, Failure> {
    let mut facts = TaskFacts::new(id.as_str(), now());
    let store = match result_backend {
        Some(address) => {
            let backend = Backend::at(address.to_owned()).open(Some(url), None, LARGEST_CHORD).await?;
            facts.scope.asked.push("store".to_owned());
            Some(backend.store)
        }
        None => {
            let text = "Whether it is over is known to the store of results: name it with --result-backend.";
            facts.scope.cannot_know.push(text.to_owned());
            None
        }
    };
    if let Some(store) = &store
        && let Some(record) = store.get(id, now()).await?
    {
        ended(&mut facts, record);
        return Ok(json!(explain(facts)));
    }
    let question = json!({ "id": id.as_str() });
    let replies = fleet.inspect("why", question).await?;
    // Who has the task knows more than who has not.
    let mut known =
        replies.values().filter(|reply| state(reply) != "unknown" && reply.get("reason").is_some());
    if let Some(known) = known.next() {
        return Ok(known.clone());
    }
    facts.scope.asked.extend(replies.keys().map(|node| format!("node {node}")));
    let held = fleet.inspect("query_task", json!({ "ids": [id.as_str()] })).await?;
    for (node, reply) in &held {
        if let Some(of) = reply.get(id.as_str()) {
            held_by(&mut facts, node, of);
        }
    }
    if replies.is_empty() && held.is_empty() && store.is_none() {
        return Err(Failure::NoReply);
    }
    if facts.run.is_none() && facts.elsewhere.is_none() {
        facts
            .scope
            .cannot_know
            .push("RabbitMQ lets nobody look into a queue, so it may wait there.".to_owned());
        if let Some(store) = &store
            && let Some(tracked) = store.tracked(id).await?
        {
            told(&mut facts, &tracked);
        }
    }
    Ok(json!(explain(facts)))
}

fn state(reply: &Value) -> &str {
    reply.get("state").and_then(Value::as_str).unwrap_or("unknown")
}

/// Adds what a worker of Celery's says that it has: `["active", request]`, or with `reserved` or `scheduled`.
fn held_by(facts: &mut TaskFacts, node: &str, of: &Value) {
    let text = |pointer: &str| of.get(1)?.pointer(pointer)?.as_str().map(str::to_owned);
    (facts.task, facts.queue) = (text("/name"), text("/delivery_info/routing_key"));
    match of.get(0).and_then(Value::as_str) {
        Some("active") => {
            facts.run = Some(RunFacts { worker: Some(node.to_owned()), ..RunFacts::default() });
        }
        how => {
            let how = how.unwrap_or("held").to_owned();
            facts.elsewhere = Some(ElsewhereFacts { node: node.to_owned(), how });
        }
    }
}

/// An explanation as text.
fn report(told: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(one_line).unwrap_or_default();
    let list = |key: &str| told.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut lines = vec![text(told.get("sentence"))];
    lines.extend(told.pointer("/starts/says").map(|says| text(Some(says))));
    let says = |of: &Value| text(of.get("says"));
    lines.extend(list("reasons").iter().skip(1).map(|reason| format!("  also: {}", says(reason))));
    for remedy in told.pointer("/reason/remedies").and_then(Value::as_array).into_iter().flatten() {
        lines.push(format!("  {}: {}", text(remedy.get("by")), says(remedy)));
    }
    let ruled_out: Vec<String> = list("ruled_out").iter().map(says).collect();
    if !ruled_out.is_empty() {
        lines.push(format!("  ruled out: {}", ruled_out.join(" ")));
    }
    let of_scope = |key: &str| {
        let all = told.pointer(&format!("/scope/{key}")).and_then(Value::as_array).into_iter().flatten();
        all.map(|one| text(Some(one))).collect::<Vec<String>>()
    };
    lines.extend(of_scope("cannot_know").iter().map(|one| format!("  not known: {one}")));
    let silent = of_scope("silent");
    if !silent.is_empty() {
        lines.push(format!("  did not answer: {}", silent.join(", ")));
    }
    let node = text(told.pointer("/scope/node"));
    let node = if node.is_empty() { node } else { format!("node {node}: ") };
    let (asked, as_of) = (of_scope("asked").join(", "), text(told.get("as_of")));
    lines.push(format!("  asked: {node}{asked}, at {as_of}"));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::explanation::{BoundedCount, WaitFacts};

    fn at() -> Timestamp {
        Timestamp::from_millis(1_795_348_800_000) // 2026-11-22T12:00Z
    }

    #[test]
    fn a_report_says_all_that_the_json_does() {
        let mut facts = TaskFacts::new("9f0c", at());
        facts.queue = Some("email".to_owned());
        facts.scope.asked = vec!["store".to_owned(), "broker embedded".to_owned()];
        facts.scope.silent = vec!["lane `joe`".to_owned()];
        facts.scope.cannot_know = vec!["Nobody knows.".to_owned()];
        let service = Service::NotHere(NotServed::ProgramStopped);
        let ahead = Some(BoundedCount::exactly(2));
        facts.wait = Some(WaitFacts { service, ahead, is_serial: Some(false), ..WaitFacts::default() });
        let expected = "It waits because the program of this store does not run.\n\
                        When it starts cannot be said while that lasts.\n  \
                        also: 2 tasks go before it.\n  \
                        operator: Start the program.\n  \
                        ruled out: It is due. It stands in no lane.\n  \
                        not known: Nobody knows.\n  \
                        did not answer: lane `joe`\n  \
                        asked: store, broker embedded, at 2026-11-22T12:00:00+00:00\n";
        assert_eq!(report(&json!(explain(facts))), expected);
    }

    #[test]
    fn what_a_worker_of_celerys_holds_is_told_and_odd_replies_are_borne() {
        let request = json!({"name": "app.mail", "delivery_info": {"routing_key": "email"}});
        let explained = |of: Value| {
            let mut facts = TaskFacts::new("9f0c", at());
            held_by(&mut facts, "celery@w1", &of);
            explain(facts)
        };
        let active = explained(json!(["active", request]));
        assert_eq!((active.state(), active.queue.as_deref()), ("running", Some("email")));
        assert_eq!(active.sentence(), "It runs on `celery@w1`.");
        let reserved = explained(json!(["reserved", request]));
        assert_eq!((reserved.state(), reserved.reason().code()), ("waiting", "elsewhere"));
        let said = "It waits because the worker `celery@w1` has it (reserved), and does not say more.";
        assert_eq!(reserved.sentence(), said);
        for odd in [json!(null), json!([]), json!("active"), json!({"x": 1})] {
            assert_eq!(explained(odd).state(), "waiting");
        }
        for odd in [json!(null), json!({"error": "no"}), json!(5), json!({"scope": 7, "reasons": "x"})] {
            assert!(report(&odd).ends_with('\n') && state(&odd) == "unknown");
        }
    }
}

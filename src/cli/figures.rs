//! The figures of all queues, for `celeriac report` and `celeriac top`: from an embedded store whose program does not run, from the
//! program that has it open, or from all programs on RabbitMQ, by remote control.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::local::{LocalProgram, StoreOrProgram, open_or_ask};
use super::place::{BrokerSource, Place, RabbitMq, rabbitmq};
use super::remote::patience;
use crate::app::{Fleet, NodeReplies, blocked_lanes, paused_since, top_tenant};
use crate::broker::{Backlog, Broker, BrokerError, EmbeddedBroker, is_outbox_line};
use crate::catalogue::{Catalogue, QueueRow};
use crate::core::brake::BrakeNote;
use crate::core::report::{BrakeFigures, QueueCondition, QueueFigures, QueueService, ReportFacts};
use crate::runtime::brakes::NOTE;
use crate::task::clock::now;

/// Where the queues are, and what they promise.
#[derive(Debug, Args)]
pub(super) struct FiguresArgs {
    #[command(flatten)]
    source: BrokerSource,
    /// The catalogue that says what the queues promise, if no program says so.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Apply the changes of this environment to the catalogue.
    #[arg(short, long, value_name = "NAME", requires = "catalogue")]
    environment: Option<String>,
    /// How many seconds to wait for replies of programs.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.5)]
    timeout: f64,
}

/// Who is asked for the figures.
pub(super) struct FigureSource {
    place: OpenedSource,
    rows: Vec<QueueRow>,
}

enum OpenedSource {
    Store(EmbeddedBroker),
    Program(LocalProgram),
    Fleet { broker: Arc<RabbitMq>, fleet: Fleet },
}

impl FiguresArgs {
    /// Opens the store, or connects to RabbitMQ.
    pub(super) async fn open(&self) -> Result<FigureSource, Failure> {
        let (place, patience) = (self.source.chosen()?, patience(self.timeout)?);
        let mut rows = Vec::new();
        if let Some(file) = &self.catalogue {
            let mut catalogue = Catalogue::load(file)?;
            if let Some(environment) = &self.environment {
                catalogue = catalogue.for_environment(environment)?;
            }
            rows = catalogue.queues;
        }
        let place = match place {
            Place::Directory(directory) => match open_or_ask(directory).await? {
                StoreOrProgram::Store(store) => OpenedSource::Store(store),
                StoreOrProgram::Program(program) => OpenedSource::Program(program),
            },
            Place::RabbitMq(url) => {
                let broker = rabbitmq(url).await?;
                let fleet = Fleet::over(Arc::clone(&broker) as Arc<dyn Broker>).within(patience);
                OpenedSource::Fleet { broker, fleet }
            }
        };
        Ok(FigureSource { place, rows })
    }
}

/// Adds to the error of a store that a program has open who can be asked instead.
pub(super) fn in_use(error: BrokerError) -> Failure {
    match error {
        BrokerError::InUse { .. } => Failure::Found(format!(
            "{error}\nWhile it runs, the program answers for itself: open the console that it has mounted (`celeriac::web::Console`, at `/console` unless it says otherwise), or call `Celeriac::report` there."
        )),
        error => error.into(),
    }
}

impl FigureSource {
    /// The figures as they are now.
    pub(super) async fn look(&self) -> Result<ReportFacts, Failure> {
        match &self.place {
            OpenedSource::Store(store) => self.of_store(store).await,
            OpenedSource::Program(program) => {
                let replies = program.replies("figures", Value::Null).await?;
                let mut facts = of_replies(ReportFacts::at(now()), &NodeReplies::new(), replies);
                for queue in &mut facts.queues {
                    queue.target = queue.target.or(self.target(&queue.name));
                }
                Ok(facts)
            }
            OpenedSource::Fleet { broker, fleet } => self.of_fleet(broker, fleet).await,
        }
    }

    /// Where it looks, in a form that may be shown to anybody.
    pub(super) fn place(&self) -> &'static str {
        match &self.place {
            OpenedSource::Store(_) => "store, its program does not run",
            OpenedSource::Program(_) => "the program of the store",
            OpenedSource::Fleet { .. } => "all programs on RabbitMQ",
        }
    }

    /// Pauses a queue in all programs that serve it, or ends its pause. Answers with what came of it, in words.
    pub(super) async fn set_paused(&self, queue: &str, pause: bool) -> Result<String, Failure> {
        let replies = match &self.place {
            OpenedSource::Store(_) => {
                return Ok("The program of this store does not run, so nothing can be paused.".to_owned());
            }
            OpenedSource::Program(program) => {
                let lever = if pause { "pause" } else { "resume" };
                program.replies(lever, json!({ "queue": queue })).await?
            }
            OpenedSource::Fleet { fleet, .. } if pause => fleet.pause(queue).await?,
            OpenedSource::Fleet { fleet, .. } => fleet.resume(queue).await?,
        };
        Ok(outcome(&replies))
    }

    pub(super) async fn close(&self) -> Result<(), Failure> {
        match &self.place {
            OpenedSource::Store(store) => Ok(store.close().await?),
            OpenedSource::Program(_) => Ok(()),
            OpenedSource::Fleet { broker, .. } => {
                let _ = broker.close().await;
                Ok(())
            }
        }
    }

    fn target(&self, queue: &str) -> Option<Duration> {
        self.rows.iter().find(|row| row.name == queue)?.target
    }

    async fn of_store(&self, store: &EmbeddedBroker) -> Result<ReportFacts, Failure> {
        let mut facts = ReportFacts::at(now());
        facts.scope.asked.push("store".to_owned());
        let text =
            "The program does not run, so what it ran, and what limits and brakes would hold, is not known.";
        facts.scope.cannot_know.push(text.to_owned());
        for name in store.queues().await?.into_iter().filter(|name| !is_outbox_line(name)) {
            let counts = store.counts(&name).await?;
            let oldest = match counts.ready {
                0 => None,
                _ => store.oldest_ready(&name).await?,
            };
            let oldest_wait = oldest.map_or(Duration::ZERO, |since| facts.as_of.since(since));
            let paused = match store.notes() {
                Some(notes) => paused_since(notes.notes(), &name).await?.is_some(),
                None => false,
            };
            let mut queue = QueueFigures {
                service: QueueService::ProgramStopped,
                target: self.target(&name),
                ready: counts.ready,
                scheduled: counts.scheduled,
                in_line: counts.in_line,
                dead: counts.dead,
                oldest_wait,
                blockage: oldest_wait,
                paused,
                ..QueueFigures::named(name)
            };
            if QueueCondition::of(&queue).is_pressed() {
                queue.top_tenant = top_tenant(store, &queue.name, BTreeMap::new()).await;
            }
            facts.queues.push(queue);
        }
        match blocked_lanes(store, &mut facts.scope).await {
            Some(lanes) => facts.lanes = lanes,
            None => facts.scope.silent.push("lanes".to_owned()),
        }
        if let Some(notes) = store.notes() {
            let text = notes.notes().note(NOTE).await?;
            match BrakeNote::read(text.as_deref()) {
                Ok(note) => {
                    let (brakes, _) = note.brakes();
                    let in_force = brakes.iter().filter(|brake| !brake.has_ended(facts.as_of));
                    facts.brakes = in_force.map(BrakeFigures::from).collect();
                }
                Err(error) => {
                    let text = format!("The note of brakes cannot be read: {error}.");
                    facts.scope.cannot_know.push(text);
                }
            }
        }
        Ok(facts)
    }

    async fn of_fleet(&self, broker: &RabbitMq, fleet: &Fleet) -> Result<ReportFacts, Failure> {
        let (pongs, replies) = tokio::join!(fleet.ping(), fleet.inspect("figures", Value::Null));
        let (pongs, replies) = (pongs?, replies?);
        if pongs.is_empty() && replies.is_empty() {
            return Err(Failure::NoReply);
        }
        let mut facts = of_replies(ReportFacts::at(now()), &pongs, replies);
        for row in self.rows.iter().filter(|row| row.served) {
            if let Some(queue) = facts.queues.iter_mut().find(|queue| queue.name == row.name) {
                queue.target = queue.target.or(row.target);
                continue;
            }
            let ready = broker.waiting(&row.name).await?.unwrap_or_default();
            facts.queues.push(QueueFigures {
                service: QueueService::NoProgram,
                target: row.target,
                ready,
                ..QueueFigures::named(&row.name)
            });
        }
        Ok(facts)
    }
}

/// What the programs say, together. Who has answered to a ping and not to the question is named.
fn of_replies(mut all: ReportFacts, pongs: &NodeReplies, replies: NodeReplies) -> ReportFacts {
    let silent = pongs.keys().filter(|node| !replies.contains_key(*node));
    let silent = silent.map(|node| {
        format!("How the queues of `{node}` are: it is a worker of Celery's, an older program, or busy.")
    });
    all.scope.cannot_know.extend(silent);
    let mut programs = Vec::new();
    for (node, reply) in replies {
        let error = match reply.get("error").and_then(Value::as_str) {
            Some(error) => error.to_owned(),
            None => match serde_json::from_value::<ReportFacts>(reply) {
                Ok(facts) => {
                    all.scope.asked.push(format!("node {node}"));
                    programs.push(facts);
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        all.scope.cannot_know.push(format!("How the queues of `{node}` are: {error}."));
    }
    all.merged(programs)
}

/// What came of a lever that all programs were told to move.
fn outcome(replies: &NodeReplies) -> String {
    let texts = replies.iter().map(|(node, reply)| {
        let said = ["ok", "error"].into_iter().find_map(|key| reply.get(key)?.as_str());
        format!("{node}: {}", said.unwrap_or("it has answered something else"))
    });
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "Nobody has answered.".to_owned() } else { texts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;

    #[test]
    fn what_programs_say_is_put_together_and_odd_replies_are_borne() {
        let pongs = ["a", "b", "c", "celery@w1"].map(|node| (node.to_owned(), json!({"ok": "pong"})));
        let replies = [
            ("a", json!({"queues": [{"name": "email", "workers": 2, "ready": 5}]})),
            (
                "b",
                json!({"queues": [{"name": "email", "workers": 3, "ready": 5}], "processes": [{"pid": 7}]}),
            ),
            ("c", json!({"error": "TimeoutError()"})),
            ("d", json!({"queues": 5})),
            ("e", json!("x")),
        ];
        let replies = replies.map(|(node, reply)| (node.to_owned(), reply));
        let facts = of_replies(ReportFacts::at(Timestamp::ZERO), &pongs.into(), replies.into());
        assert_eq!((facts.queues.len(), facts.queues[0].workers, facts.queues[0].ready), (1, 5, 5));
        assert_eq!(
            (facts.scope.asked.clone(), facts.processes.len()),
            (vec!["node a".to_owned(), "node b".to_owned()], 1)
        );
        assert_eq!(facts.scope.cannot_know.len(), 4, "{:?}", facts.scope);
    }

    #[test]
    fn what_came_of_a_lever_is_said_for_each_program() {
        let replies: NodeReplies =
            [("a".to_owned(), json!({"ok": "paused email"})), ("b".to_owned(), json!({"error": "no queue"}))]
                .into();
        assert_eq!(outcome(&replies), "a: paused email; b: no queue");
        assert_eq!(outcome(&NodeReplies::new()), "Nobody has answered.");
    }
}

//! `celeriac purge`: deletes the tasks that wait in queues.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Map, json};

use super::Failure;
use super::place::{BrokerSource, Place, RabbitMq, open_store, rabbitmq};
use crate::broker::{Broker, BrokerError, EmbeddedBroker};

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The names of the queues.
    #[arg(value_name = "QUEUE", required = true, value_parser = NonEmptyStringValueParser::new())]
    queues: Vec<String>,
    #[command(flatten)]
    source: BrokerSource,
    /// Do not ask whether it is meant.
    #[arg(short, long)]
    yes: bool,
    /// Print the numbers as JSON.
    #[arg(short, long)]
    json: bool,
}

/// Where the queues are.
enum QueueSource {
    RabbitMq(Arc<RabbitMq>),
    Store(EmbeddedBroker),
}

impl QueueSource {
    async fn open(place: Place<'_>) -> Result<Self, BrokerError> {
        Ok(match place {
            Place::RabbitMq(url) => Self::RabbitMq(rabbitmq(url).await?),
            Place::Directory(directory) => Self::Store(open_store(directory)?),
        })
    }

    async fn waiting(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        match self {
            Self::RabbitMq(broker) => broker.waiting(queue).await,
            Self::Store(store) => store.waiting(queue).await,
        }
    }

    async fn purge(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        match self {
            Self::RabbitMq(broker) => broker.purge(queue).await,
            Self::Store(store) => store.purge(queue).await,
        }
    }

    /// Whether there is an exchange of this name, as that of a broadcast.
    async fn has_exchange(&self, name: &str) -> Result<bool, BrokerError> {
        #[cfg(feature = "amqp")]
        if let Self::RabbitMq(broker) = self {
            return broker.has_exchange(name).await;
        }
        let _ = name; // a store has none
        Ok(false)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        match self {
            Self::RabbitMq(broker) => broker.close().await,
            Self::Store(store) => store.close().await,
        }
    }
}

pub(super) fn run(args: &PurgeArgs, out: &mut impl Write) -> Result<(), Failure> {
    let place = args.source.chosen()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let queues = QueueSource::open(place).await?;
        let done = purge(args, &queues, out).await;
        let closed = queues.close().await;
        done?;
        Ok(closed?)
    })
}

async fn purge(args: &PurgeArgs, queues: &QueueSource, out: &mut impl Write) -> Result<(), Failure> {
    let mut names: Vec<&str> = args.queues.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut waiting = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        if let Some(count) = queues.waiting(name).await? {
            waiting.push((name, count));
        } else if queues.has_exchange(name).await? {
            return Err(Failure::Found(format!(
                "Nothing was deleted: `{name}` is an exchange and no queue. What is sent to a broadcast waits in queues of the processes that serve it, and goes with them."
            )));
        } else {
            missing.push(format!("`{name}`"));
        }
    }
    if !missing.is_empty() {
        return Err(Failure::Found(format!(
            "Nothing was deleted: there is no queue {}. Correct the name.",
            missing.join(", no queue ")
        )));
    }
    if !args.yes && !is_meant(&waiting)? {
        return Err(Failure::Found("Nothing was deleted.".to_owned()));
    }
    let mut purged = Map::new();
    let mut all = 0;
    for (name, _) in waiting {
        let count = queues.purge(name).await?.unwrap_or_default();
        all += count;
        if !args.json {
            writeln!(out, "{name}: {}", tasks(count))?;
        }
        purged.insert(name.to_owned(), count.into());
    }
    if args.json {
        writeln!(out, "{}", json!({ "purged": purged, "all": all }))?;
    } else {
        writeln!(out, "{} deleted.", tasks(all))?;
    }
    Ok(())
}

/// Asks on standard error, so that the output has the numbers only.
fn is_meant(waiting: &[(&str, u64)]) -> Result<bool, io::Error> {
    let mut err = io::stderr().lock();
    writeln!(err, "This deletes the tasks that wait in these queues, and cannot be undone:")?;
    for (name, count) in waiting {
        writeln!(err, "  {name}: {}", tasks(*count))?;
    }
    says_yes(&mut err)
}

/// Waits for a yes on standard input.
pub(super) fn says_yes(err: &mut impl Write) -> Result<bool, io::Error> {
    write!(err, "Type yes to delete them: ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "yes" | "y"))
}

fn tasks(count: u64) -> String {
    format!("{count} {}", if count == 1 { "task" } else { "tasks" })
}

//! `celeriac requeue`: dead letters go back to their queues.
//!
//! A task that was given up has a record, and the first record of a task stays. So it goes before the letter does: with the
//! embedded store in the same step, from a result backend just before, and back there if the letter is gone by then.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use regex::Regex;

use super::Failure;
use super::table::{Column, Table};
use crate::app::catalogue::parse_span;
use crate::app::{Backend, revive_with_records};
use crate::broker::embedded::EmbeddedOptions;
use crate::broker::{Broker, BrokerError, DeadLetter, EmbeddedBroker};
use crate::store::Store;
use crate::task::TaskId;
use crate::task::clock::now;

/// What a terminal of an operator holds.
const WIDTH: usize = 160;
/// So many dead letters are looked at.
const MOST: usize = 100_000;
/// So many go back in one pass over all.
const BATCH: usize = 1000;

/// Which dead letters, where.
#[derive(Debug, Args)]
pub(super) struct RequeueArgs {
    /// RabbitMQ, as `amqp://user:password@host:5672/vhost`.
    #[arg(long, value_name = "URL", conflicts_with = "directory", required_unless_present = "directory")]
    broker: Option<String>,
    /// Where the results are, as `redis://host:6379/0`: the record of each goes, so that its next run can leave one.
    #[arg(long, value_name = "URL", conflicts_with = "directory")]
    result_backend: Option<String>,
    /// The directory of an embedded store whose program does not run.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Only those of this queue.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Only those of tasks whose name matches; `*` and `?` stand for others.
    #[arg(short, long, value_name = "GLOB")]
    task: Option<String>,
    /// Only those whose reason contains this text.
    #[arg(short, long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those that have been there for at least so long, such as `15m` or `1h30m`.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    older_than: Option<Duration>,
    /// Only those that have been there for less than so long.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    younger_than: Option<Duration>,
    /// At most so many, oldest first.
    #[arg(short, long, value_name = "N", default_value_t = MOST)]
    limit: usize,
    /// Only say which they are.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl RequeueArgs {
    fn wants(&self, letter: &DeadLetter, task: Option<&Regex>) -> bool {
        let age = now().since(letter.died_at);
        self.queue.as_ref().is_none_or(|queue| letter.message.queue == *queue)
            && task.is_none_or(|task| task.is_match(&letter.message.task))
            && self.reason.as_ref().is_none_or(|reason| letter.reason.contains(reason.as_str()))
            && self.older_than.is_none_or(|least| age >= least)
            && self.younger_than.is_none_or(|most| age < most)
    }
}

fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).ok_or_else(|| "a span of time is written like `30s`, `15m` or `1h30m`".to_owned())
}

/// `*` is any text, `?` one character, all else itself.
fn glob(pattern: &str) -> Option<Regex> {
    let escaped = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{escaped}$")).ok()
}

pub(super) fn run(args: &RequeueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = open(args).await?;
        let store = match &args.result_backend {
            Some(url) if !args.dry_run => Some(Backend::at(url.clone()).open(args.broker.as_deref(), None).await?.store),
            _ => None,
        };
        if args.broker.is_some() && store.is_none() && !args.dry_run {
            eprintln!(
                "Records stay, and keep those of the next runs out: name where they are with --result-backend."
            );
        }
        let done = requeue(args, &*broker, store.as_deref(), out).await;
        let closed = broker.close().await;
        done?;
        Ok(closed?)
    })
}

async fn open(args: &RequeueArgs) -> Result<Arc<dyn Broker>, BrokerError> {
    if let Some(url) = &args.broker {
        return connect(url).await;
    }
    let dir = args.directory.clone().unwrap_or_default();
    if !dir.is_dir() {
        return Err(BrokerError::Io(format!("there is no store in `{}`", dir.display())));
    }
    Ok(Arc::new(EmbeddedBroker::open(dir, EmbeddedOptions::default())?))
}

#[cfg(feature = "amqp")]
async fn connect(url: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    use crate::broker::amqp::{AmqpBroker, AmqpOptions};
    Ok(Arc::new(AmqpBroker::connect(url, AmqpOptions::default()).await?))
}

#[cfg(not(feature = "amqp"))]
async fn connect(_: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    Err(BrokerError::Io(
        "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
    ))
}

async fn requeue(
    args: &RequeueArgs,
    broker: &dyn Broker,
    store: Option<&dyn Store>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let task = args.task.as_deref().and_then(glob);
    let all = broker.dead_letters(MOST).await?;
    let wanted: Vec<_> =
        all.iter().filter(|letter| args.wants(letter, task.as_ref())).take(args.limit).collect();
    let mut table = Table::new([
        Column::left("ID", 36),
        Column::left("QUEUE", 30),
        Column::left("TASK", 40),
        Column::left("SINCE", 24),
        Column::left("REASON", WIDTH),
    ]);
    let mut revived = 0;
    for batch in wanted.chunks(BATCH) {
        let ids: Vec<TaskId> = batch.iter().map(|letter| letter.message.id.clone()).collect();
        let back: HashSet<TaskId> = match (args.dry_run, store) {
            (true, _) => ids.into_iter().collect(),
            (false, None) => broker.revive_all(&ids).await?.into_iter().collect(),
            (false, Some(store)) => revive_with_records(broker, store, &ids).await?.into_iter().collect(),
        };
        // Somebody else may have been faster.
        for letter in batch.iter().filter(|letter| back.contains(&letter.message.id)) {
            revived += 1;
            let message = &letter.message;
            let task = if message.task.is_empty() { "(no task)".to_owned() } else { message.task.clone() };
            let reason = letter.reason.lines().next().unwrap_or_default().to_owned();
            let since = letter.died_at.to_string();
            table.add([message.id.to_string(), message.queue.clone(), task, since, reason]);
        }
    }
    if revived > 0 {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    let verb = if args.dry_run { "would go back" } else { "went back" };
    writeln!(out, "{revived} of {} dead letters {verb} to their queues.", all.len())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_all_of_a_name() {
        let matches = |pattern, name| glob(pattern).unwrap().is_match(name);
        assert!(matches("mail.*", "mail.send") && matches("*send?", "mail.sends") && matches("a+b", "a+b"));
        assert!(!matches("mail.*", "email.send") && !matches("mail", "mail.send") && !matches("a.b", "axb"));
    }
}

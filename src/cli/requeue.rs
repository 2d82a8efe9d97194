//! `celeriac requeue`: puts dead letters back into their queues.
//!
//! A task that was given up has a record, and a store keeps only the first record of a task. So the record is removed
//! before the letter goes back: with the embedded store in the same step, from a result backend just before. It is
//! restored there if the letter is gone by then.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use regex::Regex;

use super::Failure;
use super::place::{TaskSource, open};
use super::table::{Column, TextTable};
use crate::app::Backend;
use crate::broker::{Broker, DeadLetter, SplitBroker, opened};
use crate::catalogue::{format_span, parse_span};
use crate::core::glob::as_regex;
use crate::store::chord::LARGEST_CHORD;
use crate::task::TaskId;
use crate::task::clock::now;

/// The width of an operator's terminal.
const WIDTH: usize = 160;
/// The most dead letters that the command reads.
const MOST: usize = 100_000;
/// How many letters go back in one pass over all dead letters.
const BATCH: usize = 1000;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct RequeueArgs {
    #[command(flatten)]
    place: TaskSource,
    /// Only letters of this queue.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Only letters of tasks whose name matches; `*` stands for any text, `?` for one character, `[ab]` for one of these.
    #[arg(short, long, value_name = "GLOB")]
    task: Option<String>,
    /// Only letters whose reason contains this text.
    #[arg(short, long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only letters that have been dead for at least this long, such as `15m` or `1h30m`.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    older_than: Option<Duration>,
    /// Only letters that have been dead for less than this.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    younger_than: Option<Duration>,
    /// At most this many letters, the oldest first.
    #[arg(short, long, value_name = "N", default_value_t = MOST)]
    limit: usize,
    /// Print the letters, and put none of them back.
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

    /// Says why no letter goes back: how many letters satisfy each condition.
    fn left_out(&self, all: &[DeadLetter], task: Option<&Regex>) -> String {
        let left = |wanted: &dyn Fn(&DeadLetter) -> bool| all.iter().filter(|letter| wanted(letter)).count();
        let age = |letter: &DeadLetter| now().since(letter.died_at);
        let mut parts = Vec::new();
        if let Some(queue) = &self.queue {
            parts.push(format!("{} are of the queue `{queue}`", left(&|l| l.message.queue == *queue)));
        }
        if let (Some(glob), Some(task)) = (&self.task, task) {
            parts.push(format!("{} are of tasks like `{glob}`", left(&|l| task.is_match(&l.message.task))));
        }
        if let Some(text) = &self.reason {
            parts.push(format!(
                "{} have a reason with `{text}` in it",
                left(&|l| l.reason.contains(text.as_str()))
            ));
        }
        if let Some(least) = self.older_than {
            parts.push(format!("{} are at least {} old", left(&|l| age(l) >= least), format_span(least)));
        }
        if let Some(most) = self.younger_than {
            parts.push(format!("{} are younger than {}", left(&|l| age(l) < most), format_span(most)));
        }
        if parts.is_empty() {
            "None was asked for.".to_owned()
        } else {
            format!("Of them {}.", parts.join(", "))
        }
    }
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).ok_or_else(|| "a span of time is written like `30s`, `15m` or `1h30m`".to_owned())
}

/// The regular expression of a pattern with `*`, `?` and `[seq]`.
pub(super) fn glob(pattern: &str) -> Option<Regex> {
    Regex::new(&as_regex(pattern)).ok()
}

pub(super) fn run(args: &RequeueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = open_with_records(&args.place, args.dry_run).await?;
        let done = requeue(args, &*broker, out).await;
        let closed = broker.close().await;
        done?;
        Ok(closed?)
    })
}

/// Opens the broker of a command that has tasks run again, and the store of their records if that is another one. With
/// `dry_run` nothing runs again, and no record is removed.
pub(super) async fn open_with_records(
    source: &TaskSource,
    dry_run: bool,
) -> Result<Arc<dyn Broker>, Failure> {
    let chosen = source.chosen()?;
    let rabbitmq = chosen.place.rabbitmq();
    let broker = open(chosen.place).await?;
    let store = match chosen.result_backend {
        Some(url) if !dry_run => {
            Some(Backend::at(url.to_owned()).open(rabbitmq, None, LARGEST_CHORD).await?.store)
        }
        _ => None,
    };
    if rabbitmq.is_some() && store.is_none() && !dry_run {
        eprintln!(
            "Records stay, and keep those of the next runs out: name where they are with --result-backend or CELERIAC_RESULT_BACKEND."
        );
    }
    Ok(match store {
        Some(store) => Arc::new(SplitBroker::open(broker, store)?),
        None => broker,
    })
}

async fn requeue(args: &RequeueArgs, broker: &dyn Broker, out: &mut impl Write) -> Result<(), Failure> {
    let task = args.task.as_deref().and_then(glob);
    // Letters of an outbox get the task's message out of their envelope.
    let all: Vec<_> = broker.dead_letters(MOST).await?.into_iter().map(opened).collect();
    let wanted: Vec<_> =
        all.iter().filter(|letter| args.wants(letter, task.as_ref())).take(args.limit).collect();
    let mut table = TextTable::new([
        Column::left("ID", 36),
        Column::left("QUEUE", 30),
        Column::left("TASK", 40),
        Column::left("SINCE", 24),
        Column::left("REASON", WIDTH),
    ]);
    let mut requeued = 0;
    for batch in wanted.chunks(BATCH) {
        let ids: Vec<TaskId> = batch.iter().map(|letter| letter.message.id.clone()).collect();
        let back: HashSet<TaskId> = match args.dry_run {
            true => ids.into_iter().collect(),
            false => broker.requeue_dead_letters(&ids).await?.into_iter().collect(),
        };
        // Somebody else may have put the letter back already.
        for letter in batch.iter().filter(|letter| back.contains(&letter.message.id)) {
            requeued += 1;
            let message = &letter.message;
            let task = if message.task.is_empty() { "(no task)".to_owned() } else { message.task.clone() };
            let reason = letter.reason.lines().next().unwrap_or_default().to_owned();
            let since = letter.died_at.to_string();
            table.add([message.id.to_string(), message.queue.clone(), task, since, reason]);
        }
    }
    if requeued > 0 {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    let verb = if args.dry_run { "would go back" } else { "went back" };
    writeln!(out, "{requeued} of {} dead letters {verb} to their queues.", all.len())?;
    if requeued == 0 && !all.is_empty() {
        writeln!(out, "{}", args.left_out(&all, task.as_ref()))?;
    }
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

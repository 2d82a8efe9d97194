//! More workers, or fewer. Celery has one pool in a process, and here each queue has one: what is asked for is spread
//! over the queues by their sizes.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::arguments::python_error;
use super::{BY_REMOTE_CONTROL, CommandResult, ControlCommand, ok};
use crate::actors::held::HeldTasks;
use crate::actors::queue::Steer;
use crate::catalogue::QueueRow;
use crate::core::autoscale::WorkerRange;

/// The most workers that one command adds or takes away.
const MOST: i64 = 1_000;
/// The most workers that all commands together have added and not taken away again. A worker takes memory and a place
/// of the prefetch, and whoever repeats a command must not use up the program.
const MOST_ADDED: usize = 10 * MOST as usize;
/// The most workers of a queue.
pub(super) const MOST_OF_A_QUEUE: i64 = 100_000;

/// Counts the workers that commands have added, less those that they have taken away.
#[derive(Default)]
pub(super) struct AddedWorkers(Mutex<usize>);

impl AddedWorkers {
    /// Counts `n` more, unless they would be too many; then the error says so.
    fn add(&self, n: usize) -> Result<(), String> {
        let mut added = self.0.lock();
        let sum = added.saturating_add(n);
        if sum > MOST_ADDED {
            let text = format!(
                "{added} workers were added before, and {n} more would make more than {MOST_ADDED}; take some away by 'pool_shrink', or raise the number of workers in the catalogue"
            );
            return Err(python_error("ValueError", &text));
        }
        *added = sum;
        Ok(())
    }

    fn remove(&self, n: usize) {
        let mut added = self.0.lock();
        *added = added.saturating_sub(n);
    }
}

pub(super) async fn grow(command: &ControlCommand<'_>) -> CommandResult {
    spread(command, 1, "pool_grow").await?;
    Ok(ok("pool will grow"))
}

pub(super) async fn shrink(command: &ControlCommand<'_>) -> CommandResult {
    spread(command, -1, "pool_shrink").await?;
    Ok(ok("pool will shrink"))
}

/// Sets the range of a queue whose number of workers follows its load. Celery's command names no queue, so it is about the
/// only one here; ours may name any queue, which follows its load from then on.
pub(super) async fn autoscale(command: &ControlCommand<'_>) -> CommandResult {
    let held = command.held(None, 0).await;
    let held = match command.arguments.optional_text("queue")? {
        Some(queue) => named(command, &held, queue)?,
        None => only_one(&held, &command.rows())?,
    };
    let before = held.range.unwrap_or(WorkerRange::new(held.workers, held.workers));
    let max = bound(command, "max", before.max())?;
    // As in Celery, a most below the fewest takes these along.
    let min = bound(command, "min", before.min().min(max))?;
    if min > max {
        return Err(python_error("ValueError", &format!("min={min} is more than max={max}")));
    }
    let range = WorkerRange::new(min, max);
    command.inner.mark_act(&Steer::Range(range), &held.queue, Some(BY_REMOTE_CONTROL));
    command.inner.queues.tell(&held.queue, Steer::Range(range));
    Ok(ok(format!("autoscale now max={max} min={min}")))
}

/// The queue of this name, or of this alias.
fn named<'a>(
    command: &ControlCommand<'_>,
    held: &'a [HeldTasks],
    queue: &str,
) -> Result<&'a HeldTasks, String> {
    let name = command.inner.catalogue().queue(queue).map_or(queue, |row| row.name.as_str());
    held.iter().find(|held| held.queue == name).ok_or_else(|| {
        let known = command.inner.queues.names().join(", ");
        let text = format!("no queue '{queue}' is served here and answers; there are: {known}");
        python_error("ValueError", &text)
    })
}

/// The only queue whose number of workers follows its load. One that has not answered counts by its row, so that no other queue
/// is taken for the only one meanwhile.
fn only_one<'a>(held: &'a [HeldTasks], rows: &[QueueRow]) -> Result<&'a HeldTasks, String> {
    let is_silent = |row: &&QueueRow| held.iter().all(|held| held.queue != row.name);
    let silent = rows.iter().filter(|row| row.max_workers.is_some()).find(is_silent);
    let mut follow = held.iter().filter(|held| held.range.is_some());
    let text = match (follow.next(), follow.next().map(|held| &held.queue), silent.map(|row| &row.name)) {
        (Some(one), None, None) => return Ok(one),
        (Some(one), Some(other), _) | (Some(one), None, Some(other)) => {
            let one = &one.queue;
            format!("several queues follow their load, such as '{one}' and '{other}'; name one as 'queue'")
        }
        (None, _, Some(silent)) => format!("the queue '{silent}' does not answer now; try it again"),
        (None, _, None) => "Autoscale not enabled".to_owned(),
    };
    Err(python_error("ValueError", &text))
}

/// A bound that the command states, or else this one.
fn bound(command: &ControlCommand<'_>, name: &str, default: usize) -> Result<usize, String> {
    let stated = command.arguments.whole(name, i64::try_from(default).unwrap_or(MOST_OF_A_QUEUE))?;
    let bound = Some(stated).filter(|n| (1..=MOST_OF_A_QUEUE).contains(n));
    bound.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
        python_error("ValueError", &format!("{name} must be a number from 1 to {MOST_OF_A_QUEUE}"))
    })
}

async fn spread(command: &ControlCommand<'_>, sign: isize, name: &str) -> Result<(), String> {
    let n = command.arguments.whole("n", 1)?;
    let n = Some(n).filter(|n| (0..=MOST).contains(n)).and_then(|n| usize::try_from(n).ok());
    let n = n.ok_or_else(|| python_error("ValueError", &format!("n must be a number from 0 to {MOST}")))?;
    let held = command.held(None, 0).await;
    let now: HashMap<&str, &HeldTasks> = held.iter().map(|held| (held.queue.as_str(), held)).collect();
    let follows = |row: &QueueRow| {
        now.get(row.name.as_str()).map_or(row.max_workers.is_some(), |held| held.range.is_some())
    };
    let mut rows = command.rows();
    let all = rows.len();
    rows.retain(|row| !follows(row));
    if rows.is_empty() && all > 0 {
        return Err(format!("{name} is not supported with autoscale. Adjust autoscale range instead."));
    }
    let sizes: Vec<usize> =
        rows.iter().map(|row| now.get(row.name.as_str()).map_or(row.workers, |held| held.workers)).collect();
    let shares = shares(&sizes, n);
    match sign {
        1.. => command.state().added_workers.add(shares.iter().sum())?,
        // A queue keeps one worker, whatever is taken away.
        _ => {
            let gone = shares.iter().zip(&sizes).map(|(share, size)| (*share).min(size.saturating_sub(1)));
            command.state().added_workers.remove(gone.sum());
        }
    }
    for (row, share) in rows.iter().zip(shares) {
        if share > 0 {
            let share = isize::try_from(share).unwrap_or(isize::MAX).saturating_mul(sign);
            command.inner.queues.tell(&row.name, Steer::Grow(share));
            command.inner.mark_act(&Steer::Grow(share), &row.name, Some(BY_REMOTE_CONTROL));
        }
    }
    Ok(())
}

/// Divides `n` in proportion to the sizes; what is left goes to the largest remainders, the first queues first.
fn shares(sizes: &[usize], n: usize) -> Vec<usize> {
    let all: u128 = sizes.iter().map(|size| *size as u128).sum();
    if all == 0 {
        return vec![0; sizes.len()];
    }
    let exact = |size: usize| (size as u128) * (n as u128);
    let mut shares: Vec<usize> =
        sizes.iter().map(|size| usize::try_from(exact(*size) / all).unwrap_or(n)).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(exact(sizes[*index]) % all));
    let left = n.saturating_sub(shares.iter().sum());
    for index in order.into_iter().take(left) {
        shares[index] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_commands_together_have_a_limit() {
        let added = AddedWorkers::default();
        for _ in 0..10 {
            added.add(1_000).unwrap();
        }
        let error = added.add(1).unwrap_err();
        assert!(error.contains("10000 workers were added before, and 1 more"), "{error}");
        added.remove(500);
        assert!(added.add(501).is_err());
        added.add(500).unwrap();
        added.remove(usize::MAX);
        added.add(10_000).unwrap();
        assert!(added.add(usize::MAX).is_err());
    }

    #[test]
    fn a_command_without_a_queue_is_about_the_only_one_that_follows_its_load() {
        let held = |queue: &str, range| HeldTasks { queue: queue.to_owned(), range, ..HeldTasks::default() };
        let follows = |queue: &str| held(queue, Some(WorkerRange::new(1, 4)));
        let rows = [QueueRow::new("fixed"), QueueRow::new("waves").with_max_workers(4)];
        let told = |held: &[HeldTasks]| only_one(held, &rows).map(|held| held.queue.clone());
        assert_eq!(told(&[held("fixed", None), follows("waves")]), Ok("waves".to_owned()));
        // An operator has a range set of the other one.
        for two in [&[follows("fixed"), follows("waves")][..], &[follows("fixed")]] {
            let error = told(two).unwrap_err();
            assert!(error.contains("such as 'fixed' and 'waves'"), "{error}");
        }
        let silent = told(&[held("fixed", None)]).unwrap_err();
        assert!(silent.contains("'waves' does not answer"), "{silent}");
        let none = only_one(&[held("fixed", None)], &rows[..1]).map(|held| &held.queue).unwrap_err();
        assert!(none.contains("Autoscale not enabled"), "{none}");
    }

    #[test]
    fn what_is_asked_for_is_spread_by_size() {
        assert_eq!(shares(&[4], 3), [3]);
        assert_eq!(shares(&[50, 2], 1), [1, 0]);
        assert_eq!(shares(&[50, 50], 3), [2, 1]);
        assert_eq!(shares(&[6, 3, 1], 10), [6, 3, 1]);
        assert_eq!(shares(&[1, 1, 1], 2), [1, 1, 0]);
        assert_eq!(shares(&[], 2), [0; 0]);
        for n in 0..50 {
            assert_eq!(shares(&[7, 2, 13, 1], n).iter().sum::<usize>(), n);
        }
    }
}

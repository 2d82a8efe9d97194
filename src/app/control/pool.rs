//! More workers, or fewer. Celery has one pool in a process, and here each queue has one: what is asked for is spread
//! over the queues by their sizes.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::arguments::python_error;
use super::{Answer, BY_REMOTE_CONTROL, ControlCommand, ok};
use crate::actors::queue::Steer;

/// The most workers that one command adds or takes away.
const MOST: i64 = 1_000;
/// The most workers that all commands together have added and not taken away again. A worker takes memory and a place
/// of the prefetch, and whoever repeats a command must not use up the program.
const MOST_ADDED: usize = 10 * MOST as usize;

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

pub(super) async fn grow(command: &ControlCommand<'_>) -> Answer {
    spread(command, 1).await?;
    Ok(ok("pool will grow"))
}

pub(super) async fn shrink(command: &ControlCommand<'_>) -> Answer {
    spread(command, -1).await?;
    Ok(ok("pool will shrink"))
}

async fn spread(command: &ControlCommand<'_>, sign: isize) -> Result<(), String> {
    let n = command.arguments.whole("n", 1)?;
    let n = Some(n).filter(|n| (0..=MOST).contains(n)).and_then(|n| usize::try_from(n).ok());
    let n = n.ok_or_else(|| python_error("ValueError", &format!("n must be a number from 0 to {MOST}")))?;
    let held = command.held(None, 0).await;
    let now: HashMap<&str, usize> = held.iter().map(|held| (held.queue.as_str(), held.workers)).collect();
    let rows = command.rows();
    let sizes: Vec<usize> =
        rows.iter().map(|row| now.get(row.name.as_str()).copied().unwrap_or(row.workers)).collect();
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

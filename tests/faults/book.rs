//! The book: each task's account after the ledger and the witness, and everything in it that breaks a promise.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::Line;
use crate::witness::Record;

/// What task `n` returns.
pub fn value(n: u64) -> u64 {
    n.wrapping_mul(3) + 1
}

/// Whether task `n` fails at its first attempt.
pub fn is_flaky(n: u64) -> bool {
    n.is_multiple_of(10)
}

/// What is known of one task.
#[derive(Default)]
struct Account {
    id: Option<String>,
    refused: bool,
    /// The starts of each attempt, and how many of them were told that they may be another's.
    attempts: BTreeMap<u32, (u64, u64)>,
    done: u64,
}

/// All accounts.
#[derive(Default)]
pub struct Book {
    accounts: HashMap<u64, Account>,
    /// How many enqueues returned Ok, how many of those went to the outbox, how many returned an error.
    pub acked: u64,
    pub outbox: u64,
    pub refused: u64,
    pub starts: u64,
    /// Tasks that did what they are there for, each counted once.
    pub finished: u64,
    /// Tasks in the order of their first starts.
    pub order: Vec<u64>,
    /// The most that ran in one process at a time.
    pub most: usize,
    /// When something started, in microseconds since 1970.
    pub started_at: Vec<u64>,
    /// Why enqueues were refused.
    pub reasons: BTreeMap<String, u64>,
}

/// What the book came to.
#[derive(Debug)]
pub struct Sums {
    pub reruns: u64,
    pub lost: u64,
    pub twice: u64,
    /// Reruns that were not told so.
    pub untold: u64,
}

impl Book {
    /// Enters what the ledger has new.
    pub fn enter(&mut self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Ack { n, id, outbox, .. } => {
                    self.accounts.entry(n).or_default().id = Some(id);
                    self.acked += 1;
                    self.outbox += u64::from(outbox);
                }
                Line::Refused { n, why, .. } => {
                    self.accounts.entry(n).or_default().refused = true;
                    self.refused += 1;
                    *self.reasons.entry(why).or_default() += 1;
                }
                Line::Start { n, inside, retries, crashes, again, at, .. } => {
                    let account = self.accounts.entry(n).or_default();
                    if account.attempts.is_empty() {
                        self.order.push(n);
                    }
                    let (starts, told) = account.attempts.entry(retries).or_default();
                    *starts += 1;
                    *told += u64::from(again || crashes > 0);
                    self.starts += 1;
                    self.most = self.most.max(inside);
                    self.started_at.push(at);
                }
                Line::Done { n, .. } => {
                    let account = self.accounts.entry(n).or_default();
                    account.done += 1;
                    self.finished += u64::from(account.done == 1);
                }
                Line::Failed { .. } | Line::Cut { .. } | Line::Tick { .. } => {}
            }
        }
    }

    /// How many tasks that were acknowledged are not done, or have no final record.
    pub fn open(&self, records: &HashMap<String, Vec<Record>>) -> usize {
        let open = |account: &&Account| match &account.id {
            Some(id) => account.done == 0 || !records.contains_key(id),
            None => false,
        };
        self.accounts.values().filter(open).count()
    }

    /// Compares everything with what the store has in the end (`kept`), and panics with what was broken.
    pub fn close(
        &self,
        limit: usize,
        records: &HashMap<String, Vec<Record>>,
        kept: &HashMap<String, Record>,
    ) -> Sums {
        let mut sums = Sums { reruns: 0, lost: 0, twice: 0, untold: 0 };
        let mut broken = Vec::new();
        for (n, account) in &self.accounts {
            // An attempt may run again because the one before did: its outcome was published, and not acknowledged.
            let mut inherited = 0;
            for (retries, (starts, told)) in &account.attempts {
                let extra = starts - 1;
                sums.reruns += extra;
                let untold = extra.saturating_sub(*told + inherited);
                if untold > 0 {
                    sums.untold += untold;
                    broken.push(format!(
                        "attempt {retries} of task {n} started {starts} times, and {told} were told"
                    ));
                }
                inherited = extra;
            }
            if account.attempts.keys().next_back().is_some_and(|last| *last > u32::from(is_flaky(*n))) {
                broken.push(format!("task {n} was tried {:?}", account.attempts));
            }
            let Some(id) = &account.id else { continue };
            let seen = records.get(id).map_or(&[][..], Vec::as_slice);
            if account.done == 0 || seen.is_empty() {
                sums.lost += 1;
                broken.push(format!(
                    "task {n} ({id}) was acknowledged and is lost: done {} times, attempts {:?}, records {seen:?}",
                    account.done, account.attempts
                ));
                continue;
            }
            if seen.len() > 1 || kept.get(id) != Some(&seen[0]) {
                sums.twice += 1;
                broken
                    .push(format!("task {n} ({id}) has records {seen:?}, and in the end {:?}", kept.get(id)));
            }
            if seen[0].state != "SUCCESS" || seen[0].value.as_u64() != Some(value(*n)) {
                broken.push(format!("task {n} ended as {:?}", seen[0]));
            }
        }
        if self.most > limit {
            broken.push(format!("{} ran at once in a process with {limit} workers", self.most));
        }
        if !broken.is_empty() {
            let shown: Vec<_> = broken.iter().take(20).map(String::as_str).collect();
            panic!("{} promises broken ({sums:?}):\n  {}", broken.len(), shown.join("\n  "));
        }
        sums
    }

    /// The longest time in which nothing started although something was to do, in milliseconds.
    pub fn longest_pause(&self, from: u64) -> u64 {
        let mut times: Vec<u64> = self.started_at.iter().copied().filter(|at| *at >= from).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).max().unwrap_or(0)
    }
}

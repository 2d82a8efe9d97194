//! The book of the lanes: a resource behind each key that minds the tokens, and everything that breaks a promise.
//!
//! The lines are in the order in which they were written. Of a key, a line with a lower token than one before is refused, as
//! whatever a run writes to should do it; only a process that was frozen may have such lines, and only it may still be inside
//! when another one starts. A run of a process that was killed ends with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

/// One thing that happened in the process `life` to the `n`th task of a key. `at`: microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// An enqueue returned Ok.
    Ack { life: u64, key: u64, n: u64, id: String },
    /// It returned an error.
    Refused { life: u64, key: u64, n: u64, why: String },
    /// A body began.
    Start { life: u64, key: u64, n: u64, token: u64, at: u64 },
    /// It did what it is there for.
    Done { life: u64, key: u64, n: u64, token: u64 },
    /// It failed, as it was meant to, or was dropped.
    Ended { life: u64, key: u64, n: u64, token: u64 },
}

/// Whether this task fails at its first attempt.
pub fn is_flaky(key: u64, n: u64) -> bool {
    (key * 7 + n).is_multiple_of(23)
}

/// A run that is inside.
struct Inside {
    life: u64,
    token: u64,
}

/// What is known of one key.
#[derive(Default)]
struct Account {
    acked: BTreeMap<u64, String>,
    inside: Option<Inside>,
    /// The highest token that was seen.
    token: u64,
    /// The last task that started for the first time.
    last: Option<u64>,
    done: BTreeMap<u64, u64>,
}

/// All accounts.
#[derive(Default)]
pub struct Book {
    accounts: HashMap<u64, Account>,
    /// The processes in which something has started.
    pub started: HashSet<u64>,
    /// When each process was killed or frozen.
    pub killed: HashMap<u64, u64>,
    pub frozen: HashMap<u64, u64>,
    pub acked: u64,
    pub refused: BTreeMap<String, u64>,
    /// Tasks that are done, each counted once; and how often one was once more.
    pub done: u64,
    pub reruns: u64,
    /// Lines with a lower token than one before, which the resource refuses.
    pub stale: u64,
    /// From then on those that start do not see that others are dead.
    pub apart_from: u64,
    /// How long keys waited whose holder was killed, before and after that, and whose holder was frozen, in microseconds.
    pub after_kill: Vec<u64>,
    pub after_kill_apart: Vec<u64>,
    pub after_freeze: Vec<u64>,
    broken: Vec<String>,
}

impl Book {
    /// Enters what the ledger has new.
    pub fn enter(&mut self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Ack { key, n, id, .. } => {
                    self.accounts.entry(key).or_default().acked.insert(n, id);
                    self.acked += 1;
                }
                Line::Refused { why, .. } => *self.refused.entry(why).or_default() += 1,
                Line::Start { life, key, n, token, at } => self.start(life, key, n, token, at),
                Line::Done { life, key, n, token } => self.end(life, key, n, token, true),
                Line::Ended { life, key, n, token } => self.end(life, key, n, token, false),
            }
        }
    }

    fn start(&mut self, life: u64, key: u64, n: u64, token: u64, at: u64) {
        self.started.insert(life);
        let account = self.accounts.entry(key).or_default();
        if token <= account.token {
            self.stale += 1;
            if !self.frozen.contains_key(&life) {
                let before = account.token;
                self.broken.push(format!("key {key}: task {n} started under token {token} after {before}"));
            }
            return;
        }
        if let Some(inside) = account.inside.replace(Inside { life, token }) {
            match (self.killed.get(&inside.life), self.frozen.get(&inside.life)) {
                // Killed after it was frozen, it had been taken over before.
                (Some(killed), None) if *killed < self.apart_from => {
                    self.after_kill.push(at.saturating_sub(*killed));
                }
                (Some(killed), None) => self.after_kill_apart.push(at.saturating_sub(*killed)),
                (_, Some(frozen)) => self.after_freeze.push(at.saturating_sub(*frozen)),
                (None, None) => self.broken.push(format!(
                    "key {key}: task {n} started in process {life} under {token} while {} was inside under {}",
                    inside.life, inside.token
                )),
            }
        }
        account.token = token;
        if account.last.is_none_or(|last| n > last) {
            account.last = Some(n);
        } else if account.last != Some(n) && !account.done.contains_key(&n) {
            self.broken.push(format!("key {key}: task {n} starts after {:?}, and is not done", account.last));
        }
    }

    fn end(&mut self, life: u64, key: u64, n: u64, token: u64, done: bool) {
        let account = self.accounts.entry(key).or_default();
        if token < account.token {
            self.stale += 1;
            if !self.frozen.contains_key(&life) {
                let before = account.token;
                self.broken.push(format!("key {key}: task {n} ended under token {token} after {before}"));
            }
            return;
        }
        account.inside = None;
        if done {
            let times = account.done.entry(n).or_default();
            *times += 1;
            if *times == 1 {
                self.done += 1;
            } else {
                self.reruns += 1;
            }
        }
    }

    /// All that were acknowledged and are not done: key, number, id.
    pub fn open(&self) -> Vec<(u64, u64, String)> {
        let open = |(key, account): (&u64, &Account)| -> Vec<_> {
            let open = account.acked.iter().filter(|(n, _)| !account.done.contains_key(n));
            open.map(|(n, id)| (*key, *n, id.clone())).collect()
        };
        self.accounts.iter().flat_map(open).collect()
    }

    /// Whether each kind of disturbance has met somebody who was inside.
    pub fn has_seen_all(&self) -> bool {
        [&self.after_kill, &self.after_kill_apart, &self.after_freeze].iter().all(|times| !times.is_empty())
    }

    /// All ids that were acknowledged.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.accounts.values().flat_map(|account| account.acked.values())
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.accounts.len()
    }

    /// What was broken.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }
}

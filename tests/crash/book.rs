//! The book: each task's account after the ledger, and everything in it that breaks a promise.

use std::collections::{HashMap, HashSet};

use crate::ledger::{How, Line, Reader};
use crate::tasks::{Kind, value};

/// What is known of one task.
#[derive(Default)]
pub struct Account {
    pub kind: Option<Kind>,
    pub id: Option<String>,
    refused: Option<String>,
    revoked: bool,
    /// The hook was told, or the record was read: it is over, on disk.
    over: bool,
    seen: Option<Seen>,
    runs: Vec<RunRecord>,
    /// In which life it was acknowledged.
    acked_in: u64,
}

#[derive(Clone, PartialEq, Debug)]
struct Seen {
    state: String,
    value: Option<String>,
    error_type: Option<String>,
    attempts: u32,
}

struct RunRecord {
    life: u64,
    cursor: u32,
    retries: u32,
    crashes: u32,
    at: u64,
    how: Option<How>,
}

/// All accounts.
#[derive(Default)]
pub struct Book {
    pub accounts: HashMap<u64, Account>,
    life: u64,
    /// Something was started in this life.
    has_started: bool,
    /// When each life was spawned, by its number less 1.
    pub spawned_at: Vec<u64>,
    /// Runs that were interrupted in the life before, and not started again yet.
    interrupted: HashSet<u64>,
    dead: HashMap<String, u32>,
    /// Promises broken, in words.
    pub broken: Vec<String>,
    pub totals: Totals,
    /// From the spawn of a life to its first start, to the start of each task that the crash had interrupted.
    pub first_starts: Vec<u64>,
    pub restarts: Vec<u64>,
}

/// Sums for the report.
#[derive(Default, Debug)]
pub struct Totals {
    pub acked: u64,
    pub refused: u64,
    pub starts: u64,
    pub interrupted: u64,
    pub reruns: u64,
    pub lost: u64,
    pub settled_twice: u64,
    pub miscounted: u64,
    pub seen: u64,
    pub over_again_unsettled: u64,
}

impl Book {
    /// Enters what the ledger has new.
    pub fn read(&mut self, reader: &mut Reader) {
        for line in reader.lines() {
            self.enter(line);
        }
    }

    fn breaks(&mut self, text: String) {
        self.broken.push(text);
    }

    fn enter(&mut self, line: Line) {
        match line {
            Line::Life { life } => self.begin(life),
            Line::Try { n, kind } => self.account(n).kind = Some(kind),
            Line::Ack { n, id } => {
                let life = self.life;
                let account = self.account(n);
                (account.id, account.acked_in) = (Some(id), life);
                self.totals.acked += 1;
            }
            Line::Refused { n, why } => {
                let ran = !self.account(n).runs.is_empty();
                self.account(n).refused = Some(why);
                self.totals.refused += 1;
                if ran {
                    self.breaks(format!("task {n} ran before it was refused"));
                }
            }
            Line::Twice { id } => self.breaks(format!("id {id} was taken, and accepted once more")),
            Line::Start { .. } => self.start(&line),
            Line::End { n, how } => {
                if let Some(run) = self.account(n).runs.last_mut() {
                    run.how = Some(how);
                }
            }
            Line::Told { n } => self.account(n).over = true,
            Line::Seen { n, state, value, error_type, attempts } => {
                self.seen(n, Seen { state, value, error_type, attempts });
            }
            Line::Revoked { n } => self.account(n).revoked = true,
            Line::Dead { id } => *self.dead.entry(id).or_default() += 1,
            Line::Tick { .. } => {} // of a case of its own
        }
    }

    fn account(&mut self, n: u64) -> &mut Account {
        self.accounts.entry(n).or_default()
    }

    fn begin(&mut self, life: u64) {
        self.life = life;
        self.has_started = false;
        for (n, account) in &self.accounts {
            if account.runs.last().is_some_and(|run| run.life + 1 == life && run.how.is_none())
                && account.kind.is_some_and(Kind::is_durable)
            {
                self.interrupted.insert(*n);
                self.totals.interrupted += 1;
            }
        }
    }

    fn start(&mut self, line: &Line) {
        let Line::Start { n, cursor, retries, crashes, attempt, redelivered, at } = *line else { return };
        self.totals.starts += 1;
        let life = self.life;
        let spawned = usize::try_from(life).ok().and_then(|life| self.spawned_at.get(life - 1)).copied();
        if let Some(spawned) = spawned {
            if !std::mem::replace(&mut self.has_started, true) {
                self.first_starts.push(at.saturating_sub(spawned));
            }
            if self.interrupted.remove(&n) {
                self.restarts.push(at.saturating_sub(spawned));
            }
        }
        let account = self.accounts.entry(n).or_default();
        let mut broken = Vec::new();
        let mut miscounted = Vec::new();
        if account.over {
            self.totals.settled_twice += 1;
            broken.push("started again after it was over".to_owned());
        }
        if account.revoked {
            broken.push("started after its revocation was confirmed".to_owned());
        }
        if let Some(why) = &account.refused {
            broken.push(format!("started although its enqueue was refused with: {why}"));
        }
        if let Some(last) = account.runs.last() {
            if last.life == life && last.how.is_none() {
                broken.push("two runs of it at once".to_owned());
            }
            if (last.cursor, last.retries, last.crashes) > (cursor, retries, crashes) {
                broken.push(format!(
                    "went backward, from (cursor, retries, crashes) {:?} to {:?}",
                    (last.cursor, last.retries, last.crashes),
                    (cursor, retries, crashes)
                ));
            }
            if !account.kind.is_none_or(Kind::is_durable) {
                broken.push("ran twice, and was to run at most once".to_owned());
            }
            if last.cursor == cursor && crashes > last.crashes {
                self.totals.reruns += 1;
                self.totals.over_again_unsettled += u64::from(last.how.is_some());
            }
        }
        let earlier = || account.runs.iter().filter(|run| run.cursor == cursor);
        let count = |how: Option<How>| {
            u32::try_from(earlier().filter(|run| run.how == how).count()).unwrap_or(u32::MAX)
        };
        let interrupted = count(None);
        if crashes < interrupted {
            miscounted.push(format!("{interrupted} runs were interrupted, its message says {crashes}"));
        }
        let begun = u32::try_from(earlier().count()).unwrap_or(u32::MAX);
        let free = count(Some(How::Postponed)) + count(Some(How::Cut));
        if begun > retries + crashes + free {
            miscounted.push(format!(
                "{begun} runs before, only {retries} retries, {crashes} crashes and {free} unburnt ones"
            ));
        }
        // A run may have been interrupted between its note in the store and its line in the ledger: one for a life.
        let lives = life.saturating_sub(account.acked_in.max(n / 1_000_000));
        if u64::from(crashes) > lives {
            miscounted.push(format!("{crashes} crashes in {lives} lives before this one"));
        }
        if attempt != 1 + retries + crashes || redelivered != (crashes > 0) {
            miscounted.push(format!(
                "attempt {attempt}, redelivered {redelivered}, after {retries} retries and {crashes} crashes"
            ));
        }
        self.totals.miscounted += miscounted.len() as u64;
        account.runs.push(RunRecord { life, cursor, retries, crashes, at, how: None });
        let kind = account.kind;
        for text in broken.into_iter().chain(miscounted) {
            self.breaks(format!("task {n} ({kind:?}) in life {life}: {text}"));
        }
    }

    fn seen(&mut self, n: u64, seen: Seen) {
        self.totals.seen += 1;
        let account = self.account(n);
        let before = account.seen.replace(seen.clone());
        account.over = true;
        let kind = account.kind;
        let attempts = account.runs.last().map(|run| run.retries + run.crashes + 1);
        if let Some(before) = before.filter(|before| *before != seen) {
            self.totals.settled_twice += 1;
            self.breaks(format!("the record of task {n} changed from {before:?} to {seen:?}"));
        }
        let Some(kind) = kind else { return };
        if seen.state == "UNKNOWN" {
            self.totals.lost += 1;
            self.breaks(format!("task {n} ({kind:?}) was acknowledged, and nobody knows it"));
        } else if !kind.expected().contains(&seen.state.as_str()) {
            self.breaks(format!("task {n} ({kind:?}) ended as {seen:?}"));
        } else if seen.state == "SUCCESS" && seen.value.as_deref() != Some(value(n).to_string().as_str()) {
            self.breaks(format!("task {n} ({kind:?}) returned {:?}, not {}", seen.value, value(n)));
        } else if seen.state != "REVOKED" && attempts != Some(seen.attempts) {
            self.breaks(format!(
                "the record of task {n} ({kind:?}) says {} attempts, its runs {attempts:?}",
                seen.attempts
            ));
        }
    }

    /// All tasks that were acknowledged and leave a record, those with the newest numbers first.
    pub fn to_ask(&self, at_most: usize) -> Vec<(u64, String)> {
        let mut ask: Vec<_> = self
            .accounts
            .iter()
            .filter(|(_, account)| account.kind.is_some_and(Kind::keeps_record))
            .filter_map(|(n, account)| Some((*n, account.id.clone()?)))
            .collect();
        ask.sort_unstable_by(|a, b| b.cmp(a));
        ask.truncate(at_most);
        ask
    }

    /// Called when everything was drained and every record read: what was promised must have happened.
    pub fn close(&mut self) {
        let mut broken = Vec::new();
        for (n, account) in &self.accounts {
            let (Some(kind), Some(id)) = (account.kind, &account.id) else { continue };
            let dead = self.dead.get(id).copied().unwrap_or(0);
            if dead != u32::from(kind == Kind::Rejected) {
                broken.push(format!("task {n} ({kind:?}) is {dead} times in the dead letters"));
            }
            if !kind.is_durable() {
                continue;
            }
            let ended = account.runs.last().is_some_and(|run| run.how == Some(How::Value));
            let done = if kind.keeps_record() { account.seen.is_some() } else { ended };
            if !done {
                self.totals.lost += 1;
                let at = account.runs.last().map(|run| (run.life, run.at, run.how));
                broken.push(format!(
                    "task {n} ({kind:?}, {id}) was acknowledged and is lost; its last run: {at:?}"
                ));
            }
            let revoked = account.seen.as_ref().is_some_and(|seen| seen.state == "REVOKED");
            if revoked && !account.runs.is_empty() {
                broken.push(format!("task {n} ran and is REVOKED"));
            }
        }
        self.broken.append(&mut broken);
    }

    /// Panics with everything that was broken.
    pub fn assert_kept(&self) {
        let shown: Vec<_> = self.broken.iter().take(20).map(String::as_str).collect();
        assert!(self.broken.is_empty(), "{} promises broken:\n  {}", self.broken.len(), shown.join("\n  "));
    }
}

/// The middle and the greatest of some times in microseconds, for reading.
pub fn spread(times: &[u64]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let ms = |at: usize| sorted.get(at).map_or(0.0, |us| *us as f64 / 1000.0);
    format!(
        "p50 {:.0} ms, max {:.0} ms of {}",
        ms(sorted.len() / 2),
        ms(sorted.len().saturating_sub(1)),
        sorted.len()
    )
}

//! Asks the store about the parts of limits that all processes share: rates, and how often something has started on a day.
//!
//! The counts of days are notes, one for each key, with the two latest days of it. A process takes a share of a day's cap by
//! changing the note, and starts from its share; so a note never says less than what has started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::{Broker, BrokerNotes};
use crate::core::calendar::LocalDay;
use crate::core::key::key_of;
use crate::core::start_limit::LimitKey;
use crate::store::{CompareAndSet, Notes, StartsWanted, Store, StoreError};
use crate::task::clock::{now, steady};

/// The beginning of the names of the notes.
const PREFIX: &str = "limit-day/";
/// So often a note is changed again that others change at the same time.
const TRIES: usize = 20;
/// Notes of days that are longer over than this are deleted. It is more than zones differ.
const DAYS_GO: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// Keeps what all processes share of the limits.
pub(super) struct LimitKeeper {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    /// Whether the last question failed, which was told then.
    fails: AtomicBool,
    /// The day on which old notes were looked for last.
    swept_on: Mutex<Option<LocalDay>>,
}

/// A key's counts of days, as its note has them.
type DayNote = Vec<(LocalDay, u32)>;

/// The time by the steady clock.
pub(super) fn steady_clock() -> Duration {
    Duration::from_micros(steady().as_micros())
}

impl LimitKeeper {
    pub(super) fn new(broker: Arc<dyn Broker>, store: Arc<dyn Store>) -> Self {
        Self { broker, store, fails: AtomicBool::new(false), swept_on: Mutex::default() }
    }

    /// Whether a store keeps rates for all processes.
    pub(super) fn keeps_rates(&self) -> bool {
        self.store.shared_rates().is_some()
    }

    /// Whether several processes share the broker, and no store keeps rates for all of them.
    pub(super) fn is_lacking(&self) -> bool {
        self.broker.facts().is_shared && !self.keeps_rates()
    }

    /// Whether the counts of days are kept somewhere.
    pub(super) fn keeps_days(&self) -> bool {
        self.notes().is_some()
    }

    /// Takes starts of a rate: how many, and how long until the first. `None`: the store did not answer.
    pub(super) async fn take_starts(
        &self,
        name: &str,
        key: &LimitKey,
        interval: Duration,
        starts: u32,
        ahead: Duration,
    ) -> Option<(u32, Duration)> {
        let wanted = StartsWanted { interval, starts, ahead };
        let taken = match self.store.shared_rates() {
            Some(rates) => rates.take_starts(&known_as(name, key), wanted).await,
            None => Err(StoreError::Closed),
        };
        self.told(name, taken).map(|granted| (granted.starts, granted.after))
    }

    /// Takes a share of a day's cap; 0: nothing is left. `None`: the store did not answer.
    pub(super) async fn take_share(
        &self,
        name: &str,
        key: &LimitKey,
        day: LocalDay,
        cap: u32,
        share: u32,
    ) -> Option<u32> {
        let take = |taken: u32| {
            let share = share.min(cap.saturating_sub(taken));
            (taken.saturating_add(share), share)
        };
        self.told(name, self.change(name, key, day, take).await)
    }

    /// Gives back a part of a share that nothing has started from.
    pub(super) async fn give_back(&self, name: &str, key: &LimitKey, day: LocalDay, unused: u32) {
        let change = |taken: u32| (taken.saturating_sub(unused), unused);
        let _ = self.told(name, self.change(name, key, day, change).await);
    }

    /// Changes the count of a day. `change` makes the new count of the old one, and what to answer. A day before those that are
    /// kept counts as spent: the answer is 0.
    async fn change(
        &self,
        name: &str,
        key: &LimitKey,
        day: LocalDay,
        change: impl Fn(u32) -> (u32, u32),
    ) -> Result<u32, StoreError> {
        let Some(notes) = self.notes() else { return Err(StoreError::Closed) };
        let note = format!("{PREFIX}{}", known_as(name, key));
        for _ in 0..TRIES {
            let expected = notes.note(&note).await?;
            let mut days = read(&note, expected.as_deref())?;
            if days.len() >= 2 && days.iter().all(|(kept, _)| *kept > day) {
                return Ok(0);
            }
            let at = days.iter().position(|(kept, _)| *kept == day).unwrap_or_else(|| {
                days.push((day, 0));
                days.len() - 1
            });
            let (count, answer) = change(days[at].1);
            if answer == 0 {
                return Ok(0);
            }
            days[at].1 = count;
            days.sort_unstable();
            let first = days.len().saturating_sub(2);
            let value = serde_json::to_string(&days[first..]);
            let value = value.map_err(|error| StoreError::io_because(error.to_string(), error))?;
            if notes
                .compare_and_set(CompareAndSet { key: note.clone(), expected, value: Some(value) })
                .await?
            {
                return Ok(answer);
            }
        }
        Err(StoreError::io(format!("the note `{note}` is changed by others all the time")))
    }

    /// Deletes the notes of days that are long over, once a day. There may be thousands, so nobody waits for it who waits for a
    /// share.
    pub(super) async fn forget_old_days(&self, today: LocalDay) {
        {
            let mut swept_on = self.swept_on.lock();
            if swept_on.is_some_and(|swept_on| swept_on >= today) {
                return;
            }
            *swept_on = Some(today);
        }
        if let Err(error) = self.forget_days_before(LocalDay::of(now() - DAYS_GO)).await {
            tracing::debug!(%error, "the old counts of limits are not deleted yet");
        }
    }

    async fn forget_days_before(&self, first: LocalDay) -> Result<(), StoreError> {
        let Some(notes) = self.notes() else { return Ok(()) };
        for (key, text) in notes.notes(PREFIX).await? {
            let is_over = read(&key, Some(&text)).is_ok_and(|days| days.iter().all(|(day, _)| *day < first));
            if is_over {
                notes.compare_and_set(CompareAndSet { key, expected: Some(text), value: None }).await?;
            }
        }
        Ok(())
    }

    /// Where the counts of days are kept: in the store if other processes use it, else beside the messages.
    fn notes(&self) -> Option<&dyn Notes> {
        let of_store = self.store.notes();
        if self.store.is_shared() && of_store.is_some() {
            return of_store;
        }
        self.broker.notes().map(BrokerNotes::notes).or(of_store)
    }

    /// Logs the first of several failures in a row.
    fn told<T>(&self, limit: &str, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.fails.store(false, Ordering::Relaxed);
                Some(answer)
            }
            Err(error) => {
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(limit, %error, "the store does not say what is left of a limit; its tasks wait until it does");
                }
                None
            }
        }
    }
}

/// The name of a key of a limit in the store.
fn known_as(name: &str, key: &LimitKey) -> String {
    match key {
        LimitKey::Own(key) => key_of([name, "own", &**key]),
        LimitKey::Together(number) => key_of([name, "together", number.to_string().as_str()]),
    }
}

fn read(note: &str, text: Option<&str>) -> Result<DayNote, StoreError> {
    let Some(text) = text else { return Ok(DayNote::new()) };
    serde_json::from_str(text).map_err(|error| {
        StoreError::io_because(format!("the note `{note}` cannot be read: {error}; delete it"), error)
    })
}

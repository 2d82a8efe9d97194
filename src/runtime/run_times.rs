//! How long runs of tasks took, as this process knows it: what it has measured itself, and what it has read in notes.
//!
//! Invariants:
//! - Nothing waits for a store. A run is recorded, and a call is routed, by what is in memory; notes are written and read once a
//!   minute, beside all that. So a process that is killed loses what it has measured since, a minute at most.
//! - What was measured is in the note of its process once, also if a write fails and nobody knows whether it happened: the next
//!   round looks.
//! - There are no more notes than there were processes in the last two days: each writes its own at least once a day, and what
//!   an older one says another process takes over into its own, in the step in which that note is deleted.
//! - A note that cannot be read stays as it is, because a later version may have written it.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Runtime;
use crate::catalogue::{Argument, argument_value};
use crate::core::Timestamp;
use crate::core::durations::{RunTimeBook, RunTimeFigures, RunTimeKey, figures, keys_of_call};
use crate::store::run_times::{StoredRunTimes, key_of, read, read_all, written};
use crate::store::{CompareAndSet, Notes, StoreError};
use crate::task::Message;
use crate::task::clock::now;

/// How often a round begins anew because somebody else has changed the note.
const TRIES: usize = 5;
/// How often a process writes its note that has nothing new to say.
const RENEWED: Duration = Duration::from_secs(24 * 60 * 60);
/// How old a note is that another process takes over.
const ABANDONED: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// How many notes are taken over in one round.
const TAKEN_OVER: usize = 4;
/// For each so many bytes of notes, the reading of others' notes is left out in one round: many large notes are read less often.
const BYTES_A_ROUND: usize = 4 << 20;

/// The arguments by whose values the run times of tasks are kept, by the names of the tasks.
pub(crate) type WatchedArguments = HashMap<&'static str, Vec<Argument>>;

/// Keeps run times.
#[derive(Default)]
pub(crate) struct RunTimeKeeper {
    watched: WatchedArguments,
    books: Mutex<RunTimeBooks>,
    rounds: tokio::sync::Mutex<Rounds>,
}

/// The books of run times. Together it is what all processes have measured.
#[derive(Default)]
struct RunTimeBooks {
    /// The run times that the note of this process has.
    kept: RunTimeBook,
    /// The run times that the notes of others have.
    others: RunTimeBook,
    /// The run times that are being written into the note of this process.
    in_flight: Arc<RunTimeBook>,
    /// The run times that are not written yet.
    pending: RunTimeBook,
}

/// What one round leaves to the next one.
#[derive(Default)]
struct Rounds {
    /// The name of this process's note. Empty before the first reading.
    key: String,
    /// When it was last written.
    written_at: Timestamp,
    /// What was written, although nobody knows whether it is there: the text, and the book in it.
    unsure: Option<(String, RunTimeBook)>,
    /// The number of rounds that do not read what others have written.
    rest: usize,
}

impl RunTimeKeeper {
    /// Keeps run times also by the values of these arguments.
    pub(crate) fn watching(watched: WatchedArguments) -> Self {
        Self { watched, ..Self::default() }
    }

    /// Records a run of this message, which ended at `at`. `params` are the names of the parameters of its task.
    pub(crate) fn record(&self, message: &Message, params: &[&str], took: Duration, at: Timestamp) {
        let (task, tenant) = (message.task.as_str(), message.tenant());
        let of_task = RunTimeKey::of_task(task);
        if tenant.is_none() && self.watched.is_empty() {
            return self.books.lock().pending.record(&[of_task], took, at);
        }
        let mut keys = vec![of_task];
        keys.extend(tenant.map(|tenant| RunTimeKey::of_tenant(task, tenant)));
        for argument in self.watched.get(task).into_iter().flatten() {
            if let Some(value) = argument_value(argument, params, &message.arguments) {
                let key = RunTimeKey::of_value(task, tenant, &name_of(argument), &value);
                // Several routes may name one argument.
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        self.books.lock().pending.record(&keys, took, at);
    }

    /// What is known of a call of this task: with an argument and its value, of runs with that value; else of the tenant's runs,
    /// or of all where the tenant has none. `None`: nobody knows such a run.
    pub(crate) fn known(
        &self,
        task: &str,
        tenant: Option<&str>,
        value: Option<(&Argument, &str)>,
    ) -> Option<RunTimeFigures> {
        let named = value.map(|(argument, value)| (name_of(argument), value));
        let value = named.as_ref().map(|(name, value)| (name.as_str(), *value));
        let books = self.books.lock();
        keys_of_call(task, tenant, value).find_map(|key| figures(books.all(), key))
    }

    /// What is known of this very key.
    pub(crate) fn figures_of(&self, key: RunTimeKey) -> Option<RunTimeFigures> {
        figures(self.books.lock().all(), key)
    }

    /// Reads what was known when the last process ended, and what others know. `node` is the name of this process.
    ///
    /// # Errors
    /// The notes cannot be read.
    pub(crate) async fn begin(&self, notes: &dyn Notes, node: &str) -> Result<(), StoreError> {
        let mut rounds = self.rounds.lock().await;
        rounds.key = key_of(node);
        let (mut kept, mut others) = (RunTimeBook::default(), RunTimeBook::default());
        for StoredRunTimes { key, said, .. } in read_all(notes).await? {
            match said {
                Some((at, book)) if key == rounds.key => (rounds.written_at, kept) = (at, book),
                Some((_, book)) => others.merge(&book),
                None => tracing::debug!(note = key, "a note of run times cannot be read"),
            }
        }
        let mut books = self.books.lock();
        (books.kept, books.others) = (kept, others);
        Ok(())
    }

    /// One round: writes what is new, and reads what others have written if `has_others`.
    ///
    /// # Errors
    /// The notes cannot be read or written. What is not written stays for the next round.
    pub(crate) async fn exchange(
        &self,
        notes: &dyn Notes,
        has_others: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut rounds = self.rounds.lock().await;
        if rounds.key.is_empty() {
            return Ok(()); // the runtime of a test keeps none
        }
        self.write(notes, &mut rounds, now).await?;
        if !has_others {
            return Ok(());
        }
        match rounds.rest.checked_sub(1) {
            Some(rest) => {
                rounds.rest = rest;
                Ok(())
            }
            None => self.read_others(notes, &mut rounds, now).await,
        }
    }

    /// Adds what is new to the note of this process.
    async fn write(&self, notes: &dyn Notes, rounds: &mut Rounds, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let is_old = now.since(rounds.written_at) >= RENEWED && !self.books.lock().kept.is_empty();
            if rounds.unsure.is_none() && !is_old && self.books.lock().pending.is_empty() {
                return Ok(());
            }
            let Some((text, before)) = self.look(notes, rounds).await? else { continue };
            if self.books.lock().pending.is_empty() && (!is_old || before.is_empty()) {
                return Ok(());
            }
            let (written, change) = self.take_pending(before, rounds, text, now)?;
            (rounds.unsure, rounds.written_at) = (Some(written), now);
            // If somebody else has changed the note, the next look finds that this text is not there.
            if notes.compare_and_set(change).await? {
                self.land(rounds);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the note of this process, and finds out whether what was written last is there. Answers with its text and its
    /// book; `None`: nobody here can read it, and another note is taken.
    async fn look(
        &self,
        notes: &dyn Notes,
        rounds: &mut Rounds,
    ) -> Result<Option<(Option<String>, RunTimeBook)>, StoreError> {
        let text = notes.note(&rounds.key).await?;
        if rounds.unsure.as_ref().is_some_and(|(written, _)| text.as_ref() == Some(written)) {
            self.land(rounds);
        } else {
            rounds.unsure = None;
            let mut books = self.books.lock();
            let in_flight = mem::take(&mut books.in_flight);
            books.pending.merge(&in_flight);
        }
        match text.as_deref().map(read) {
            None => Ok(Some((None, RunTimeBook::default()))),
            Some(Some((_, book))) => Ok(Some((text, book))),
            Some(None) => {
                tracing::warn!(
                    note = rounds.key,
                    "a note of run times cannot be read, so it stays as it is, and another one is kept beside it"
                );
                rounds.key.push('~');
                Ok(None)
            }
        }
    }

    /// Takes what is pending off for the note that said `before`: what is to be written with its book, and the change of the
    /// note.
    fn take_pending(
        &self,
        before: RunTimeBook,
        rounds: &Rounds,
        expected: Option<String>,
        now: Timestamp,
    ) -> Result<((String, RunTimeBook), CompareAndSet), StoreError> {
        let added = {
            let mut books = self.books.lock();
            books.in_flight = Arc::new(mem::take(&mut books.pending));
            Arc::clone(&books.in_flight)
        };
        let mut merged = before;
        merged.merge(&added);
        let (text, book) = written(now, merged)?;
        let change = CompareAndSet { key: rounds.key.clone(), expected, value: Some(text.clone()) };
        Ok(((text, book), change))
    }

    /// What was in flight is in the note.
    fn land(&self, rounds: &mut Rounds) {
        let Some((_, book)) = rounds.unsure.take() else { return };
        // What goes is dropped when nobody waits for the books.
        let _old = {
            let mut books = self.books.lock();
            (mem::replace(&mut books.kept, book), mem::take(&mut books.in_flight))
        };
    }

    /// Reads what others have written, and takes notes over that nobody writes any more.
    async fn read_others(
        &self,
        notes: &dyn Notes,
        rounds: &mut Rounds,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (mut own, mut others) = (RunTimeBook::default(), RunTimeBook::default());
        let (mut abandoned, mut bytes) = (Vec::new(), 0);
        for StoredRunTimes { key, text, said } in read_all(notes).await? {
            bytes += text.len();
            let Some((at, book)) = said else { continue };
            if key == rounds.key {
                own = book;
            } else if now.since(at) > ABANDONED && abandoned.len() < TAKEN_OVER {
                abandoned.push((key, text, book));
            } else {
                others.merge(&book);
            }
        }
        rounds.rest = bytes / BYTES_A_ROUND;
        if !abandoned.is_empty() {
            match self.take_over(notes, rounds, &abandoned, now).await? {
                Some(book) => own = book,
                None => abandoned.iter().for_each(|(.., book)| others.merge(book)),
            }
        }
        let _old = {
            let mut books = self.books.lock();
            // While nobody knows whether a write has happened, what it has added is not to be counted twice.
            let kept = rounds.unsure.is_none().then(|| mem::replace(&mut books.kept, own));
            (mem::replace(&mut books.others, others), kept)
        };
        Ok(())
    }

    /// Moves what these notes say into that of this process, and answers with what that one says then. `None`: somebody has
    /// changed one of them.
    async fn take_over(
        &self,
        notes: &dyn Notes,
        rounds: &mut Rounds,
        abandoned: &[(String, String, RunTimeBook)],
        now: Timestamp,
    ) -> Result<Option<RunTimeBook>, StoreError> {
        if rounds.unsure.is_some() {
            return Ok(None);
        }
        let Some((expected, mut merged)) = self.look(notes, rounds).await? else { return Ok(None) };
        abandoned.iter().for_each(|(.., book)| merged.merge(book));
        let (text, book) = written(now, merged)?;
        let own = CompareAndSet { key: rounds.key.clone(), expected, value: Some(text) };
        let gone = |(key, text, _): &(String, String, RunTimeBook)| CompareAndSet {
            key: key.clone(),
            expected: Some(text.clone()),
            value: None,
        };
        let changes = std::iter::once(own).chain(abandoned.iter().map(gone)).collect();
        let is_done = notes.compare_and_set_all(changes, None).await?;
        if is_done {
            rounds.written_at = now;
        }
        Ok(is_done.then_some(book))
    }
}

impl Runtime {
    /// Reads how long runs took before this process began, and how long those of others did. `node` is the name of this process.
    pub(crate) async fn begin_run_times(&self, node: &str) {
        // Without them the program works as well: it only has to learn anew what takes long.
        if let Err(error) = self.run_times.begin(self.notes(), node).await {
            tracing::warn!(%error, "how long tasks took before is not known now, because the notes cannot be read");
        }
    }

    /// Writes how long runs took, and reads what others have written.
    ///
    /// # Errors
    /// The notes cannot be read or written.
    pub(crate) async fn exchange_run_times(&self) -> Result<(), StoreError> {
        self.run_times.exchange(self.notes(), self.others_change_notes(), now()).await
    }

    /// Writes how long runs took, for the last time.
    ///
    /// # Errors
    /// The notes cannot be read or written.
    pub(crate) async fn write_run_times(&self) -> Result<(), StoreError> {
        self.run_times.exchange(self.notes(), false, now()).await
    }
}

impl RunTimeBooks {
    fn all(&self) -> [&RunTimeBook; 4] {
        [&self.kept, &self.others, &self.in_flight, &self.pending]
    }
}

/// The name of an argument in a key.
fn name_of(argument: &Argument) -> String {
    match argument {
        Argument::Name(name) => name.clone(),
        Argument::Position(at) => at.to_string(),
    }
}

#[cfg(test)]
mod tests;

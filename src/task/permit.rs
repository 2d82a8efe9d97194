//! Named locks and limits for bodies: "eight connections to this SMS gateway", whatever tasks, queues and processes want one.
//!
//! A [`Permit`] is had through the [`Context`](super::Context), is renewed for as long as its process lives, and is given back
//! when it is dropped, at the latest when its run ends. It can be handed over to a task that follows, and is not free in
//! between. Whoever waits for one in a body occupies a worker; [`Limits::or_postpone`] does not.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, Headers, Interrupt, Message, TaskError, TaskId};
pub use crate::core::permits::{PermitHolder, Want};

/// The header in which a permit travels.
const HEADER: &str = "celeriac_permit";
/// How long a permit that was handed over waits for its task, if nothing else is said.
const HANDED_OVER_FOR: Duration = Duration::from_secs(600);
/// The longest name, in bytes.
const LONGEST_NAME: usize = 512;
/// The longest pause between two looks whether a permit is free.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What came of asking for permits.
#[derive(Clone, Debug)]
pub enum Asked {
    /// They are had.
    Granted {
        /// A token for each, in the order in which they were asked for.
        tokens: Vec<u64>,
        /// Becomes true should they be lost before they are given back: their keeper forgot them, or this process was
        /// away for longer than their lease.
        lost: Arc<AtomicBool>,
    },
    /// None of them is, because the one at this place is held by too many.
    Busy(usize),
}

/// Who keeps permits: [`store::Store::permits`](crate::store::Store::permits).
#[async_trait]
pub trait PermitKeeper: Send + Sync + 'static {
    /// All of these for this holder, or none; what it holds already stays its own. From then on the keeper renews them.
    ///
    /// # Errors
    /// Whether they are held is not known.
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<Asked, String>;

    /// Gives them back, soon. Does not wait and does not fail: what cannot be given back goes with its lease.
    fn release(&self, wants: &[Want], holder: &str);

    /// Renews them no longer, and keeps them for so long from now, also through the end of this process.
    fn park(&self, wants: &[Want], holder: &str, within: Duration);

    /// Completes when it is worth asking again, at the latest after this long.
    async fn freed(&self, at_most: Duration);

    /// Who holds permits of this name.
    ///
    /// # Errors
    /// It cannot be read.
    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, String>;
}

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitError {
    /// Too many hold one.
    #[error("no permit `{name}` within {waited:?}: {limit} may be held at a time, and are")]
    Busy {
        /// Its name.
        name: String,
        /// How many may be held.
        limit: u32,
        /// How long was waited.
        waited: Duration,
    },
    /// The store does not answer.
    #[error(
        "whether permit `{name}` is free is not known: {error}; a task that may go on without one says `.fail_open()`"
    )]
    Unknown {
        /// Its name.
        name: String,
        /// What the store said.
        error: String,
    },
    /// Nobody keeps permits.
    #[error(
        "nobody keeps permit `{name}` for all processes: with RabbitMQ, keep results in Redis (`.result_backend(\"redis://…\")`); a context of no queue has none"
    )]
    NoKeeper {
        /// Its name.
        name: String,
    },
    /// A name that is not usable.
    #[error("a permit's name has 1 to {LONGEST_NAME} bytes, and this one has {0}")]
    Name(usize),
    /// The body was told to end while it waited.
    #[error("the wait for a permit was ended")]
    Interrupted(#[from] Interrupt),
}

/// Permits to be asked for, together. Made by [`Context::limit`], [`Context::lock`] and [`Context::locks`].
#[must_use = "nothing is held until a permit is acquired"]
pub struct Limits {
    context: Context,
    keeper: Option<Arc<dyn PermitKeeper>>,
    wants: Vec<Want>,
    fail_open: bool,
}

impl Limits {
    pub(super) fn new(context: Context, keeper: Option<Arc<dyn PermitKeeper>>, wants: Vec<Want>) -> Self {
        Self { context, keeper, wants, fail_open: false }
    }

    /// And one of this name too, all or nothing.
    pub fn and(mut self, name: impl Into<String>, limit: u32) -> Self {
        self.wants.push(Want { name: name.into(), limit });
        self
    }

    /// Where it cannot be known whether a permit is free, because the store is away or nobody keeps permits, the body goes on
    /// without one ([`Permit::is_guarded`] says so), instead of failing. For what is better done too often than not at all.
    pub fn fail_open(mut self) -> Self {
        self.fail_open = true;
        self
    }

    /// The permit, if it is to be had now.
    ///
    /// # Errors
    /// See [`PermitError`], except `Busy`.
    pub async fn try_acquire(mut self) -> Result<Option<Permit>, PermitError> {
        self.check()?;
        let holder = self.holder();
        Ok(self.ask(&holder).await?.ok())
    }

    /// Waits until the permit is to be had, or the body is told to end. Nobody is promised a turn. The worker is occupied
    /// meanwhile.
    ///
    /// # Errors
    /// See [`PermitError`], except `Busy`.
    pub async fn acquire(self) -> Result<Permit, PermitError> {
        self.wait(None).await
    }

    /// Waits for the permit, but not longer than this.
    ///
    /// # Errors
    /// See [`PermitError`].
    pub async fn acquire_within(self, patience: Duration) -> Result<Permit, PermitError> {
        self.wait(Some(patience)).await
    }

    /// The permit, if it is to be had now; else an error that postpones the task by `delay`. It burns no attempt, and gives the
    /// worker to another task: `let _permit = ctx.limit("sms-gateway", 8).or_postpone(d).await?;`
    ///
    /// # Errors
    /// Postponed, or a failure with a [`PermitError`].
    pub async fn or_postpone(self, delay: Duration) -> Result<Permit, TaskError> {
        self.try_acquire().await?.ok_or_else(|| TaskError::postpone(delay))
    }

    /// As [`acquire`](Self::acquire), for bodies that are plain functions: blocks this thread.
    ///
    /// # Errors
    /// See [`PermitError`], except `Busy`.
    pub fn acquire_blocking(mut self) -> Result<Permit, PermitError> {
        self.check()?;
        let holder = self.holder();
        let mut pause = Duration::from_millis(5);
        loop {
            if let Ok(permit) = futures_executor::block_on(self.ask(&holder))? {
                return Ok(permit);
            }
            self.context.check()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn wait(mut self, patience: Option<Duration>) -> Result<Permit, PermitError> {
        self.check()?;
        let holder = self.holder();
        let start = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let busy = match self.ask(&holder).await? {
                Ok(permit) => return Ok(permit),
                Err(busy) => busy,
            };
            let waited = start.elapsed();
            let left = patience.map_or(pause, |patience| patience.saturating_sub(waited));
            if left.is_zero() {
                let Want { name, limit } = self.wants[busy].clone();
                return Err(PermitError::Busy { name, limit, waited });
            }
            if let Some(keeper) = &self.keeper {
                tokio::select! {
                    interrupt = self.context.interrupted() => return Err(interrupt.into()),
                    () = keeper.freed(pause.min(left)) => {}
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Puts the names in order, each once, with the lowest limit that was said of it.
    fn check(&mut self) -> Result<(), PermitError> {
        self.wants.sort();
        self.wants.dedup_by(|later, first| later.name == first.name);
        match self.wants.iter().map(|want| want.name.len()).find(|len| !(1..=LONGEST_NAME).contains(len)) {
            Some(len) => Err(PermitError::Name(len)),
            None => Ok(()),
        }
    }

    /// A name for who asks, unlike all others.
    fn holder(&self) -> String {
        format!("{}/{}", self.context.id(), TaskId::new())
    }

    /// The place of the one that is busy, if it is.
    async fn ask(&self, holder: &str) -> Result<Result<Permit, usize>, PermitError> {
        let first = || self.wants.first().map(|want| want.name.clone()).unwrap_or_default();
        let asked = match &self.keeper {
            Some(keeper) => {
                // Should nobody wait for the answer any more, it is given back if it was had.
                let mut unanswered = Unanswered { keeper: Some(keeper), wants: &self.wants, holder };
                let asked = keeper.acquire(&self.wants, holder).await;
                unanswered.keeper = None;
                asked.map_err(|error| PermitError::Unknown { name: first(), error })
            }
            None => Err(PermitError::NoKeeper { name: first() }),
        };
        match (asked, &self.keeper) {
            (Ok(Asked::Busy(place)), _) => Ok(Err(place)),
            (Ok(Asked::Granted { tokens, lost }), Some(keeper)) => {
                let held = Held {
                    keeper: Arc::clone(keeper),
                    wants: self.wants.clone(),
                    holder: holder.to_owned(),
                    tokens,
                    lost,
                    is_over: AtomicBool::new(false),
                };
                let held = Arc::new(held);
                self.context.holds(&held);
                Ok(Ok(Permit { held: Some(held) }))
            }
            (Err(error), _) if self.fail_open => {
                tracing::warn!(id = %self.context.id(), %error, "a task goes on without a permit, as it wants to");
                Ok(Ok(Permit { held: None }))
            }
            (Err(error), _) => Err(error),
            (Ok(_), None) => Err(PermitError::NoKeeper { name: first() }),
        }
    }
}

/// A question whose answer is not there; dropped, it is taken back.
struct Unanswered<'a> {
    keeper: Option<&'a Arc<dyn PermitKeeper>>,
    wants: &'a [Want],
    holder: &'a str,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper {
            keeper.release(self.wants, self.holder);
        }
    }
}

/// A permit, or several that were asked for together. Dropped, it is given back.
#[must_use = "dropped, it is given back at once"]
pub struct Permit {
    held: Option<Arc<Held>>,
}

impl Permit {
    /// The token of the first name, in their alphabetical order: grows with each grant of a permit of that name. Hand it on
    /// to what is written to, and have it refuse lower ones: a process that was frozen for longer than its lease may go on
    /// when others have its permit. 0: it is not guarded.
    pub fn token(&self) -> u64 {
        self.held.as_ref().and_then(|held| held.tokens.first().copied()).unwrap_or(0)
    }

    /// The token of the permit of this name.
    pub fn token_of(&self, name: &str) -> Option<u64> {
        let held = self.held.as_ref()?;
        let at = held.wants.iter().position(|want| want.name == name)?;
        held.tokens.get(at).copied()
    }

    /// Whether it is one: [`fail_open`](Limits::fail_open) lets a body go on without.
    pub fn is_guarded(&self) -> bool {
        self.held.is_some()
    }

    /// Whether it was lost meanwhile, so that others may have it.
    pub fn is_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.lost.load(Ordering::Acquire))
    }

    /// Puts it into the headers of a call: it is the call's from now on.
    pub(super) fn into_headers(mut self, headers: &mut Headers, within: Option<Duration>) {
        let Some(held) = self.held.take() else { return };
        if held.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        let within = within.unwrap_or(HANDED_OVER_FOR);
        held.keeper.park(&held.wants, &held.holder, within);
        let (wants, holder) = (held.wants.clone(), held.holder.clone());
        let handed = HandedOver { wants, holder, within };
        if let Ok(text) = serde_json::to_string(&handed) {
            headers.0.insert(HEADER.to_owned(), Value::from(text));
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.held.iter().flat_map(|held| held.wants.iter().map(|want| &want.name));
        f.debug_tuple("Permit").field(&names.collect::<Vec<_>>()).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.release();
        }
    }
}

/// What a permit stands for; it is given back once, by whoever comes first: the permit, or the end of its run.
pub(super) struct Held {
    keeper: Arc<dyn PermitKeeper>,
    wants: Vec<Want>,
    holder: String,
    tokens: Vec<u64>,
    lost: Arc<AtomicBool>,
    is_over: AtomicBool,
}

impl Held {
    fn release(&self) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.keeper.release(&self.wants, &self.holder);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// A permit on its way to the task that is to have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    wants: Vec<Want>,
    holder: String,
    within: Duration,
}

impl HandedOver {
    /// The permit that travels with a message, if any.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        message.headers.0.get(HEADER)?.as_str().and_then(|text| serde_json::from_str(text).ok())
    }

    /// The task never runs.
    pub(crate) fn release(&self, keeper: &dyn PermitKeeper) {
        keeper.release(&self.wants, &self.holder);
    }
}

/// The permits of one run.
#[derive(Default)]
pub(super) struct RunPermits {
    held: Mutex<Vec<Arc<Held>>>,
    /// What it was handed over and has not taken.
    handed: Mutex<Option<(Permit, HandedOver)>>,
    /// It was handed over something, whatever became of it.
    was_handed: AtomicBool,
}

impl RunPermits {
    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, held: &Arc<Held>) {
        let mut all = Self::lock(&self.held);
        all.retain(|held| !held.is_over.load(Ordering::Acquire));
        all.push(Arc::clone(held));
    }

    /// What was handed over to the run is its own.
    pub(super) fn take(&self) -> Option<Permit> {
        Self::lock(&self.handed).take().map(|(permit, _)| permit)
    }

    /// The run takes what travels with its message.
    pub(super) async fn adopt(
        &self,
        context: &Context,
        keeper: Option<Arc<dyn PermitKeeper>>,
        handed: HandedOver,
    ) -> bool {
        let limits = Limits::new(context.clone(), keeper, handed.wants.clone());
        match limits.ask(&handed.holder).await {
            Ok(Ok(permit)) => {
                self.was_handed.store(true, Ordering::Release);
                *Self::lock(&self.handed) = Some((permit, handed));
                true
            }
            Ok(Err(_)) => false,
            Err(error) => {
                tracing::warn!(id = %context.id(), %error, "a permit that was handed over cannot be had");
                false
            }
        }
    }

    /// The run has ended. `again`: its message waits for another one, which is to find what was handed over.
    pub(super) fn end(
        &self,
        travels: Option<HandedOver>,
        again: bool,
        keeper: Option<&Arc<dyn PermitKeeper>>,
    ) {
        let handed = Self::lock(&self.handed).take();
        match handed {
            Some((mut permit, handed)) if again => {
                if let Some(held) = permit.held.take()
                    && !held.is_over.swap(true, Ordering::AcqRel)
                {
                    held.keeper.park(&handed.wants, &handed.holder, handed.within);
                }
            }
            Some(_) => {}
            // It ended before it began.
            None if !again && !self.was_handed.load(Ordering::Acquire) => {
                if let (Some(handed), Some(keeper)) = (travels, keeper) {
                    handed.release(&**keeper);
                }
            }
            None => {}
        }
        let held = std::mem::take(&mut *Self::lock(&self.held));
        held.iter().for_each(|held| held.release());
    }
}

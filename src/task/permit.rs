//! Named locks and limits for bodies, such as "eight connections to this SMS gateway". They hold across tasks, queues
//! and processes.
//!
//! A body gets a [`Permit`] through its [`Context`](super::Context). The keeper renews the permit as long as its
//! process lives. Dropping the permit gives it back; the end of the run does so at the latest. A body can hand a permit
//! over to a task that follows, and nobody else gets it in between. A body that waits for a permit occupies a worker;
//! [`Limits::or_postpone`] does not.

mod body_elsewhere;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::body_elsewhere::HandedPermit;
use super::{Context, Headers, Interrupt, Message, TaskError, TaskId};
use crate::core::Backoff;
use crate::core::IoFailure;
pub use crate::core::permits::{PermitHolder, Want};

/// The header in which a permit travels with a task.
const HEADER: &str = "celeriac_permit";
/// The time that a permit waits for the task it was handed over to, unless the call states another.
const HANDED_OVER_FOR: Duration = Duration::from_secs(600);
/// The longest name of a permit, in bytes.
const LONGEST_NAME: usize = 512;
/// The longest pause between two looks at whether a permit is free.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The answer to a request for permits.
#[derive(Clone, Debug)]
pub enum PermitAnswer {
    /// All of the permits are held now.
    Granted {
        /// The token of each permit, in the order of the request.
        tokens: Vec<u64>,
        /// A flag that becomes true if the permits are lost before they are given back, because the keeper forgot them
        /// or this process was away for longer than their lease.
        lost: Arc<AtomicBool>,
    },
    /// None of the permits is held, because too many hold the one at this place of the request.
    Busy(usize),
}

/// The keeper of permits: [`store::Store::permits`](crate::store::Store::permits) has one for each store.
#[async_trait]
pub trait PermitKeeper: Send + Sync + 'static {
    /// Acquires all of these permits for `holder`, or none. Permits that the holder has already stay its own. From then
    /// on the keeper renews them.
    ///
    /// # Errors
    /// It is not known whether the permits are held.
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure>;

    /// Gives the permits back soon. It does not wait and does not fail: a permit that cannot be given back ends with
    /// its lease.
    fn release(&self, wants: &[Want], holder: &str);

    /// Stops renewing the permits and keeps them for the time `within` from now, even if this process ends.
    fn park(&self, wants: &[Want], holder: &str, within: Duration);

    /// Waits until it is worth asking again, at most for the time `at_most`.
    async fn freed(&self, at_most: Duration);

    /// The holders of the permit of this name.
    ///
    /// # Errors
    /// The holders cannot be read.
    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure>;
}

/// The reason why there is no permit.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitError {
    /// As many as may hold the permit do hold it.
    #[error("no permit `{name}` within {waited:?}: {limit} may be held at a time, and are")]
    Busy {
        /// The permit's name.
        name: String,
        /// The number of holders that the limit allows.
        limit: u32,
        /// The time that the body waited.
        waited: Duration,
    },
    /// The store does not answer.
    #[error(
        "whether permit `{name}` is free is not known: {source}; a task that may go on without one says `.fail_open()`"
    )]
    Unknown {
        /// The permit's name.
        name: String,
        /// The error of the store.
        source: IoFailure,
    },
    /// The program has no keeper of permits.
    #[error(
        "nobody keeps permit `{name}` for all processes: with RabbitMQ, keep results in Redis (`.result_backend(\"redis://…\")`); a context of no queue has none"
    )]
    NoKeeper {
        /// The permit's name.
        name: String,
    },
    /// The name of a permit is not usable; the number is its length in bytes.
    #[error("a permit's name has 1 to {LONGEST_NAME} bytes, and this one has {0}")]
    Name(usize),
    /// The body was told to end while it waited.
    #[error("the wait for a permit was ended")]
    Interrupted(#[from] Interrupt),
}

crate::core::debug_as_display!(PermitError);

/// Permits that a body is going to ask for together. [`Context::limit`], [`Context::lock`] and [`Context::locks`] make
/// them.
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

    /// Adds a permit of this name to the request. The body gets all of them or none.
    pub fn and(mut self, name: impl Into<String>, limit: u32) -> Self {
        self.wants.push(Want { name: name.into(), limit });
        self
    }

    /// Lets the body go on without a permit instead of failing, if it cannot be known whether the permit is free: the
    /// store is away, or nobody keeps permits. [`Permit::is_guarded`] says which of the two the body got. It suits work
    /// that is better done too often than not at all.
    pub fn fail_open(mut self) -> Self {
        self.fail_open = true;
        self
    }

    /// Acquires the permit if it is free now, and does not wait. The answer is `None` if it is not free.
    ///
    /// # Errors
    /// Any [`PermitError`] but `Busy`.
    pub async fn try_acquire(mut self) -> Result<Option<Permit>, PermitError> {
        self.check()?;
        let holder = self.holder();
        Ok(self.ask(&holder).await?.ok())
    }

    /// Waits until the permit is free, or until the body is told to end. The waiting bodies are served in no fixed
    /// order. The body occupies its worker while it waits.
    ///
    /// # Errors
    /// Any [`PermitError`] but `Busy`.
    pub async fn acquire(self) -> Result<Permit, PermitError> {
        self.wait(None).await
    }

    /// Waits for the permit at most for the time `patience`.
    ///
    /// # Errors
    /// Any [`PermitError`].
    pub async fn acquire_within(self, patience: Duration) -> Result<Permit, PermitError> {
        self.wait(Some(patience)).await
    }

    /// Acquires the permit if it is free now. If it is not, the error postpones the task by `delay`, which burns no
    /// attempt and gives the worker to another task: `let _permit = ctx.limit("sms-gateway", 8).or_postpone(d).await?;`
    ///
    /// # Errors
    /// The error postpones the task, or is a failure with a [`PermitError`].
    pub async fn or_postpone(self, delay: Duration) -> Result<Permit, TaskError> {
        self.try_acquire().await?.ok_or_else(|| TaskError::postpone(delay))
    }

    /// Does the same as [`acquire`](Self::acquire), for bodies that are a plain `fn`. It blocks this thread.
    ///
    /// # Errors
    /// Any [`PermitError`] but `Busy`.
    pub fn acquire_blocking(mut self) -> Result<Permit, PermitError> {
        self.check()?;
        let holder = self.holder();
        let mut backoff = Backoff::new(Duration::from_millis(5), LONGEST_PAUSE);
        loop {
            if let Ok(permit) = futures_executor::block_on(self.ask(&holder))? {
                return Ok(permit);
            }
            self.context.check()?;
            std::thread::sleep(backoff.pause());
        }
    }

    async fn wait(mut self, patience: Option<Duration>) -> Result<Permit, PermitError> {
        self.check()?;
        let holder = self.holder();
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(20), LONGEST_PAUSE);
        loop {
            let busy = match self.ask(&holder).await? {
                Ok(permit) => return Ok(permit),
                Err(busy) => busy,
            };
            let waited = start.elapsed();
            let pause = backoff.pause();
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
        }
    }

    /// Sorts the names and keeps each once, with the lowest limit that was stated for it.
    fn check(&mut self) -> Result<(), PermitError> {
        self.wants.sort();
        self.wants.dedup_by(|later, first| later.name == first.name);
        match self.wants.iter().map(|want| want.name.len()).find(|len| !(1..=LONGEST_NAME).contains(len)) {
            Some(len) => Err(PermitError::Name(len)),
            None => Ok(()),
        }
    }

    /// Makes a name for this request, unlike that of any other.
    fn holder(&self) -> String {
        format!("{}/{}", self.context.id(), TaskId::new())
    }

    /// Asks the keeper once. The inner error is the place of the permit that is not free.
    async fn ask(&self, holder: &str) -> Result<Result<Permit, usize>, PermitError> {
        let first = || self.wants.first().map(|want| want.name.clone()).unwrap_or_default();
        let asked = match &self.keeper {
            Some(keeper) => {
                // If the caller drops this future before the answer comes, a permit that was granted is given back.
                let mut unanswered = Unanswered { keeper: Some(keeper), wants: &self.wants, holder };
                let asked = keeper.acquire(&self.wants, holder).await;
                unanswered.keeper = None;
                asked.map_err(|source| PermitError::Unknown { name: first(), source })
            }
            None => Err(PermitError::NoKeeper { name: first() }),
        };
        match (asked, &self.keeper) {
            (Ok(PermitAnswer::Busy(place)), _) => Ok(Err(place)),
            (Ok(PermitAnswer::Granted { tokens, lost }), Some(keeper)) => {
                let held = HeldPermit {
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

/// A request whose answer has not come. If it is dropped, what it may have acquired is given back.
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

/// A permit, or several that were asked for together. Dropping it gives it back.
#[must_use = "dropped, it is given back at once"]
pub struct Permit {
    held: Option<Arc<HeldPermit>>,
}

impl Permit {
    /// The fencing token of the first name in alphabetical order. It grows with each grant of a permit of that name.
    /// Pass it on to the storage that the run writes to, and let that storage refuse lower numbers: a process that was
    /// frozen for longer than its lease may go on while others have its permit. The token is 0 if the permit is not
    /// [guarded](Self::is_guarded).
    pub fn token(&self) -> u64 {
        self.held.as_ref().and_then(|held| held.tokens.first().copied()).unwrap_or(0)
    }

    /// The fencing token of the permit of this name. It is `None` if this permit has no such name.
    pub fn token_of(&self, name: &str) -> Option<u64> {
        let held = self.held.as_ref()?;
        let at = held.wants.iter().position(|want| want.name == name)?;
        held.tokens.get(at).copied()
    }

    /// Whether the body really holds the permit: with [`fail_open`](Limits::fail_open) it may go on without one.
    pub fn is_guarded(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the permit was lost in the meantime, so that others may have it.
    pub fn is_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.lost.load(Ordering::Acquire))
    }

    /// Puts the permit into the headers of a call. From now on it belongs to the called task.
    pub(super) fn into_headers(mut self, headers: &mut Headers, within: Option<Duration>) {
        let Some(held) = self.held.take() else { return };
        // A permit that was given back already cannot be handed over.
        if held.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        let within = within.unwrap_or(HANDED_OVER_FOR);
        // The keeper keeps the permit for the task even if this process ends.
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

/// The grant behind a permit. It is given back once, either by the permit or by the end of its run, whichever comes
/// first.
pub(super) struct HeldPermit {
    keeper: Arc<dyn PermitKeeper>,
    wants: Vec<Want>,
    holder: String,
    tokens: Vec<u64>,
    lost: Arc<AtomicBool>,
    is_over: AtomicBool,
}

impl HeldPermit {
    fn release(&self) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.keeper.release(&self.wants, &self.holder);
        }
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        self.release();
    }
}

/// A permit on its way to the task that it was handed over to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    wants: Vec<Want>,
    holder: String,
    within: Duration,
}

impl HandedOver {
    /// The permit that travels with a message, if there is one.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        Self::of_headers(&message.headers)
    }

    /// The permit that travels with these headers, if there is one.
    pub(crate) fn of_headers(headers: &Headers) -> Option<Self> {
        headers.0.get(HEADER)?.as_str().and_then(|text| serde_json::from_str(text).ok())
    }

    /// Gives the permit back, because the task will never run.
    pub(crate) fn release(&self, keeper: &dyn PermitKeeper) {
        keeper.release(&self.wants, &self.holder);
    }
}

/// The permits of one run.
#[derive(Default)]
pub(super) struct RunPermits {
    held: Mutex<Vec<Arc<HeldPermit>>>,
    /// The permit that was handed over to the run, until the body takes it.
    handed: Mutex<Option<(Permit, HandedOver)>>,
    /// Whether a permit was handed over to the run, whatever became of it.
    was_handed: AtomicBool,
}

impl RunPermits {
    fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
        mutex.lock()
    }

    pub(super) fn hold(&self, held: &Arc<HeldPermit>) {
        let mut all = Self::lock(&self.held);
        all.retain(|held| !held.is_over.load(Ordering::Acquire));
        all.push(Arc::clone(held));
    }

    /// Gives the body the permit that was handed over to its run.
    pub(super) fn take(&self) -> Option<Permit> {
        Self::lock(&self.handed).take().map(|(permit, _)| permit)
    }

    /// Acquires the permit that travels with the run's message. The answer is `false` if it cannot be had.
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

    /// Gives the permits back at the end of the run. With `again`, the message waits for another run, so the permit
    /// that was handed over is kept for that run.
    pub(super) fn end(
        &self,
        travels: Option<HandedOver>,
        again: bool,
        keeper: Option<&Arc<dyn PermitKeeper>>,
    ) {
        let handed = Self::lock(&self.handed).take();
        match handed {
            // The next run finds the permit under the holder that the message names.
            Some((mut permit, handed)) if again => {
                if let Some(held) = permit.held.take()
                    && !held.is_over.swap(true, Ordering::AcqRel)
                {
                    held.keeper.park(&handed.wants, &handed.holder, handed.within);
                }
            }
            // The permit is dropped here, which gives it back.
            Some(_) => {}
            // The task ended before its run began.
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

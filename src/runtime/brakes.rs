//! The brakes that are in force in this process: those of the catalogue, and those that the fleet keeps in a note.
//!
//! Invariants:
//! - A queue asks without waiting. What is in force is a value that is exchanged as a whole.
//! - A note that cannot be read changes nothing: what was in force stays in force.
//! - A brake that goes on keeps its tokens while others come and go, so that nobody gets a burst by setting another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

use super::Runtime;
use crate::catalogue::{Argument, argument_value};
use crate::core::Timestamp;
use crate::core::brake::{
    Brake, BrakeAction, BrakeError, BrakeNote, BrakeSet, Braking, RuleMatcher, StartCount, StartHistory,
    Subject,
};
use crate::core::hold::{Hold, HoldReason};
use crate::core::token_bucket::TokenBucket;
use crate::store::{CompareAndSet, Notes, StoreError};
use crate::task::clock::now;
use crate::task::{DIVERTED, Judge, Message, Verdict};

/// The name of the note that keeps the brakes of a fleet.
pub(crate) const NOTE: &str = "brakes";

/// The brakes of this process, and the starts of its last hour.
pub(crate) struct Brakes {
    /// Whether there is any brake, so that queues need not look.
    any: AtomicBool,
    /// Whether one diverts or ends tasks.
    sends_away: AtomicBool,
    in_force: RwLock<Arc<BrakesInForce>>,
    /// Those of the catalogue.
    standing: Mutex<Vec<Brake>>,
    /// The text of the note as it was read last. It is locked while the note is read or changed, so that an older text never
    /// takes the place of a newer one.
    read: tokio::sync::Mutex<Option<String>>,
    /// The beginning of the time that token buckets count.
    since: Instant,
    /// What has started, by queue.
    starts: DashMap<String, Arc<Mutex<StartHistory>>>,
}

impl Default for Brakes {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            sends_away: AtomicBool::new(false),
            in_force: RwLock::default(),
            standing: Mutex::default(),
            read: tokio::sync::Mutex::default(),
            since: Instant::now(),
            starts: DashMap::new(),
        }
    }
}

/// All brakes that are in force at a time, each with what a hold says of it.
#[derive(Default)]
pub(crate) struct BrakesInForce {
    set: BrakeSet,
    held: Vec<BrakeHold>,
}

/// What this process keeps for one brake.
struct BrakeHold {
    reason: HoldReason,
    until: Option<Timestamp>,
    bucket: Option<Arc<Mutex<TokenBucket>>>,
}

impl Brakes {
    /// Whether there is any brake.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether a brake diverts or ends tasks, so that those that match must not wait for their start.
    pub(crate) fn send_away(&self) -> bool {
        self.sends_away.load(Ordering::Acquire)
    }

    /// Those that are in force and have not ended, the oldest first.
    pub(crate) fn list(&self) -> Vec<Brake> {
        let (in_force, now) = (self.in_force(), now());
        in_force.set.brakes().filter(|brake| !brake.has_ended(now)).cloned().collect()
    }

    /// The starts of a queue, which whoever starts its tasks notes there.
    pub(crate) fn starts_of(&self, queue: &str) -> Arc<Mutex<StartHistory>> {
        match self.starts.get(queue) {
            Some(starts) => Arc::clone(&starts),
            None => Arc::clone(&self.starts.entry(queue.to_owned()).or_default()),
        }
    }

    /// How many starts of the last hour, in this process, match the rule, whatever their arguments were.
    pub(crate) fn count_starts(&self, matcher: &RuleMatcher) -> StartCount {
        let now = now();
        self.starts.iter().fold(StartCount::default(), |sum, queue| {
            let count = queue.value().lock().count(queue.key(), matcher, now);
            StartCount { starts: sum.starts + count.starts, unknown: sum.unknown + count.unknown }
        })
    }

    fn in_force(&self) -> Arc<BrakesInForce> {
        Arc::clone(&self.in_force.read())
    }

    /// Puts these brakes into force, with those of the catalogue.
    fn put(&self, kept: Vec<Brake>) {
        let standing = self.standing.lock().clone();
        let (set, wrong) = BrakeSet::new(standing.into_iter().chain(kept));
        for (brake, error) in wrong {
            tracing::error!(%brake, %error, "a brake is not in force here");
        }
        let mut in_force = self.in_force.write();
        let held = set.brakes().zip(set.rates());
        let held = held.map(|(brake, rate)| BrakeHold {
            reason: reason_of(brake),
            until: brake.until,
            bucket: rate.map(|rate| in_force.bucket_of(brake).unwrap_or_else(|| self.full_bucket(rate))),
        });
        let held = held.collect();
        let (any, sends_away) = (!set.is_empty(), set.sends_away());
        *in_force = Arc::new(BrakesInForce { set, held });
        drop(in_force);
        self.any.store(any, Ordering::Release);
        self.sends_away.store(sends_away, Ordering::Release);
    }

    fn full_bucket(&self, per_second: f64) -> Arc<Mutex<TokenBucket>> {
        Arc::new(Mutex::new(TokenBucket::new(per_second, self.since.elapsed())))
    }
}

impl BrakesInForce {
    /// The tokens of a brake that is in force already, and has the same rate.
    fn bucket_of(&self, brake: &Brake) -> Option<Arc<Mutex<TokenBucket>>> {
        let at = self.set.brakes().position(|old| old.id == brake.id && old.action == brake.action)?;
        self.held.get(at)?.bucket.clone()
    }

    /// The hold of a brake, by the number that the set has given.
    fn hold(&self, index: usize, wait: Option<Duration>) -> Hold {
        Hold { reason: self.held[index].reason.clone(), wait }
    }

    /// Takes a token of a brake that slows, or with `peek` only looks whether there is one.
    ///
    /// # Errors
    /// There is none, and will be one after this long.
    fn token(&self, index: usize, peek: bool, now: Duration) -> Result<(), Duration> {
        match &self.held[index].bucket {
            Some(bucket) if peek => {
                let mut copy = *bucket.lock();
                copy.take(now)
            }
            Some(bucket) => bucket.lock().take(now),
            None => Ok(()),
        }
    }
}

fn reason_of(brake: &Brake) -> HoldReason {
    HoldReason::Brake {
        id: brake.id.as_str().into(),
        action: brake.action.to_string().into(),
        reason: brake.reason.as_deref().map(Into::into),
        owner: brake.owner.as_deref().map(Into::into),
        until: brake.until,
    }
}

/// The brakes as one look at what may start asks them.
pub(crate) struct BrakeRound(Arc<BrakesInForce>);

impl BrakeRound {
    /// `None`: there is no brake.
    pub(super) fn begin(runtime: &Runtime) -> Option<Self> {
        let brakes = &runtime.brakes;
        brakes.any().then(|| Self(brakes.in_force()))
    }

    /// Whether a task may start as far as brakes are asked. Answers with the brakes whose tokens its start
    /// [takes](Self::take).
    ///
    /// # Errors
    /// A brake holds it back.
    pub(super) fn look(&self, runtime: &Runtime, message: &Message) -> Result<Vec<usize>, Hold> {
        let now = now();
        let set = &self.0.set;
        match runtime.as_subject(set, message, |subject| set.decide(subject, now)) {
            Braking::Free => Ok(Vec::new()),
            Braking::Slow(slow) => self.tokens(runtime, &slow, true).map(|()| slow),
            Braking::Pause(index) => {
                let until = self.0.held[index].until;
                Err(self.0.hold(index, until.map(|until| until.since(now))))
            }
            // The queue is about to be told of this brake, and sends the task away then.
            Braking::Divert(index) | Braking::Expire(index) => Err(self.0.hold(index, None)),
        }
    }

    /// Takes the tokens of a start that nothing else holds back.
    ///
    /// # Errors
    /// Another queue has taken a token since the look.
    pub(super) fn take(&self, runtime: &Runtime, slow: &[usize]) -> Result<(), Hold> {
        self.tokens(runtime, slow, false)
    }

    /// What a brake says to a task whose turn has not come, because it holds others back that came before.
    pub(super) fn hold(&self, index: usize) -> Hold {
        self.0.hold(index, None)
    }

    fn tokens(&self, runtime: &Runtime, slow: &[usize], peek: bool) -> Result<(), Hold> {
        let elapsed = runtime.brakes.since.elapsed();
        for index in slow {
            if let Err(wait) = self.0.token(*index, peek, elapsed) {
                // The brake may end before it has a token again.
                let ends_in = self.0.held[*index].until.map(|until| until.since(now()));
                let wait = ends_in.map_or(wait, |ends_in| wait.min(ends_in));
                return Err(self.0.hold(*index, Some(wait)));
            }
        }
        Ok(())
    }
}

impl Runtime {
    /// The end of a task that must not wait here for its start, because a brake diverts or ends it. `None`: it may wait.
    pub(crate) fn sent_away(&self, message: &Message) -> Option<Verdict> {
        if !self.brakes.send_away() {
            return None;
        }
        let (in_force, now) = (self.brakes.in_force(), now());
        let set = &in_force.set;
        let judge = Judge::unstarted(message, now);
        match self.as_subject(set, message, |subject| set.decide(subject, now)) {
            Braking::Expire(index) => {
                let brake = set.brake(index)?;
                tracing::debug!(id = %message.id, task = message.task, brake = brake.id, "a brake ends a task");
                Some(judge.expired_by(&reason_of(brake).to_string()))
            }
            Braking::Divert(index) => match &set.brake(index)?.action {
                BrakeAction::Divert { divert_to } => {
                    tracing::debug!(id = %message.id, task = message.task, divert_to, "a brake diverts a task");
                    Some(judge.diverted(divert_to))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Looks at a message as brakes do.
    fn as_subject<T>(&self, set: &BrakeSet, message: &Message, look: impl FnOnce(&Subject<'_>) -> T) -> T {
        let dispatcher = &self.dispatcher;
        let params = dispatcher.registry.get(&message.task).map_or(&[] as &[&str], |task| task.params);
        // Only those that divert want to know it.
        let stays = set.diverts()
            && (message.headers.0.contains_key(DIVERTED) || dispatcher.route.is_broadcast(&message.queue));
        subject(message, params, stays, look)
    }

    /// Makes the brakes of the catalogue hold here, and reads those that are kept.
    ///
    /// # Errors
    /// The notes cannot be read.
    pub(crate) async fn begin_brakes(&self, standing: Vec<Brake>) -> Result<(), StoreError> {
        *self.brakes.standing.lock() = standing;
        self.brakes.put(Vec::new());
        self.read_brakes().await.map(drop)
    }

    /// Reads the note of brakes. Answers whether it says something new, which the queues are to be told.
    ///
    /// # Errors
    /// The note cannot be read.
    pub(crate) async fn read_brakes(&self) -> Result<bool, StoreError> {
        let mut read = self.brakes.read.lock().await;
        let text = self.notes().note(NOTE).await?;
        if text == *read {
            return Ok(false);
        }
        self.take_note(text, &mut read);
        Ok(true)
    }

    /// Changes the note of brakes, and puts it into force here.
    ///
    /// # Errors
    /// The inner error is that of `change`; then nothing has changed. The outer one: the store does not answer, and it is not
    /// known whether the note has changed.
    pub(crate) async fn change_brakes<T>(
        &self,
        change: impl Fn(&BrakeNote) -> Result<(BrakeNote, T), BrakeError>,
    ) -> Result<Result<T, BrakeError>, StoreError> {
        let mut read = self.brakes.read.lock().await;
        let (text, answer) = match change_note(self.notes(), change).await? {
            Ok(changed) => changed,
            Err(error) => return Ok(Err(error)),
        };
        self.take_note(text, &mut read);
        Ok(Ok(answer))
    }

    /// Puts what the note says into force.
    fn take_note(&self, text: Option<String>, read: &mut Option<String>) {
        match BrakeNote::read(text.as_deref()) {
            Ok(note) => {
                let (brakes, unread) = note.brakes();
                if unread > 0 {
                    tracing::warn!(unread, "some brakes are of a newer version; they do not hold here");
                }
                self.brakes.put(brakes);
            }
            Err(error) => {
                tracing::error!(error, "the note of brakes cannot be read; those that held before go on");
            }
        }
        *read = text;
    }
}

/// Changes the note of brakes, whoever else does so at the same time. Answers with its text.
///
/// # Errors
/// As [`Runtime::change_brakes`].
pub(crate) async fn change_note<T>(
    notes: &dyn Notes,
    change: impl Fn(&BrakeNote) -> Result<(BrakeNote, T), BrakeError>,
) -> Result<Result<(Option<String>, T), BrakeError>, StoreError> {
    loop {
        let expected = notes.note(NOTE).await?;
        // A text that nobody can read keeps nobody from setting a brake.
        let note = BrakeNote::read(expected.as_deref()).unwrap_or_default();
        let (changed, answer) = match change(&note) {
            Ok(changed) => changed,
            Err(error) => return Ok(Err(error)),
        };
        let value = changed.text();
        if value == expected {
            return Ok(Ok((value, answer)));
        }
        let change = CompareAndSet { key: NOTE.to_owned(), expected, value: value.clone() };
        if notes.compare_and_set(change).await? {
            return Ok(Ok((value, answer)));
        }
    }
}

/// What holds a task back of the brakes that are kept in the note, whose program does not run. A brake that slows holds
/// nothing back that does not start anyway. A note that cannot be read holds nothing.
///
/// # Errors
/// The store does not answer.
#[cfg(feature = "cli")]
pub(crate) async fn kept_hold(notes: &dyn Notes, message: &Message) -> Result<Option<Hold>, StoreError> {
    let (kept, now) =
        (BrakeNote::read(notes.note(NOTE).await?.as_deref()).unwrap_or_default().brakes().0, now());
    let (set, _) = BrakeSet::new(kept);
    let stays = message.headers.0.contains_key(DIVERTED);
    let brake = match subject(message, &[], stays, |subject| set.decide(subject, now)) {
        Braking::Pause(index) | Braking::Divert(index) | Braking::Expire(index) => set.brake(index),
        Braking::Slow(_) | Braking::Free => None,
    };
    Ok(brake.map(|brake| Hold { reason: reason_of(brake), wait: brake.until.map(|until| until.since(now)) }))
}

/// Whether a rule is about this message. `params` are the names of its task's parameters, empty if they are unknown.
pub(crate) fn fits(matcher: &RuleMatcher, message: &Message, params: &[&str]) -> bool {
    subject(message, params, false, |subject| matcher.matches(subject))
}

fn subject<T>(message: &Message, params: &[&str], stays: bool, look: impl FnOnce(&Subject<'_>) -> T) -> T {
    let argument = |name: &str| argument_value(&argument_named(name), params, &message.arguments);
    look(&Subject {
        task: &message.task,
        queue: &message.queue,
        tenant: message.tenant(),
        argument: &argument,
        stays,
    })
}

/// An argument by its name, or by its position if that is a number.
fn argument_named(name: &str) -> Argument {
    name.parse().map_or_else(|_| Argument::Name(name.to_owned()), Argument::Position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::brake::BrakeRule;
    use crate::store::MemoryStore;
    use crate::task::{Arguments, Context, TENANT};

    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.task = "mail.send".into();
        message.queue = "email".into();
        message.arguments = Arguments { args: r#"[7,"acme"]"#.into(), kwargs: r#"{"to":"x"}"#.into() };
        message.headers.0.insert(TENANT.to_owned(), "acme".into());
        message
    }

    #[test]
    fn a_message_is_looked_at_with_its_tenant_and_arguments() {
        let is = |rule: BrakeRule, params: &[&str]| fits(&rule.compile().unwrap(), &message(), params);
        assert!(is(BrakeRule::new().task("mail.*").queue("email").tenant("acme"), &[]));
        assert!(
            is(BrakeRule::new().argument("1", ["ac"]), &[])
                && is(BrakeRule::new().argument("to", ["x$"]), &[])
        );
        assert!(is(BrakeRule::new().argument("domain", ["acme"]), &["user", "domain"]));
        assert!(!is(BrakeRule::new().argument("domain", ["acme"]), &[]), "nobody knows where it is");
        assert!(!is(BrakeRule::new().tenant("other"), &[]));
    }

    #[test]
    fn a_brake_keeps_its_tokens_when_another_one_comes() {
        let brakes = Brakes::default();
        let slow = Brake::new(BrakeRule::all(), BrakeAction::slow("1/h")).id("slow");
        let pause = Brake::new(BrakeRule::new().task("t"), BrakeAction::Pause).id("pause");
        brakes.put(vec![slow.clone()]);
        let bucket = brakes.in_force().bucket_of(&slow).unwrap();
        assert!(brakes.any() && !brakes.send_away());
        brakes.put(vec![pause, slow.clone()]);
        assert!(Arc::ptr_eq(&bucket, &brakes.in_force().bucket_of(&slow).unwrap()));
        let faster = Brake { action: BrakeAction::slow("2/h"), ..slow.clone() };
        brakes.put(vec![faster.clone()]);
        assert!(brakes.in_force().bucket_of(&slow).is_none());
        assert!(!Arc::ptr_eq(&bucket, &brakes.in_force().bucket_of(&faster).unwrap()));
        brakes.put(Vec::new());
        assert!(!brakes.any() && brakes.list().is_empty());
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_read_is_no_obstacle() {
        let notes = MemoryStore::default();
        let broken = CompareAndSet { key: NOTE.to_owned(), expected: None, value: Some("{".to_owned()) };
        assert!(notes.compare_and_set(broken).await.unwrap());
        let brake = Brake::new(BrakeRule::all(), BrakeAction::Pause).id("b");
        let (text, ()) =
            change_note(&notes, |note| Ok((note.with(&brake, now())?, ()))).await.unwrap().unwrap();
        assert_eq!(BrakeNote::read(text.as_deref()).unwrap().brakes(), (vec![brake], 0));
        let (text, ()) =
            change_note(&notes, |note| Ok((note.without("b", now()).0, ()))).await.unwrap().unwrap();
        assert_eq!((text, notes.note(NOTE).await.unwrap()), (None, None));
    }

    #[cfg(feature = "cli")]
    #[tokio::test]
    async fn a_task_that_was_diverted_waits_for_no_divert() {
        let notes = MemoryStore::default();
        let brake = Brake::new(BrakeRule::new().tenant("acme"), BrakeAction::divert("bulk")).id("away");
        change_note(&notes, |note| Ok((note.with(&brake, now())?, ()))).await.unwrap().unwrap();
        let mut message = message();
        let hold = kept_hold(&notes, &message).await.unwrap().expect("it waits to be diverted");
        assert_eq!(hold.reason.to_string(), "brake `away` is on it (divert to bulk)");
        message.headers.0.insert(DIVERTED.to_owned(), "email".into());
        assert_eq!(kept_hold(&notes, &message).await.unwrap(), None);
    }
}

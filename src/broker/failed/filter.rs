//! Chooses tasks by what their messages say: to list them, and to act on all that match.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use regex::Regex;

use super::FailedTask;
use crate::broker::BrokerError;
use crate::catalogue::{Argument, Catalogue, argument_value};
use crate::core::Timestamp;
use crate::core::glob::as_regex;
use crate::task::{Message, TaskId, is_searchable};

/// Which tasks are meant. Each condition that is added makes them fewer; without any, all are meant.
///
/// ```
/// use celeriac::broker::TaskFilter;
/// use celeriac::catalogue::Argument;
/// use std::time::Duration;
///
/// let filter = TaskFilter::new()
///     .task("mail.*")?
///     .queue("email_queue")
///     .error("connection refused")
///     .argument(Argument::Name("domain".into()), "acme")
///     .older_than(Duration::from_secs(3600));
/// # Ok::<(), celeriac::broker::BrokerError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    ids: Option<HashSet<TaskId>>,
    queue: Option<String>,
    task: Option<Regex>,
    error: Option<String>,
    arguments: Vec<ArgumentMatch>,
    older_than: Option<Duration>,
    younger_than: Option<Duration>,
    until: Option<Timestamp>,
    is_dead_letter: Option<bool>,
    params: Params,
    choice: FilterFunction,
    scans: bool,
    /// The argument by whose index pages of tasks are found.
    index: Option<String>,
    /// Grows with each failed task that is looked at.
    looks: Option<Arc<AtomicU64>>,
}

/// A condition that a function checks.
#[derive(Clone, Default)]
struct FilterFunction(Option<Arc<Chooses>>);

type Chooses = dyn Fn(&Message) -> bool + Send + Sync;

impl fmt::Debug for FilterFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a function" } else { "none" })
    }
}

/// A condition on the arguments of a call.
#[derive(Clone, Debug)]
enum ArgumentMatch {
    /// The argument has this value, as text without quotes or as JSON.
    Is(Argument, String),
    /// The arguments contain this text, as JSON.
    Contain(String),
}

/// Says which parameters a task has.
pub(crate) type FindParams = dyn Fn(&str) -> &'static [&'static str] + Send + Sync;

/// The parameters of the tasks of this program, if they are known.
#[derive(Clone, Default)]
pub(super) struct Params(Option<Arc<FindParams>>);

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "known" } else { "unknown" })
    }
}

impl Params {
    pub(super) fn known(find: Arc<FindParams>) -> Self {
        Self(Some(find))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    pub(super) fn of(&self, task: &str) -> &'static [&'static str] {
        self.0.as_ref().map_or(&[], |find| find(task))
    }
}

impl TaskFilter {
    /// A filter that chooses all tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses tasks of these ids.
    #[must_use]
    pub fn ids<I>(mut self, ids: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<TaskId>,
    {
        self.ids = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Chooses tasks of this queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Chooses tasks whose name matches: `*` stands for any text, `?` for one character, `[ab]` for one of these.
    ///
    /// # Errors
    /// The pattern cannot be used.
    pub fn task(mut self, pattern: &str) -> Result<Self, BrokerError> {
        let task = Regex::new(&as_regex(pattern)).map_err(|_| {
            BrokerError::Invalid(format!(
                "`{pattern}` is no pattern for names of tasks; write a name, with `*` for any text"
            ))
        })?;
        self.task = Some(task);
        Ok(self)
    }

    /// Chooses tasks of which an error contains this text: the last one, or that of an attempt that is still known. Of tasks that
    /// wait, it is that of their last attempts.
    #[must_use]
    pub fn error(mut self, text: impl Into<String>) -> Self {
        self.error = Some(text.into());
        self
    }

    /// Chooses tasks one of whose arguments has this value: a text as it is, without quotes, and any other value as JSON. An
    /// argument is found by its name where it was given by name, and by its position where it was given by position; a program
    /// that has the task finds it by name in either case.
    #[must_use]
    pub fn argument(mut self, argument: Argument, value: impl Into<String>) -> Self {
        self.arguments.push(ArgumentMatch::Is(argument, value.into()));
        self
    }

    /// Chooses tasks whose arguments contain this text, in JSON as they are sent.
    #[must_use]
    pub fn arguments_contain(mut self, text: impl Into<String>) -> Self {
        self.arguments.push(ArgumentMatch::Contain(text.into()));
        self
    }

    /// Chooses tasks that failed at least this long ago; of tasks that wait, those that were enqueued at least this long ago.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Chooses tasks that failed less than this long ago; of tasks that wait, those that were enqueued less than this long ago.
    #[must_use]
    pub fn younger_than(mut self, age: Duration) -> Self {
        self.younger_than = Some(age);
        self
    }

    /// Chooses tasks of which this function says so. It is asked last, of one task after the other, on threads of the broker's.
    /// One that only counts and chooses none can look at any number of tasks, because no list of them is made.
    #[must_use]
    pub fn matching(mut self, chooses: impl Fn(&Message) -> bool + Send + Sync + 'static) -> Self {
        self.choice = FilterFunction(Some(Arc::new(chooses)));
        self
    }

    /// Chooses tasks that failed no later than at this time; of tasks that wait, those that were enqueued no later. So what was
    /// counted at a time can be acted on later, without those that have come since.
    #[must_use]
    pub fn until(mut self, time: impl Into<Timestamp>) -> Self {
        self.until = Some(time.into());
        self
    }

    /// Chooses, of failed tasks, dead letters only, or (`false`) only those that are none. Tasks that wait are not affected.
    #[must_use]
    pub fn dead_letters(mut self, are_meant: bool) -> Self {
        self.is_dead_letter = Some(are_meant);
        self
    }

    /// Has pages of tasks made by a look through the tasks, also where there is an [index](crate::task::Message::searched) of an
    /// argument that is stated. It finds tasks that are not in the index, because they were enqueued before they declared that
    /// they are searched for by the argument. What is not made in pages never uses an index.
    #[must_use]
    pub fn scanning(mut self) -> Self {
        self.scans = true;
        self.index = None;
        self
    }

    /// Has pages of tasks found by the index of an argument that is stated, of the first for which `is_indexed` says so.
    #[must_use]
    pub(crate) fn by_index(mut self, is_indexed: impl Fn(&str) -> bool) -> Self {
        let names = self.arguments.iter().filter_map(|wanted| match wanted {
            ArgumentMatch::Is(Argument::Name(name), value) if is_searchable(value) => Some(name),
            _ => None,
        });
        let index = names.filter(|_| !self.scans).find(|name| is_indexed(name)).cloned();
        self.index = index;
        self
    }

    /// Has each failed task noted that is looked at, whether it is chosen or not.
    #[must_use]
    pub(crate) fn noting_looks(mut self, looks: Arc<AtomicU64>) -> Self {
        self.looks = Some(looks);
        self
    }

    /// The name and the value of the argument by whose index pages of tasks are found.
    pub(crate) fn indexed(&self) -> Option<(&str, &str)> {
        let index = self.index.as_ref()?;
        self.arguments.iter().find_map(|wanted| match wanted {
            ArgumentMatch::Is(Argument::Name(name), value) if name == index && is_searchable(value) => {
                Some((name.as_str(), value.as_str()))
            }
            _ => None,
        })
    }

    /// Whether tasks of this name may be chosen.
    pub(crate) fn means_task(&self, task: &str) -> bool {
        self.task.as_ref().is_none_or(|pattern| pattern.is_match(task))
    }

    /// The queue whose tasks are meant, if it is one.
    pub(crate) fn named_queue(&self) -> Option<&str> {
        self.queue.as_deref()
    }

    /// The ids of the tasks that are meant, if they are stated.
    pub(crate) fn wanted_ids(&self) -> Option<&HashSet<TaskId>> {
        self.ids.as_ref()
    }

    /// Has the queue found by an alias that this catalogue has of it.
    #[must_use]
    pub(crate) fn within(mut self, catalogue: &Catalogue) -> Self {
        let resolved = self.queue.as_deref().and_then(|queue| catalogue.resolve(queue)).map(str::to_owned);
        self.queue = resolved.or(self.queue);
        self
    }

    /// Has arguments found by their names where they were given by position.
    #[must_use]
    pub(crate) fn knowing(mut self, params: Arc<FindParams>) -> Self {
        self.params = Params::known(params);
        self
    }

    /// Whether the filter chooses this failed task at this time. One that has expired is never chosen.
    pub fn takes(&self, task: &FailedTask, now: Timestamp) -> bool {
        if let Some(looks) = &self.looks {
            looks.fetch_add(1, Ordering::Relaxed);
        }
        let says = |text: &str| {
            task.reason.contains(text) || task.attempts().iter().any(|attempt| attempt.error.contains(text))
        };
        !task.has_expired(now)
            && self.is_dead_letter.is_none_or(|is_meant| is_meant == task.is_dead_letter())
            && self.takes_message(&task.message, task.failed_at, now)
            && self.error.as_deref().is_none_or(says)
    }

    /// Whether the filter chooses this message of a task that is not over, at this time.
    pub fn takes_unfinished(&self, message: &Message, now: Timestamp) -> bool {
        let says = |text: &str| message.last_errors.iter().any(|error| error.contains(text));
        self.takes_message(message, message.enqueued_at, now) && self.error.as_deref().is_none_or(says)
    }

    /// `since` is the time from which the age counts.
    fn takes_message(&self, message: &Message, since: Timestamp, now: Timestamp) -> bool {
        let age = now.since(since);
        self.ids.as_ref().is_none_or(|ids| ids.contains(&message.id))
            && self.queue.as_ref().is_none_or(|queue| *queue == message.queue)
            && self.means_task(&message.task)
            && self.older_than.is_none_or(|least| age >= least)
            && self.younger_than.is_none_or(|most| age < most)
            && self.until.is_none_or(|until| since <= until)
            && self.arguments.iter().all(|wanted| self.has_argument(message, wanted))
            && self.choice.0.as_ref().is_none_or(|chooses| chooses(message))
    }

    fn has_argument(&self, message: &Message, wanted: &ArgumentMatch) -> bool {
        let arguments = &message.arguments;
        match wanted {
            ArgumentMatch::Contain(text) => {
                arguments.args.contains(text.as_str()) || arguments.kwargs.contains(text.as_str())
            }
            ArgumentMatch::Is(argument, value) => {
                let is = argument_value(argument, self.params.of(&message.task), arguments);
                // Who does not know the parameters of the task knows those that the message itself tells.
                let is = is.or_else(|| match argument {
                    Argument::Name(name) => message.searched_argument(name),
                    Argument::Position(_) => None,
                });
                is.is_some_and(|is| is == *value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Arguments, Context, FailedAttempt, State, TaskResult};

    fn failed() -> FailedTask {
        let mut message = Context::detached().message().clone();
        message.id = "one".into();
        message.task = "mail.send".into();
        message.queue = "email".into();
        message.arguments = Arguments {
            args: r#"["acme",7]"#.into(),
            kwargs: r#"{"to":"amina@example.org","copy":null}"#.into(),
        };
        let mut record = TaskResult::of(&message, State::Retry, Timestamp::from_millis(1_000));
        record.errors = vec!["the gateway does not answer".to_owned()];
        message.note_failed_attempt(FailedAttempt::of(&record, None));
        let (failed_at, expires_at) = (Timestamp::from_millis(10_000), Some(Timestamp::from_millis(90_000)));
        FailedTask { message, reason: "connection refused".to_owned(), failed_at, expires_at }
    }

    fn takes(filter: TaskFilter) -> bool {
        filter.takes(&failed(), Timestamp::from_millis(40_000))
    }

    #[test]
    fn all_conditions_must_hold() {
        let all = || TaskFilter::new().task("mail.*").unwrap().queue("email").ids(["one", "two"]);
        assert!(takes(TaskFilter::new()) && takes(all()));
        assert!(takes(all().error("refused")) && takes(all().error("does not answer")));
        assert!(!takes(all().error("timeout")) && !takes(all().queue("other")) && !takes(all().ids(["two"])));
        assert!(!takes(all().task("mail").unwrap()) && !takes(TaskFilter::new().ids(Vec::<TaskId>::new())));
        assert!(
            takes(all().matching(|message| message.task == "mail.send")) && !takes(all().matching(|_| false))
        );
        let seconds = Duration::from_secs;
        assert!(takes(all().older_than(seconds(30)).younger_than(seconds(31))));
        assert!(!takes(all().older_than(seconds(31))) && !takes(all().younger_than(seconds(30))));
        let late = Timestamp::from_millis(90_000);
        assert!(!TaskFilter::new().takes(&failed(), late), "it has expired");
        let letter = FailedTask { expires_at: None, ..failed() };
        assert!(TaskFilter::new().takes(&letter, late), "a dead letter does not expire");
        let letters = |are_meant| TaskFilter::new().dead_letters(are_meant);
        assert!(takes(letters(false)) && !takes(letters(true)));
        assert!(letters(true).takes(&letter, late) && !letters(false).takes(&letter, late));
        let until = |millis| TaskFilter::new().until(Timestamp::from_millis(millis));
        assert!(takes(until(10_000)) && !takes(until(9_999)), "it failed at 10 s");
    }

    #[test]
    fn arguments_are_found_by_name_by_position_and_by_their_text() {
        let by_name =
            |name: &str, value: &str| TaskFilter::new().argument(Argument::Name(name.into()), value);
        let at = |position, value: &str| TaskFilter::new().argument(Argument::Position(position), value);
        assert!(takes(at(0, "acme")) && takes(at(1, "7")) && !takes(at(1, "77")) && !takes(at(2, "7")));
        assert!(takes(by_name("to", "amina@example.org")) && takes(by_name("copy", "null")));
        assert!(
            !takes(by_name("to", "amina")) && !takes(by_name("domain", "acme")),
            "nobody knows its position"
        );
        let known: Arc<FindParams> =
            Arc::new(|task| if task == "mail.send" { &["domain", "user"] } else { &[] });
        assert!(takes(by_name("domain", "acme").knowing(known)));
        assert!(takes(TaskFilter::new().arguments_contain("@example.org")));
        assert!(takes(TaskFilter::new().arguments_contain("acme").arguments_contain("copy")));
        assert!(!takes(TaskFilter::new().arguments_contain("acme").arguments_contain("bob")));
    }

    #[test]
    fn declared_arguments_are_found_by_name_and_may_be_found_by_an_index() {
        let mut task = failed();
        task.message.headers.0.insert("celeriac_search".into(), serde_json::json!({ "user": 1 }));
        let filter = || TaskFilter::new().argument(Argument::Name("user".into()), "7");
        let now = Timestamp::from_millis(40_000);
        assert!(
            filter().takes(&task, now) && !filter().takes(&failed(), now),
            "the message says where it is"
        );
        task.message.headers.0.insert("argsrepr".into(), "***".into());
        assert!(!filter().takes(&task, now), "it is hidden");
        assert_eq!(filter().indexed(), None, "nobody has said that there is an index");
        let by_index = |filter: TaskFilter| filter.by_index(|name| name == "user");
        let both = TaskFilter::new().argument(Argument::Name("domain".into()), "acme");
        let both = both.argument(Argument::Name("user".into()), "7").task("mail.*").unwrap();
        assert_eq!(by_index(both.clone()).indexed(), Some(("user", "7")));
        assert_eq!(both.clone().by_index(|_| true).indexed(), Some(("domain", "acme")));
        assert!(both.means_task("mail.send") && !both.means_task("send"));
        for none in [
            both.clone().by_index(|_| false),
            by_index(both.clone()).scanning(),
            by_index(both.scanning()),
            by_index(TaskFilter::new().argument(Argument::Position(1), "7")),
            by_index(TaskFilter::new().argument(Argument::Name("user".into()), "[7]")),
            by_index(TaskFilter::new().arguments_contain("user")),
        ] {
            assert_eq!(none.indexed(), None, "{none:?}");
        }
    }

    #[test]
    fn a_task_that_waits_is_chosen_by_the_error_of_its_last_attempt() {
        let mut message = failed().message;
        let takes = |filter: TaskFilter, message: &Message| {
            filter.takes_unfinished(message, message.enqueued_at + Duration::from_secs(5))
        };
        assert!(!takes(TaskFilter::new().error("busy"), &message));
        message.last_errors = vec!["the database is busy".to_owned()];
        assert!(takes(TaskFilter::new().error("busy"), &message));
        assert!(takes(TaskFilter::new().older_than(Duration::from_secs(5)), &message));
    }
}

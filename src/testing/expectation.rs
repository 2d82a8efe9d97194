//! What a test expects to be enqueued, and how a message differs from that.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;

use crate::core::Timestamp;
use crate::task::{Arguments, Message, ParamDefault, Signature, Task, TaskId};

/// A call of a task that a test expects. [`assert_enqueued!`](crate::assert_enqueued) makes one.
#[derive(Clone, Debug)]
pub struct Expectation {
    task: &'static str,
    params: &'static [&'static str],
    defaults: fn(usize) -> ParamDefault,
    /// The expected arguments; `None`: any arguments match.
    arguments: Option<Result<Vec<Value>, String>>,
    fields: Vec<ExpectedField>,
    times: Option<usize>,
}

#[derive(Clone, Debug)]
struct ExpectedField {
    name: String,
    wanted: String,
    found: FieldSource,
}

/// Says where a message has the value of a field.
#[derive(Clone, Debug)]
enum FieldSource {
    Queue,
    Priority,
    Countdown,
    Eta,
    Id,
    Header(String),
}

impl Expectation {
    /// Expects a call with the arguments of this signature.
    pub fn call<T: Task>(signature: Signature<T>) -> Self {
        let arguments = signature.into_arguments();
        let bound = arguments.and_then(|arguments| bind(&arguments, T::PARAMS, T::default_of));
        Self { arguments: Some(bound), ..Self::any::<T>() }
    }

    /// Expects a call with any arguments. Pass the task as a type: `send_email::Task`.
    pub fn of_type<T: Task>(_task: T) -> Self {
        Self::any::<T>()
    }

    fn any<T: Task>() -> Self {
        let (params, defaults) = (T::PARAMS, T::default_of);
        Self { task: T::NAME, params, defaults, arguments: None, fields: Vec::new(), times: None }
    }

    /// Expects the call in this queue.
    #[must_use]
    pub fn queue(self, queue: impl Display) -> Self {
        self.field("queue", &queue, FieldSource::Queue)
    }

    /// Expects the call to have this priority.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.field("priority", &priority, FieldSource::Priority)
    }

    /// Expects the call to have this countdown: the time from its enqueue to its ETA.
    #[must_use]
    pub fn countdown(self, countdown: Duration) -> Self {
        self.field("countdown", &spell(Some(countdown)), FieldSource::Countdown)
    }

    /// Expects the call to have this ETA.
    #[must_use]
    pub fn eta(self, eta: impl Into<Timestamp>) -> Self {
        self.field("eta", &eta.into(), FieldSource::Eta)
    }

    /// Expects the call to have this id.
    #[must_use]
    pub fn id(self, id: impl Into<TaskId>) -> Self {
        self.field("id", &id.into(), FieldSource::Id)
    }

    /// Expects the call to have this header.
    #[must_use]
    pub fn header(self, (name, value): (&str, impl Into<Value>)) -> Self {
        self.field(&format!("header {name}"), &value.into(), FieldSource::Header(name.to_owned()))
    }

    /// Expects exactly this many such calls; without it, at least one.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    fn field(mut self, name: &str, wanted: &impl Display, found: FieldSource) -> Self {
        self.fields.push(ExpectedField { name: name.to_owned(), wanted: wanted.to_string(), found });
        self
    }

    pub(super) fn is_of(&self, message: &Message) -> bool {
        message.task == self.task
    }

    pub(super) fn task(&self) -> &'static str {
        self.task
    }

    pub(super) fn wanted_times(&self) -> Option<usize> {
        self.times
    }

    /// The differences between a message of the same task and the expectation; none if it matches.
    pub(super) fn differences(&self, message: &Message) -> Vec<String> {
        let mut differences = Vec::new();
        match (&self.arguments, bind(&message.arguments, self.params, self.defaults)) {
            (None, _) => {}
            (Some(Ok(wanted)), Ok(found)) => {
                let both = self.params.iter().zip(wanted.iter().zip(&found));
                let different = both.filter(|(_, (wanted, found))| wanted != found);
                differences.extend(
                    different.map(|(name, (wanted, found))| format!("{name} is {found}, not {wanted}")),
                );
            }
            (Some(_), Err(error)) => differences.push(error),
            (Some(Err(error)), _) => {
                differences.push(format!("the expected arguments have no form in JSON: {error}"))
            }
        }
        for ExpectedField { name, wanted, found } in &self.fields {
            let found = found.of(message);
            if found != *wanted {
                differences.push(format!("{name} is {found}, not {wanted}"));
            }
        }
        differences
    }

    /// The expectation in the form of a call.
    pub(super) fn describe(&self) -> String {
        let arguments = match &self.arguments {
            None => "(..)".to_owned(),
            Some(Ok(values)) => describe_arguments(self.params, values),
            Some(Err(error)) => format!("(?: {error})"),
        };
        let mut text = format!("{}{arguments}", self.task);
        for field in &self.fields {
            text.push_str(&format!(", {} = {}", field.name, field.wanted));
        }
        text
    }

    /// A message in the form of a call of the expected task.
    pub(super) fn describe_found(&self, message: &Message) -> String {
        match bind(&message.arguments, self.params, self.defaults) {
            Ok(values) => format!("{}{}", message.task, describe_arguments(self.params, &values)),
            Err(_) => format!(
                "{} args {} kwargs {}",
                message.task, message.arguments.args, message.arguments.kwargs
            ),
        }
    }
}

impl FieldSource {
    fn of(&self, message: &Message) -> String {
        match self {
            Self::Queue => message.queue.clone(),
            Self::Priority => message.priority.to_string(),
            Self::Countdown => spell(message.eta.map(|eta| eta.since(message.enqueued_at))),
            Self::Eta => message.eta.map_or_else(|| "none".to_owned(), |eta| eta.to_string()),
            Self::Id => message.id.to_string(),
            Self::Header(name) => {
                message.headers.0.get(name).map_or_else(|| "none".to_owned(), ToString::to_string)
            }
        }
    }
}

fn spell(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "none".to_owned(), |duration| format!("{duration:?}"))
}

fn bind(
    arguments: &Arguments,
    params: &[&str],
    defaults: fn(usize) -> ParamDefault,
) -> Result<Vec<Value>, String> {
    let values = arguments.bind(params, defaults).map_err(|error| error.to_string())?;
    let read = |json: &Cow<'_, str>| serde_json::from_str(json).map_err(|error| error.to_string());
    values.iter().map(read).collect()
}

fn describe_arguments(params: &[&str], values: &[Value]) -> String {
    let both = params.iter().zip(values);
    let named: Vec<String> = both.map(|(name, value)| format!("{name}={value}")).collect();
    format!("({})", named.join(", "))
}

//! A call that has not been made yet: a task, its arguments, and the options of this one call.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::client::NewTask;
#[cfg(feature = "otel")]
use super::sending::sending;
use super::{
    Arguments, AsyncResult, Client, Durability, EnqueueError, Permit, TENANT, Task, TaskId, Unique,
    UniqueKey, UniqueUntil, current, finite,
};
use crate::core::Timestamp;

/// A task with its arguments and the options of one call. Celery's signature.
///
/// ```no_run
/// # use celeriac::task;
/// # use std::time::Duration;
/// #[task]
/// async fn send_email(user: u64) {}
///
/// # async fn demo() -> Result<(), celeriac::EnqueueError> {
/// send_email::s(42).queue("slow_queue").countdown(Duration::from_secs(60)).priority(5).delay().await?;
/// # Ok(()) }
/// # fn main() {}
/// ```
#[must_use = "a signature does nothing until `.delay()` is awaited"]
pub struct Signature<T: Task> {
    /// The call is large, so it stays in the place where it is made, until a client makes a message of it.
    call: Box<NewTask>,
    /// Why the call cannot be sent: its arguments, or a header of it, have no form in JSON.
    error: Option<String>,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> Clone for Signature<T> {
    fn clone(&self) -> Self {
        Self { call: self.call.clone(), error: self.error.clone(), task: PhantomData }
    }
}

impl<T: Task> Signature<T> {
    /// A call with these arguments. `task::s(..)` is the typed way to make one.
    pub fn new(args: &T::Args) -> Self {
        let mut call = Box::new(NewTask::new(T::NAME, T::options()));
        call.serial = T::serial(args).map(Box::new);
        call.unique = T::unique(args).map(Box::new);
        let error = match Arguments::encode_call(args, T::PARAMS) {
            Ok(arguments) => {
                call.arguments = arguments;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        Self { call, error, task: PhantomData }
    }

    /// Sends the call to this queue instead of the task's own.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.call.options.queue = Some(queue.into());
        self
    }

    /// Sets how long after the enqueue the task may start.
    pub fn countdown(mut self, delay: Duration) -> Self {
        self.call.countdown = Some(delay);
        self
    }

    /// Sets the time before which the task must not start: a [`Timestamp`], a `SystemTime`, a `chrono::DateTime` of any
    /// zone, or a time of `jiff` (feature `jiff`).
    ///
    /// ```
    /// # use celeriac::task;
    /// # #[task]
    /// # async fn remind(user: u64) {}
    /// # fn main() {
    /// let noon = chrono::DateTime::parse_from_rfc3339("2026-11-22T12:00:00+09:00").unwrap();
    /// let call = remind::s(42).eta(noon);
    /// # let _ = call;
    /// # }
    /// ```
    pub fn eta(mut self, eta: impl Into<Timestamp>) -> Self {
        self.call.eta = Some(eta.into());
        self
    }

    /// Revokes the task if it has not started this long after the enqueue.
    pub fn expires(mut self, after: Duration) -> Self {
        self.call.options.expires = Some(after);
        self.call.expires_at = None;
        self
    }

    /// Revokes the task if it has not started by this time. Takes what [`eta`](Self::eta) takes.
    pub fn expires_at(mut self, time: impl Into<Timestamp>) -> Self {
        self.call.expires_at = Some(time.into());
        self
    }

    /// Sets the id of the task. A second call with that id is refused ([`EnqueueError::DuplicateId`]) while the first
    /// task waits, runs, or has its result kept.
    pub fn id(mut self, id: impl Into<TaskId>) -> Self {
        self.call.id = Some(id.into());
        self
    }

    /// Sets the priority, from 0 to 255. The highest goes first.
    pub fn priority(mut self, priority: u8) -> Self {
        self.call.options.priority = priority;
        self
    }

    /// Sets the hard time limit of each run.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.call.options.time_limit = Some(limit);
        self
    }

    /// Sets the soft time limit of each run.
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.call.options.soft_time_limit = Some(limit);
        self
    }

    /// Sets how many times a failed attempt is tried again.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.call.options.retry.max_retries = retries;
        self.call.options.stated.max_retries = true;
        self
    }

    /// Adds a header that travels with the task. Headers are small JSON values. If the value has no form in JSON, such
    /// as NaN, the enqueue is refused with [`EnqueueError::Arguments`].
    pub fn header(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        match finite::to_value(&value) {
            Ok(value) => drop(self.call.headers.0.insert(name, value)),
            Err(error) => {
                self.error.get_or_insert_with(|| format!("header `{name}`: {error}"));
            }
        }
        self
    }

    /// Sets the tenant on whose behalf the task runs, whatever its arguments say. Queues share their slots fairly among
    /// tenants. An empty text stands for no tenant. A name has at most [256](crate::task::LONGEST_TENANT) bytes.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.header(TENANT, tenant.into())
    }

    /// Sets the text that tools and logs of a Celery fleet show instead of the positional arguments, for example
    /// `<redacted>`. It travels with the task and its retries. Celery's `apply_async(argsrepr=…)`.
    pub fn argsrepr(self, shown: impl Into<String>) -> Self {
        self.header("argsrepr", shown.into())
    }

    /// Sets the text that is shown instead of the keyword arguments. Celery's `apply_async(kwargsrepr=…)`.
    pub fn kwargsrepr(self, shown: impl Into<String>) -> Self {
        self.header("kwargsrepr", shown.into())
    }

    /// Publishes the call to this exchange of RabbitMQ, by its [`routing_key`](Self::routing_key), and not to a queue. The
    /// exchange has to be there; if no queue is bound to it by the key, the enqueue is refused. Celery's
    /// `apply_async(exchange=…, routing_key=…)`.
    pub fn exchange(mut self, name: impl Into<String>) -> Self {
        let name: String = name.into();
        self.call.headers.set_property("exchange", name.into());
        self
    }

    /// Sets the key by which the [`exchange`](Self::exchange) finds the queue. A fanout exchange takes any.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        let key: String = key.into();
        self.call.headers.set_property("routing_key", key.into());
        self
    }

    /// Compresses the arguments on their way through RabbitMQ, with `gzip`, `bzip2`, `lzma`, `brotli` or `zstd`. Brokers
    /// in this process send nothing, and compress nothing. Celery's `apply_async(compression=…)`.
    pub fn compression(mut self, name: impl Into<String>) -> Self {
        let name: String = name.into();
        self.call.headers.set_property("compression", name.into());
        self
    }

    /// Sets the name that tools of a Celery fleet show instead of the task's. Celery's `apply_async(shadow=…)`.
    pub fn shadow(mut self, name: impl Into<String>) -> Self {
        let name: String = name.into();
        self.call.headers.set_property("shadow", name.into());
        self
    }

    /// Hands a permit of the calling run over to the task. The task holds the permit from its start, and nobody else
    /// gets it in between. If the task has not started after ten minutes, the permit becomes free, and the task asks
    /// for it anew when it starts.
    pub fn hand_over(mut self, permit: Permit) -> Self {
        permit.into_headers(&mut self.call.headers, None);
        self
    }

    /// Does the same as [`hand_over`](Self::hand_over), and keeps the permit for the time `within`, for a task that may
    /// wait longer.
    pub fn hand_over_within(mut self, permit: Permit, within: Duration) -> Self {
        permit.into_headers(&mut self.call.headers, Some(within));
        self
    }

    /// States whether the result of this call is thrown away.
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.call.options.ignore_result = ignore;
        self
    }

    /// States whether this call waits on disk or in memory.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.call.options.durability = durability;
        self
    }

    /// States whether this call waits until RabbitMQ has confirmed its message: see
    /// [`TaskOptions::confirm`](crate::task::TaskOptions::confirm), which says what is lost without.
    pub fn confirm(mut self, confirm: bool) -> Self {
        self.call.options.confirm = confirm;
        self
    }

    /// Sets a unique window of this length, counted from the enqueue. If a call of the same key waits or runs within
    /// its window, this call joins it: nothing is enqueued, and the receipt is that of the earlier call and says
    /// `joined`. Without a [key](Self::unique_key), calls with the same arguments are the same. With a window of zero
    /// the call is always enqueued, whatever its task says.
    pub fn unique_for(mut self, window: Duration) -> Self {
        self.unique().window = window;
        self
    }

    /// Sets when the unique window of the call ends before its time.
    pub fn unique_until(mut self, until: UniqueUntil) -> Self {
        self.unique().until = until;
        self
    }

    /// Sets the key of the unique window: calls of the task with the same key are the same call.
    /// [`key_of`](crate::task::key_of) joins several parts to a key in such a way that different calls never share one.
    pub fn unique_key(mut self, key: impl std::fmt::Display) -> Self {
        self.unique().key = UniqueKey::new(T::NAME, key.to_string());
        self
    }

    /// The unique window of the call. If it has none so far, it gets one of length zero.
    fn unique(&mut self) -> &mut Unique {
        let NewTask { arguments, unique, .. } = &mut *self.call;
        unique.get_or_insert_with(|| {
            let key = UniqueKey::of_arguments(T::NAME, arguments);
            Box::new(Unique::new(key, Duration::ZERO))
        })
    }

    /// Enqueues the call with the program's running [`Celeriac`](crate::Celeriac). Await the answer, or block on it
    /// with [`Enqueue::wait`].
    pub fn delay(self) -> Enqueue<T> {
        Enqueue { signature: self, client: None }
    }

    /// Enqueues the call with this handle, for programs that run more than one.
    pub fn send(self, client: impl Into<Arc<dyn Client>>) -> Enqueue<T> {
        Enqueue { signature: self, client: Some(client.into()) }
    }

    pub(crate) fn stated_queue(&self) -> Option<&str> {
        self.call.options.queue.as_deref()
    }

    /// The call, as a client takes it.
    ///
    /// # Errors
    /// Its arguments have no form in JSON.
    pub(super) fn into_call(self) -> Result<Box<NewTask>, EnqueueError> {
        match self.error {
            None => Ok(self.call),
            Some(error) => Err(EnqueueError::Arguments { task: T::NAME.to_owned(), error }),
        }
    }

    /// The call without its arguments, and these, or why the call cannot be sent.
    pub(crate) fn into_parts(self) -> (NewTask, Result<Arguments, String>) {
        let mut call = *self.call;
        let arguments = std::mem::take(&mut call.arguments);
        (call, self.error.map_or(Ok(arguments), Err))
    }

    pub(crate) fn into_arguments(self) -> Result<Arguments, String> {
        self.into_parts().1
    }
}

/// An enqueue that has not begun. Nothing happens until it is awaited or [waited](Self::wait) for.
#[must_use = "nothing is enqueued until this is awaited"]
pub struct Enqueue<T: Task> {
    signature: Signature<T>,
    client: Option<Arc<dyn Client>>,
}

impl<T: Task> Enqueue<T> {
    async fn run(self) -> Result<AsyncResult<T>, EnqueueError> {
        let client = match self.client {
            Some(client) => client,
            None => current().ok_or(EnqueueError::NotRunning)?,
        };
        let call = self.signature.into_call()?;
        let ignored = call.options.ignore_result;
        let sent = client.enqueue(call);
        #[cfg(feature = "otel")]
        let sent = sending(T::NAME, sent, |receipt| Some(receipt.id.to_string()));
        let receipt = sent.await?;
        Ok(AsyncResult::new(receipt, ignored, client))
    }

    /// Enqueues from code that is not asynchronous, and blocks until the receipt is there. It works in a thread of the
    /// program's own, in a task that is a plain function, in `tokio::task::spawn_blocking` and in
    /// `actix_web::web::block`.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    ///
    /// # Panics
    /// The current thread drives asynchronous tasks, and blocking it would hold up all of them ("Cannot start a runtime
    /// from within a runtime"). Use `.await` there.
    pub fn wait(self) -> Result<AsyncResult<T>, EnqueueError> {
        match tokio::runtime::Handle::try_current() {
            // Tokio's own `block_on` is needed, because only tokio can tell its blocking threads from its asynchronous
            // ones.
            Ok(runtime) => runtime.block_on(self.run()),
            Err(_) => futures_executor::block_on(self.run()),
        }
    }
}

impl<T: Task> IntoFuture for Enqueue<T> {
    type Output = Result<AsyncResult<T>, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;
    use crate::task;
    use crate::task::{GetError, Receipt, State, TaskOptions, TaskResult};

    #[task(queue = "email", priority = 3, max_retries = 1, expires = "1h")]
    fn send_email(user: u64, note: Option<String>) {
        let _ = (user, note);
    }

    /// Records the calls that it gets.
    #[derive(Default)]
    struct ValueRecorder(Mutex<Vec<NewTask>>);

    #[async_trait::async_trait]
    impl Client for ValueRecorder {
        async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
            let id = call.id.clone().unwrap_or_else(|| "given".into());
            let receipt =
                Receipt::new(id, call.options.queue.clone().unwrap_or_default(), call.options.durability);
            self.0.lock().push(*call);
            Ok(receipt)
        }

        async fn state(&self, _: &TaskId) -> Result<State, GetError> {
            Ok(State::Pending)
        }

        async fn result(&self, _: &TaskId) -> Result<Option<TaskResult>, GetError> {
            Ok(None)
        }

        async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
            Err(GetError::Unknown(id.clone()))
        }

        async fn revoke(&self, _: &TaskId, terminate: bool) -> Result<bool, GetError> {
            Ok(terminate)
        }

        async fn forget(&self, _: &TaskId) -> Result<bool, GetError> {
            Ok(false)
        }
    }

    fn sent<T: Task>(signature: Signature<T>) -> (NewTask, AsyncResult<T>) {
        let recorder = Arc::new(ValueRecorder::default());
        let result = signature.send(Arc::clone(&recorder) as Arc<dyn Client>).wait().unwrap();
        let call = recorder.0.lock().pop().unwrap();
        (call, result)
    }

    #[test]
    fn a_plain_call_bears_the_tasks_options() {
        let (call, result) = sent(send_email::s(42, None));
        assert_eq!(call.task, "celeriac::task::signature::tests::send_email");
        assert_eq!(call.arguments.args, "[42,null]");
        assert_eq!(call.options, send_email::Task::options());
        assert_eq!((call.id, call.countdown, call.eta, call.expires_at), (None, None, None, None));
        assert!(call.headers.0.is_empty());
        assert_eq!(result.receipt(), &Receipt::new("given".into(), "email".into(), Durability::Disk));
        assert_eq!(futures_executor::block_on(result.state()), Ok(State::Pending));
        assert_eq!(futures_executor::block_on(result.revoke(true)), Ok(true));
        assert!(format!("{result:?}").contains("send_email"));
    }

    #[test]
    fn every_option_of_a_call_arrives() {
        let second = Duration::from_secs;
        let time = Timestamp::ZERO + second(9);
        let signature = send_email::s(1, Some("n".into()))
            .queue("slow")
            .countdown(second(1))
            .eta(time)
            .expires(second(2))
            .expires_at(time)
            .id("import-42")
            .priority(9)
            .time_limit(second(4))
            .soft_time_limit(second(3))
            .max_retries(7)
            .header("tenant", "a")
            .header("n", 1)
            .ignore_result(true)
            .durability(Durability::Memory);
        let (call, result) = sent(signature.clone());
        let mut expected = TaskOptions {
            queue: Some("slow".into()),
            priority: 9,
            soft_time_limit: Some(second(3)),
            time_limit: Some(second(4)),
            expires: Some(second(2)),
            ignore_result: true,
            durability: Durability::Memory,
            ..TaskOptions::default()
        };
        expected.retry.max_retries = 7;
        expected.stated.max_retries = true;
        assert_eq!(call.options, expected);
        assert_eq!((call.countdown, call.eta, call.expires_at), (Some(second(1)), Some(time), Some(time)));
        assert_eq!(call.id, Some("import-42".into()));
        assert_eq!(call.headers.0["tenant"], Value::from("a"));
        assert_eq!(call.headers.0["n"], Value::from(1));
        assert_eq!(result.id().as_str(), "import-42");

        // The option that is set last holds.
        let (call, _) = sent(signature.expires(second(5)));
        assert_eq!((call.options.expires, call.expires_at), (Some(second(5)), None));
    }

    #[task]
    fn unencodable(pairs: std::collections::BTreeMap<(u8, u8), u8>) {
        let _ = pairs;
    }

    #[test]
    fn arguments_without_json_form_are_refused_before_the_client() {
        let recorder = Arc::new(ValueRecorder::default());
        let client: Arc<dyn Client> = Arc::clone(&recorder) as _;
        let error = unencodable::s([((1, 2), 3)].into()).send(client).wait().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the arguments of `celeriac::task::signature::tests::unencodable` have no form in JSON: key must be a string"
        );
        assert!(recorder.0.lock().is_empty());
    }

    #[test]
    fn the_first_error_of_a_call_is_told() {
        let refused = |signature: Signature<send_email::Task>| signature.into_call().unwrap_err().to_string();
        let error = refused(send_email::s(1, None).header("load", f64::NAN).header("later", f64::NAN));
        assert!(error.contains("header `load`") && !error.contains("later"), "{error}");
        let unsent = unencodable::s([((1, 2), 3)].into()).header("load", f64::NAN);
        assert_eq!(unsent.into_arguments(), Err("key must be a string".to_owned()));
        assert_eq!(send_email::s(1, None).into_arguments().unwrap().args, "[1,null]");
    }

    #[test]
    fn a_call_is_small_while_it_is_on_its_way() {
        // It moves through several futures, and many of them wait at the same time.
        assert!(size_of::<Signature<send_email::Task>>() <= 32);
        assert!(size_of::<Enqueue<send_email::Task>>() <= 48);
    }

    #[test]
    fn awaited_or_waited_for() {
        let client: Arc<dyn Client> = Arc::new(ValueRecorder::default());
        let threads: Vec<_> = (0..4)
            .map(|user| {
                let client = Arc::clone(&client);
                std::thread::spawn(move || send_email::s(user, None).send(client).wait().map(|_| ()))
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(async { send_email::s(1, None).send(Arc::clone(&client)).await });
        assert_eq!(result.unwrap().id().as_str(), "given");
    }

    #[test]
    #[should_panic(expected = "Cannot start a runtime from within a runtime")]
    fn wait_refuses_to_block_an_asynchronous_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client: Arc<dyn Client> = Arc::new(ValueRecorder::default());
        runtime.block_on(async {
            let _ = send_email::s(1, None).send(client).wait();
        });
    }

    #[test]
    fn a_signature_continues_a_task() {
        let error = crate::TaskError::continue_with(send_email::s(1001, None));
        match error.into_ending() {
            crate::task::Ending::Continue { task, arguments } => {
                assert_eq!(task, send_email::Task::NAME);
                assert_eq!(arguments.unwrap().args, "[1001,null]");
            }
            other => panic!("{other:?}"),
        }
    }
}

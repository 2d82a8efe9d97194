//! The attribute macros of `celeriac`; use them through that crate.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod crontab;
mod duration;
mod errors;
mod expand;
mod key;
mod options;
mod periodic;
mod serial;
mod signature;
mod unique;

use proc_macro::TokenStream;

/// Makes a function a background task.
///
/// ```
/// use celeriac::task::{HookEvent, TaskError};
/// use celeriac::{Context, task};
///
/// #[derive(Debug)]
/// pub enum SmtpError {
///     Busy,
///     NoSuchUser,
/// }
///
/// impl std::fmt::Display for SmtpError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "{self:?}")
///     }
/// }
///
/// impl std::error::Error for SmtpError {}
///
/// /// Writes to a user. It mostly waits, so it is `async`.
/// #[task(queue = "email", max_retries = 5, default_retry_delay = "30s", time_limit = "2m", retry_if = is_busy)]
/// pub async fn send_email(user: u64, subject: String) -> Result<(), SmtpError> {
///     if subject.is_empty() { Err(SmtpError::NoSuchUser) } else { Ok(()) }
/// }
///
/// fn is_busy(error: &SmtpError) -> bool {
///     matches!(error, SmtpError::Busy)
/// }
///
/// /// Computes. Runs on a blocking thread, because it is a plain function.
/// #[task(soft_time_limit = "50m", time_limit = "1h", ignore_result, on_failure = tell_the_admins)]
/// pub fn rebuild_table(ctx: &Context, rows: u64) -> Result<u64, TaskError> {
///     for row in 0..rows {
///         ctx.check()?; // ends the run when it should end
///         let _ = row;
///     }
///     Ok(rows)
/// }
///
/// fn tell_the_admins(ctx: &Context, event: &HookEvent) {
///     eprintln!("{}: {event:?}", ctx.id());
/// }
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// send_email(42, "hello".into()).await?;                        // here and now, as ever
/// let enqueued = send_email::delay(42, "hello".into()).await?;  // in the background
/// println!("{}", enqueued.id());
/// send_email::s(42, "hello".into())                             // a call with options of its own
///     .countdown(std::time::Duration::from_secs(60))
///     .delay()
///     .await?;
/// # Ok(()) }
/// # fn main() {}
/// ```
///
/// # What it writes
///
/// The function stays as it is. Beside it comes a module of the same name and visibility; Rust keeps functions and
/// modules apart, so both can be used by that name, and one `use` brings in both:
///
/// - `send_email::delay(args..)` enqueues a call. Await it, or block on it with `.wait()` where nothing is async.
/// - `send_email::s(args..)` is a `Signature`: a call that is not made yet, to be given a queue, an ETA, an id...
/// - `send_email::Task` is the task as a type, for `AsyncResult<send_email::Task>`.
///
/// The task registers itself when the program is linked; there is no list to keep. Two tasks of one name are an
/// error at start which names both places.
///
/// Put tasks at module level. In a function's body the module would not see the types that the function sees. The
/// types of a task's arguments and value are at least as visible as the task. The generated code says `::celeriac`, so
/// the crate must be known by that name.
///
/// # The function
///
/// - `async fn` is for work that mostly waits. In a queue of the pool `io` it runs on the event loop, with hundreds of
///   others: it must not block. In a queue of the pool `cpu`, which is what a queue is that the catalogue does not
///   describe, it runs on a blocking thread.
/// - A plain `fn` runs on a blocking thread in either, where it may compute for hours without starving anybody.
/// - **Parameters** travel as JSON, by position or by name, also from Python. So each is a plain name with an owned type
///   that implements `Serialize` and `DeserializeOwned`: `String`, not `&str`. There are at most 16. Pass ids rather
///   than objects: by the time the task runs, the object may have changed.
/// - A first parameter of type `Context` or `&Context` is no argument: it is the run as seen from inside (id, attempt,
///   interruption), Celery's `self.request`. Callers of `delay` and `s` leave it out; who calls the function itself
///   passes `Context::detached()`.
/// - **It returns** nothing, a value that implements `Serialize` and `DeserializeOwned`, or a `Result` (also an alias
///   such as `io::Result<T>`; the macro looks for the name). An error is anything that implements `std::error::Error`,
///   or `TaskError`, whose constructors say more than "failed": retry, postpone, continue, reject, ignore.
/// - It cannot be generic, a method, `unsafe`, `const` or `extern`.
///
/// # The options
///
/// They have Celery's names. A duration is a number of seconds (`30`, `0.5`), as in Celery, or text with units
/// (`"500ms"`, `"30s"`, `"15m"`, `"6h"`, `"2d"`, `"1h30m"`). A bare name means `true`. What the code says is the
/// default of the task; a call can override most of it.
///
/// ## What it is called and where it goes
///
/// - `name = "..."`: by default the module's path and the function, `commcare::email::send_email`. Give a name where
///   another program, such as a Python worker, knows the task by one, or to keep the old one when the function moves:
///   tasks that wait bear the name they were enqueued with.
/// - `queue = "..."`: by default the catalogue's default queue.
/// - `priority = 0`: 0 to 255, higher goes first within its queue, as in RabbitMQ. The default is 0, so that urgency is
///   asked for.
///
/// ## When it fails
///
/// - `autoretry = true`: whether an error is retried at all. Celery wants the exceptions listed (`autoretry_for`); the
///   default here retries every error, because most failures of background work pass by themselves (a busy server,
///   a deadlock), and the task is durable anyway. With `false`, only `TaskError::retry` retries.
/// - `retry_if = path`: a `fn(&E) -> bool` that looks at the error and says whether another attempt may mend it. `false`
///   is a failure at once. Without it every error may be mended. It needs a task that returns a `Result`.
/// - `max_retries = 3`: how many retries follow the first run, as in Celery. 0 never retries.
/// - `default_retry_delay = 10`: before the first retry. Celery waits three minutes; most faults that pass, pass sooner,
///   and the backoff takes care of the rest.
/// - `retry_backoff = true`: double the delay with each retry, so that what is down is not kept down.
/// - `retry_backoff_max = "10m"`: where the doubling stops, as in Celery.
/// - `retry_jitter = true`: draw the delay from its upper half, so that tasks that failed together do not come back
///   together.
/// - `acks_late = true`: the message is settled when the run is over, so that a crash means another run. So a task can
///   run twice, and should be written for it. With `false` it is settled before the run: at most once. Celery's default
///   is `false`, which loses what runs when the worker dies.
///
/// ## How long it may take
///
/// - `soft_time_limit = ..`: after this long the body is told to end: `ctx.check()?` returns the reason. None by default.
/// - `time_limit = ..`: after this long the run is failed and its worker is free again. None by default, because no
///   number suits all, and a task that lives is not given up however long it takes. It must exceed the soft limit.
/// - `expires = ..`: not started this long after the enqueue, it is revoked instead. None by default.
///
/// ## What is kept
///
/// - `ignore_result = false`: `true` keeps no result. Failures still reach the log and the counters.
/// - `track_started = false`: `true` tells a shared result store (Redis, rpc) when a body starts.
/// - `result_expires = "1d"`: how long the result is kept, as in Celery.
/// - `durability = "disk"`: `"disk"` is synced before `delay` returns and survives a power cut; `"memory"` is gone with
///   the process and much faster. The default is the one that loses nothing.
///
/// ## What is no second task
///
/// - `unique_for = ..`: while a call of the same key waits or runs, and no longer than this from its enqueue, another one is
///   not enqueued: its receipt is that of the first one, and says `joined`. None by default.
/// - `unique_until = "done"`: with `"start"`, a call that comes while the first one runs is a task of its own.
/// - `unique_key = "{domain}-{kind}"`: which calls are the same; made as the `key` of a [`macro@serial_task`] is, and as that
///   checked when the program is compiled. By default all arguments are the key.
///
/// ## What is called around it
///
/// - `before_start`, `on_success`, `on_retry`, `on_failure` `= path`: each a `fn(&Context, &HookEvent)`. They run on the
///   event loop and must be short; to do more, enqueue a task.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::task(options.into(), item.into()).into()
}

/// Makes a function a background task of which no two with one key run at a time.
///
/// Everything of [`macro@task`] holds, and runs with one key stand in a *lane*: they start in the order in which they were
/// accepted, each when the one before it is over, through crashes, retries and restarts. Those who wait lie in the broker
/// and occupy no worker. HQ's `serial_task`, and with `concurrency` its `concurrent_task`.
///
/// ```
/// use celeriac::serial_task;
/// use serde::{Deserialize, Serialize};
///
/// /// One import at a time for each domain.
/// #[serial_task(key = "{domain}", queue = "import", max_retries = 12)]
/// async fn import_locations(domain: String, file: u64) {}
///
/// #[derive(Serialize, Deserialize)]
/// struct Form { domain: String, kind: String }
///
/// /// Two at a time for each kind of form of a domain; one that waits will do for those that come after it.
/// #[serial_task(key = "{form.domain}-{form.kind}", concurrency = 2, newcomer = "skip")]
/// fn rebuild_export(form: Form) {}
/// # fn main() {}
/// ```
///
/// # The options
///
/// Those of [`macro@task`], except `acks_late = false` (a lane is held until its run is settled), and:
///
/// - `key = "{domain}-{user_id}"`: made of the parameters' values, as `format!` would. `{form.domain}` names a field at any
///   depth. Checked when the program is compiled. Where that does not do, `key = path::to::function` calls a function that
///   takes all the parameters by reference and returns what can be shown. Without a key, the task has one lane.
/// - `scope = "..."`: whose key it is. By default the task's name, so that tasks share no lanes; those that state the same
///   scope do.
/// - `concurrency = 1`: how many of a lane run at a time. `Celeriac::set_concurrency` changes it for a lane by hand.
/// - `newcomer = "wait"`: what becomes of a call that finds its lane taken. It waits, however long; with `"skip"` it is left
///   out if one waits already, whose receipt it gets; with `"replace"` it takes the place of the one that waits, which is
///   revoked.
/// - `fail_after = "90s"`: it waits so long, and then fails with HQ's `CouldNotAcquireLock`. With 0 it does not wait.
/// - `after_failure = "next"`: what becomes of the lane when a run failed for good. The next one goes on; with `"block"`
///   none does until `Celeriac::unblock`; with `"park"` the failed one goes to the dead letters, from where it can be put
///   back, and the next one goes on.
#[proc_macro_attribute]
pub fn serial_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::serial_task(options.into(), item.into()).into()
}

/// Makes a function a background task that beat calls again and again.
///
/// ```
/// use celeriac::core::calendar::Tenant;
/// use celeriac::{TaskError, periodic_task};
///
/// /// Each night at half past three in Nairobi.
/// #[periodic_task(crontab(minute = 30, hour = 3), zone = "Africa/Nairobi", queue = "celery_periodic")]
/// pub fn purge_logs() -> Result<u64, TaskError> {
///     Ok(0)
/// }
///
/// /// Every ten seconds, and in production only.
/// #[periodic_task(every = "10s", environments = ["production"], overlap = "skip", ignore_result)]
/// pub async fn probe() {}
///
/// /// At midnight where each domain is, spread over four hours.
/// #[periodic_task(crontab("0 0 * * *"), tenants = domains, spread = "4h")]
/// pub fn build_saved_exports(domain: String) {
///     println!("exports of {domain}");
/// }
///
/// async fn domains() -> Result<Vec<Tenant>, TaskError> {
///     Ok(vec![Tenant::new("malawi-fp", "Africa/Blantyre".parse().map_err(TaskError::permanent)?)])
/// }
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// purge_logs::delay().await?; // it is a task, and may be called by hand as well
/// # Ok(()) }
/// # fn main() {}
/// ```
///
/// Everything that [`#[task]`](macro@task) says holds here too, and all of its options may be given. The entry is found at
/// link time and fires as soon as the program runs.
///
/// # When
///
/// - `crontab(..)`: five fields of Celery's grammar, all of which must match: `crontab("30 3 * * mon-fri")` (minute, hour,
///   day of month, month of year, day of week; Sunday is 0), or by name, `crontab(minute = 30, hour = 3)`, where what is not
///   named is `*`. Naming a coarse field without the finer ones does not compile: in Celery `crontab(day_of_week = 6)` runs
///   every minute of every Saturday.
/// - `every = "30s"`: at each multiple of this since 1970, UTC.
/// - `zone = "UTC"`: by whose clocks. A time that a zone's clocks skip fires at the first instant after the gap, one that
///   they show twice fires at the first; a crontab of every hour fires whenever the clock shows one of its minutes.
/// - `tenants = path`: an `async fn` without parameters that returns a `Vec<Tenant>`, or a `Result` of one. The entry then
///   fires once for each tenant and local day, at its one time of day in the tenant's own zone, and the task gets the
///   tenant's name as its only argument. `spread = "4h"` spreads them over a window after that, each tenant at the same
///   place in it each day; at most twenty hours.
/// - `environments = ["production"]`: only where `Builder::environment` is one of these.
///
/// # What becomes of a tick
///
/// - `misfire = "once"`: what becomes of ticks that were missed while nobody looked. By default one run stands for all of
///   them, as in Celery. `"skip"` drops those that are later than a minute; `"all"` with `misfire_within = "1h"` makes up
///   for each that is not older than that.
/// - `overlap = "buffer_one"`: what becomes of a tick while the run of the one before is not over. By default one waits
///   until it is: runs do not overlap, and none piles up. `"skip"` drops the tick, `"allow"` publishes it all the same.
/// - `expires`: as in `#[task]`; a tick that says nothing expires when the next one comes due.
/// - `entry = "..."`: the entry's name, by default the task's.
#[proc_macro_attribute]
pub fn periodic_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::periodic_task(options.into(), item.into()).into()
}

//! The attribute macros, with their manual. It stands here and not beside their code, so that its examples are compiled with
//! the crate that they use.

/// Makes a background task of a function.
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
/// # What the macro writes
///
/// The function stays as it is. Beside it the macro writes a module of the same name and visibility. Rust keeps the
/// names of functions and modules apart, so both can be used by that name, and one `use` brings in both:
///
/// - `send_email::delay(args..)` enqueues a call. Await it, or block on it with `.wait()` in code that is not async.
/// - `send_email::delay_on_commit(&mut transaction, args..)` enqueues a call when a transaction of the program's database
///   commits: see [`commit_table`](crate::commit_table).
/// - `send_email::s(args..)` is a `Signature`: a call that is not made yet and can get a queue, an ETA, an id...
/// - `send_email::Task` is the task as a type, for `AsyncResult<send_email::Task>`.
///
/// The task registers itself when the program is linked, so there is no list to keep. Two tasks of one name are an
/// error at the start of the program, which names both places.
///
/// Put tasks at module level. In the body of a function the module would not see the types that the function sees.
/// The types of a task's arguments and value must be at least as visible as the task. The generated code writes
/// `::celeriac`, so the program must know the crate by that name.
///
/// # The function
///
/// - `async fn` is for work that mostly waits. In a queue of the pool `io` it runs on the event loop beside hundreds
///   of others, so it must not block. In a queue of the pool `cpu` it runs on a blocking thread. A queue that the
///   catalogue does not describe takes the pool of the task that names it: `io` for an `async fn`, `cpu` for a plain
///   `fn`.
/// - A plain `fn` runs on a blocking thread in both pools, where it may compute for hours without holding up others.
/// - In a queue of the pool `process` both run in a child process, which is killed if it has to be.
/// - **Parameters** travel as JSON, by position or by name, also from Python. So each parameter has a plain name and
///   an owned type that implements `Serialize` and `DeserializeOwned`: `String`, not `&str`. There are at most 16.
///   Pass ids rather than objects: by the time the task runs, the object may have changed.
/// - `#[default = 5]` before a parameter is its value for a call that leaves it out, as a Python program may. Any expression
///   of the parameter's type will do, and text as it is. Callers of `delay` and `s` state all arguments.
/// - A last parameter of type [`Rest<T>`](crate::task::Rest) takes the arguments by position that the others leave over, and
///   one of type [`RestByName<T>`](crate::task::RestByName) those by keyword: Python's `*args` and `**kwargs`.
/// - A first parameter of type `Context` or `&Context` is not an argument. It is the run as seen from inside (id,
///   attempt, interruption), Celery's `self.request`. Callers of `delay` and `s` leave it out. A caller of the
///   function itself passes `Context::detached()`.
/// - A parameter of type `Data<T>` is not an argument either. It is the value of type `T` that the program has given to the
///   runtime with `Builder::data`: a pool, a client, settings. Callers of `delay` and `s` leave it out.
/// - **It returns** nothing, a value that implements `Serialize` and `DeserializeOwned`, or a `Result` (also an alias
///   such as `io::Result<T>`; the macro looks for the name). An error is any type that implements
///   `std::error::Error`, or `TaskError`, whose constructors say more than "failed": retry, postpone, continue,
///   reject, ignore.
/// - It cannot be generic, a method, `unsafe`, `const` or `extern`.
///
/// # The options
///
/// The options have Celery's names. A duration is a number of seconds (`30`, `0.5`), as in Celery, or text with units
/// (`"500ms"`, `"30s"`, `"15m"`, `"6h"`, `"2d"`, `"1h30m"`). A bare name means `true`. The value in the code is the
/// default of the task, and a call can override most options.
///
/// ## Its name and its queue
///
/// - `name = "..."`: the name of the task; by default the path of the module and the function,
///   `commcare::email::send_email`. Give a name if another program, such as a Python worker, knows the task by one,
///   or to keep the old name when the function moves: waiting tasks have the name under which they were enqueued.
/// - `queue = "..."`: the queue of the task; by default the catalogue's default queue.
/// - `priority = 0`: the priority within the queue, 0 to 255; the higher number goes first, as in RabbitMQ. The
///   default is 0, so that urgent tasks have to ask for more.
///
/// ## When it fails
///
/// - `autoretry = true`: whether errors are retried at all. In Celery the code lists the exceptions
///   (`autoretry_for`). The default here retries every error, because most failures of background work pass by
///   themselves (a busy server, a deadlock), and the task is durable anyway. With `false`, only `TaskError::retry`
///   retries.
/// - `retry_if = path`: a `fn(&E) -> bool` that looks at the error and says whether another attempt may help. With
///   `false` the task fails at once. Without this option every error is retried. It needs a task that returns a
///   `Result`.
/// - `throws = path`: a `fn(&E) -> bool` that says whether the error is expected, such as a user who does not exist.
///   The log then calls it information and no error. Celery has a list of exceptions here. It needs a task that
///   returns a `Result`.
/// - `max_retries = 20`: how many retries follow the first run. 0 never retries. Celery's default is 3; twenty pauses
///   outlast an outage of an hour.
/// - `default_retry_delay = 10`: the delay before the first retry. Celery waits three minutes. Most temporary faults
///   pass sooner, and the backoff takes care of the rest.
/// - `retry_backoff = true`: double the delay with each retry, so that retries do not keep an overloaded service
///   down.
/// - `retry_backoff_max = "10m"`: the longest delay, at which the doubling stops, as in Celery.
/// - `retry_jitter = true`: make the upper half of the delay random, so that tasks that failed together do not come
///   back together.
/// - `acks_late = true`: the message is settled when the run is over, so that the task runs again after a crash. A
///   task can then run twice, and should be written for that. With `false` the message is settled before the run, and
///   the task runs at most once. Celery's default is `false`, which loses running tasks when their worker dies.
/// - `acks_on_failure_or_timeout = true`: with `false`, a task that has failed for good or passed its hard limit is
///   also kept as a dead letter, from where it can be put back. As in Celery, it has no effect with `acks_late = false`.
///
/// ## How long it may take
///
/// - `soft_time_limit = ..`: after this time the body is told to end: `ctx.check()?` returns the reason. There is
///   none by default.
/// - `time_limit = ..`: after this time the run has failed and its worker is free again. There is none by default,
///   because no number suits all tasks, and the runtime never gives up a task that is alive. It must exceed the soft
///   limit.
/// - `expires = ..`: a task that has not started this long after its enqueue is revoked. There is none by default.
///
/// ## What is kept
///
/// - `ignore_result = false`: with `true` no result is kept. Failures still reach the log and the counters.
/// - `store_errors_even_if_ignored = false`: with `true` the errors of a task without a result are kept all the same,
///   as in Celery. It has no effect on serial tasks.
/// - `track_started = false`: with `true` a shared result store (Redis, rpc) learns when a body starts.
/// - `result_expires = "1d"`: how long the result is kept, as in Celery.
/// - `durability = "disk"`: where a waiting call is kept. With `"disk"` it is synced before `delay` returns and
///   survives a power cut. With `"memory"` it is lost with the process, and `delay` is much faster. The default is
///   the one that loses nothing.
/// - `confirm = true`: with `false` a call over RabbitMQ is accepted when its message is written to the connection, and not
///   when RabbitMQ has confirmed it. `TaskOptions::confirm` says what can be lost then. Brokers in this process take no notice
///   of the option.
/// - `rate_limit = "10/m"`: at most so many runs start in each process (`/s`, `/m`, `/h`), evenly spread, as in Celery. What may
///   not start yet waits in its queue, takes no worker slot, and holds up no other task.
/// - `rate_key = "{gateway}"`: the rate limit holds for each key, which is written as the `key` of a
///   [`macro@serial_task`] and checked like it when the program is compiled.
/// - `rate_scope = "cluster"`: all processes that share Redis count together, which is the default with a `rate_key`; with
///   `"process"` each counts its own starts, which is the default without. Without Redis, each process counts its own.
/// - `max_running = 3`: at most so many runs of the task are under way at a time in each process.
/// - `limit_key = "{gateway}"`: `max_running` and `breaker` hold for each key.
/// - `breaker`, or `breaker(errors = 5, of = 10, pause = "1m", longest = "1h")`, whose values are the defaults: after so many
///   failed attempts of the last runs nothing starts for a while, and then one run finds out whether the trouble is over. If
///   not, the pause is twice as long, up to the longest. Errors that are expected (`throws`) do not count. Each process has a
///   breaker of its own. The manual's page on limits has more, and caps for each day and allowed hours.
/// - `send_events = true`: with `false` no events are sent of what happens to the task, as in Celery. Those that its
///   body sends itself are.
/// - `keep_log = true`: with `false` the log lines of a failed attempt are not kept with it, although the program keeps those of
///   other tasks (`celeriac::log_lines`, feature `log-lines`).
///
/// ## Which calls are duplicates
///
/// - `unique_for = ..`: while a call of the same key waits or runs, for at most this long from its enqueue, a second
///   call is not enqueued. Its receipt is that of the first call, and says `joined`. There is no such window by
///   default.
/// - `unique_until = "done"`: with `"start"`, a second call that comes while the first one runs is a task of its own.
/// - `unique_key = "{domain}-{kind}"`: the key, written as the `key` of a [`macro@serial_task`] and checked like it
///   when the program is compiled. By default all arguments are the key.
///
/// ## For whom it runs
///
/// - `tenant = "{domain}"`: the tenant of a call, which is the customer on whose behalf the task runs. Queues deliver the tasks
///   of their tenants in turn, so that many tasks of one hold up none of another. It is written as `unique_key` is, and has to
///   name a parameter; an empty text stands for no tenant. By default the tenant is the argument that the catalogue names
///   by `tenant`. A call may state another one: `task::s(..).tenant("acme")`.
///
/// ## How it is found
///
/// - `search = ["form_id", "user"]`: the parameters by whose values tasks are searched for. The embedded store and the broker
///   in memory keep an index of them, so that `form_id=17` is found at once however many tasks wait; arguments that are not named
///   here are found too, by a look through the tasks. A text, a number, `true`, `false` and `null` are in the index. It costs
///   one small row more for each named parameter of each task. By default there is none.
///
/// ## Hooks
///
/// - `before_start`, `on_success`, `on_retry`, `on_failure`, `after_return` `= path`: functions that the runtime calls
///   around a run, each a `fn(&Context, &HookEvent)`. They run on the event loop and must be short; to do more, enqueue
///   a task.
#[doc(inline)]
pub use celeriac_macros::task;

/// Makes a background task of a function, of which no two runs with one key overlap.
///
/// Everything that [`macro@task`] says holds here too. The runs with one key stand in a *lane*: they start in the
/// order in which they were accepted, each when the one before it is over, through crashes, retries and restarts.
/// Waiting runs are kept in the broker and occupy no worker. HQ calls this `serial_task`, and with `concurrency`
/// `concurrent_task`.
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
/// The options are those of [`macro@task`], except `acks_late = false` (a lane is held until its run is settled),
/// and:
///
/// - `key = "{domain}-{user_id}"`: the key, made of the values of the parameters as `format!` would make it.
///   `{form.domain}` names a field at any depth. The key is checked when the program is compiled. If a template does
///   not suffice, `key = path::to::function` calls a function that takes all parameters by reference and returns a
///   value that implements `Display`. Without a key, the task has one lane.
/// - `scope = "..."`: the namespace of the key. By default it is the name of the task, so that tasks share no lanes.
///   Tasks with the same scope share lanes.
/// - `concurrency = 1`: how many runs of a lane may overlap. `Celeriac::set_concurrency` changes the number for one
///   lane.
/// - `newcomer = "wait"`: what happens to a call that finds its lane taken. By default it waits, however long that
///   takes. With `"skip"` it is left out if another call waits already, and gets the receipt of that call. With
///   `"replace"` it takes the place of the waiting call, which is revoked.
/// - `fail_after = "90s"`: how long the call waits before it fails with HQ's `CouldNotAcquireLock`. With 0 it does
///   not wait.
/// - `after_failure = "next"`: what happens to the lane when a run has failed for good. By default the next run goes
///   on. With `"block"` no run does until somebody calls `Celeriac::unblock`. With `"park"` the failed task goes to
///   the dead letters, from where it can be put back, and the next run goes on.
#[doc(inline)]
pub use celeriac_macros::serial_task;

/// Makes a background task of a function, which beat calls again and again.
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
/// Everything that [`#[task]`](macro@task) says holds here too, and all of its options may be given. The program
/// finds the entry at link time, and the entry fires as soon as the program runs.
///
/// # When
///
/// - `crontab(..)`: five fields of Celery's grammar, all of which must match: `crontab("30 3 * * mon-fri")` (minute,
///   hour, day of month, month of year, day of week; Sunday is 0), or by name, `crontab(minute = [0, 30], hour = 3)`,
///   with a number, a list of numbers or text; a field that is not named is `*`. Naming a coarse field without the finer
///   ones does not compile, because in Celery `crontab(day_of_week = 6)` runs every minute of every Saturday.
/// - `every = "30s"`: the entry fires at each multiple of this interval since 1970 in UTC.
/// - `zone = "UTC"`: the zone whose clocks count; without it that of the program ([`Builder::zone`](crate::Builder::zone)),
///   which is UTC unless it says so. If the clocks skip a time, the entry fires at the first instant
///   after the gap; if they show a time twice, at the first. A crontab of every hour fires whenever the clock shows
///   one of its minutes.
/// - `tenants = path`: an `async fn` without parameters that returns a `Vec<Tenant>`, or a `Result` of one. The entry
///   then fires once for each tenant and local day, at its one time of day in the tenant's own zone, and the task
///   gets the tenant's name as its only argument. `spread = "4h"` spreads the tenants over a window after that time,
///   each tenant at the same place in the window every day. The window is at most twenty hours.
/// - `environments = ["production"]`: the entry fires only if `Builder::environment` is one of these.
///
/// # Missed and overlapping ticks
///
/// - `misfire = "once"`: what happens to ticks that came due while the program was down. By default one run stands
///   for all of them, as in Celery. `"skip"` drops ticks that are later than a minute. `"all"` with
///   `misfire_within = "1h"` makes up for each tick that is not older than that.
/// - `overlap = "buffer_one"`: what happens to a tick while the run of the tick before it is not over. By default one
///   tick waits for its end, so that runs do not overlap and do not pile up. `"skip"` drops the tick, and `"allow"`
///   publishes it all the same.
/// - `expires`: as in `#[task]`. Without it, a tick expires when the next one comes due.
/// - `entry = "..."`: the name of the entry; by default the name of the task.
#[doc(inline)]
pub use celeriac_macros::periodic_task;

//! `#[task]`, without any runtime: what it registers, and bodies run from encoded arguments.

#![forbid(unsafe_code)]
#![deny(missing_docs, warnings)]

#[path = "task_macro/declared.rs"]
mod declared;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use celeriac::task::registry::Registry;
use celeriac::task::{
    AfterFailure, Arguments, Body, Data, Durability, HookEvent, LaneName, Newcomer, Outcome, Rest,
    RestByName, SerialHeader, Task as TaskTrait, TaskDefinition, TaskKind, TaskOptions,
};
use celeriac::{Context, State, TaskError, serial_task, task};
use serde::{Deserialize, Serialize};

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct MailError {
    what: &'static str,
    #[source]
    cause: Option<std::num::ParseIntError>,
}

fn mail_error(what: &'static str) -> MailError {
    MailError { what, cause: "x".parse::<u8>().err() }
}

fn is_busy(error: &MailError) -> bool {
    error.what == "busy"
}

/// All options.
#[task(
    name = "mail.send",
    queue = "email",
    priority = 255,
    max_retries = 7,
    default_retry_delay = 1.5,
    retry_backoff = false,
    retry_backoff_max = "1h30m",
    retry_jitter = false,
    autoretry = false,
    retry_if = is_busy,
    acks_late = false,
    acks_on_failure_or_timeout = false,
    soft_time_limit = "30s",
    time_limit = 60,
    expires = "2d",
    ignore_result,
    store_errors_even_if_ignored,
    result_expires = "6h",
    durability = "memory",
    confirm = false,
    before_start = record,
    on_success = record,
    on_retry = hooks::record,
    on_failure = crate::record,
    after_return = record
)]
pub async fn send_email(user: u64, fail: Option<String>) -> Result<String, MailError> {
    tokio::task::yield_now().await;
    match fail.as_deref() {
        None => Ok(format!("sent to {user}")),
        Some("busy") => Err(mail_error("busy")),
        Some(_) => Err(mail_error("no such user")),
    }
}

static RECORDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn record(ctx: &Context, event: &HookEvent) {
    RECORDED.lock().unwrap().push(format!("{} {event:?}", ctx.id().as_str().len()));
}

mod hooks {
    pub(super) use super::record;
}

#[task]
async fn nothing() {}

#[task]
#[allow(clippy::unused_unit)]
fn nothing_cpu() -> () {}

#[task]
fn double(n: u32) -> u32 {
    n * 2
}

#[task]
fn fails(n: u32) -> Result<u32, MailError> {
    if n == 0 { Err(mail_error("zero")) } else { Ok(n) }
}

#[task]
async fn with_context(ctx: Context, n: u32) -> String {
    format!("{n} {}", ctx.attempt())
}

#[task]
async fn with_context_ref(ctx: &Context, mut text: String) -> String {
    tokio::task::yield_now().await;
    text.push_str(&ctx.retries().to_string());
    text
}

#[task]
fn context_only(ctx: &celeriac::task::Context) -> Result<u32, TaskError> {
    ctx.check()?;
    Ok(ctx.attempt())
}

#[task]
async fn not_send(n: u32) -> u32 {
    let rc = std::rc::Rc::new(n);
    tokio::task::yield_now().await;
    *rc
}

#[task]
fn by_alias(missing: bool) -> std::io::Result<()> {
    if missing { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

#[task]
fn says_itself() -> Result<(), TaskError> {
    Err(TaskError::reject("not mine"))
}

#[task]
fn a_map() -> HashMap<String, f64> {
    HashMap::from([("a".to_owned(), 1.5)])
}

/// Names that the generated code uses itself must not clash.
#[task]
#[allow(clippy::too_many_arguments)]
fn shadows(
    context: u8,
    arguments: u8,
    returned: u8,
    a0: u8,
    error: u8,
    options: u8,
    s: u8,
    delay: u8,
) -> u32 {
    [context, arguments, returned, a0, error, options, s, delay].iter().map(|n| u32::from(*n)).sum()
}

#[task]
fn delay() -> u8 {
    1
}

#[task]
fn r#type(r#match: u8) -> u8 {
    r#match
}

#[task]
#[rustfmt::skip]
#[allow(clippy::too_many_arguments, clippy::many_single_char_names)]
fn sixteen(
    a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8, m: u8, n: u8, o: u8, p: u8,
) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p
}

const DEFAULT: u8 = 5;

/// In Python: `def spread(first, second=5, *rest, **options)`.
#[task]
fn spread(
    first: u8,
    #[default = DEFAULT] second: u8,
    rest: Rest<u8>,
    options: RestByName<String>,
) -> (u8, u8, usize, Option<String>) {
    (first, second, rest.len(), options.get("color").cloned())
}

/// Each kind of default, and a parameter between them that is no argument.
#[task]
fn left_out(
    #[default = "hello"] text: String,
    _data: Data<u8>,
    #[default = -1.5] number: f64,
    #[default = vec![1, 2]] list: Vec<u8>,
    #[default = Some(true)] maybe: Option<bool>,
    param: Option<u8>,
) -> (String, f64, Vec<u8>, Option<bool>, Option<u8>) {
    (text, number, list, maybe, param)
}

#[task]
fn only_the_rest(rest: celeriac::task::Rest<u8>) -> Vec<u8> {
    rest.0
}

#[serial_task(key = "{domain}")]
fn in_a_lane(#[default = "all"] domain: String, _more: RestByName<u8>) {}

#[task]
#[cfg(any())]
fn compiled_out(n: TypeThatDoesNotExist) {}

#[task]
#[deprecated = "use double"]
fn old(n: u32) -> u32 {
    n
}

/// Their own `Task`, which the module's `Task` must not hide.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Task {
    n: u8,
}

#[task]
fn own_type(task: Task, more: Vec<Task>, same: self::Task) -> Task {
    Task { n: task.n + same.n + more.iter().map(|t| t.n).sum::<u8>() }
}

mod deep {
    pub(crate) mod inner {
        use celeriac::task;
        use std::collections::BTreeMap as Tree;

        #[task]
        pub(crate) fn relative(form: super::super::Task, tree: Tree<String, u8>) -> super::super::Task {
            super::super::Task { n: form.n + tree["a"] }
        }

        #[task]
        pub(in super::super) fn restricted() -> u8 {
            1
        }

        #[task]
        pub(super) fn near() -> u8 {
            2
        }

        #[task]
        #[allow(clippy::needless_pub_self)]
        pub(self) fn own() -> u8 {
            3
        }

        pub(super) fn own_name() -> &'static str {
            <own::Task as celeriac::task::Task>::NAME
        }
    }

    pub(crate) fn names() -> [&'static str; 2] {
        [<inner::near::Task as celeriac::task::Task>::NAME, inner::own_name()]
    }

    // One `use` brings in the function and the module.
    pub(crate) use inner::relative;
}

macro_rules! adder {
    ($name:ident, $t:ty) => {
        #[task]
        fn $name(a: $t, b: $t) -> $t {
            a + b
        }
    };
}
adder!(add_u8, u8);
adder!(add_i64, i64);

fn definition(name: &str) -> &'static TaskDefinition {
    let registry = Registry::discover().unwrap();
    registry.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", registry.names()))
}

fn run_encoded(name: &str, arguments: &Arguments) -> Outcome {
    match definition(name).body {
        Body::Io(body) => futures_executor::block_on(body(Context::detached(), arguments)?),
        Body::Cpu(body) => body(Context::detached(), arguments),
    }
}

/// Runs a task of this file on positional arguments.
fn run(name: &str, args: &str) -> Result<String, String> {
    let arguments = Arguments { args: args.to_owned(), kwargs: String::new() };
    let name = if name.contains('.') { name.to_owned() } else { format!("task_macro::{name}") };
    run_encoded(&name, &arguments).map_err(|e| e.to_string())
}

fn ok(json: &str) -> Result<String, String> {
    Ok(json.to_owned())
}

#[test]
fn every_option_arrives() {
    let options = (definition("mail.send").options)();
    assert_eq!(options.queue.as_deref(), Some("email"));
    assert_eq!(options.priority, 255);
    assert_eq!(options.retry.max_retries, 7);
    assert_eq!(options.retry.delay, Duration::from_millis(1500));
    assert!(!options.retry.backoff);
    assert_eq!(options.retry.max_delay, Duration::from_secs(5400));
    assert!(!options.retry.jitter);
    assert!(!options.autoretry);
    assert!(!options.acks_late);
    assert_eq!(options.soft_time_limit, Some(Duration::from_secs(30)));
    assert_eq!(options.time_limit, Some(Duration::from_secs(60)));
    assert_eq!(options.expires, Some(Duration::from_secs(2 * 86400)));
    assert!(options.ignore_result);
    assert_eq!(options.result_expires, Duration::from_secs(6 * 3600));
    assert_eq!(options.durability, Durability::Memory);
    assert!(!options.confirm);
    assert!(!options.acks_on_failure_or_timeout && options.store_errors_even_if_ignored);
    assert_eq!(send_email::Task::options(), options);
}

#[test]
fn no_option_means_the_defaults() {
    let task = definition("task_macro::nothing");
    assert_eq!((task.options)(), TaskOptions::default());
    let hooks = (task.hooks)();
    assert!(hooks.before_start.is_none() && hooks.on_success.is_none());
    assert!(hooks.on_retry.is_none() && hooks.on_failure.is_none() && hooks.after_return.is_none());
}

#[test]
fn hooks_are_called_through_the_definition() {
    let hooks = (definition("mail.send").hooks)();
    let ctx = Context::detached();
    for (hook, event) in [
        (hooks.before_start, HookEvent::BeforeStart),
        (hooks.on_success, HookEvent::Success("1".into())),
        (hooks.on_retry, HookEvent::Retry(vec!["a".into()])),
        (hooks.on_failure, HookEvent::Failure(vec!["b".into()])),
        (hooks.after_return, HookEvent::AfterReturn(State::Success)),
    ] {
        hook.unwrap()(&ctx, &event);
    }
    let expected = [
        "36 BeforeStart",
        "36 Success(\"1\")",
        "36 Retry([\"a\"])",
        "36 Failure([\"b\"])",
        "36 AfterReturn(Success)",
    ];
    assert_eq!(*RECORDED.lock().unwrap(), expected);
}

#[test]
fn names_params_kinds_and_places() {
    assert_eq!(send_email::Task::NAME, "mail.send");
    assert_eq!(send_email::Task::PARAMS, ["user", "fail"]);
    assert_eq!(double::Task::NAME, "task_macro::double");
    assert_eq!(deep::relative::Task::NAME, "task_macro::deep::inner::relative");
    assert_eq!(deep::inner::restricted::Task::NAME, "task_macro::deep::inner::restricted");
    assert_eq!(deep::names(), ["task_macro::deep::inner::near", "task_macro::deep::inner::own"]);
    assert_eq!(r#type::Task::NAME, "task_macro::type");
    assert_eq!(r#type::Task::PARAMS, ["match"]);
    assert!(context_only::Task::PARAMS.is_empty());
    assert_eq!(with_context::Task::PARAMS, ["n"]);
    assert_eq!(sixteen::Task::PARAMS.len(), 16);

    let task = definition("mail.send");
    assert_eq!((task.params, task.kind), (send_email::Task::PARAMS, TaskKind::Io));
    assert!(matches!(task.body, Body::Io(_)));
    let task = definition("task_macro::double");
    assert_eq!(task.kind, TaskKind::Cpu);
    assert!(matches!(task.body, Body::Cpu(_)));
    let (file, line) = task.location.rsplit_once(':').unwrap();
    assert!(file.ends_with("task_macro.rs"), "{file}");
    let source = include_str!("task_macro.rs").lines().skip(line.parse::<usize>().unwrap() - 1);
    assert_eq!(source.take(2).collect::<Vec<_>>(), ["#[task]", "fn double(n: u32) -> u32 {"]);
    assert!(Registry::discover().unwrap().get("task_macro::compiled_out").is_none());
}

#[test]
fn bodies_run_from_encoded_arguments() {
    assert_eq!(run("mail.send", "[42, null]"), ok("\"sent to 42\""));
    assert_eq!(run("mail.send", "[42]"), ok("\"sent to 42\""));
    assert_eq!(run("nothing", "[]"), ok("null"));
    assert_eq!(run("nothing_cpu", ""), ok("null"));
    assert_eq!(run("double", "[21]"), ok("42"));
    assert_eq!(run("fails", "[1]"), ok("1"));
    assert_eq!(run("with_context", "[7]"), ok("\"7 1\""));
    assert_eq!(run("with_context_ref", "[\"n\"]"), ok("\"n0\""));
    assert_eq!(run("context_only", "[]"), ok("1"));
    assert_eq!(run("not_send", "[5]"), ok("5"));
    assert_eq!(run("by_alias", "[false]"), ok("null"));
    assert_eq!(run("a_map", "[]"), ok("{\"a\":1.5}"));
    assert_eq!(run("shadows", "[1,2,3,4,5,6,7,8]"), ok("36"));
    assert_eq!(run("delay", "[]"), ok("1"));
    assert_eq!(run("type", "[9]"), ok("9"));
    assert_eq!(run("sixteen", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), ok("16"));
    assert_eq!(run("old", "[3]"), ok("3"));
    assert_eq!(run("own_type", r#"[{"n":1},[{"n":2},{"n":3}],{"n":4}]"#), ok(r#"{"n":10}"#));
    assert_eq!(run("deep::inner::relative", r#"[{"n":1},{"a":2}]"#), ok(r#"{"n":3}"#));
    assert_eq!(run("add_u8", "[1,2]"), ok("3"));
    assert_eq!(run("add_i64", "[-1,-2]"), ok("-3"));
}

#[test]
fn keyword_arguments_find_their_parameters() {
    let by_name = Arguments { args: "[1]".into(), kwargs: r#"{"fail":"busy"}"#.into() };
    assert!(run_encoded("mail.send", &by_name).unwrap_err().to_string().starts_with("busy"));
    let by_name = Arguments { args: "[]".into(), kwargs: r#"{"user":1}"#.into() };
    assert_eq!(run_encoded("mail.send", &by_name).unwrap(), "\"sent to 1\"");
    let by_name = Arguments { args: "[]".into(), kwargs: r#"{"match":4}"#.into() };
    assert_eq!(run_encoded("task_macro::type", &by_name).unwrap(), "4");
}

#[test]
fn what_is_left_over_and_left_out_is_as_in_python() {
    assert_eq!(spread::Task::PARAMS, ["first", "second", "*rest", "**options"]);
    for (args, kwargs, value) in [
        ("[1]", "", "[1,5,0,null]"),
        ("[1,2,3,4]", "", "[1,2,2,null]"),
        ("[1]", r#"{"second":9,"color":"red"}"#, "[1,9,0,\"red\"]"),
        ("[]", r#"{"first":7}"#, "[7,5,0,null]"),
    ] {
        let arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
        assert_eq!(run_encoded("task_macro::spread", &arguments).unwrap(), value, "{args} {kwargs}");
    }
    let error = run("spread", "[1,null]").unwrap_err();
    assert!(
        error.contains("(first=1, second=null, *rest=[], **options={})"),
        "null is not left out: {error}"
    );
    let defaults: Vec<String> = (0..5).map_while(left_out::Task::default_of).map(Result::unwrap).collect();
    assert_eq!(defaults, ["\"hello\"", "-1.5", "[1,2]", "true"]);
    assert!(double::Task::default_of(0).is_none());
    assert_eq!(run("only_the_rest", "[1,2]"), ok("[1,2]"));
    assert_eq!(run("only_the_rest", "[]"), ok("[]"));
    // The lane of a call that leaves the key out is that of the default.
    let lane = serial("task_macro::in_a_lane", "[]").map(|serial| serial.lane);
    assert_eq!(lane, Ok(LaneName::new("task_macro::in_a_lane", "all")));
    // Rust callers state all of them.
    let _: celeriac::task::Signature<spread::Task> = spread::s(1, 2, Rest(vec![3]), RestByName::default());
    let _: celeriac::task::canvas::Canvas<Vec<u8>> = only_the_rest::p(Rest(vec![2]));
}

#[test]
fn errors_come_with_their_causes() {
    let cause = "invalid digit found in string";
    assert_eq!(run("fails", "[0]"), Err(format!("zero: {cause}")));
    assert_eq!(run("mail.send", "[1,\"busy\"]"), Err(format!("busy: {cause}")));
    assert_eq!(run("by_alias", "[true]"), Err("entity not found".into()));
    assert_eq!(run("says_itself", "[]"), Err("rejected: not mine".into()));
}

#[test]
fn the_predicate_says_what_is_transient() {
    let ended = |name: &str, arguments: &Arguments| run_encoded(name, arguments).unwrap_err().is_transient();
    let mail = |fail: &str| ended("mail.send", &Arguments::encode(&(1, fail)).unwrap());
    assert_eq!(mail("busy"), Some(true));
    assert_eq!(mail("gone"), Some(false));
    assert_eq!(ended("task_macro::fails", &Arguments::encode(&(0,)).unwrap()), None);
}

#[test]
fn what_does_not_decode_is_rejected_before_the_body() {
    for (name, args, what) in [
        ("double", "[\"x\"]", "rejected: the arguments (n=\"x\") do not decode as (u32,)"),
        ("double", "[]", "rejected: the arguments (n=null) do not decode"),
        ("double", "[1,2]", "rejected: 2 positional arguments were given, but the task takes (n)"),
        ("nothing", "[1]", "rejected: 1 positional arguments were given, but the task takes ()"),
        ("nothing_cpu", "{}", "rejected: the positional arguments are not a JSON array"),
        ("with_context", "[-1]", "rejected: the arguments (n=-1) do not decode as (u32,)"),
    ] {
        let error = run(name, args).unwrap_err();
        assert!(error.starts_with(what), "{error}");
    }
    // For an async body it is the call that fails, not the future.
    let Body::Io(body) = definition("mail.send").body else { panic!("not async") };
    assert!(body(Context::detached(), &Arguments::default()).is_err());
}

#[test]
fn the_function_is_still_a_function() {
    assert_eq!(double(4), 8);
    assert_eq!(futures_executor::block_on(send_email(1, None)).unwrap(), "sent to 1");
    let ctx = Context::detached();
    assert_eq!(futures_executor::block_on(with_context_ref(&ctx, "a".into())), "a0");
    assert_eq!(context_only(&ctx).unwrap(), 1);
    assert_eq!(deep::relative(Task { n: 1 }, [("a".to_owned(), 1)].into()), Task { n: 2 });
}

/// `s` and `delay` take the arguments without the context, and their types are those of the function's module.
#[test]
fn signatures_are_typed() {
    let _: celeriac::task::Signature<with_context::Task> = with_context::s(1);
    let _: celeriac::task::Signature<deep::relative::Task> = deep::relative::s(Task { n: 1 }, [].into());
    let _: celeriac::task::Enqueue<send_email::Task> = send_email::delay(1, Some("busy".into()));
    let _: celeriac::task::Enqueue<shadows::Task> = shadows::delay(1, 2, 3, 4, 5, 6, 7, 8);
    let _: celeriac::task::Enqueue<nothing::Task> = nothing::delay();
    let _: celeriac::task::Enqueue<delay::Task> = delay::delay();
    let _: celeriac::task::Enqueue<own_type::Task> = own_type::delay(Task { n: 1 }, vec![], Task { n: 1 });
}

#[test]
fn without_a_runtime_delay_says_so() {
    let error = double::delay(1).wait().unwrap_err();
    assert_eq!(error, celeriac::EnqueueError::NotRunning);
}

#[test]
fn a_task_of_plain_types_works_inside_a_function_too() {
    #[task]
    fn local(n: Vec<u8>) -> usize {
        n.len()
    }
    assert_eq!(run("local", "[[1,2]]"), ok("2"));
    let _ = local::s(vec![]);
}

/// A user, as HQ's manual greets one.
#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    username: String,
    /// The user's team: its name and its number.
    pub team: (String, u8),
}

/// The example of HQ's manual.
#[serial_task(key = "{user.username}-{project}", name = "greet")]
pub fn greet(user: User, project: String, loudly: bool) -> String {
    format!("hello {}{}", user.username, if loudly { "!" } else { "" })
}

/// All options, and names that the macro uses itself.
#[serial_task(
    key = "{{{lane}}}/{type}/{args.team.1}",
    scope = "shared",
    concurrency = 3,
    fail_after = "1m30s",
    after_failure = "block",
    queue = "io"
)]
async fn all_of_it(_ctx: Context, lane: u8, r#type: char, args: User) {}

/// A key that a function makes; nobody uses the parameters otherwise.
#[serial_task(key = by_team, newcomer = "skip", after_failure = "park")]
fn by_function(_user: User, _other: Option<u8>) {}

fn by_team(user: &User, other: &Option<u8>) -> impl std::fmt::Display + use<> {
    format!("{}+{}", user.team.0, other.unwrap_or(0))
}

fn joe() -> User {
    User { username: "joeshmoe".into(), team: ("dimagi".into(), 7) }
}

fn serial(name: &str, args: &str) -> Result<SerialHeader, String> {
    let arguments = Arguments { args: args.to_owned(), kwargs: String::new() };
    definition(name).serial.expect("it is serial")(&arguments).map_err(|error| error.to_string())
}

#[test]
fn the_lane_is_made_of_the_arguments() {
    let json = serde_json::to_string(&(joe(), "Dimagi", true)).unwrap();
    let typed = greet::Task::serial(&(joe(), "Dimagi".into(), true)).unwrap();
    assert_eq!(typed.lane, LaneName::new("greet", "joeshmoe-Dimagi"));
    assert_eq!(typed.lane.to_string(), "greet-joeshmoe-Dimagi", "as HQ spells it");
    let rest = (typed.concurrency, typed.newcomer, typed.after_failure);
    assert_eq!(rest, (1, Newcomer::Wait, AfterFailure::Next));
    assert_eq!(serial("greet", &json), Ok(typed), "and of encoded ones");
    // Wherever the one ends and the other begins.
    let lane = |username: &str, project: &str| {
        let user = User { username: username.into(), team: (String::new(), 0) };
        greet::Task::serial(&(user, project.into(), true)).unwrap().lane
    };
    assert_eq!(lane("joe", "shmoe-hq").key(), "joe-shmoe-hq");
    assert_eq!(lane("joe-shmoe", "hq").key(), "%9:joe-shmoe-hq");
    assert_eq!(lane("joe-shmoe", "hq").key(), celeriac::task::key_of(["joe-shmoe", "hq"]));
    assert_eq!(greet(joe(), String::new(), true), "hello joeshmoe!");
    let wrong = serial("greet", "[1]").unwrap_err();
    assert!(wrong.starts_with("the arguments (user=1,"), "{wrong}");

    let all = all_of_it::Task::serial(&(5, 'x', joe())).unwrap();
    assert_eq!(all.lane, LaneName::new("shared", "{5}/x/7"));
    assert_eq!((all.concurrency, all.after_failure), (3, AfterFailure::Block));
    assert_eq!(all.newcomer, Newcomer::FailAfter(Duration::from_secs(90)));
    assert_eq!(definition("task_macro::all_of_it").kind, TaskKind::Io);

    let by_function = by_function::Task::serial(&(joe(), Some(3))).unwrap();
    assert_eq!(by_function.lane, LaneName::new("task_macro::by_function", "dimagi+3"));
    assert_eq!((by_function.newcomer, by_function.after_failure), (Newcomer::Skip, AfterFailure::Park));
    assert!(definition("mail.send").serial.is_none());
}

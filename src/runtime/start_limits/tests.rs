//! What a queue is told that asks, without the queue.

use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::broker::MemoryBroker;
use crate::catalogue::{LimitRow, TaskPattern};
use crate::core::calendar::Zone;
use crate::core::start_limit::Breaker;
use crate::runtime::Runtime;
use crate::runtime::gates::{GateAdmission, ShutGroups};
use crate::store::{CompareAndSet, MemoryStore};
use crate::task::canvas::CanvasLimits;
use crate::task::{
    Arguments, ArgumentsError, Body, Context, Dispatcher, Hooks, OneQueue, TENANT, Task, TaskError, TaskKind,
    limit_key_of,
};

const LONG: Duration = Duration::from_secs(120);

struct Sms;

impl Task for Sms {
    type Args = (String, u64);
    type Output = ();
    const NAME: &'static str = "sms";
    const PARAMS: &'static [&'static str] = &["gateway", "id"];

    fn options() -> TaskOptions {
        TaskOptions { max_running: Some(2), ..TaskOptions::default() }
    }

    fn limit_key((gateway, _): &Self::Args) -> Option<String> {
        assert!(gateway != "panics", "as a key of the program's own may");
        Some(gateway.clone())
    }
}

fn key_of_sms(arguments: &Arguments) -> Result<String, ArgumentsError> {
    limit_key_of::<Sms>(arguments)
}

const fn definition(
    name: &'static str,
    options: fn() -> TaskOptions,
    key: Option<LimitKeyFn>,
) -> TaskDefinition {
    TaskDefinition {
        name,
        params: &["gateway", "id"],
        location: "src/sms.rs:1",
        kind: TaskKind::Cpu,
        options,
        body: Body::Cpu(|_, _| Err(TaskError::ignore())),
        hooks: Hooks::default,
        data: &[],
        serial: None,
        unique: None,
        rate_key: None,
        limit_key: key,
        tenant: None,
        search: &[],
    }
}

static SMS: TaskDefinition = definition("sms", Sms::options, Some(key_of_sms));
static PLAIN: TaskDefinition = definition("plain", TaskOptions::default, None);

fn registry() -> Registry {
    Registry::from_definitions([&SMS, &PLAIN].into_iter()).unwrap()
}

/// A queue that holds nothing back yet, and hears when it is rung for.
struct Listener {
    runtime: Runtime,
    bell: Arc<Bell>,
    heard: Arc<Notify>,
    shut: Vec<u64>,
}

impl ShutGroups for Vec<u64> {
    fn any(&self) -> bool {
        !self.is_empty()
    }

    fn is_shut(&self, group: u64) -> bool {
        self.contains(&group)
    }
}

impl Listener {
    /// On these parts, as after a start of the program.
    fn on(broker: &Arc<MemoryBroker>, store: &Arc<MemoryStore>, catalogue: &Catalogue) -> Self {
        let dispatcher = Dispatcher {
            registry: registry(),
            route: Box::new(OneQueue),
            max_message_size: 1 << 16,
            limits: CanvasLimits::default(),
            reply_to: None,
            without_lanes: None,
            without_windows: None,
            without_exchanges: None,
            indexes_arguments: false,
        };
        let (broker, store) = (Arc::clone(broker), Arc::clone(store));
        let limits = StartLimits::of(&registry(), catalogue, broker.clone(), store.clone());
        let limits = limits.unwrap_or_else(|fault| panic!("{}: {}", fault.name, fault.fault));
        let mut runtime = Runtime::new(broker, store, Arc::new(dispatcher));
        runtime.limit_starts(limits);
        let heard = Arc::new(Notify::new());
        let told = Arc::clone(&heard);
        Self { runtime, bell: Arc::new(Bell::new(move || told.notify_one())), heard, shut: Vec::new() }
    }

    fn new(catalogue: &Catalogue) -> Self {
        let store = Arc::new(MemoryStore::default());
        let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
        Self::on(&broker, &store, catalogue)
    }

    fn admit(&self, message: &Message) -> Result<GateAdmission, Hold> {
        self.runtime.gates(&self.bell, &self.shut).admit(message)
    }

    /// Admits it as soon as the store has answered.
    async fn admit_in_time(&self, message: &Message) -> Result<GateAdmission, Hold> {
        loop {
            match self.admit(message) {
                Err(Hold { reason: HoldReason::Limit { by: LimitedBy::Unanswered, .. }, .. }) => {
                    tokio::time::timeout(LONG, self.heard.notified()).await.expect("an answer");
                    self.bell.take();
                }
                answer => return answer,
            }
        }
    }
}

fn call(task: &str, args: &str) -> Message {
    let arguments = Arguments { args: args.to_owned(), kwargs: String::new() };
    Message { task: task.to_owned(), arguments, ..Context::detached().message().clone() }
}

fn by(held: &Hold) -> (&str, &LimitedBy) {
    match &held.reason {
        HoldReason::Limit { key, by, .. } => (key, by),
        other => panic!("{other}"),
    }
}

fn with_limits(rows: impl IntoIterator<Item = LimitRow>) -> Catalogue {
    rows.into_iter().fold(Catalogue::new(), Catalogue::with_limit)
}

/// A zone in which it is past noon, so that its day does not end within a test.
fn past_noon() -> Zone {
    let hour = now().as_millis() / 3_600_000 % 24;
    let name = if hour < 12 { format!("Etc/GMT-{}", 12 - hour) } else { format!("Etc/GMT+{}", hour - 12) };
    name.parse().unwrap()
}

fn limit(change: impl FnOnce(&mut StartLimit)) -> StartLimit {
    let mut limit = StartLimit::default();
    change(&mut limit);
    limit
}

#[test]
fn a_place_is_given_back_whatever_becomes_of_it_and_who_waits_is_told() {
    let listener = Listener::new(&Catalogue::new());
    let sms = call("sms", "[\"a\",1]");
    for end in [RunEnd::NotRun, RunEnd::Other, RunEnd::Failure, RunEnd::Success] {
        let mut first = listener.admit(&sms).unwrap_or_else(|hold| panic!("{}", hold.reason));
        let second = listener.admit(&sms);
        let held = listener.admit(&sms).err().expect("two run");
        assert_eq!((by(&held), held.wait), (("a", &LimitedBy::Running(2)), None));
        assert!(listener.admit(&call("sms", "[\"b\",1]")).is_ok(), "another key");
        assert!(listener.admit(&call("plain", "[\"a\",1]")).is_ok(), "another task");
        first.end(end);
        drop(first);
        let rung: Vec<u64> = listener.bell.take().into_iter().map(|(group, _)| group).collect();
        assert_eq!(rung, [held.reason.group("sms")], "{end:?}");
        assert!(listener.admit(&sms).is_ok());
        assert!(second.is_ok());
    }
}

/// Also when it has failed: then it is known how long the next pause is, which may be shorter than they would wait otherwise.
#[test]
fn a_run_that_finds_out_tells_those_who_wait_for_it_whatever_it_came_to() {
    let breaker = Breaker::new(1, 1, Duration::from_millis(1), LONG);
    let row = LimitRow::new("plain", limit(|limit| limit.breaker = Some(breaker)));
    let listener = Listener::new(&with_limits([row]));
    let plain = call("plain", "[]");
    let mut first = listener.admit(&plain).unwrap_or_else(|hold| panic!("{}", hold.reason));
    first.end(RunEnd::Failure);
    drop(first);
    for end in [RunEnd::Failure, RunEnd::Other, RunEnd::Success] {
        // After the pause one may find out.
        let mut probe = loop {
            if let Ok(admission) = listener.admit(&plain) {
                break admission;
            }
            std::thread::yield_now();
        };
        let held = listener.admit(&plain).err().expect("one run finds out");
        assert_eq!(held.wait, None, "{end:?}");
        probe.end(end);
        drop(probe);
        let rung: Vec<u64> = listener.bell.take().into_iter().map(|(group, _)| group).collect();
        assert_eq!(rung, [held.reason.group("plain")], "{end:?}");
    }
}

#[test]
fn whoever_comes_waits_behind_those_that_are_held() {
    let mut listener = Listener::new(&Catalogue::new());
    let sms = call("sms", "[\"a\",1]");
    let reason =
        HoldReason::Limit { name: "runs of sms".to_owned(), key: "a".to_owned(), by: LimitedBy::Running(2) };
    listener.shut.push(reason.group("sms"));
    assert_eq!(
        listener.admit(&sms).err().map(|hold| hold.wait),
        Some(None),
        "a place is free, and not for it"
    );
    assert!(listener.admit(&call("sms", "[\"b\",1]")).is_ok());
}

#[test]
fn a_task_is_counted_by_all_its_limits_or_by_none() {
    let rows = [
        LimitRow::new("s*", limit(|limit| limit.max_running = Some(3))).with_name("all"),
        LimitRow::new("sms", limit(|limit| limit.max_running = Some(1))).with_name("id").with_key("id"),
        LimitRow::of(TaskPattern::Regex("plai".to_owned()), limit(|limit| limit.max_running = Some(1)))
            .with_name("tenant")
            .with_key("tenant"),
    ];
    let listener = Listener::new(&with_limits(rows));
    let first = listener.admit(&call("sms", "[\"a\",1]"));
    // The limit that is asked last refuses them, so the first ones count nothing.
    for _ in 0..5 {
        let held = listener.admit(&call("sms", "[\"b\",1]")).err().expect("its id is taken");
        assert_eq!(by(&held), ("1", &LimitedBy::Running(1)));
    }
    let second = listener.admit(&call("sms", "[\"b\",2]"));
    let third = listener.admit(&call("sms", "[\"c\",3]"));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(by(&listener.admit(&call("sms", "[\"d\",4]")).err().expect("three run")).0, "");
    // The tenant is that of the message.
    let mut of_tenant = call("plain", "[]");
    of_tenant.headers.0.insert(TENANT.to_owned(), "demo".into());
    let running = listener.admit(&of_tenant);
    assert!(running.is_ok() && listener.admit(&call("plain", "[]")).is_ok());
    assert_eq!(by(&listener.admit(&of_tenant).err().expect("it runs")).0, "demo");
}

/// Its end at the start is for the queue.
#[test]
fn a_task_without_a_key_is_let_through() {
    let listener = Listener::new(&Catalogue::new());
    for args in ["[7]", "no JSON", "[\"panics\",1]"] {
        let admitted: Vec<bool> = (0..3).map(|_| listener.admit(&call("sms", args)).is_ok()).collect();
        assert_eq!(admitted, [true; 3], "{args}");
    }
}

/// A day's count is in the notes: another life of the program goes on from there, and gives away no more than is left.
#[tokio::test]
async fn the_cap_of_a_day_is_kept_through_a_restart() {
    let zone = past_noon();
    let catalogue = |cap: u32| {
        let row = LimitRow::new("plain", limit(|limit| limit.daily = Some(cap))).with_key("gateway");
        with_limits([row.with_zone(zone)])
    };
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let plain = call("plain", "[\"a\"]");
    let mut started = 0;
    // The first life is killed and loses what is left of its share of three. The second one gives it back.
    for (starts, is_killed, lost) in [(4, true, 2), (10, false, 0), (usize::MAX, false, 0)] {
        let listener = Listener::on(&broker, &store, &catalogue(60));
        let mut here = 0;
        while here < starts {
            match listener.admit_in_time(&plain).await {
                Ok(mut admission) => {
                    admission.begin();
                    here += 1;
                }
                Err(held) => {
                    assert_eq!(by(&held), ("a", &LimitedBy::Daily(60)));
                    break;
                }
            }
        }
        if !is_killed {
            listener.runtime.limits.give_unused_back().await;
        }
        started += here + lost;
    }
    assert_eq!(started, 60);
    // What did not run is given back.
    let listener = Listener::on(&broker, &store, &catalogue(61));
    for _ in 0..3 {
        assert!(listener.admit_in_time(&plain).await.is_ok());
    }
    let mut last = listener.admit_in_time(&plain).await.unwrap_or_else(|hold| panic!("{}", hold.reason));
    last.begin();
    assert!(listener.admit_in_time(&plain).await.is_err());
}

/// They go after whoever waits for a share of today has it.
#[tokio::test]
async fn the_counts_of_days_that_are_long_over_go() {
    let row = LimitRow::new("plain", limit(|limit| limit.daily = Some(60))).with_zone(past_noon());
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let notes = Store::notes(&*store).expect("a store in memory has notes");
    let (key, value) = ("limit-day/old".to_owned(), Some("[[\"2020-01-01\",3]]".to_owned()));
    assert!(notes.compare_and_set(CompareAndSet { key, expected: None, value }).await.unwrap());
    let listener = Listener::on(&broker, &store, &with_limits([row]));
    assert!(listener.admit_in_time(&call("plain", "[]")).await.is_ok());
    let goes = async {
        while notes.note("limit-day/old").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, goes).await.expect("the old one goes");
    assert_eq!(notes.notes("limit-day/").await.unwrap().len(), 1, "that of today stays");
}

#[test]
fn a_key_that_is_no_parameter_is_told_with_those_that_are() {
    let fault = |row: LimitRow| {
        let store = Arc::new(MemoryStore::default());
        let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
        StartLimits::of(&registry(), &with_limits([row]), broker, store).err().map(|fault| fault.fault)
    };
    let row = |key: &str| LimitRow::new("sms", limit(|limit| limit.daily = Some(1))).with_key(key);
    assert_eq!(
        fault(row("gatway")).as_deref(),
        Some(
            "its key `gatway` is no parameter of task `sms` (src/sms.rs:1), whose parameters are: gateway, id; a key may also be \"tenant\"; did you mean `gateway`?"
        )
    );
    assert_eq!((fault(row("gateway")), fault(row("tenant"))), (None, None));
    let other = LimitRow::new("another.program", limit(|limit| limit.daily = Some(1))).with_key("x");
    assert_eq!(fault(other), None, "its parameters are not known here");
    let none = fault(LimitRow::new("sms", limit(|limit| limit.max_running = Some(0))));
    assert!(none.is_some_and(|fault| fault.contains("its max_running is 0")));
}

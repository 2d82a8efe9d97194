//! Any message that the runtime can make comes back as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use celeriac::core::{RetryPolicy, Timestamp};
use celeriac::protocol::{Arrival, decode, encode};
use celeriac::task::{Arguments, Durability, Headers, Message, RawSignature, TaskId, TaskOptions, Workflow};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::any_bytes::check;
use crate::captures::now;

pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON knows it", |float| float.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map("[ -~]{0,8}|__type__|__value__", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_map() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(any::<String>(), any_json(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn any_id() -> impl Strategy<Value = TaskId> {
    prop_oneof!["[0-9a-f-]{36}", "\\PC{1,60}"].prop_map(TaskId::from)
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    // Up to the end of the year 9999, which is Python's last.
    (0u64..253_402_300_800_000_000).prop_map(Timestamp::from_micros)
}

/// A limit is a float on the wire, and so exact to the millisecond for some millennia.
fn any_limit() -> impl Strategy<Value = Option<Duration>> {
    option::of(prop_oneof![
        (1u64..1 << 40).prop_map(Duration::from_millis),
        (1u64..1 << 40).prop_map(Duration::from_secs)
    ])
}

fn any_duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn any_signature() -> impl Strategy<Value = RawSignature> {
    (".{1,20}", vec(any_json(), 0..3), any_map(), any_map(), option::of("[a-z]{1,8}"), any::<bool>())
        .prop_map(|(task, args, kwargs, options, subtask_type, immutable)| RawSignature {
            task,
            args: args.into_iter().map(Into::into).collect(),
            kwargs: kwargs.into(),
            options: options.into(),
            subtask_type,
            immutable,
        })
}

/// Not a name of Celery's or ours.
fn any_headers() -> impl Strategy<Value = Headers> {
    btree_map("h-[ -~]{0,8}", any_json(), 0..3).prop_map(Headers)
}

fn any_workflow() -> impl Strategy<Value = Workflow> {
    let ids = (option::of(any_id()), option::of(any_id()), option::of(".{0,20}"), option::of(any::<u32>()));
    let signatures = (
        vec(any_signature(), 0..3),
        vec(any_signature(), 0..3),
        vec(any_signature(), 0..3),
        option::of(any_signature()),
    );
    let rest = (
        any::<u32>(),
        option::of(".{0,20}"),
        option::of(".{0,20}"),
        vec(".{0,8}", 0..3),
        btree_map(".{0,8}", any_json(), 0..3),
        option::of(".{0,20}"),
    );
    (ids, signatures, rest).prop_map(|(ids, signatures, rest)| {
        let (root_id, parent_id, group, group_index) = ids;
        let (callbacks, errbacks, chain, chord) = signatures;
        let (replaced_task_nesting, reply_to, shadow, stamped_headers, stamps, origin) = rest;
        Workflow {
            root_id,
            parent_id,
            group,
            group_index,
            callbacks,
            errbacks,
            chain,
            chord,
            replaced_task_nesting,
            reply_to,
            shadow,
            stamped_headers,
            stamps: Headers(stamps),
            origin,
        }
    })
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    (any::<u32>(), any_duration(), any::<bool>(), any_duration(), any::<bool>()).prop_map(
        |(max_retries, delay, backoff, max_delay, jitter)| RetryPolicy {
            max_retries,
            delay,
            backoff,
            max_delay,
            jitter,
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let what = (any_id(), ".{1,30}", vec(any_json(), 0..4), any_map(), any::<u8>(), any::<bool>());
    let times = (option::of(any_time()), option::of(any_time()), any::<u64>(), option::of(any::<u64>()));
    let counts = (any::<u32>(), any::<u32>(), any::<u32>());
    let rules =
        (any_policy(), any::<bool>(), any_limit(), any_limit(), any::<bool>(), any::<bool>(), any_duration());
    let rest = (any_headers(), vec(any::<String>(), 0..3), option::of(any_workflow()), option::of(".{0,12}"));
    (what, times, counts, rules, rest).prop_map(|(what, times, counts, rules, rest)| {
        let (id, task, args, kwargs, priority, memory) = what;
        let (retry, autoretry, soft_time_limit, time_limit, acks_late, ignore_result, result_expires) = rules;
        let (mut headers, last_errors, workflow, hidden) = rest;
        if let Some(hidden) = hidden {
            headers.0.insert("argsrepr".into(), hidden.into());
        }
        let mut message = celeriac::Context::detached().message().clone();
        message.id = id;
        message.task = task;
        message.arguments = Arguments {
            args: Value::from(args).to_string(),
            kwargs: if kwargs.is_empty() { String::new() } else { Value::Object(kwargs).to_string() },
        };
        message.queue = "q".into();
        message.priority = priority;
        (message.eta, message.expires) = (times.0, times.1);
        message.enqueued_at = Timestamp::from_micros(times.2);
        message.first_started_at = times.3.map(Timestamp::from_micros);
        (message.retries, message.crashes, message.continuations) = counts;
        message.retry = retry;
        message.autoretry = autoretry;
        message.soft_time_limit = soft_time_limit;
        message.time_limit = time_limit;
        message.acks_late = acks_late;
        message.ignore_result = ignore_result;
        message.result_expires = result_expires;
        message.durability = if memory { Durability::Memory } else { Durability::Disk };
        message.headers = headers;
        message.last_errors = last_errors;
        message.workflow = workflow.map(Box::new);
        message
    })
}

/// Options that no message of ours may be touched by.
fn other_options() -> TaskOptions {
    let mut options = TaskOptions::default();
    options.time_limit = Some(Duration::from_secs(1));
    options.soft_time_limit = Some(Duration::from_secs(1));
    options.ignore_result = true;
    options.retry.max_retries = 99;
    options
}

#[test]
fn what_is_sent_arrives() {
    check(2_000, any_message(), |message| {
        let wire = encode(&message, now()).unwrap();
        let options = |_: &str| Some(other_options());
        let arrived = decode(&wire, &Arrival::new("q", now(), &options)).unwrap();
        // On the way it becomes known who sent it, and that it is its own root.
        let mut expected = message;
        let workflow = expected.workflow.get_or_insert_default();
        workflow.root_id.get_or_insert_with(|| expected.id.clone());
        if workflow.origin.is_none() {
            workflow.origin.clone_from(&arrived.workflow.as_ref().unwrap().origin);
            prop_assert!(workflow.origin.as_ref().is_some_and(|o| o.starts_with("gen") && o.contains('@')));
        }
        prop_assert_eq!(&arrived, &expected);
        // And is sent on as it came.
        prop_assert_eq!(encode(&arrived, now()).unwrap(), wire);
        Ok(())
    });
}

#[test]
fn all_headers_are_always_there() {
    let message = celeriac::Context::detached().message().clone();
    let headers: BTreeMap<String, Value> = encode(&message, now()).unwrap().headers.into_iter().collect();
    let theirs = crate::captures::task("simple").wire.headers;
    let names: Vec<&String> = headers.keys().filter(|name| *name != "celeriac").collect();
    assert_eq!(names, theirs.keys().collect::<Vec<_>>());
}

//! Numbers and times at the ends of their ranges and beyond, over the wire: nothing panics, and each means what it says.

use std::time::Duration;

use celeriac::core::{RetryPolicy, Timestamp};
use celeriac::protocol::encode;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::captures::{now, read};
use crate::peers::plain;

/// The last instant that Python knows, which is the last that is told.
const LAST: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);

#[test]
fn what_is_too_much_is_as_good_as_for_ever() {
    for (limit, expected) in [
        (json!(1e300), Some(Duration::MAX)),
        (json!(1.844_674_407_370_955_2e19), Some(Duration::MAX)),
        (json!(u64::MAX), Some(Duration::from_secs(u64::MAX))),
        (json!(0), None),
        (json!(0.0), None),
        (json!(-0.0), None),
        (json!(null), None),
        (json!(1.5), Some(Duration::from_millis(1500))),
    ] {
        let message = read(&plain(json!({"timelimit": [limit, limit]}))).unwrap();
        assert_eq!((message.time_limit, message.soft_time_limit), (expected, expected), "{limit}");
    }
    for retries in [json!(4_294_967_295_u32), json!(4_294_967_296_u64), json!(u64::MAX), json!(1e300)] {
        let message = read(&plain(json!({"retries": retries, "replaced_task_nesting": retries}))).unwrap();
        assert_eq!(message.retries, u32::MAX, "{retries}");
        assert_eq!(message.tries(), u32::MAX);
        assert_eq!(message.workflow.unwrap().replaced_task_nesting, u32::MAX);
    }
    for (time, expected) in [
        ("0001-01-01T00:00:00+00:00", Timestamp::ZERO),
        ("0000-01-01T00:00:00", Timestamp::ZERO),
        ("-271821-04-20T00:00:00.000Z", Timestamp::ZERO),
        ("1969-12-31T23:59:59Z", Timestamp::ZERO),
        ("9999-12-31T23:59:59.999999+00:00", LAST),
        ("9999-12-31T23:59:59-23:59", LAST),
        ("+275760-09-13T00:00:00.000Z", LAST),
    ] {
        let message = read(&plain(json!({"eta": time, "expires": time}))).unwrap();
        assert_eq!((message.eta, message.expires), (Some(expected), Some(expected)), "{time}");
    }
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::MAX),
        Just(Duration::from_secs(u64::MAX)),
        Just(Duration::from_millis(u64::MAX)),
        (1_u64..100_000_000).prop_map(Duration::from_micros),
        (1_u64..u64::MAX).prop_map(Duration::from_secs),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()].prop_map(Timestamp::from_micros)
}

fn any_number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from), // NaN and the infinities are null
        Just(Value::from(f64::MAX)),
        Just(Value::from(f64::MIN)),
        Just(Value::from(f64::MIN_POSITIVE)),
        Just(Value::from("1e400")),
    ]
}

proptest! {
    /// Whatever stands there is read or refused with a reason.
    #[test]
    fn no_number_panics(a in any_number(), b in any_number(), c in any_number()) {
        let headers = json!({
            "timelimit": [a, b], "retries": c, "group_index": a, "replaced_task_nesting": b, "ignore_result": c,
        });
        for (name, value) in headers.as_object().unwrap() {
            match read(&plain(json!({ name: value }))) {
                Ok(message) => {
                    let wire = encode(&message, now()).unwrap();
                    prop_assert_eq!(read(&wire).unwrap().time_limit, message.time_limit);
                }
                Err(error) => prop_assert!(error.to_string().contains(name.as_str()), "{}", error),
            }
        }
    }

    /// What we send comes back with its meaning, as far as a float of seconds can tell it.
    #[test]
    fn what_is_sent_is_read(
        limits in (prop::option::of(any_duration()), prop::option::of(any_duration())),
        (delay, max_delay, result_expires) in (any_duration(), any_duration(), any_duration()),
        (eta, expires, enqueued_at) in (prop::option::of(any_time()), prop::option::of(any_time()), any_time()),
        (retries, crashes, continuations) in (any::<u32>(), any::<u32>(), any::<u32>()),
        at in any_time(),
    ) {
        let mut message = read(&plain(json!({}))).unwrap();
        (message.time_limit, message.soft_time_limit) = limits;
        message.retry = RetryPolicy { delay, max_delay, max_retries: u32::MAX, ..RetryPolicy::default() };
        message.result_expires = result_expires;
        (message.eta, message.expires, message.enqueued_at) = (eta, expires, enqueued_at);
        (message.retries, message.crashes, message.continuations) = (retries, crashes, continuations);
        let read = read(&encode(&message, at).unwrap()).unwrap();
        prop_assert_eq!((read.eta, read.expires), (eta.map(|eta| eta.min(LAST)), expires.map(|at| at.min(LAST))));
        for (got, sent) in [(read.time_limit, limits.0), (read.soft_time_limit, limits.1)] {
            let seconds = |limit: Option<Duration>| limit.map_or(0.0, |limit| limit.as_secs_f64());
            prop_assert_eq!(got.is_some(), sent.is_some());
            prop_assert!((seconds(got) - seconds(sent)).abs() <= 0.000_001_f64.max(seconds(sent) * 1e-15));
        }
        prop_assert_eq!((read.retries, read.crashes, read.continuations), (retries, crashes, continuations));
        prop_assert_eq!((&read.retry, read.result_expires), (&message.retry, result_expires));
        prop_assert_eq!(read.tries(), message.tries());
    }
}

//! Durations and counts at the ends of their ranges, taken through a step of a canvas. Nothing panics, and a duration
//! that is too long to be written stands for ever, not for no time.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::core::RetryVerdict;
use crate::core::{Timestamp, time};
use crate::task::TaskOptions;

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        Just(Duration::from_millis(u64::MAX)),
        Just(Duration::from_secs(u64::MAX)),
        Just(Duration::from_secs(i64::MAX as u64)),
        Just(time::FOR_EVER),
        (0_u64..100_000_000).prop_map(Duration::from_micros),
        (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0_u64..253_402_300_800_000_000]
        .prop_map(Timestamp::from_micros)
}

fn any_options() -> impl Strategy<Value = TaskOptions> {
    let limits = (prop::option::of(any_duration()), prop::option::of(any_duration()));
    let counts = prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
    (limits, prop::option::of(any_duration()), any_duration(), counts, any_duration(), any_duration())
        .prop_map(
            |((time_limit, soft_time_limit), expires, result_expires, max_retries, delay, max_delay)| {
                let retry = crate::core::RetryPolicy { max_retries, delay, max_delay, ..Default::default() };
                TaskOptions {
                    time_limit,
                    soft_time_limit,
                    expires,
                    result_expires,
                    retry,
                    ..TaskOptions::default()
                }
            },
        )
}

/// The options of a call after a canvas step has carried them and its sender has read them.
fn carried(call: &NewTask) -> NewTask {
    let text = serde_json::to_string(&write_options(call, &TaskOptions::default())).expect("JSON");
    let mut read = NewTask::new(&call.task, TaskOptions::default());
    let options: Value = serde_json::from_str(&text).expect("JSON");
    let options = options.as_object().expect("an object").clone();
    read_options(&options.into(), &mut read, &mut Workflow::default());
    read
}

/// Whether two durations are equal up to the precision of a float of seconds.
fn is_about(got: Option<Duration>, expected: Option<Duration>) -> bool {
    match (got, expected) {
        (None, None) => true,
        // Celery takes zero for no limit.
        (None, Some(expected)) => expected.is_zero(),
        (Some(got), Some(expected)) => {
            let (got, expected) = (got.as_secs_f64(), expected.as_secs_f64());
            (got - expected).abs() <= 0.000_001_f64.max(expected * 1e-15)
        }
        (Some(_), None) => false,
    }
}

proptest! {
    #[test]
    fn a_step_of_a_canvas_means_what_was_said(
        options in any_options(),
        countdown in prop::option::of(any_duration()),
        eta in prop::option::of(any_time()),
        retries in prop_oneof![Just(u32::MAX), any::<u32>()],
        crashes in prop_oneof![Just(u32::MAX), any::<u32>()],
    ) {
        let said = NewTask { countdown, eta, ..NewTask::new("t", options.clone()) };
        let read = carried(&said);
        prop_assert!(is_about(read.options.time_limit, options.time_limit.filter(|limit| *limit >= Duration::from_micros(1))));
        prop_assert!(is_about(read.options.soft_time_limit, options.soft_time_limit.filter(|limit| *limit >= Duration::from_micros(1))));
        prop_assert_eq!(read.options.retry.max_retries, options.retry.max_retries);
        prop_assert_eq!(read.countdown.is_some(), countdown.is_some());
        let before = now();
        let mut message = fill_in(NewTask { options, ..read }, "q".to_owned(), None, now());
        // A task with the longest of all delays never starts; it must not start at once.
        if let Some(countdown) = countdown.filter(|_| eta.is_none()) {
            let least = before + countdown.saturating_sub(Duration::from_secs(2)).min(Duration::from_secs(1 << 40));
            prop_assert!(message.eta.is_some_and(|eta| eta >= least), "{:?}", message.eta);
        }
        if let Some(expires) = said.options.expires {
            prop_assert!(message.expires.is_some_and(|at| at >= before + expires.min(Duration::from_secs(1 << 40))));
        }
        (message.retries, message.crashes) = (retries, crashes);
        let judge = crate::task::Judge::unstarted(&message, now());
        let _ = judge.judge(Err(crate::task::TaskError::retry("again").into_ending()));
        let _ = judge.judge(Err(crate::task::TaskError::retry_in(Duration::MAX, "much later").into_ending()));
        let _ = judge.judge(Err(crate::task::TaskError::postpone(Duration::MAX).into_ending()));
        let record = judge.time_limit(message.time_limit.unwrap_or(Duration::MAX));
        let is_judged = matches!(record, crate::task::Verdict::Over(_) | crate::task::Verdict::Again { .. });
        prop_assert!(is_judged);
        prop_assert!(message.tries() >= retries.max(crashes));
        if let RetryVerdict::Retry { after } = message.retry.next(retries, 7) {
            prop_assert!(now() + after >= before);
        }
    }
}

#[test]
fn numbers_of_other_programs() {
    let read = |options: Value| {
        let mut call = NewTask::new(
            "t",
            TaskOptions { time_limit: Some(Duration::from_secs(9)), ..TaskOptions::default() },
        );
        let Value::Object(options) = options else { panic!("{options}") };
        read_options(&options.into(), &mut call, &mut Workflow::default());
        call
    };
    for (number, expected) in [
        (json!(1.5), Some(Duration::from_millis(1500))),
        (json!(-5), Some(Duration::ZERO)),
        (json!(1e300), Some(Duration::MAX)),
        (json!(u64::MAX), Some(Duration::MAX)),
        (json!("5"), None),
        (json!(null), None),
    ] {
        let call = read(json!({"countdown": number, "expires": number}));
        assert_eq!((call.countdown, call.options.expires), (expected, expected), "{number}");
    }
    // Celery writes `time_limit or task.time_limit`, so zero stands for no limit; a negative one is nonsense.
    for (number, expected) in [(json!(0), 9), (json!(-1), 9), (json!(2), 2), (json!("x"), 9)] {
        assert_eq!(
            read(json!({"time_limit": number})).options.time_limit,
            Some(Duration::from_secs(expected))
        );
    }
    assert_eq!(read(json!({"time_limit": 1e300})).options.time_limit, Some(Duration::MAX));
    assert_eq!(read(json!({"max_retries": 1_u64 << 40})).options.retry.max_retries, u32::MAX);
    for (text, expected) in [
        ("2026-11-22T12:00:00+0900", 1_795_316_400_000_000),
        ("2026-11-22 03:00:00", 1_795_316_400_000_000),
        ("0001-01-01T00:00:00", 0),
        ("9999-12-31T23:59:59.999999", 253_402_300_799_999_999),
        ("+275760-09-13T00:00:00.000Z", 253_402_300_799_999_999),
    ] {
        let call = read(json!({"eta": text, "expires": text}));
        let expected = Some(Timestamp::from_micros(expected));
        assert_eq!((call.eta, call.expires_at), (expected, expected), "{text}");
    }
}

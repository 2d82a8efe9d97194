//! What other clients send than Celery 5.7: older ones, foreign ones, and brokers that add to it.

use std::time::Duration;

use celeriac::core::Timestamp;
use celeriac::protocol::{Arrival, Properties, WireMessage, decode, encode};
use celeriac::task::{Durability, Message, TaskOptions};
use serde_json::{Value, json};

use crate::captures::{now, read};

pub fn wire(headers: Value, body: &str) -> WireMessage {
    WireMessage {
        properties: Properties { content_type: Some("application/json".into()), ..Properties::default() },
        headers: headers.as_object().unwrap().clone(),
        body: body.into(),
    }
}

pub fn plain(more: Value) -> WireMessage {
    let mut wire = wire(json!({"task": "t", "id": "a"}), "[[1,2],{},null]");
    wire.headers.extend(more.as_object().unwrap().clone());
    wire
}

fn time(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).unwrap();
    Some(Timestamp::from_micros(time.timestamp_micros().try_into().unwrap()))
}

#[test]
fn the_least_that_is_a_message() {
    for body in [
        "[[1,2],{},null]",
        "[[1,2],{},{}]",
        " [ [1,2] , { } , {} ] ",
        "[[1,2],null,{\"callbacks\":null,\"new\":1}]",
    ] {
        let message = read(&wire(json!({"task": "t", "id": "order:42"}), body)).unwrap();
        assert_eq!(
            (message.id.as_str(), message.task.as_str(), message.queue.as_str()),
            ("order:42", "t", "celery")
        );
        assert_eq!((message.arguments.args.as_str(), message.arguments.kwargs.as_str()), ("[1,2]", ""));
        assert_eq!((message.retries, message.priority, message.ignore_result), (0, 0, false));
        assert_eq!((message.enqueued_at, message.durability), (now(), Durability::Disk));
    }
    let null = read(&wire(json!({"task": "t", "id": "a"}), "[null,null,null]")).unwrap();
    assert!(null.arguments.is_empty());
}

/// Celery 5.7 runs all of these, and nothing that they say is lost here.
#[test]
fn what_is_odd_but_loses_nothing_is_taken() {
    let of = |body: &str| read(&wire(json!({"task": "t", "id": "a"}), body)).unwrap();
    for (body, args) in [
        ("[\"ab\u{e9}\",{},null]", "[\"a\",\"b\",\"\u{e9}\"]"),
        ("[\"\",{},null]", "[]"),
        ("[{ },{},null]", "[]"),
        ("[[1], {} ,[]]", "[1]"),
        ("[[1],{},\"\"]", "[1]"),
        ("[[1],{},0]", "[1]"),
        ("[[1],{},false]", "[1]"),
        ("[[1],{},{\"callbacks\":{},\"errbacks\":\"\",\"chain\":0,\"chord\":[]}]", "[1]"),
    ] {
        let message = of(body);
        assert_eq!(
            (message.arguments.args.as_str(), message.arguments.kwargs.as_str()),
            (args, ""),
            "{body}"
        );
        assert!(message.workflow.unwrap().callbacks.is_empty());
    }
    let message = read(&plain(json!({
        "id": 7, "root_id": 8, "parent_id": 9, "group": 10, "retries": "2", "group_index": true, "eta": "", "expires": 0,
        "ignore_result": "yes", "timelimit": [], "stamps": [], "stamped_headers": "tenant", "replaced_task_nesting": "1",
    })))
    .unwrap();
    assert_eq!((message.id.as_str(), message.retries, message.ignore_result), ("7", 2, true));
    assert_eq!((message.eta, message.expires, message.time_limit), (None, None, None));
    let workflow = message.workflow.unwrap();
    assert_eq!((workflow.root_id, workflow.parent_id), (Some("8".into()), Some("9".into())));
    assert_eq!((workflow.group.as_deref(), workflow.group_index), (Some("10"), Some(1)));
    assert_eq!((workflow.stamped_headers, workflow.replaced_task_nesting), (vec!["tenant".to_owned()], 1));
    let mut latin = plain(json!({}));
    latin.properties.content_encoding = Some("latin-1".into());
    assert!(read(&latin).is_ok());
    latin.body = b"[[\"\xe9\"],{},null]".to_vec();
    assert!(read(&latin).unwrap_err().to_string().contains("encoded as `latin-1`"));
}

/// Whatever a body holds travels as its sender wrote it, and what is accepted can always be sent on.
#[test]
fn what_arrives_is_sent_on_byte_for_byte() {
    let odd =
        r#"[1e400,-0.0,1E+2,1000000000000000000000000000000,0.1,18446744073709551615,{"z":1,"a":"\u00e9"}]"#;
    let signature = format!(
        r#"{{"task":"next","args":{odd},"kwargs":{{"z":{odd},"a":1}},"options":{{"own":{odd}}},"subtask_type":null,"immutable":false}}"#
    );
    let body = format!(
        r#"[{odd},{{"z":{odd},"a":1}},{{"callbacks":[{signature}],"errbacks":[{signature}],"chain":[{signature}],"chord":{signature}}}]"#
    );
    let message = read(&wire(json!({"task": "t", "id": "a"}), &body)).unwrap();
    // As a row of the embedded store has it.
    let stored: Message = postcard::from_bytes(&postcard::to_stdvec(&message).unwrap()).unwrap();
    assert_eq!(stored, message);
    let sent = encode(&stored, now()).unwrap();
    assert_eq!(String::from_utf8(sent.body).unwrap(), body);
    let shown = sent.headers["argsrepr"].as_str().unwrap();
    assert!(
        shown.starts_with("(inf, -0.0, 100.0, 1000000000000000000000000000000, 0.1, 18446744073709551615"),
        "{shown}"
    );
}

#[test]
fn nulls_and_numbers_of_any_kind() {
    let message = read(&plain(json!({
        "timelimit": null, "ignore_result": 1, "retries": 2.0, "group": "g", "expires": null, "eta": null,
        "stamps": null, "stamped_headers": null, "replaced_task_nesting": null, "shadow": 5, "origin": {},
    })))
    .unwrap();
    assert!(message.ignore_result && message.retries == 2 && message.time_limit.is_none());
    let workflow = message.workflow.unwrap();
    assert_eq!((workflow.group.as_deref(), workflow.group_index, workflow.shadow), (Some("g"), None, None));
    for (retries, counted) in [(json!(-1), 0), (json!(1.5), 1), (json!(-0.5), 0)] {
        assert_eq!(read(&plain(json!({"retries": retries}))).unwrap().retries, counted, "{retries}");
    }
    let nobody = read(&plain(json!({"root_id": "", "parent_id": ""}))).unwrap();
    let workflow = nobody.workflow.unwrap();
    assert_eq!((workflow.root_id, workflow.parent_id), (Some(nobody.id), None));
    let text = read(&plain(json!({"timelimit": [" 60 ", "2.5"]}))).unwrap();
    let expected = (Some(Duration::from_secs(60)), Some(Duration::from_millis(2500)));
    assert_eq!((text.time_limit, text.soft_time_limit), expected);
    let limits = read(&plain(json!({"timelimit": [2.5, 0]}))).unwrap();
    assert_eq!((limits.time_limit, limits.soft_time_limit), (Some(Duration::from_millis(2500)), None));
    assert_eq!(encode(&limits, now()).unwrap().headers["timelimit"], json!([2.5, null]));
}

#[test]
fn what_a_message_does_not_say_the_task_says() {
    let mut options = TaskOptions::default();
    options.time_limit = Some(Duration::from_secs(60));
    options.soft_time_limit = Some(Duration::from_secs(50));
    options.ignore_result = true;
    options.acks_late = false;
    options.autoretry = false;
    options.retry.max_retries = 7;
    let of = |name: &str| (name == "t").then(|| options.clone());
    let arrival = Arrival::new("q", now(), &of);
    let message = decode(&plain(json!({"timelimit": [null, 5]})), &arrival).unwrap();
    assert_eq!(
        (message.time_limit, message.soft_time_limit),
        (options.time_limit, Some(Duration::from_secs(5)))
    );
    assert!(
        message.ignore_result && !message.acks_late && !message.autoretry && message.retry.max_retries == 7
    );
    let said = decode(&plain(json!({"ignore_result": false})), &arrival).unwrap();
    assert!(!said.ignore_result);
    // Our own message has said it all: what it leaves open is open, whatever the task says by now.
    let ours = Message { time_limit: None, retry: Default::default(), ..said };
    let back = decode(&encode(&ours, now()).unwrap(), &arrival).unwrap();
    assert_eq!((back.time_limit, back.retry), (None, ours.retry));
}

#[test]
fn times_in_all_forms() {
    for (text, expected) in [
        ("2026-11-22T12:00:00", "2026-11-22T12:00:00Z"),
        ("2026-11-22 12:00:00.25", "2026-11-22T12:00:00.25Z"),
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z"),
        ("2026-11-22T12:00:00.123456789+09:00", "2026-11-22T03:00:00.123456Z"),
    ] {
        let message = read(&plain(json!({"eta": text, "expires": text}))).unwrap();
        assert_eq!((message.eta, message.expires), (time(expected), time(expected)), "{text}");
    }
}

#[test]
fn protocol_1_with_everything() {
    let body = json!({
        "task": "t", "id": "a", "args": [1], "kwargs": {"x": 2}, "taskset": "g", "group": null, "group_index": 3, "retries": 1,
        "eta": "2026-11-22T12:00:00", "expires": "2026-11-22T13:00:00+01:00", "utc": true, "timelimit": [20, null],
        "callbacks": {"task": "next", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": true},
        "errbacks": [{"task": "oops"}], "chord": {"task": "body", "chord_size": 2},
    });
    let message = read(&wire(json!({"x-my": 1}), &body.to_string())).unwrap();
    assert_eq!((message.arguments.args.as_str(), message.arguments.kwargs.as_str()), ("[1]", r#"{"x":2}"#));
    assert_eq!((message.eta, message.expires), (time("2026-11-22T12:00:00Z"), time("2026-11-22T12:00:00Z")));
    assert_eq!((message.retries, message.time_limit), (1, Some(Duration::from_secs(20))));
    assert_eq!(message.headers.0, [("x-my".to_owned(), json!(1))].into());
    let workflow = message.workflow.unwrap();
    assert_eq!((workflow.group.as_deref(), workflow.group_index), (Some("g"), Some(3)));
    assert_eq!((workflow.callbacks[0].task.as_str(), workflow.callbacks[0].immutable), ("next", true));
    assert_eq!((workflow.errbacks[0].task.as_str(), workflow.chord.unwrap().task.as_str()), ("oops", "body"));
}

#[test]
fn of_a_hybrid_the_headers_have_the_last_word() {
    let body = r#"{"task":"old","id":"b","args":[1],"retries":4,"eta":"2026-11-22T12:00:00"}"#;
    let message = read(&wire(json!({"task": "t", "id": "a", "retries": 1}), body)).unwrap();
    assert_eq!((message.task.as_str(), message.id.as_str(), message.retries), ("t", "a", 1));
    assert_eq!(message.eta, time("2026-11-22T12:00:00Z"));
}

/// What brokers and our own dead letters write onto a message is not sent on; what an application writes is.
#[test]
fn marks_of_the_journey_are_left_behind() {
    let message = read(&plain(json!({
        "x-death": [{"count": 1}], "x-first-death-queue": "q", "x-last-death-reason": "expired", "x-delivery-count": 3,
        "celeriac-reason": "poison", "x-my": true, "celery_beat_task": true, "meth": null,
    })))
    .unwrap();
    assert_eq!(message.headers.0.keys().collect::<Vec<_>>(), ["celery_beat_task", "x-my"]);
}

/// Celery's `apply_async(argsrepr=…)`: what was hidden stays hidden, through any number of hands.
#[test]
fn hidden_arguments_stay_hidden() {
    let theirs = plain(json!({"argsrepr": "<redacted>", "kwargsrepr": "{}"}));
    let message = read(&theirs).unwrap();
    let once = encode(&message, now()).unwrap();
    let twice = encode(&read(&once).unwrap(), now()).unwrap();
    for wire in [&once, &twice] {
        assert_eq!(
            (&wire.headers["argsrepr"], &wire.headers["kwargsrepr"]),
            (&json!("<redacted>"), &json!("{}"))
        );
    }
    // What was not hidden follows the arguments.
    let mut shown = read(&plain(json!({"argsrepr": "(1, 2)", "kwargsrepr": "{}"}))).unwrap();
    shown.arguments.args = "[3]".into();
    assert_eq!(encode(&shown, now()).unwrap().headers["argsrepr"], "(3,)");
}

/// Python shows the list of `apply_async([1, 2])` as it is. That hides nothing, and stays a list through any number of
/// hands.
#[test]
fn a_list_that_is_shown_as_it_is_hides_nothing() {
    let message = read(&plain(json!({"argsrepr": "[1, 2]", "kwargsrepr": "{}"}))).unwrap();
    assert!(!message.hides_arguments());
    let once = encode(&message, now()).unwrap();
    let mut again = read(&once).unwrap();
    assert_eq!(once.headers["argsrepr"], "[1, 2]");
    assert!(!again.hides_arguments());
    assert_eq!(again.headers, message.headers);
    again.arguments.args = "[3]".into();
    assert_eq!(encode(&again, now()).unwrap().headers["argsrepr"], "[3]");
    // What is no picture of the arguments hides them, also in brackets.
    for other in ["[1, 3]", "[...]", "[1,2]"] {
        assert!(read(&plain(json!({"argsrepr": other}))).unwrap().hides_arguments(), "{other}");
    }
    let mut hidden = message;
    hidden.headers.0.insert("argsrepr".into(), json!("[1, 2]"));
    let hidden = read(&encode(&hidden, now()).unwrap()).unwrap();
    assert!(hidden.hides_arguments(), "a text that our caller has stated");
}

/// A header of the application's with a name of Celery's does not break the message.
#[test]
fn an_applications_header_cannot_take_the_place_of_celerys() {
    let mut message = read(&plain(json!({}))).unwrap();
    for name in ["id", "task", "retries", "celeriac", "compression", "stamps"] {
        message.headers.0.insert(name.into(), json!("forged"));
    }
    let back = read(&encode(&message, now()).unwrap()).unwrap();
    assert!(back.headers.0.is_empty());
    assert_eq!((back.id, back.task), (message.id, message.task));
}

#[test]
fn an_envelope_passes_through_unharmed() {
    let day = r#"{"__type__": "date", "__value__": "2026-11-22"}"#;
    let came = wire(json!({"task": "t", "id": "a"}), &format!(r#"[[{day}], {{"day": {day}}}, null]"#));
    let message = read(&came).unwrap();
    let day = chrono::NaiveDate::from_ymd_opt(2026, 11, 22).unwrap();
    assert_eq!(
        message.arguments.decode::<(chrono::NaiveDate, chrono::NaiveDate)>(&["other", "day"]),
        Ok((day, day))
    );
    let sent: Value = serde_json::from_slice(&encode(&message, now()).unwrap().body).unwrap();
    assert_eq!(sent[0][0], json!({"__type__": "date", "__value__": "2026-11-22"}));
}

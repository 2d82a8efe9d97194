//! Captured messages decode, and ours for the same call equal them, field by field.

use std::time::Duration;

use celeriac::core::Timestamp;
use celeriac::protocol::{Properties, WireMessage, encode};
use celeriac::task::{Arguments, Headers, Message, RawSignature, Workflow};
use chrono::DateTime;
use serde_json::{Value, json};

use crate::captures::{self, Capture};

/// An instant in any form as microseconds.
fn micros(text: &Value) -> u64 {
    let time = DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap();
    time.timestamp_micros().try_into().unwrap()
}

/// When a captured message was sent, as far as that can be told.
fn sent_at(wire: &WireMessage) -> Timestamp {
    match &wire.properties.expiration {
        Some(left) => {
            Timestamp::from_micros(micros(&wire.headers["expires"]))
                - Duration::from_millis(left.parse().unwrap())
        }
        None => captures::now(),
    }
}

/// Both are the same, but for what has to differ: the language, our own header, and what `unlike` names.
#[track_caller]
fn assert_equal(ours: &WireMessage, theirs: &WireMessage, unlike: &[&str], scenario: &str) {
    // RabbitMQ would throw it away without a trace; ours says so only where nobody waits for it.
    let properties =
        Properties { expiration: ours.properties.expiration.clone(), ..theirs.properties.clone() };
    assert_eq!(ours.properties, properties, "{scenario}");
    assert_eq!((&ours.headers["lang"], &theirs.headers["lang"]), (&json!("rs"), &json!("py")));
    let rest = |wire: &WireMessage| {
        let mut headers = wire.headers.clone();
        headers.retain(|name, _| {
            !["lang", "celeriac"].contains(&name.as_str()) && !unlike.contains(&name.as_str())
        });
        headers
    };
    assert_eq!(rest(ours), rest(theirs), "{scenario}");
    let mut theirs_body: Value = serde_json::from_slice(&theirs.body).unwrap();
    // The last step of a chain has `[]` there or null; it means the same, and we write null.
    if theirs_body[2]["chain"] == json!([]) {
        theirs_body[2]["chain"] = Value::Null;
    }
    assert_eq!(serde_json::from_slice::<Value>(&ours.body).unwrap(), theirs_body, "{scenario}");
}

/// What a worker sends on (a retry, say) is what came.
#[test]
fn every_captured_message_decodes_and_is_sent_on_as_it_came() {
    let captured = captures::tasks();
    assert!(captured.len() > 50, "{}", captured.len());
    for Capture { scenario, wire: mut theirs, .. } in captured {
        let message = captures::read(&theirs).unwrap_or_else(|e| panic!("{scenario}: {e}"));
        if !theirs.headers.contains_key("task") {
            continue; // protocol 1 is only read; see below
        }
        let ours = encode(&message, sent_at(&theirs)).unwrap();
        if scenario == "eta_tz" {
            // The same instant; the offset that the user wrote it with is not kept.
            assert_eq!(ours.headers["eta"], "2026-11-22T03:00:00+00:00");
            assert_eq!(micros(&ours.headers["eta"]), micros(&theirs.headers["eta"]));
            theirs.headers["eta"] = ours.headers["eta"].clone();
        }
        if theirs.headers.remove("compression").is_some() {
            theirs.body = ours.body.clone(); // what came packed goes on unpacked; compared below
        }
        // Beat leaves it out.
        theirs.properties.priority = theirs.properties.priority.or(Some(0));
        // Null: as the task says; and this one says that it is kept.
        if theirs.headers["ignore_result"].is_null() {
            theirs.headers["ignore_result"] = false.into();
        }
        assert_equal(&ours, &theirs, &[], &scenario);
        let again = captures::read(&ours).unwrap();
        assert_eq!(again, Message { enqueued_at: again.enqueued_at, ..message }, "{scenario}");
    }
}

/// Python has RabbitMQ throw away whatever has expired. Ours does so where nobody can notice.
#[test]
fn only_what_nobody_waits_for_expires_in_rabbitmq() {
    let mut expiring = 0;
    for Capture { scenario, wire: theirs, .. } in captures::tasks() {
        if theirs.properties.expiration.is_none() {
            continue;
        }
        expiring += 1;
        let message = captures::read(&theirs).unwrap();
        let expiration = |message: &Message| encode(message, sent_at(&theirs)).unwrap().properties.expiration;
        assert_eq!(expiration(&message), None, "{scenario}");
        let alone = Workflow { reply_to: Some("q".into()), ..Workflow::default() };
        let ignored = Message { ignore_result: true, workflow: Some(Box::new(alone)), ..message };
        assert_eq!(expiration(&ignored), theirs.properties.expiration, "{scenario}");
        let chain = vec![RawSignature { task: "next".into(), ..RawSignature::default() }];
        let in_chain = Workflow { chain, ..Workflow::default() };
        let in_chain = Message { workflow: Some(Box::new(in_chain)), ..ignored };
        assert_eq!(expiration(&in_chain), None, "{scenario}");
    }
    assert!(expiring >= 2, "{expiring}");
}

/// Python shows tuples where we, who only see JSON, show lists; all else is equal to the letter.
#[test]
fn arguments_are_shown_as_python_shows_them() {
    let mut equal = 0;
    for Capture { scenario, wire, .. } in captures::tasks() {
        if !wire.headers.contains_key("task") {
            continue;
        }
        let mut message = captures::read(&wire).unwrap();
        message.headers.0.remove("argsrepr");
        message.headers.0.remove("kwargsrepr");
        let ours = encode(&message, captures::now()).unwrap();
        for name in ["argsrepr", "kwargsrepr"] {
            if ours.headers[name] == wire.headers[name] {
                equal += 1;
            } else {
                let plain =
                    |text: &Value| text.as_str().unwrap().replace(['(', '['], "<").replace([')', ']'], ">");
                let ordered = |text: &Value| {
                    let mut letters: Vec<char> = plain(text).replace(",>", ">").chars().collect();
                    letters.sort_unstable();
                    letters
                };
                assert_eq!(ordered(&ours.headers[name]), ordered(&wire.headers[name]), "{scenario}");
            }
        }
    }
    assert!(equal > 90, "{equal}");
}

/// A message as the runtime makes it, for the call that was captured.
fn call(theirs: &WireMessage, args: &str, kwargs: &str) -> Message {
    let text = |name: &str| theirs.headers[name].as_str().map(str::to_owned);
    let mut message = celeriac::Context::detached().message().clone();
    message.id = text("id").unwrap().into();
    message.task = text("task").unwrap();
    message.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
    message.enqueued_at = captures::now();
    message.ignore_result = false;
    message.durability = celeriac::task::Durability::Disk;
    message.workflow = Some(Box::new(Workflow {
        reply_to: theirs.properties.reply_to.clone(),
        origin: text("origin"),
        ..Workflow::default()
    }));
    message
}

#[track_caller]
fn same(scenario: &str, args: &str, kwargs: &str, change: impl FnOnce(&mut Message, &mut Workflow)) {
    let theirs = captures::task(scenario).wire;
    let mut message = call(&theirs, args, kwargs);
    let mut workflow = message.workflow.take().unwrap();
    change(&mut message, &mut workflow);
    message.workflow = Some(workflow);
    assert_equal(&encode(&message, sent_at(&theirs)).unwrap(), &theirs, &[], scenario);
}

fn signature(task: &str, args: &[i32], options: Value) -> RawSignature {
    let args = args.iter().map(|n| (*n).into()).collect();
    RawSignature {
        task: task.into(),
        args,
        options: options.as_object().unwrap().clone().into(),
        ..RawSignature::default()
    }
}

#[test]
fn a_plain_call() {
    same("simple", "[2,3]", "", |_, _| {});
}

#[test]
fn keywords_priority_shadow_and_a_header() {
    same("send_task_kwargs", "", r#"{"x":1,"y":2}"#, |message, workflow| {
        message.priority = 5;
        message.headers = Headers([("x-my".to_owned(), json!("hdr"))].into());
        workflow.shadow = Some("nick".into());
    });
}

#[test]
fn countdown_expires_and_limits() {
    same("countdown_expires", "[1,1]", "", |message, _| {
        message.eta = Some(Timestamp::from_micros(1_795_339_501_430_339));
        message.expires = Some(Timestamp::from_micros(1_795_339_529_430_339));
        message.time_limit = Some(Duration::from_secs(20));
        message.soft_time_limit = Some(Duration::from_secs(10));
    });
}

#[test]
fn no_result_wanted() {
    same("ignore_result", "[1, 1]", "{}", |message, _| message.ignore_result = true);
}

#[test]
fn a_call_with_links() {
    same("link", "[1,2]", "", |_, workflow| {
        workflow.callbacks = vec![signature("cap.add", &[10], json!({}))];
        workflow.errbacks = vec![signature("cap.errback", &[], json!({}))];
    });
}

#[test]
fn the_first_of_a_chain() {
    let theirs = captures::task("chain").wire;
    let reply_to = theirs.properties.reply_to.clone().unwrap();
    same("chain", "[1,1]", "", |_, workflow| {
        let step = |n, id: &str| signature("cap.add", &[n], json!({"task_id": id, "reply_to": reply_to}));
        // Reversed, as on the wire: the last is next.
        workflow.chain = vec![
            step(3, "26059e42-4a5d-428c-aa0f-fa37beb1ee94"),
            step(2, "4994501c-0c04-40bf-8970-ecdeb7d2bd5f"),
        ];
    });
}

#[test]
fn a_member_of_a_chord() {
    let theirs = captures::task("chord").wire;
    let body: Value = serde_json::from_slice(&theirs.body).unwrap();
    let args = body[0].to_string();
    same("chord", &args, "", |_, workflow| {
        workflow.group = theirs.headers["group"].as_str().map(str::to_owned);
        workflow.group_index = Some(0);
        workflow.chord = Some(signature("cap.tsum", &[], body[2]["chord"]["options"].clone()));
    });
}

/// The retry of a task: same id, its own parent, one more retry, and a new ETA.
#[test]
fn a_retry() {
    let theirs = captures::tasks();
    let theirs: Vec<_> = theirs.iter().filter(|capture| capture.scenario == "retry").collect();
    let [first, second, _] = theirs.as_slice() else { panic!("{}", theirs.len()) };
    let mut message = captures::read(&first.wire).unwrap();
    message.retries += 1;
    message.eta = Some(Timestamp::from_micros(micros(&second.wire.headers["eta"])));
    message.workflow.as_mut().unwrap().parent_id = Some(message.id.clone());
    assert_equal(&encode(&message, captures::now()).unwrap(), &second.wire, &[], "retry");
}

#[test]
fn stamps() {
    let stamped = captures::tasks()
        .into_iter()
        .find(|c| !c.wire.headers.get("stamped_headers").is_none_or(Value::is_null));
    let stamped = stamped.expect("a stamped capture");
    let workflow = captures::read(&stamped.wire).unwrap().workflow.unwrap();
    assert_eq!(workflow.stamped_headers, ["tenant"]);
    assert_eq!(workflow.stamps.0, [("tenant".to_owned(), json!("acme"))].into());
}

#[test]
fn a_compressed_body_is_what_was_packed() {
    let packed = captures::task("compress");
    assert_eq!(packed.wire.headers["compression"], "application/x-gzip");
    let message = captures::read(&packed.wire).unwrap();
    assert_eq!(message.arguments, Arguments { args: "[1, 1]".into(), kwargs: String::new() });
    assert!(message.headers.0.is_empty());
}

#[test]
fn protocol_1_as_celery_writes_it() {
    let old = captures::tasks().into_iter().find(|capture| capture.wire.headers.is_empty()).unwrap();
    let message = captures::read(&old.wire).unwrap();
    assert_eq!(
        (message.id.as_str(), message.task.as_str()),
        ("68db5d65-7f12-451f-9536-cfb8a5bd44aa", "cap.add")
    );
    assert_eq!(message.arguments, Arguments { args: "[5,6]".into(), kwargs: String::new() });
    let workflow = message.workflow.unwrap();
    assert_eq!(workflow.root_id, Some(message.id));
    assert_eq!(workflow.reply_to.as_deref(), Some("aa5cf0f7-8562-3821-80e4-f2bb4522e078"));
    assert_eq!(old.sent_to, ("qcelery".to_owned(), "qcelery".to_owned()));
}

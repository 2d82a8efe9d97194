//! Result documents as Celery wrote them, and ours.

use celeriac::core::Timestamp;
use celeriac::protocol::result::{self, Detail, Meta, decode, encode, encode_tracked, read_children};
use celeriac::task::{Child, Json, Lineage, State, TaskId, TaskResult, TrackedState};
use serde_json::{Value, json};

use crate::captures;

fn later() -> Timestamp {
    Timestamp::from_millis(1_795_999_999_000)
}

fn read(document: &str) -> Meta {
    let id = serde_json::from_str::<Value>(document).unwrap()["task_id"].as_str().unwrap().to_owned();
    decode(&TaskId::from(id), document.as_bytes(), later()).unwrap_or_else(|e| panic!("{document}: {e}"))
}

/// With Python's blanks, to compare documents to the letter, order included.
fn spaced(json: &str) -> String {
    let mut out = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        out.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' | ':' if !quoted => out.push(' '),
            _ => {}
        }
    }
    out
}

#[test]
fn documents_out_of_redis_are_written_again_to_the_letter() {
    let documents = captures::documents();
    assert_eq!(documents.len(), 21);
    let mut plain = 0;
    for document in documents {
        if !document.contains("\"status\"") {
            // The members of a group, which `GroupResult.save()` keeps.
            let theirs: Value = serde_json::from_str(document).unwrap();
            let group = read_children(&json!([theirs["result"]]));
            let [Child::Group(id, members)] = group.as_slice() else { panic!("{group:?}") };
            assert_eq!((members.len(), &json!({"result": result::group(id, members)})), (2, &theirs));
            continue;
        }
        let Meta::Over(result) = read(document) else { panic!("{document}") };
        assert_eq!(result.state, State::Success);
        assert_eq!(result.expires_at, later());
        // With `result_extended`, Celery adds what we read and leave out again.
        if document.contains("\"name\"") {
            assert!(result.task.starts_with("t.integration.tasks."), "{}", result.task);
            assert_eq!(
                (result.queue.as_str(), result.worker.as_deref(), result.attempts),
                ("celery", Some("vm"), 1)
            );
        } else {
            assert_eq!(spaced(&encode(&result, Detail::Celery)), document);
            plain += 1;
        }
    }
    assert!(plain >= 5, "{plain}");
}

#[test]
fn results_over_rpc_are_written_again_alike() {
    let mut seen = Vec::new();
    for capture in captures::rpc_results() {
        let text = String::from_utf8(capture.wire.body).unwrap();
        let ours = match read(&text) {
            Meta::Over(result) => {
                seen.push(result.state.as_str().to_owned());
                if result.state == State::Failure {
                    assert_eq!(result.errors, ["q", "42"]);
                    assert_eq!(result.error_arguments, Some(json!(["q", 42]).into()));
                    assert_eq!(result.error_type.as_deref(), Some("ValueError"));
                    assert_eq!(result.error_module.as_deref(), Some("builtins"));
                    assert!(result.traceback.as_deref().unwrap().ends_with("ValueError: ('q', 42)\n"));
                }
                encode(&result, Detail::Celery)
            }
            Meta::Tracked(state) => {
                seen.push(state.state.clone());
                assert_eq!(state.meta, json!({"done": 5, "total": 10}));
                encode_tracked(&state)
            }
        };
        let theirs: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), theirs);
    }
    assert_eq!(seen, ["SUCCESS", "FAILURE", "PROGRESS", "SUCCESS"]);
}

fn record(state: State) -> TaskResult {
    TaskResult {
        id: "a".into(),
        task: "t".into(),
        queue: "q".into(),
        state,
        result: None,
        errors: vec!["one".into(), "two".into()],
        error_type: Some("app::Error".into()),
        error_module: None,
        error_arguments: None,
        traceback: Some("here".into()),
        attempts: 3,
        enqueued_at: Timestamp::from_micros(1_795_339_500_000_001),
        started_at: Some(Timestamp::from_micros(1_795_339_500_000_002)),
        finished_at: Timestamp::from_micros(1_795_339_500_000_003),
        worker: Some("q#1".into()),
        expires_at: Timestamp::from_micros(1_795_339_500_000_004),
        lineage: None,
        download: None,
    }
}

#[test]
fn our_documents_in_celerys_words() {
    let mut failed = record(State::Failure);
    failed.lineage = Some(Box::new(Lineage {
        parent_id: Some("p".into()),
        group_id: Some("g".into()),
        children: vec![Child::Task("c".into())],
        reply_to: None,
    }));
    assert_eq!(
        encode(&failed, Detail::Celery),
        concat!(
            r#"{"status":"FAILURE","result":{"exc_type":"Error","exc_message":["one","two"],"exc_module":null},"#,
            r#""traceback":"here","children":[[["c",null],null]],"date_done":"2026-11-22T09:25:00.000003+00:00","#,
            r#""group_id":"g","parent_id":"p","task_id":"a"}"#
        )
    );
    let status = |state| {
        serde_json::from_str::<Value>(&encode(&record(state), Detail::Celery)).unwrap()["status"].clone()
    };
    assert_eq!(status(State::Rejected), "FAILURE");
    assert_eq!(status(State::Revoked), "REVOKED");
    assert_eq!(status(State::Ignored), "IGNORED");
}

#[test]
fn a_full_document_loses_nothing() {
    let lineages = [
        None,
        Some(Box::default()),
        Some(Box::new(Lineage { reply_to: Some("r".into()), ..Lineage::default() })),
        Some(Box::new(Lineage {
            children: vec![Child::Group("g".into(), vec!["m".into()])],
            ..Lineage::default()
        })),
    ];
    for state in [State::Success, State::Failure, State::Revoked, State::Rejected, State::Ignored] {
        for error_type in
            [None, Some("TaskRevoked"), Some("NotRegistered"), Some("Reject"), Some("WorkerLost")]
        {
            for lineage in &lineages {
                let mut result = record(state);
                result.error_type = error_type.map(str::to_owned);
                result.lineage = lineage.clone();
                result.result = (state == State::Success).then(|| r#"{"b": 1, "a": [1.0]}"#.to_owned());
                let meta = read(&encode(&result, Detail::Full));
                assert_eq!(meta, Meta::Over(Box::new(result)));
            }
        }
    }
}

/// What Rust shows and what Python catches may differ, and both come back.
#[test]
fn the_arguments_of_an_error_keep_their_types_and_its_errors_their_texts() {
    for arguments in [
        Some(r#"["bad",1000000000000000000000000000000,null,{"b":1,"a":0.5}]"#),
        Some(r#"["one","two"]"#),
        Some(r#"["text"]"#),
        Some("[]"),
        None,
    ] {
        let arguments: Option<Json> = arguments.map(|text| text.parse().unwrap());
        let failed = TaskResult { error_arguments: arguments.clone(), ..record(State::Failure) };
        let document = encode(&failed, Detail::Full);
        let written = arguments.map_or_else(|| r#"["one","two"]"#.to_owned(), |list| list.text().to_owned());
        assert!(document.contains(&format!(r#""exc_message":{written}"#)), "{document}");
        assert_eq!(read(&document), Meta::Over(Box::new(failed)));
    }
    // Celery's own: a number is told apart from a text.
    let theirs =
        r#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": ["a", 1e3]}, "task_id": "a"}"#;
    let Meta::Over(failed) = read(theirs) else { panic!("{theirs}") };
    assert_eq!(failed.error_arguments.as_ref().map(Json::text), Some(r#"["a",1e3]"#));
    let theirs = theirs.replace("1e3", "\"1e3\"");
    let Meta::Over(failed) = read(&theirs) else { panic!("{theirs}") };
    assert_eq!((failed.errors, failed.error_arguments), (vec!["a".to_owned(), "1e3".to_owned()], None));
}

#[test]
fn states_before_the_end_come_back() {
    for (state, meta) in [
        ("STARTED", json!({"pid": 7, "hostname": "w1@host"})),
        ("PROGRESS", json!({"done": 5})),
        ("RETRY", json!("busy")),
        ("RETRY", json!({"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"})),
        // A bar that goes along makes it more than a `Retry`.
        (
            "RETRY",
            json!({
                "exc_type": "Retry", "exc_message": ["x"], "exc_module": "celery.exceptions", "progress": {}
            }),
        ),
        ("PENDING", json!(null)),
    ] {
        let tracked = TrackedState {
            id: "a".into(),
            state: state.into(),
            meta: meta.into(),
            traceback: None,
            lineage: None,
        };
        let document = encode_tracked(&tracked);
        assert_eq!(serde_json::from_str::<Value>(&document).unwrap()["date_done"], Value::Null);
        assert_eq!(read(&document), Meta::Tracked(tracked));
    }
    let retry = TrackedState {
        id: "a".into(),
        state: "RETRY".into(),
        meta: json!("busy").into(),
        traceback: None,
        lineage: None,
    };
    let document: Value = serde_json::from_str(&encode_tracked(&retry)).unwrap();
    assert_eq!(
        document["result"],
        json!({"exc_type": "Retry", "exc_message": ["busy"], "exc_module": "celery.exceptions"})
    );
}

#[test]
fn documents_of_other_workers_and_versions() {
    let Meta::Over(result) = read(r#"{"status":"FAILURE","result":"just text","task_id":"a"}"#) else {
        panic!()
    };
    assert_eq!((result.errors, result.lineage), (vec!["just text".to_owned()], None));
    let old = r#"{"status":"SUCCESS","result":null,"date_done":{"__type__":"datetime","__value__":"2026-11-22T09:25:00"},"children":null,"task_id":"a"}"#;
    let Meta::Over(result) = read(old) else { panic!() };
    assert_eq!(
        (result.result.as_deref(), result.finished_at),
        (Some("null"), Timestamp::from_millis(1_795_339_500_000))
    );
    let revoked = r#"{"status":"REVOKED","result":{"exc_type":"TaskRevokedError","exc_message":["terminated"],"exc_module":"celery.exceptions"},"task_id":"a"}"#;
    let Meta::Over(result) = read(revoked) else { panic!() };
    assert_eq!((result.state, result.errors), (State::Revoked, vec!["terminated".to_owned()]));
}

/// Celery 5.7 with `result_compression`.
#[test]
fn a_compressed_document_is_unpacked() {
    let packed = zstd::encode_all(&br#"{"status":"SUCCESS","result":7,"task_id":"a"}"#[..], 3).unwrap();
    let mut document = b"\0celery-compressed\0application/zstd\0".to_vec();
    document.extend(packed);
    let Meta::Over(result) = decode(&"a".into(), &document, later()).unwrap() else { panic!() };
    assert_eq!(result.result.as_deref(), Some("7"));
    let error = decode(&"a".into(), b"\0celery-compressed\0application/zst", later()).unwrap_err();
    assert_eq!(error.to_string(), "the result document of task a cannot be read: it is cut off");
}

/// Python writes each of these without being asked.
#[test]
fn what_is_only_looked_at_may_be_no_unicode_and_no_json() {
    let read = |document: &str| {
        decode(&"a".into(), document.as_bytes(), later()).unwrap_or_else(|e| panic!("{document}: {e}"))
    };
    let over = |document: &str| match read(document) {
        Meta::Over(record) => *record,
        other => panic!("{document}: {other:?}"),
    };
    let half = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["cut \ud83d", 1e400], "exc_module": "builtins"}, "traceback": "ValueError: cut \ud83d\n", "children": [[["c", null], null]], "date_done": "2026-11-22T09:32:12+00:00", "args": ["\ud83d", NaN]}"#;
    let failed = over(half);
    assert_eq!((failed.state, failed.error_type.as_deref()), (State::Failure, Some("ValueError")));
    assert_eq!(failed.errors, ["cut \u{fffd}", "1.7976931348623157e+308"]);
    assert_eq!(failed.traceback.as_deref(), Some("ValueError: cut \u{fffd}\n"));
    assert_eq!(failed.lineage.unwrap().children, [Child::Task("c".into())]);
    let failed = over(r#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": [NaN, "x"]}}"#);
    assert_eq!(failed.errors, ["NaN", "x"]);
    // A value stays as it was written, whatever is beside it.
    let odd = r#"{"b": ["\ud83d", 1e400, 1000000000000000000000000000000], "a": "NaN"}"#;
    for beside in [r#""kwargs": {"x": NaN}"#, r#""traceback": "\ud83d""#, r#""children": []"#] {
        let value = over(&format!(r#"{{"status": "SUCCESS", "result": {odd}, {beside}}}"#));
        assert_eq!((value.state, value.result.as_deref()), (State::Success, Some(odd)), "{beside}");
    }
    let Meta::Tracked(state) = read(r#"{"status": "PROGRESS", "result": {"current": 5, "loss": NaN}}"#)
    else {
        panic!("it is not over")
    };
    assert_eq!(state.meta, json!({"current": 5, "loss": "NaN"}));
}

#[test]
fn what_cannot_be_read_says_why_and_whether_the_task_is_over() {
    for (document, why, is_over) in [
        (r#"{"status": "SUCCESS", "result": [1, NaN]}"#, "there is NaN in its result", Some(true)),
        (r#"{"status": "SUCCESS", "result": -Infinity, "x": NaN}"#, "there is -Infinity in its", Some(true)),
        (r#"{"status": "FAILURE", "result": {"exc_type": "E"}, "retries": "x"}"#, "invalid type", Some(true)),
        (r#"{"status": "PROGRESS", "result": {"current": 5}, "retries": "x"}"#, "invalid type", Some(false)),
        (r#"{"status": "PROGRESS", "result": {"current""#, "EOF", Some(false)),
        ("not JSON", "expected", None),
        ("[]", "invalid", None),
    ] {
        let error = decode(&"a".into(), document.as_bytes(), Timestamp::ZERO).unwrap_err();
        assert!(error.to_string().contains(why), "{document}: {error}");
        assert_eq!(error.is_over, is_over, "{document}");
    }
}

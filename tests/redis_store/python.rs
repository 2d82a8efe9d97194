//! Python's Celery reads what we write, and we what it writes.

use celeriac::store::{
    ChordJoin, ChordPart, ChordStore, GroupMember, GroupResult, GroupStore, Store, TrackedState,
};
use celeriac::task::{Child, Lineage, State, TaskId, TaskResult};
use serde_json::{Value, json};

use super::services::{Python, Script};
use super::*;

/// Runs `results.py` and reads what it prints, line by line.
async fn python(server: &Redis, arguments: &[&str]) -> Vec<Value> {
    let mut script = Script::new("tests/redis_store/results.py").arg(server.url_of(2));
    for argument in arguments {
        script = script.arg(*argument);
    }
    let printed =
        blocking(move || Python::with_celery().run(&script).expect_success("results.py").to_owned()).await;
    printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn tracked(state: &str, meta: Value) -> TrackedState {
    TrackedState {
        id: TaskId::new(),
        state: state.to_owned(),
        meta: meta.into(),
        traceback: None,
        lineage: None,
    }
}

#[tokio::test]
async fn python_reads_our_documents() {
    let (server, store) = shared().await;
    let lineage = Lineage {
        children: vec![Child::Task("child".into()), Child::Group("g".into(), vec!["m".into(), "n".into()])],
        ..Lineage::default()
    };
    let success = TaskResult {
        errors: Vec::new(),
        error_type: None,
        lineage: Some(Box::new(lineage)),
        ..new_record(r#"{"a": [1, "ä"]}"#)
    };
    let failure = TaskResult {
        state: State::Failure,
        result: None,
        errors: vec!["no such key".into()],
        error_type: Some("KeyError".into()),
        error_module: Some("builtins".into()),
        traceback: Some("at line 7".into()),
        ..new_record("")
    };
    let of_rust = TaskResult {
        error_type: Some("myapp::reports::RenderError".into()),
        error_module: None,
        errors: vec!["could not render".into(), "disk full".into()],
        ..failure.clone()
    };
    let of_rust = TaskResult { id: TaskId::new(), ..of_rust };
    let typed = TaskResult {
        id: TaskId::new(),
        errors: vec!["bad: 42".into()],
        error_type: Some("ValueError".into()),
        error_arguments: Some(json!(["bad", 42, {"a": null}]).into()),
        ..failure.clone()
    };
    let revoked = TaskResult {
        id: TaskId::new(),
        state: State::Revoked,
        errors: vec!["the task was revoked before it started".into()],
        error_type: Some("TaskRevoked".into()),
        error_module: None,
        ..failure.clone()
    };
    let rejected = TaskResult {
        id: TaskId::new(),
        state: State::Rejected,
        error_type: Some("Reject".into()),
        ..revoked.clone()
    };
    let mut ids = Vec::new();
    for record in [&success, &failure, &of_rust, &typed, &revoked, &rejected] {
        assert_eq!(store.put(record.clone()).await, Ok(true));
        ids.push(record.id.clone());
    }
    for state in [
        tracked("STARTED", json!({"pid": 7, "hostname": "q#1"})),
        tracked("PROGRESS", json!({"done": 5, "total": 10})),
        TrackedState {
            traceback: Some("at line 8".into()),
            ..tracked(
                "RETRY",
                json!({"exc_type": "OSError", "exc_message": ["busy"], "exc_module": "builtins"}),
            )
        },
    ] {
        ids.push(state.id.clone());
        assert_eq!(store.track(state).await, Ok(()));
    }
    let mut arguments = vec!["read"];
    arguments.extend(ids.iter().map(TaskId::as_str));
    let read = python(&server, &arguments).await;
    let [success, failure, of_rust, typed, revoked, rejected, started, progress, retry] = read.as_slice()
    else {
        panic!("{read:?}")
    };
    assert_eq!((&success["state"], &success["get"]), (&json!("SUCCESS"), &json!({"a": [1, "ä"]})));
    assert_eq!(success["children"], json!(["child", {"group": "g", "members": ["m", "n"]}]));
    assert_eq!(success["date_done"], json!("2100-01-01T00:00:00+00:00"));
    assert_eq!((&failure["state"], &failure["raised"]), (&json!("FAILURE"), &json!("KeyError")));
    assert_eq!(
        failure["exception"],
        json!({"class": "KeyError", "module": "builtins", "args": ["no such key"]})
    );
    assert_eq!(failure["traceback"], json!("at line 7"));
    assert_eq!(of_rust["raised"], json!("RenderError"));
    assert!(of_rust["exception"]["args"].to_string().contains("could not render"), "{of_rust}");
    assert_eq!(typed["exception"]["args"], json!(["bad", 42, {"a": null}]));
    assert_eq!((&revoked["state"], &revoked["raised"]), (&json!("REVOKED"), &json!("TaskRevokedError")));
    assert_eq!((&rejected["state"], &rejected["ready"]), (&json!("FAILURE"), &json!(true)));
    assert_eq!(
        (&started["state"], &started["info"]),
        (&json!("STARTED"), &json!({"pid": 7, "hostname": "q#1"}))
    );
    assert_eq!(
        (&progress["state"], &progress["info"]),
        (&json!("PROGRESS"), &json!({"done": 5, "total": 10}))
    );
    assert_eq!((&retry["state"], &retry["traceback"]), (&json!("RETRY"), &json!("at line 8")));
    assert_eq!(retry["exception"], json!({"class": "OSError", "module": "builtins", "args": ["busy"]}));
}

#[tokio::test]
async fn we_read_pythons_documents() {
    // Its ids are the same each time.
    let server = blocking(Redis::start).await;
    let store = connect(&server.url_of(2)).await;
    let ours = new_record("1");
    assert_eq!(store.put(ours.clone()).await, Ok(true));
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait(&"py-success".into()).await }
    });
    python(&server, &["write", ours.id.as_str()]).await;
    let waited = in_time("Python's result", waiting).await.unwrap().unwrap();
    let now = Timestamp::from(std::time::SystemTime::now());
    let get = async |id: &str| store.get(&id.into(), now).await.unwrap().expect("a record");
    let success = get("py-success").await;
    assert_eq!(waited, TaskResult { expires_at: waited.expires_at, ..success.clone() });
    assert_eq!(success.state, State::Success);
    assert_eq!(serde_json::from_str::<Value>(&success.result.unwrap()).unwrap(), json!({"a": [1, "ä"]}));
    let lineage = success.lineage.unwrap();
    assert_eq!(
        (lineage.group_id.as_deref(), lineage.parent_id),
        (Some("py-group"), Some("py-parent".into()))
    );
    assert!(now.since(success.finished_at) < Duration::from_secs(300), "{}", success.finished_at);
    let failure = get("py-failure").await;
    assert_eq!((failure.state, failure.result), (State::Failure, None));
    assert_eq!(
        (failure.error_type.as_deref(), failure.error_module.as_deref()),
        (Some("ValueError"), Some("builtins"))
    );
    assert_eq!(failure.errors, ["bad", "42"]);
    assert_eq!(failure.error_arguments, Some(json!(["bad", 42]).into()));
    assert_eq!(failure.traceback.as_deref(), Some("Traceback: bad"));
    let revoked = get("py-revoked").await;
    assert_eq!((revoked.state, revoked.error_type.as_deref()), (State::Revoked, Some("TaskRevokedError")));
    let tracked = async |id: &str| store.tracked(&id.into()).await.unwrap().expect("a state");
    assert_eq!(tracked("py-progress").await.meta, json!({"done": 5, "total": 10}));
    assert_eq!(tracked("py-started").await.meta, json!({"pid": 7, "hostname": "celery@h"}));
    let retry = tracked("py-retry").await;
    assert_eq!((retry.state.as_str(), retry.traceback.as_deref()), ("RETRY", Some("Traceback: again")));
    assert_eq!(retry.meta["exc_type"], json!("ValueError"));
    let task = |id: &str| GroupMember::Task(id.into());
    let inner = GroupResult::new("py-inner", [task("b"), task("c")]);
    let saved = GroupResult::new("py-saved", [task("a"), GroupMember::Group(inner)]);
    assert_eq!(store.group("py-saved", NOW).await, Ok(Some(saved)));
    assert_eq!(store.get(&ours.id, NOW).await, Ok(Some(ours)), "Python does not overwrite a success");
}

#[tokio::test]
async fn python_restores_our_groups() {
    let (server, store) = shared().await;
    let id = TaskId::new().to_string();
    let inner = GroupResult::new("inner", [GroupMember::Task("b".into())]);
    let group = GroupResult::new(id.clone(), [GroupMember::Task("a".into()), GroupMember::Group(inner)]);
    assert_eq!(store.save_group(&group, None).await, Ok(()));
    assert_eq!(python(&server, &["group", &id]).await, [group.to_tuple()]);
}

#[tokio::test]
async fn members_of_a_chord_on_both_sides_count_together() {
    let (server, store) = shared().await;
    let part = |group: &str, index: u32| ChordPart {
        group: group.to_owned(),
        id: format!("member-{index}").as_str().into(),
        index: Some(index),
        state: State::Success,
        value: json!({"of": index}).into(),
    };
    // Ours is the last one.
    let group = TaskId::new().to_string();
    assert_eq!(store.open_chord(&group, 3).await, Ok(()));
    assert_eq!(store.join_chord(part(&group, 2)).await, Ok(ChordJoin::Waiting));
    for _ in 0..2 {
        let joined = python(&server, &["join", &group, "member-1", "1", r#"{"of": 1}"#]).await;
        assert_eq!(joined, [json!({"counted": 2, "claimed": false, "parts": null})]);
    }
    let Ok(ChordJoin::Complete { token, parts }) = store.join_chord(part(&group, 0)).await else {
        panic!("all are there")
    };
    // Python's has a blank in it, and is passed on with it.
    let by_python = ChordPart { value: r#"{"of": 1}"#.parse().unwrap(), ..part(&group, 1) };
    assert_eq!(parts, [part(&group, 0), by_python, part(&group, 2)]);
    assert_eq!(store.close_chord(&group, &token).await, Ok(()));
    let late = python(&server, &["join", &group, "member-1", "1", "1"]).await;
    assert_eq!(late, [json!({"counted": -1, "claimed": false, "parts": null})]);
    // Python's is.
    let group = TaskId::new().to_string();
    assert_eq!(store.open_chord(&group, 2).await, Ok(()));
    assert_eq!(store.join_chord(part(&group, 1)).await, Ok(ChordJoin::Waiting));
    let joined = python(&server, &["join", &group, "member-0", "0", r#"{"of": 0}"#]).await;
    let parts = json!([[1, "member-0", "SUCCESS", {"of": 0}], [1, "member-1", "SUCCESS", {"of": 1}]]);
    assert_eq!(joined, [json!({"counted": 2, "claimed": true, "parts": parts})]);
}

//! Keys, documents, lifetimes and announcements, as Celery has them.

use celeriac::store::{
    ChordJoin, ChordPart, ChordStore, GroupMember, GroupResult, GroupStore, RedisOptions, RedisStore, Store,
    StoreError, TrackedState,
};
use celeriac::task::{Child, Lineage, State, TaskId, TaskResult};
use futures_util::StreamExt;
use redis::AsyncCommands;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_record_is_celerys_document_with_its_lifetime_and_is_announced() {
    let (server, store) = shared().await;
    let lineage = Lineage {
        parent_id: Some("parent".into()),
        group_id: Some("group".into()),
        children: vec![Child::Task("child".into()), Child::Group("g".into(), vec!["m".into()])],
        reply_to: None,
    };
    let record = TaskResult {
        lineage: Some(Box::new(lineage)),
        errors: Vec::new(),
        error_type: None,
        ..new_record("[9]")
    };
    let key = format!("celery-task-meta-{}", record.id);
    let mut subscriber = redis::Client::open(server.url_of(2)).unwrap().get_async_pubsub().await.unwrap();
    subscriber.subscribe(&key).await.unwrap();
    assert_eq!(store.put(record.clone()).await, Ok(true));
    let mut raw = raw(&server).await;
    let stored: String = raw.get(&key).await.unwrap();
    let announced = in_time("an announcement", subscriber.on_message().next()).await.unwrap();
    assert_eq!(announced.get_payload::<String>().unwrap(), stored);
    let seconds: i64 = raw.ttl(&key).await.unwrap();
    assert!((3500..=3600).contains(&seconds), "the record's own lifetime: {seconds}");
    let document: Value = serde_json::from_str(&stored).unwrap();
    for (field, value) in [
        ("status", json!("SUCCESS")),
        ("result", json!([9])),
        ("traceback", json!(null)),
        ("children", json!([[["child", null], null], [["g", null], [[["m", null], null]]]])),
        ("date_done", json!("2100-01-01T00:00:00+00:00")),
        ("group_id", json!("group")),
        ("parent_id", json!("parent")),
        ("task_id", json!(record.id)),
    ] {
        assert_eq!(document[field], value, "{field}");
    }
    assert!(
        stored.starts_with(r#"{"status""#) && stored.ends_with(&format!(r#""task_id":"{}"}}"#, record.id)),
        "{stored}"
    );
    // What is not over is kept as long as Celery's `result_expires` says, and announced too.
    let id = TaskId::new();
    let key = format!("celery-task-meta-{id}");
    let state = "PROGRESS".to_owned();
    let tracked = TrackedState { id, state, meta: json!({"done": 5}).into(), traceback: None, lineage: None };
    subscriber.subscribe(&key).await.unwrap();
    assert_eq!(store.track(tracked).await, Ok(()));
    let announced = in_time("an announcement", subscriber.on_message().next()).await.unwrap();
    let stored: String = raw.get(&key).await.unwrap();
    assert_eq!(announced.get_payload::<String>().unwrap(), stored);
    let seconds: i64 = raw.ttl(&key).await.unwrap();
    assert!((86_300..=86_400).contains(&seconds), "{seconds}");
    let document: Value = serde_json::from_str(&stored).unwrap();
    assert_eq!((&document["status"], &document["result"]), (&json!("PROGRESS"), &json!({"done": 5})));
    assert_eq!(document["date_done"], json!(null));
}

#[tokio::test]
async fn captured_documents_are_read() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    let captured = r#"{"status": "SUCCESS", "result": 2, "traceback": null, "children": [], "date_done": "2026-11-22T09:32:12.273651+00:00", "group_id": "efedf9a9-5c01-43bb-b64b-beccc85baa74", "task_id": "ae774261-190a-4c6c-ac24-94cf7b9b33ac"}"#;
    let id = TaskId::from("ae774261-190a-4c6c-ac24-94cf7b9b33ac");
    let _: () = raw.set(format!("celery-task-meta-{id}"), captured).await.unwrap();
    // However old it is: Redis lets documents of Python's expire.
    let record =
        store.get(&id, celeriac::core::Timestamp::from(std::time::SystemTime::now())).await.unwrap().unwrap();
    assert_eq!((record.state, record.result.as_deref()), (State::Success, Some("2")));
    assert_eq!(record.lineage.unwrap().group_id.as_deref(), Some("efedf9a9-5c01-43bb-b64b-beccc85baa74"));
    // Finished is final, whoever wrote it.
    assert_eq!(store.put(record_of(&id)).await, Ok(false));
    let tracked = TrackedState {
        id: id.clone(),
        state: "STARTED".into(),
        meta: json!({}).into(),
        traceback: None,
        lineage: None,
    };
    assert_eq!(store.track(tracked).await, Ok(()));
    assert_eq!(raw.get::<_, String>(format!("celery-task-meta-{id}")).await.unwrap(), captured);
    assert_eq!(store.forget(&id).await, Ok(true));
    assert!(!raw.exists::<_, bool>(format!("celery-task-meta-{id}")).await.unwrap());
}

fn record_of(id: &TaskId) -> TaskResult {
    TaskResult { id: id.clone(), ..new_record("7") }
}

/// What Python writes if a task raises `ValueError("cut \ud83d")`, returns NaN, or reports NaN as its progress.
const HALF: &str = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["cut \ud83d"], "exc_module": "builtins"}, "traceback": "Traceback:\nValueError: cut \ud83d\n", "children": [], "date_done": "2026-11-22T09:32:12+00:00"}"#;
const NAN: &str = r#"{"status": "SUCCESS", "result": [1, NaN], "traceback": null, "children": []}"#;
const NAN_SO_FAR: &str = r#"{"status": "PROGRESS", "result": NaN}"#;
/// A document of a task that is not over, and that nobody can read.
const BROKEN_SO_FAR: &str = r#"{"status": "PROGRESS", "result": 5, "retries": "x"}"#;

/// What somebody who waits for a task is told when these are announced one after the other.
async fn told(server: &Redis, store: &RedisStore, documents: &[&str]) -> Result<TaskResult, StoreError> {
    let id = TaskId::new();
    let waiting = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.wait(&id).await }
    });
    let (mut raw, channel) = (raw(server).await, format!("celery-task-meta-{id}"));
    in_time("a subscription", async {
        for document in documents {
            while raw.publish::<_, _, u64>(&channel, *document).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    in_time("an answer", waiting).await.unwrap()
}

#[tokio::test]
async fn whoever_waits_is_told_at_once_what_python_wrote() {
    let (server, store) = shared().await;
    for documents in [&[HALF][..], &[NAN_SO_FAR, BROKEN_SO_FAR, HALF][..]] {
        let failed = told(&server, &store, documents).await.unwrap();
        assert_eq!((failed.state, failed.error_type.as_deref()), (State::Failure, Some("ValueError")));
        assert_eq!(failed.errors, ["cut \u{fffd}"]);
        assert_eq!(failed.traceback.as_deref(), Some("Traceback:\nValueError: cut \u{fffd}\n"));
    }
    let error = told(&server, &store, &[NAN]).await.unwrap_err().to_string();
    assert!(error.contains("there is NaN in its result") && error.contains("celery-task-meta-"), "{error}");
    // The same if the document is there before.
    let id = TaskId::new();
    let _: () = raw(&server).await.set(format!("celery-task-meta-{id}"), NAN).await.unwrap();
    for read in [store.get(&id, NOW).await.map(drop), in_time("an answer", store.wait(&id)).await.map(drop)] {
        assert!(read.clone().unwrap_err().to_string().contains("there is NaN in its result"), "{read:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_task_is_recorded_over_whatever_state_is_there() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    for state in [NAN_SO_FAR, BROKEN_SO_FAR] {
        let id = TaskId::new();
        let key = format!("celery-task-meta-{id}");
        let _: () = raw.set(&key, state).await.unwrap();
        assert_eq!(store.get(&id, NOW).await, Ok(None), "{state}");
        let record = record_of(&id);
        assert_eq!(store.put(record.clone()).await, Ok(true), "{state}");
        assert_eq!(store.get(&id, NOW).await, Ok(Some(record)), "{state}");
    }
    let id = TaskId::new();
    let _: () = raw.set(format!("celery-task-meta-{id}"), NAN_SO_FAR).await.unwrap();
    assert_eq!(store.tracked(&id).await.unwrap().unwrap().meta, json!("NaN"));
    // An end that nobody can read is an end.
    let _: () = raw.set(format!("celery-task-meta-{id}"), NAN).await.unwrap();
    let refused = store.put(record_of(&id)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(text) if text.contains("there is NaN")), "{refused}");
}

#[tokio::test]
async fn a_chord_has_celerys_keys() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    let group = TaskId::new().to_string();
    let key = |suffix: &str| format!("celery-taskset-meta-{group}{suffix}");
    let _: () = raw.set(key(".c"), "of an earlier run").await.unwrap();
    assert_eq!(store.open_chord(&group, 2).await, Ok(()));
    assert!(!raw.exists::<_, bool>(key(".c")).await.unwrap());
    assert_eq!(raw.get::<_, String>(key(".s")).await.unwrap(), "2");
    let part = |id: &str, index, value: Value| ChordPart {
        group: group.clone(),
        id: id.into(),
        index,
        state: State::Success,
        value: value.into(),
    };
    assert_eq!(store.join_chord(part("b", Some(1), json!("x"))).await, Ok(ChordJoin::Waiting));
    let parts: Vec<(String, f64)> = raw.zrange_withscores(key(".j"), 0, -1).await.unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(serde_json::from_str::<Value>(&parts[0].0).unwrap(), json!([1, "b", "SUCCESS", "x"]));
    assert!((parts[0].1 - 1.0).abs() < f64::EPSILON);
    assert!(raw.sismember::<_, _, bool>(key(".d"), "b:1").await.unwrap());
    // `add_to_chord` in a member asks for one more.
    let _: () = raw.incr(key(".t"), 1).await.unwrap();
    assert_eq!(store.join_chord(part("a", Some(0), json!(1))).await, Ok(ChordJoin::Waiting));
    for suffix in [".j", ".d", ".s", ".t"] {
        let seconds: i64 = raw.ttl(key(suffix)).await.unwrap();
        assert!((86_300..=86_400).contains(&seconds), "{suffix}: {seconds}");
    }
    let Ok(ChordJoin::Complete { token, parts }) = store.join_chord(part("c", None, json!(null))).await
    else {
        panic!("2 + 1 are there")
    };
    assert_eq!(
        parts.iter().map(|p| (p.id.as_str(), p.index)).collect::<Vec<_>>(),
        [("a", Some(0)), ("b", Some(1)), ("c", None)]
    );
    assert_eq!(raw.get::<_, String>(key(".c")).await.unwrap(), token);
    assert!(raw.sismember::<_, _, bool>(key(".d"), "c:+inf").await.unwrap());
    assert_eq!(store.close_chord(&group, &token).await, Ok(()));
    assert_eq!(raw.get::<_, String>(key(".c")).await.unwrap(), "done");
    assert!((200..=300).contains(&raw.ttl::<_, i64>(key(".c")).await.unwrap()));
    for suffix in [".j", ".d", ".s", ".t"] {
        assert!(!raw.exists::<_, bool>(key(suffix)).await.unwrap(), "{suffix}");
    }
}

#[tokio::test]
async fn a_group_is_saved_as_celery_does() {
    let (server, store) = shared().await;
    let mut raw = raw(&server).await;
    let id = TaskId::new().to_string();
    let key = format!("celery-taskset-meta-{id}");
    assert_eq!(store.group(&id, NOW).await, Ok(None));
    let inner = GroupResult::new("inner", [GroupMember::Task("b".into())]);
    let group = GroupResult::new(id.clone(), [GroupMember::Task("a".into()), GroupMember::Group(inner)]);
    assert_eq!(store.save_group(&group, None).await, Ok(()));
    let document: Value = serde_json::from_str(&raw.get::<_, String>(&key).await.unwrap()).unwrap();
    assert_eq!(
        document,
        json!({"result": [[id, null], [[["a", null], null], [["inner", null], [[["b", null], null]]]]]})
    );
    assert!((86_300..=86_400).contains(&raw.ttl::<_, i64>(&key).await.unwrap()));
    assert_eq!(store.group(&id, NOW).await, Ok(Some(group)));
    assert_eq!(store.forget_group(&id).await, Ok(true));
    assert_eq!(store.forget_group(&id).await, Ok(false));
    let _: () = raw.set(&key, "[]").await.unwrap();
    let error = store.group(&id, NOW).await.unwrap_err().to_string();
    assert!(error.contains("no saved group") && error.contains(&key), "{error}");
}

#[tokio::test]
async fn all_keys_and_channels_have_the_prefix() {
    let server = blocking(Redis::start).await;
    let mut options = RedisOptions::default();
    options.global_keyprefix = Some("hq".into());
    let store = RedisStore::connect(&server.url(), options).await.unwrap();
    let record = new_record("1");
    let waiting = tokio::spawn({
        let (store, id) = (store.clone(), record.id.clone());
        async move { store.wait(&id).await }
    });
    // Written by somebody else, so that it is the announcement that wakes.
    let other = redis::Client::open(server.url()).unwrap();
    let mut raw = other.get_multiplexed_async_connection().await.unwrap();
    let channel = format!("hq_celery-task-meta-{}", record.id);
    in_time("a subscription", async {
        while raw
            .publish::<_, _, u64>(&channel, r#"{"status": "SUCCESS", "result": 7, "date_done": null}"#)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(in_time("the record", waiting).await.unwrap().unwrap().result.as_deref(), Some("7"));
    assert_eq!(store.put(record).await, Ok(true));
    assert_eq!(store.revoke(&"a".into(), NOW).await, Ok(()));
    assert_eq!(store.open_chord("g", 1).await, Ok(()));
    let part = ChordPart {
        group: "g".into(),
        id: "a".into(),
        index: None,
        state: State::Success,
        value: json!(1).into(),
    };
    assert!(matches!(store.join_chord(part).await, Ok(ChordJoin::Complete { .. })));
    assert_eq!(store.save_group(&GroupResult::new("g", []), None).await, Ok(()));
    let keys: Vec<String> = raw.keys("*").await.unwrap();
    assert_eq!(keys.len(), 8, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("hq_cele")), "{keys:?}");
}

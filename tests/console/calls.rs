//! Calls of tasks by hand, and what follows a task.

use actix_web::http::StatusCode;
use celeriac::web::{Console, Permission};
use serde_json::{Value, json};

use super::kit::{LONG, act, data, done, get, on_both, open, page, start};
use super::tasks::mail;

#[actix_web::test]
async fn a_task_is_called_by_a_form_made_of_its_parameters() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        let told = data(&console, "/enqueue", |_| true).await;
        let is_mail = |task: &&Value| task["name"] == "shop.mail";
        let listed = told["tasks"].as_array().unwrap().iter().find(is_mail).expect("it is listed");
        assert_eq!((&listed["parameters"], &listed["queue"]), (&json!(["to", "body"]), &json!("mail")));
        let shown = page(&console, "/enqueue?task=shop.mail", |_| true).await;
        for part in ["name=\"arg.to\"", "name=\"arg.body\"", "name=\"once\"", "for=\"argument-0\""] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let fields = [
            ("act", "enqueue"),
            ("task", "shop.mail"),
            ("id", "by-hand"),
            ("arg.to", "\"<script>a\""),
            ("arg.body", " \"hi\" "),
        ];
        let answer = act(&console, &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert!(answer.header("location").starts_with("/console/task?id=by-hand&done="), "{answer:?}");
        let result = celeriac.async_result("by-hand");
        assert_eq!(result.get::<serde_json::Value>(LONG).await.unwrap(), json!(11), "9 letters and 2");
        let shown = page(&console, "/task?id=by-hand", |body| body.contains("has succeeded")).await;
        assert!(!shown.contains("<script>a"), "{shown}");
        // Without an id it gets one, and the page of the task says that it was made.
        let shown = done(
            &console,
            &[("act", "enqueue"), ("task", "shop.mail"), ("arg.to", "\"a\""), ("arg.body", "\"b\"")],
        )
        .await;
        assert!(shown.contains("call the task shop.mail") && shown.contains("it is accepted"), "{shown}");
        let told = data(&console, "/acts", |_| true).await;
        assert_eq!(
            (&told["acts"][0]["who"], &told["acts"][0]["permission"]),
            (&json!("amina"), &json!("enqueue"))
        );
        // The same id is not taken twice.
        assert_eq!(act(&console, &fields).await.status, StatusCode::BAD_REQUEST);
    })
    .await;
}

#[actix_web::test]
async fn what_is_no_call_says_what_is_wrong_and_calls_nothing() {
    let celeriac = start().await;
    let console = open(&celeriac);
    for (fields, status, text) in [
        (&[("task", "shop.mial")][..], 404, "shop.mail"),
        (&[], 400, "lacks `task`"),
        (&[("task", "shop.mail"), ("arg.to", "hello")], 400, "is no JSON for `to`"),
        (&[("task", "shop.mail"), ("arg.too", "1")], 400, "did you mean `to`?"),
    ] {
        let fields = [&[("act", "enqueue")][..], fields].concat();
        let refused = act(&console, &fields).await;
        assert_eq!(refused.status.as_u16(), status, "{fields:?}: {}", refused.body);
        assert!(refused.body.contains(text), "{fields:?}: {}", refused.body);
    }
    for (path, status) in [("/enqueue?task=none%3Cscript%3E", 404), ("/enqueue?name=none", 200)] {
        let answer = get(&console, path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
        assert!(!answer.body.contains("<script>"), "{path}: {}", answer.body);
    }
    assert_eq!(data(&console, "/tasks", |_| true).await["tasks"]["tasks"], json!([]));
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_call_needs_the_permission_for_its_queue() {
    let celeriac = start().await;
    let console = Console::new(&celeriac).authorize(|_, check| {
        let may = check.permission == Permission::See
            || (check.permission == Permission::Enqueue && check.queue.as_deref() == Some("keyed"));
        may.then_some("bola")
    });
    let told = data(&console, "/enqueue", |_| true).await;
    let names: Vec<&str> =
        told["tasks"].as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop.import"]);
    assert_eq!(get(&console, "/enqueue?task=shop.mail").await.status, StatusCode::FORBIDDEN);
    let call = |task| [("act", "enqueue"), ("task", task), ("arg.domain", "\"malawi\"")];
    let mail = [("act", "enqueue"), ("task", "shop.mail"), ("arg.to", "\"a\""), ("arg.body", "\"b\"")];
    assert_eq!(act(&console, &mail).await.status, StatusCode::FORBIDDEN);
    assert_eq!(act(&console, &call("shop.import")).await.status, StatusCode::SEE_OTHER);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_a_task_belongs_to_is_a_tree_with_states() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        let second = mail::s("b".into(), "second".into()).id("second");
        let chain = mail::s("a".into(), "first".into()).id("first").then(second);
        let result = chain.send(celeriac.client()).await.unwrap();
        assert_eq!(result.get(LONG).await, Ok(7));
        let parent = json!({ "is": "parent", "id": "first", "task": "shop.mail", "state": "SUCCESS" });
        let is_there =
            |told: &Value| told["family"].as_array().is_some_and(|family| family.contains(&parent));
        data(&console, "/task?id=second", is_there).await;
        let shown = page(&console, "/task?id=second", |_| true).await;
        assert!(shown.contains("sent by") && shown.contains("task?id=first"), "{shown}");
    })
    .await;
}

//! Seven days as charts: what is counted, by what, and who did what meanwhile.

use actix_web::http::StatusCode;
use celeriac::web::Console;
use serde_json::{Value, json};

use super::kit::{LONG, data, done, get, on_both, open, page, start};
use super::tasks::{export, mail};

/// How many runs began of what has this name.
fn started(told: &Value, name: &str) -> u64 {
    let rows = told["rows"].as_array().expect("rows").iter().filter(|row| row["name"] == name);
    rows.map(|row| row["started"].as_u64().unwrap()).sum()
}

#[actix_web::test]
async fn the_history_counts_by_queue_task_and_tenant_and_names_who_did_what() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        for n in 0..3 {
            let task = mail::s(n.to_string(), "x".into()).send(client.clone()).await.unwrap();
            assert_eq!(task.get(LONG).await, Ok(2));
        }
        let task = export::s("acme".into(), 1).send(client.clone()).await.unwrap();
        assert_eq!(task.get(LONG).await, Ok(5));
        done(&console, &[("act", "pause"), ("queue", "slow"), ("back", "history")]).await;
        for (path, name, count) in [
            ("/history", "mail", 4),
            ("/history?by=task&hours=1", "shop.mail", 3),
            ("/history?by=task&queue=mail&hours=168", "shop.export", 1),
            ("/history?by=tenant", "acme", 1),
            ("/history?by=tenant&name=acme", "acme", 1),
        ] {
            let told = data(&console, path, |told| started(told, name) == count).await;
            assert!(told["step_seconds"].as_u64().is_some_and(|step| step >= 60), "{path}: {told}");
            let shown = page(&console, path, |_| true).await;
            for part in ["class=\"strip\"", "Time to start", "What changed", "<polyline class=\"line\""] {
                assert!(shown.contains(part), "{path}: {part}: {shown}");
            }
            assert!(shown.len() < 50_000, "{path} has {} bytes", shown.len());
        }
        let told = data(&console, "/history", |_| true).await;
        let marks = told["marks"].as_array().unwrap();
        let pause = marks.iter().find(|mark| mark["what"] == "pause").expect("a mark");
        assert_eq!((&pause["who"], &pause["subject"]), (&json!("amina"), &json!("slow")));
        assert!(marks.iter().any(|mark| mark["what"] == "start"), "{told}");
        let shown = page(&console, "/history", |_| true).await;
        assert!(shown.contains("In the last 24 h 4 runs began") && shown.contains("amina"), "{shown}");
        // Nothing happened before the program began.
        let shown = page(&console, "/history?hours=1&until=2020-01-01T00:00", |_| true).await;
        assert!(shown.contains("Nothing happened then") && shown.contains(">later<"), "{shown}");
        // The slider has the rest of the screen with it, and its place is a time like any other.
        let slid = "/history?by=task&queue=mail&hours=6&until=26297280";
        let shown = page(&console, slid, |_| true).await;
        for part in [
            "<label for=\"slider\">The 6 h until</label>",
            "aria-valuetext=\"2020-01-01 00:00:00 UTC\"",
            "<input type=\"hidden\" name=\"by\" value=\"task\">",
            "<input type=\"hidden\" name=\"queue\" value=\"mail\">",
            "<input type=\"hidden\" name=\"hours\" value=\"6\">",
            "value=\"2020-01-01T00:00\"",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let told = data(&console, slid, |_| true).await;
        assert!(told["until"].as_str().unwrap().starts_with("2020-01-01T00:00:00"), "{told}");
        let shown = page(&console, "/history?hours=168", |_| true).await;
        assert!(!shown.contains("id=\"slider\""), "seven days are all that is kept: {shown}");
    })
    .await;
}

#[actix_web::test]
async fn the_history_shows_what_is_of_queues_that_may_be_seen() {
    let celeriac = start().await;
    let everybody = open(&celeriac);
    let bola = Console::new(&celeriac)
        .authorize(|_, check| (check.queue.as_deref() != Some("mail")).then_some("bola"));
    let task = mail::s("a".into(), "x".into()).send(celeriac.client()).await.unwrap();
    assert_eq!(task.get(LONG).await, Ok(2));
    celeriac.as_operator("amina").pause("mail").await.unwrap();
    celeriac.as_operator("amina").mark("feature", "the mail of acme");
    data(&everybody, "/history", |told| started(told, "mail") == 1).await;
    let told = data(&bola, "/history", |_| true).await;
    assert_eq!(started(&told, "mail"), 0);
    let marks = told["marks"].as_array().unwrap();
    assert!(marks.iter().all(|mark| mark["what"] == "start"), "{told}");
    for path in ["/history?queue=mail", "/history?by=task", "/history?by=tenant&name=acme"] {
        assert_eq!(get(&bola, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(get(&bola, "/history?by=task&queue=slow").await.status, StatusCode::OK);
    for path in ["/history?by=moon", "/history?hours=0", "/history?hours=x", "/history?until=soon"] {
        assert_eq!(get(&everybody, path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    celeriac.shutdown().await.unwrap();
}

//! Limits: what a key has used, how its breaker stands, and what it holds back.

use serde_json::{Value, json};

use super::kit::{data, failed, on_both, open, page};
use super::tasks::ring;

/// The line of a key in a limit.
fn line<'a>(told: &'a Value, key: &str) -> Option<&'a Value> {
    let mut keys = told["keys"].as_array()?.iter();
    keys.find(|line| line["limit"] == "runs of shop.ring" && line["key"] == key)
}

#[actix_web::test]
async fn a_limit_says_what_each_key_has_used_and_how_its_breaker_stands() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        let told = data(&console, "/limits", |_| true).await;
        let limits = told["limits"].as_array().unwrap();
        let limit = limits.iter().find(|limit| limit["name"] == "runs of shop.ring").expect("it is stated");
        assert!(limit["allows"].as_str().unwrap().starts_with("3 at a time"), "{limit}");
        failed(&ring::s("<b>gateway".into(), false).send(client.clone()).await.unwrap()).await;
        let is_open =
            |told: &Value| line(told, "<b>gateway").is_some_and(|line| line["breaker"]["is"] == "open");
        let told = data(&console, "/limits", is_open).await;
        let open = line(&told, "<b>gateway").unwrap();
        assert_eq!((&open["running"], &open["max_running"]), (&json!(0), &json!(3)));
        assert!(open["frees_in_ms"].as_f64().is_some_and(|wait| wait > 0.0), "{open}");
        assert!(
            open["refused"].as_str().is_some_and(|why| why.contains("it pauses after 1 errors")),
            "{open}"
        );
        // What comes meanwhile is held, and the page says so first.
        ring::s("<b>gateway".into(), true).id("held").send(client.clone()).await.unwrap();
        let is_held = |told: &Value| line(told, "<b>gateway").is_some_and(|line| line["holds"] == json!(1));
        let told = data(&console, "/limits", is_held).await;
        assert_eq!(told["keys"][0]["key"], "<b>gateway");
        let shown = page(&console, "/limits", |body| body.contains("they hold 1 task back here")).await;
        assert!(shown.contains("open, a run is tried in") && shown.contains("&lt;b&gt;gateway"), "{shown}");
        client.revoke(&"held".into(), false).await.unwrap();
    })
    .await;
}

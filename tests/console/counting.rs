//! Counts that take longer than somebody waits for a page: the page says how far they are and loads itself again, but no page
//! does that into which somebody writes.

use std::sync::{Arc, Condvar, Mutex};

use celeriac::Celeriac;
use celeriac::web::Console;
use serde_json::{Value, json};

use super::kit::{data, embedded, failed, get, open, page};
use super::tasks::{fails, mail};

/// Holds whoever looks at arguments, until it is opened.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    told: Condvar,
}

impl Gate {
    fn pass(&self) {
        drop(self.told.wait_while(self.is_open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.told.notify_all();
    }
}

/// A console that counts by an argument for as long as the gate is shut.
fn slow(celeriac: &Celeriac) -> (Console, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let console = open(celeriac).hide_arguments(move |_| {
        held.pass();
        false
    });
    (console, gate)
}

#[actix_web::test]
async fn a_long_count_of_failed_tasks_goes_on_behind_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    failed(&fails::s("hunter2".into()).id("bad").send(celeriac.client()).await.unwrap()).await;
    data(&open(&celeriac), "/failed", |told| told["tasks"].as_array().unwrap().len() == 1).await;
    let (console, gate) = slow(&celeriac);
    let path = "/confirm?act=delete_all&argument=hunter2";
    let told = get(&console, &format!("{path}&format=json")).await.json()["data"].take();
    assert_eq!((&told["count"], &told["counting"]["of"]), (&Value::Null, &json!(0)), "{told}");
    // Who asks again with the moment that was told waits for the same count, and a browser does so by itself.
    let path = format!("{path}&until={}", told["until"].as_str().expect("a moment"));
    let shown = get(&console, &path).await;
    let again = shown.header("refresh");
    assert!(again.starts_with("1; url=/console/confirm?") && again.contains("until="), "{again}");
    let question = "Counting: delete all failed tasks that match argument hunter2?";
    assert!(shown.body.contains(question), "{}", shown.body);
    assert!(shown.body.contains("so far.</strong>"), "{}", shown.body);
    assert!(!shown.body.contains("Delete them"), "nobody knows yet what would be done: {}", shown.body);
    gate.open();
    data(&console, &path, |told| told["count"] == json!(1) && told["counting"] == Value::Null).await;
    let shown = get(&console, &path).await;
    assert!(shown.body.contains("Delete them") && shown.body.contains("task?id=bad"), "{}", shown.body);
    assert_eq!(shown.header("refresh"), "");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_page_that_counts_takes_nothing_away_that_somebody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    celeriac.pause("mail").await.unwrap();
    mail::s("amina".into(), "hello".into()).send(celeriac.client()).await.unwrap();
    data(&open(&celeriac), "/tasks", |told| told["tasks"]["tasks"].as_array().unwrap().len() == 1).await;
    let (console, gate) = slow(&celeriac);
    let tried = "/brakes?try=1&action=pause&argument=to&matches=amina&reason=a+flood";
    let shown = get(&console, tried).await;
    assert!(shown.header("refresh").contains("counted="), "{shown:?}");
    // The brake can be set at once. There is no field on the page that could be filled meanwhile.
    assert!(shown.body.contains("Set this brake") && shown.body.contains("Look again"), "{}", shown.body);
    assert!(!shown.body.contains("id=\"b-task\""), "{}", shown.body);
    let link =
        shown.body.split('"').find(|part| part.contains("uncounted=1")).expect("a way around the count");
    let without =
        link.replace("&amp;", "&").strip_prefix("/console").expect("a page of the console").to_owned();
    let form = get(&console, &without).await;
    assert_eq!(form.header("refresh"), "", "{}", form.body);
    for part in [
        "id=\"b-task\"",
        "id=\"b-reason\" name=\"reason\" value=\"a flood\"",
        "not counted",
        "Set this brake",
    ] {
        assert!(form.body.contains(part), "{part}: {}", form.body);
    }
    // One that is about every task has a box to be ticked, so the page has to stand still.
    let all = "/brakes?try=1&action=pause&all=1";
    let shown = get(&console, all).await;
    assert!(!shown.header("refresh").is_empty() && !shown.body.contains("name=\"sure\""), "{}", shown.body);
    let shown = get(&console, &format!("{all}&uncounted=1")).await;
    assert!(shown.header("refresh").is_empty() && shown.body.contains("name=\"sure\""), "{}", shown.body);
    gate.open();
    let shown = page(&console, all, |body| body.contains("name=\"sure\"")).await;
    assert!(
        shown.contains("id=\"b-task\"") && shown.contains("<strong>1 task</strong> that match"),
        "{shown}"
    );
    celeriac.shutdown().await.unwrap();
}

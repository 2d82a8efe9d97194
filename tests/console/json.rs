//! The fields of the console's JSON against the pages of the manual about it: what they name is there, and what is there they name.

use std::collections::{BTreeMap, BTreeSet};

use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use serde_json::Value;

use super::kit::{data, done, failed, open, start};
use super::tasks::{export, fails, import, mail, ring, waits};

const PAGES: [&str; 3] = [
    include_str!("../../docs/console-json.md"),
    include_str!("../../docs/console-json-operations.md"),
    include_str!("../../docs/console-json-activity.md"),
];

/// The fields that each section of the pages documents, by the places that its heading names.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut places: Vec<String> = Vec::new();
    for line in PAGES.into_iter().flat_map(str::lines) {
        if let Some(heading) = line.strip_prefix("## ") {
            places = in_backticks(heading);
        } else if let Some(row) = line.strip_prefix("| `") {
            let (fields, _) = row.split_once(" |").expect("a cell");
            for place in &places {
                sections.entry(place.clone()).or_default().extend(in_backticks(&format!("`{fields}")));
            }
        }
    }
    sections
}

fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The objects at a place below the data of its page: `queues[]` is each element of the list `queues`.
fn at<'a>(data: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![data];
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        found = found.into_iter().map(|value| &value[name]).collect();
        if is_list {
            found = found.into_iter().flat_map(|list| list.as_array().expect("a list")).collect();
        }
    }
    found
}

#[actix_web::test]
async fn the_documented_fields_are_those_of_the_answers() {
    let celeriac = start().await;
    let (console, client) = (open(&celeriac), celeriac.client());
    failed(&fails::s("no such customer".into()).id("bad").send(client.clone()).await.unwrap()).await;
    let runs = waits::s("a".into()).id("runs").send(client.clone()).await.unwrap();
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    mail::s("a@example.org".into(), "hello".into()).id("good").send(client.clone()).await.unwrap();
    for _ in 0..2 {
        import::s("malawi".into()).send(client.clone()).await.unwrap();
    }
    export::s("acme".into(), 1).send(client.clone()).await.unwrap();
    failed(&ring::s("gateway".into(), false).send(client.clone()).await.unwrap()).await;
    let brake = Brake::new(BrakeRule::new().tenant("zoo"), BrakeAction::Pause);
    celeriac.brakes().set(brake).await.unwrap();
    let moved = celeriac.bulk().move_to(&BrakeRule::new().tenant("acme"), "keyed").await.unwrap();
    celeriac.bulk().wait(&moved.id).await.unwrap();
    celeriac.undo_bulk(&moved.id).await.unwrap();
    celeriac.bulk().wait(&moved.id).await.unwrap();
    done(&console, &[("act", "pause"), ("queue", "keyed"), ("back", "acts")]).await;
    let is_there =
        |list: &'static str| move |data: &Value| data[list].as_array().is_some_and(|all| !all.is_empty());
    let has_tasks = |data: &Value| data["tasks"]["tasks"].as_array().is_some_and(|all| !all.is_empty());
    let mut answers: BTreeMap<&str, Value> = BTreeMap::new();
    answers.insert("queues", data(&console, "", is_there("queues")).await);
    let has_queue = |data: &Value| data["queue"].is_object() && has_tasks(data);
    answers.insert("queue", data(&console, "/queue?name=mail", has_queue).await);
    answers.insert("tasks", data(&console, "/tasks", has_tasks).await);
    answers.insert("task", data(&console, "/task?id=good", |data| data.is_object()).await);
    answers.insert("failed", data(&console, "/failed", is_there("tasks")).await);
    answers.insert("lanes", data(&console, "/lanes", is_there("lanes")).await);
    let lane = "/lane?scope=shop.import&key=malawi";
    answers.insert("lane", data(&console, lane, |data| data.is_object()).await);
    answers.insert("periodic", data(&console, "/periodic", is_there("entries")).await);
    answers.insert("entry", data(&console, "/entry?name=yearly", |data| data.is_object()).await);
    answers.insert("processes", data(&console, "/processes", is_there("running")).await);
    let tried = "/brakes?try=1&tenant=acme&action=pause";
    answers.insert("brakes", data(&console, tried, is_there("brakes")).await);
    answers.insert("tenants", data(&console, "/tenants", is_there("tenants")).await);
    let has_tenant = |data: &Value| data["tenant"].is_object() && has_tasks(data);
    answers.insert("tenant", data(&console, "/tenant?name=acme", has_tenant).await);
    answers.insert("limits", data(&console, "/limits", is_there("keys")).await);
    let has_history = |data: &Value| is_there("rows")(data) && is_there("marks")(data);
    answers.insert("history", data(&console, "/history", has_history).await);
    answers.insert("enqueue", data(&console, "/enqueue?task=shop.mail", is_there("tasks")).await);
    answers.insert("bulk", data(&console, "/bulk", is_there("acts")).await);
    let bulk = "/confirm?act=bulk_purge&queue=mail";
    answers.insert("confirm", data(&console, bulk, |data| data.is_object()).await);
    answers.insert("downloads", data(&console, "/downloads?id=good", |data| data["asked"].is_object()).await);
    answers.insert("live", data(&console, "/live", |data| data.is_object()).await);
    answers.insert("acts", data(&console, "/acts", is_there("acts")).await);

    let documented = documented();
    assert!(documented.len() > 40, "only {} places were found: the search is broken", documented.len());
    for page in answers.keys() {
        assert!(documented.contains_key(*page), "the manual has no section `{page}`");
    }
    for (place, fields) in &documented {
        let (page, path) = place.split_once('.').unwrap_or((place.as_str(), ""));
        let answer = answers.get(page).unwrap_or_else(|| panic!("`{place}`: there is no page `{page}`"));
        let found = at(answer, path);
        assert!(!found.is_empty(), "`{place}` is empty in {answer}");
        for object in found {
            if object.is_null() && place.ends_with(".counting") {
                continue; // the count was over at once; a unit test compares its fields with the manual
            }
            let object = object.as_object().unwrap_or_else(|| panic!("`{place}` is no object: {object}"));
            let there: BTreeSet<String> = object.keys().cloned().collect();
            let (more, less): (Vec<_>, Vec<_>) =
                (there.difference(fields).collect(), fields.difference(&there).collect());
            assert!(more.is_empty(), "the manual does not name these fields of `{place}`: {more:?}");
            assert!(less.is_empty(), "the manual names fields that `{place}` does not have: {less:?}");
        }
    }
    runs.revoke(true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

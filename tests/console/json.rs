//! The fields of the console's JSON against docs/console-json.md: what the page names is there, and what is there it names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::kit::{data, failed, open, start};
use super::tasks::{fails, import, mail, waits};

const PAGE: &str = include_str!("../../docs/console-json.md");

/// The fields that each section of the page documents, by the places that its heading names.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut places: Vec<String> = Vec::new();
    for line in PAGE.lines() {
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

    let documented = documented();
    assert!(documented.len() > 15, "only {} places were found: the search is broken", documented.len());
    for page in answers.keys() {
        assert!(documented.contains_key(*page), "docs/console-json.md has no section `{page}`");
    }
    for (place, fields) in &documented {
        let (page, path) = place.split_once('.').unwrap_or((place.as_str(), ""));
        let answer = answers.get(page).unwrap_or_else(|| panic!("`{place}`: there is no page `{page}`"));
        let found = at(answer, path);
        assert!(!found.is_empty(), "`{place}` is empty in {answer}");
        for object in found {
            let object = object.as_object().unwrap_or_else(|| panic!("`{place}` is no object: {object}"));
            let there: BTreeSet<String> = object.keys().cloned().collect();
            let (more, less): (Vec<_>, Vec<_>) =
                (there.difference(fields).collect(), fields.difference(&there).collect());
            assert!(
                more.is_empty(),
                "docs/console-json.md does not name these fields of `{place}`: {more:?}"
            );
            assert!(
                less.is_empty(),
                "docs/console-json.md names fields that `{place}` does not have: {less:?}"
            );
        }
    }
    runs.revoke(true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

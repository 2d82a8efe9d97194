//! Who may do what with whose tasks: what is of a queue that somebody may not see or touch, and what is hidden.

use actix_web::http::StatusCode;
use celeriac::broker::TaskFilter;
use celeriac::web::Console;
use celeriac::{Celeriac, TaskId};
use serde_json::{Value, json};

use super::kit::{act, data, done, failed, get, on_both, open, page, start};
use super::tasks::{fails, import, mail};

/// A console in which Bola may do everything, but for one queue.
fn without(celeriac: &Celeriac, queue: &'static str) -> Console {
    Console::new(celeriac)
        .authorize(move |_, check| (check.queue.as_deref() != Some(queue)).then_some("bola"))
}

async fn kept(celeriac: &Celeriac) -> Vec<TaskId> {
    let kept = celeriac.failed_tasks(&TaskFilter::new(), 10).await.unwrap();
    let mut ids: Vec<TaskId> = kept.into_iter().map(|task| task.message.id).collect();
    ids.sort();
    ids
}

/// The ids of the tasks in a list.
async fn ids(console: &Console, path: &str) -> Vec<String> {
    let told = data(console, path, |_| true).await;
    let list = if told["tasks"].is_array() { &told["tasks"] } else { &told["tasks"]["tasks"] };
    let tasks = list.as_array().expect("tasks").iter();
    tasks.map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn an_act_on_all_is_about_the_queues_that_its_actor_may_touch() {
    on_both(|celeriac| async move {
        for (id, queue) in [("own", "mail"), ("other", "slow")] {
            let task = fails::s("down".into()).id(id).queue(queue).send(celeriac.client()).await.unwrap();
            failed(&task).await;
        }
        data(&open(&celeriac), "/failed", |told| told["tasks"].as_array().unwrap().len() == 2).await;
        let console = without(&celeriac, "slow");
        let counted =
            async |path: &str| data(&console, path, |told| told["count"].is_u64()).await["count"].clone();
        assert_eq!(counted("/confirm?act=delete_all&error=down").await, json!(1));
        // Of two fields of one name all read the same one.
        assert_eq!(counted("/confirm?act=delete_all&queue=mail&queue=slow").await, json!(1));
        let asked = page(&console, "/confirm?act=delete_all", |body| body.contains("1 task: ")).await;
        assert!(asked.contains("task?id=own") && !asked.contains("id=other"), "{asked}");
        for path in ["/confirm?act=delete_all&queue=slow", "/confirm?act=retry_all&queue=slow&queue=mail"] {
            assert_eq!(get(&console, path).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        let refused = act(&console, &[("act", "delete_all"), ("queue", "slow")]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
        assert_eq!(kept(&celeriac).await, ["other", "own"].map(TaskId::from));
        let shown = done(&console, &[("act", "delete_all"), ("error", "down"), ("back", "failed")]).await;
        assert!(shown.contains("1 task is deleted"), "{shown}");
        assert_eq!(kept(&celeriac).await, ["other"].map(TaskId::from));
        let shown = done(&console, &[("act", "retry_all"), ("back", "failed")]).await;
        assert!(shown.contains("none was there any more"), "{shown}");
        assert_eq!(kept(&celeriac).await, ["other"].map(TaskId::from));
    })
    .await;
}

/// Whoever may ask which arguments contain a text finds out what is hidden, letter by letter.
#[actix_web::test]
async fn what_is_hidden_is_not_found_by_what_it_is() {
    on_both(|celeriac| async move {
        let console = open(&celeriac).hide_arguments(|message| message.id.as_str().starts_with("secret"));
        for id in ["secret-bad", "bad"] {
            failed(&fails::s("hunter2".into()).id(id).send(celeriac.client()).await.unwrap()).await;
        }
        data(&console, "/failed", |told| told["tasks"].as_array().unwrap().len() == 2).await;
        celeriac.pause("mail").await.unwrap();
        let send = |id: &str| mail::s("hunter2".into(), "x".into()).id(id);
        send("plain").send(celeriac.client()).await.unwrap();
        send("secret").send(celeriac.client()).await.unwrap();
        send("own").argsrepr("(…)").send(celeriac.client()).await.unwrap();
        let all =
            data(&console, "/tasks", |told| told["tasks"]["tasks"].as_array().unwrap().len() == 3).await;
        assert_eq!(all["tasks"]["next"], Value::Null, "all of them are in the list");
        for path in ["/tasks?argument=hunter", "/tasks?argument=to%3Dhunter2", "/tasks?find=hunter2"] {
            assert_eq!(ids(&console, path).await, ["plain"], "{path}");
        }
        for path in ["/failed?argument=hunter", "/failed?argument=text%3Dhunter2"] {
            assert_eq!(ids(&console, path).await, ["bad"], "{path}");
        }
        let path = "/confirm?act=delete_all&argument=hunter2";
        let told = data(&console, path, |told| told["count"].is_u64()).await;
        assert_eq!(told["count"], json!(1));
        for rule in ["argument=to&matches=hunter", "argument=0&matches=hunter2"] {
            let told = data(&console, &format!("/brakes?try=1&action=pause&{rule}"), |_| true).await;
            assert_eq!(told["dry_run"]["waiting"]["sample"], json!(["plain"]), "{rule}");
        }
        // They are found by all else, and nobody puts others in the place of what he cannot see.
        assert_eq!(ids(&console, "/failed?task=shop.fails").await.len(), 2);
        let edit = [("act", "edit"), ("id", "secret-bad"), ("args", "[\"good\"]"), ("kwargs", "{}")];
        let refused = act(&console, &edit).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
        assert_eq!(kept(&celeriac).await, ["bad", "secret-bad"].map(TaskId::from));
        let shown =
            done(&console, &[("act", "delete_all"), ("argument", "hunter"), ("back", "failed")]).await;
        assert!(shown.contains("1 task is deleted"), "{shown}");
        assert_eq!(kept(&celeriac).await, ["secret-bad"].map(TaskId::from));
    })
    .await;
}

#[actix_web::test]
async fn what_is_of_a_queue_that_somebody_may_not_see_is_on_no_page() {
    let celeriac = start().await;
    let (amina, bola) = (open(&celeriac), without(&celeriac, "mail"));
    celeriac.pause("keyed").await.unwrap();
    import::s("malawi".into()).send(celeriac.client()).await.unwrap();
    done(&amina, &[("act", "pause"), ("queue", "mail"), ("back", "acts")]).await;
    done(&amina, &[("act", "pause"), ("queue", "slow"), ("back", "acts")]).await;
    // Each console has acts of its own, so Bola looks at that of Amina.
    let shared =
        amina.clone().authorize(|_, check| (check.queue.as_deref() != Some("mail")).then_some("bola"));
    let whats = async |console: &Console| {
        let told = data(console, "/acts", |_| true).await;
        let acts = told["acts"].as_array().unwrap().iter();
        acts.map(|act| act["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(whats(&amina).await, ["pause the queue slow", "pause the queue mail"]);
    assert_eq!(whats(&shared).await, ["pause the queue slow"]);
    // Beat answers when it leads. Its entry calls a task of the queue `mail`.
    data(&amina, "/periodic", |told| told["count"] == json!(1)).await;
    assert_eq!(data(&bola, "/periodic", |_| true).await["count"], json!(0));
    data(&amina, "/lanes", |told| told["lanes"][0]["key"] == "malawi").await;
    for path in ["/entry?name=yearly", "/lanes", "/lane?scope=shop.import&key=malawi"] {
        let answer = get(&bola, path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.body);
        assert!(!answer.body.contains("malawi") && !answer.body.contains("shop."), "{path}: {}", answer.body);
    }
    celeriac.shutdown().await.unwrap();
}

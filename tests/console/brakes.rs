//! Brakes by hand: tried dry, set, listed with what they hold, released; and who may do that.

use actix_web::http::StatusCode;
use celeriac::Celeriac;
use celeriac::catalogue::{BrakeRow, Catalogue, Pool, QueueRow};
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::web::{Console, Permission};
use serde_json::{Value, json};

use super::kit::{LONG, act, data, done, get, on_both, open, page, start};
use super::tasks::export;

/// The brakes that are in force, as the program itself knows them.
async fn ids(celeriac: &Celeriac) -> Vec<String> {
    let brakes = celeriac.brakes().list().await.unwrap();
    brakes.into_iter().map(|brake| brake.id).collect()
}

#[actix_web::test]
async fn a_brake_is_tried_dry_set_listed_with_what_it_holds_and_released() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        let shown = page(&console, "/brakes", |_| true).await;
        assert!(shown.contains("No brake is in force.") && shown.contains("Try it dry"), "{shown}");
        celeriac.pause("mail").await.unwrap();
        let mut held = Vec::new();
        for form in 0..3 {
            held.push(export::s("acme".into(), form).send(client.clone()).await.unwrap());
        }
        let other = export::s("zoo".into(), 7).send(client.clone()).await.unwrap();
        // Dry: exactly those are counted, and nothing changes.
        let path = "/brakes?try=1&tenant=acme&task=shop.*&action=pause&for=1h&reason=a+flood";
        let told = data(&console, path, |told| told["dry_run"]["waiting"]["tasks"] == json!(3)).await;
        assert_eq!(told["dry_run"]["waiting"]["by_queue"], json!({ "mail": 3 }));
        let shown = page(&console, path, |_| true).await;
        assert!(
            shown.contains("What it would do") && shown.contains("<strong>3 tasks</strong> that match"),
            "{shown}"
        );
        assert!(
            shown.contains("name=\"reason\" value=\"a flood\"") && !shown.contains("name=\"sure\""),
            "{shown}"
        );
        assert_eq!(ids(&celeriac).await, [""; 0]);

        let fields = [
            ("act", "set_brake"),
            ("tenant", "acme"),
            ("task", "shop.*"),
            ("action", "pause"),
            ("for", "1h"),
            ("reason", "a flood"),
            ("back", "brakes"),
        ];
        let shown = done(&console, &fields).await;
        assert!(shown.contains("pause for task shop.*, tenant acme is set"), "{shown}");
        celeriac.resume("mail").await.unwrap();
        assert_eq!(other.get(LONG).await, Ok(10), "it holds nobody else");
        let told = data(&console, "/brakes", |told| told["brakes"][0]["holds"] == json!(3)).await;
        let brake = told["brakes"][0].clone();
        assert_eq!((&brake["owner"], &brake["reason"]), (&json!("amina"), &json!("a flood")));
        assert_eq!((&brake["action"], &brake["is_standing"]), (&json!("pause"), &json!(false)));
        assert!(brake["until"].as_str().is_some_and(|until| until.starts_with("20")), "{brake}");
        let id = brake["id"].as_str().unwrap();
        let path = format!("/brakes?count={id}");
        let shown = page(&console, &path, |body| body.contains("<strong>3 tasks</strong> that match")).await;
        assert!(shown.contains("What it is about"), "{shown}");
        // The history says who did it.
        let history = celeriac.history().read().await.unwrap();
        let is_set = |mark: &celeriac::app::HistoryMark| mark.mark.what == "brake";
        let mark = history.marks.iter().find(|mark| is_set(mark)).expect("a mark");
        assert_eq!(mark.mark.who.as_deref(), Some("amina"));

        let release = [("act", "release_brake"), ("id", id), ("back", "brakes")];
        let shown = done(&console, &release).await;
        assert!(shown.contains("what it has held starts"), "{shown}");
        for (form, task) in held.iter().enumerate() {
            assert_eq!(task.get(LONG).await, Ok(form as u64 + 4));
        }
        assert_eq!(act(&console, &release).await.status, StatusCode::NOT_FOUND, "it is gone");
    })
    .await;
}

#[actix_web::test]
async fn a_brake_that_is_about_every_task_asks() {
    let celeriac = start().await;
    let console = open(&celeriac);
    for path in ["/brakes?try=1&all=1&action=expire", "/brakes?try=1&task=*&action=expire"] {
        let shown = page(&console, path, |_| true).await;
        assert!(shown.contains("about every task") && shown.contains("name=\"sure\""), "{path}: {shown}");
    }
    for condition in [("all", "1"), ("tenant", "*")] {
        let fields = [("act", "set_brake"), ("action", "slow"), ("rate", "6/m"), condition];
        let refused = act(&console, &fields).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
        assert!(refused.body.contains("about every task"), "{}", refused.body);
    }
    assert_eq!(ids(&celeriac).await, [""; 0]);
    let sure = [("act", "set_brake"), ("action", "slow"), ("rate", "6/m"), ("all", "1"), ("sure", "1")];
    done(&console, &[&sure[..], &[("back", "brakes")][..]].concat()).await;
    assert_eq!(ids(&celeriac).await.len(), 1);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_is_no_brake_says_what_to_write_and_sets_none() {
    let celeriac = start().await;
    let console = open(&celeriac);
    for (fields, text) in [
        (&[("action", "pause")][..], "has no condition"),
        (&[("action", "paus"), ("task", "a")], "did you mean `pause`?"),
        (&[("action", "slow"), ("task", "a"), ("rate", "fast")], "write a rate such as"),
        (&[("action", "divert"), ("task", "a"), ("divert_to", "nowhere")], "no such queue"),
        (&[("action", "divert"), ("queue", "mail"), ("divert_to", "mail")], "in that queue already"),
        (&[("action", "pause"), ("queue", "mali")], "did you mean `mail`?"),
        (&[("action", "pause"), ("task", "a"), ("for", "soon")], "no span of time"),
        (&[("action", "pause"), ("argument", "to"), ("matches", "(")], "regular expression"),
    ] {
        let fields = [&[("act", "set_brake")][..], fields].concat();
        let refused = act(&console, &fields).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{fields:?}: {}", refused.body);
        assert!(refused.body.contains(text), "{fields:?}: {}", refused.body);
    }
    assert_eq!(ids(&celeriac).await, [""; 0]);
    // A form that is sent twice sets one brake.
    let form =
        [("act", "set_brake"), ("action", "pause"), ("task", "a"), ("once", "form"), ("back", "brakes")];
    done(&console, &form).await;
    assert_eq!(act(&console, &form).await.header("location"), "/console/acts");
    assert_eq!(ids(&celeriac).await.len(), 1);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_brake_of_the_catalogue_is_shown_as_such_and_stays() {
    let row = BrakeRow::new(BrakeRule::new().tenant("acme"), BrakeAction::Pause).with_reason("a trial");
    let queue = QueueRow::new("mail").with_pool(Pool::Io).with_workers(1);
    let catalogue = Catalogue::new().with_queue(queue).with_brake(row);
    let celeriac = Celeriac::builder().catalogue(catalogue).in_memory().start().await.unwrap();
    let console = open(&celeriac);
    let told = data(&console, "/brakes", |_| true).await;
    assert_eq!(
        (&told["brakes"][0]["id"], &told["brakes"][0]["is_standing"]),
        (&json!("catalogue-1"), &json!(true))
    );
    let shown = page(&console, "/brakes", |_| true).await;
    assert!(shown.contains("stands in the catalogue") && !shown.contains("value=\"catalogue-1\""), "{shown}");
    let refused = act(&console, &[("act", "release_brake"), ("id", "catalogue-1")]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    assert_eq!(ids(&celeriac).await, ["catalogue-1"]);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn who_may_brake_one_queue_brakes_no_other() {
    let celeriac = start().await;
    // Bola sees all queues, and may brake `mail`; Chipo looks on.
    let bola = Console::new(&celeriac).authorize(|_, check| {
        let may = check.permission == Permission::See
            || (check.permission == Permission::Brake && check.queue.as_deref() == Some("mail"));
        may.then_some("bola")
    });
    let chipo = Console::new(&celeriac)
        .authorize(|_, check| (check.permission == Permission::See).then_some("chipo"));
    let shown = page(&chipo, "/brakes", |_| true).await;
    assert!(!shown.contains("Try it dry"), "{shown}");
    for path in ["/brakes?try=1&action=pause&queue=mail", "/brakes?try=1&action=pause&tenant=acme"] {
        assert_eq!(get(&chipo, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(get(&bola, "/brakes?try=1&action=pause&queue=mail").await.status, StatusCode::OK);
    assert_eq!(get(&bola, "/brakes?try=1&action=pause&queue=slow").await.status, StatusCode::FORBIDDEN);
    for (console, fields, status) in [
        (&bola, &[("queue", "slow"), ("action", "pause")][..], 403),
        (&bola, &[("task", "shop.*"), ("action", "pause")], 403),
        (&bola, &[("queue", "mail"), ("action", "divert"), ("divert_to", "slow")], 403),
        (&chipo, &[("queue", "mail"), ("action", "pause")], 403),
        (&bola, &[("queue", "mail"), ("action", "pause")], 303),
    ] {
        let fields = [&[("act", "set_brake")][..], fields].concat();
        let answer = act(console, &fields).await;
        assert_eq!(answer.status.as_u16(), status, "{fields:?}: {}", answer.body);
    }
    let set = ids(&celeriac).await;
    assert_eq!(set.len(), 1);
    let release = [("act", "release_brake"), ("id", set[0].as_str())];
    assert_eq!(act(&chipo, &release).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ids(&celeriac).await, set);
    assert_eq!(act(&bola, &release).await.status, StatusCode::SEE_OTHER);
    // What was refused is noted as well.
    let told = data(&bola, "/acts", |_| true).await;
    let is_done = |act: &&Value| act["is_done"] == json!(true);
    assert_eq!(told["acts"].as_array().unwrap().iter().filter(is_done).count(), 2);
    assert_eq!(told["acts"].as_array().unwrap().len(), 5);
    celeriac.shutdown().await.unwrap();
}

/// A brake of no queue holds the tasks of every queue, so who may not brake one of them sets none, and takes none away.
#[actix_web::test]
async fn a_brake_of_no_queue_needs_the_permission_for_every_queue() {
    let celeriac = start().await;
    let everybody = open(&celeriac);
    let bola = Console::new(&celeriac)
        .authorize(|_, check| (check.queue.as_deref() != Some("slow")).then_some("bola"));
    let refused = async |fields: &[(&str, &str)]| {
        let answer = act(&bola, fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{fields:?}: {}", answer.body);
        assert!(answer.body.contains("choose a queue"), "{fields:?}: {}", answer.body);
    };
    refused(&[("act", "set_brake"), ("action", "expire"), ("tenant", "*"), ("sure", "1")]).await;
    refused(&[("act", "set_brake"), ("action", "expire"), ("task", "shop.*")]).await;
    refused(&[("act", "set_brake"), ("action", "pause"), ("tenant", "acme")]).await;
    refused(&[("act", "pause_tenant"), ("tenant", "acme")]).await;
    assert_eq!(ids(&celeriac).await, [""; 0]);
    // Nor does that one learn how many tasks wait in the other queue.
    for path in ["/brakes?try=1&action=pause&task=shop.*", "/brakes?try=1&action=pause&tenant=acme"] {
        assert_eq!(get(&bola, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let every = Brake::new(BrakeRule::new().task("shop.*"), BrakeAction::Pause).id("every");
    celeriac.brakes().set(every).await.unwrap();
    done(&everybody, &[("act", "pause_tenant"), ("tenant", "acme"), ("back", "acts")]).await;
    refused(&[("act", "release_brake"), ("id", "every")]).await;
    refused(&[("act", "release_tenant"), ("tenant", "acme")]).await;
    assert_eq!(ids(&celeriac).await.len(), 2);
    celeriac.pause("mail").await.unwrap();
    export::s("acme".into(), 1).send(celeriac.client()).await.unwrap();
    let shown = page(&bola, "/tenants", |body| body.contains("acme")).await;
    assert!(!shown.contains("Pause for") && !shown.contains(">Undo<"), "{shown}");
    let own = [("act", "set_brake"), ("action", "pause"), ("queue", "mail"), ("back", "brakes")];
    done(&bola, &own).await;
    done(&everybody, &[("act", "release_brake"), ("id", "every"), ("back", "brakes")]).await;
    celeriac.shutdown().await.unwrap();
}

//! Acts on all tasks that match: counted, done in the background, and undone, by plain forms.

use actix_web::http::StatusCode;
use celeriac::Celeriac;
use celeriac::broker::TaskFilter;
use celeriac::core::brake::BrakeRule;
use celeriac::task::TENANT;
use celeriac::web::Console;
use serde_json::{Value, json};

use super::kit::{act, data, done, get, on_both, open, page};
use super::tasks::mail;
use super::tenants::of_acme;

/// Sends six tasks to `mail`, which is paused, as `slow` is: four of one tenant, and two of another.
async fn send_some(celeriac: &Celeriac) {
    for queue in ["mail", "slow"] {
        celeriac.pause(queue).await.unwrap();
    }
    for n in 0..6 {
        let tenant = if n < 4 { "acme" } else { "other" };
        let call = mail::s("a".into(), "b".into()).id(format!("m-{n}")).header(TENANT, tenant);
        call.send(celeriac.client()).await.unwrap();
    }
}

async fn waiting(celeriac: &Celeriac, queue: &str) -> usize {
    celeriac.unfinished_tasks(&TaskFilter::new().queue(queue), 100).await.unwrap().len()
}

/// The last act, when it is over.
async fn last_act(console: &Console) -> Value {
    let is_over = |told: &Value| told["acts"][0]["goes_on"] == json!(false);
    data(console, "/bulk", is_over).await["acts"][0].clone()
}

#[actix_web::test]
async fn all_that_match_are_counted_moved_and_brought_back() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        send_some(&celeriac).await;
        let empty = page(&console, "/bulk", |_| true).await;
        assert!(empty.contains("No bulk act yet") && empty.contains("Count them"), "{empty}");

        let path = "/confirm?act=bulk_move&tenant=acme&to=slow&back=bulk";
        let told = data(&console, path, |told| told["count"] == json!(4)).await;
        assert_eq!((&told["permission"], &told["bulk"]["not_undoable"]), (&json!("move"), &Value::Null));
        let asked = page(&console, path, |_| true).await;
        let sentence = "4 tasks: move all tasks that wait and match tenant acme to the queue slow?";
        assert!(asked.contains(sentence) && asked.contains("task?id=m-0"), "{asked}");
        assert!(asked.contains("For ten minutes after its end it can be undone"), "{asked}");
        assert_eq!(waiting(&celeriac, "slow").await, 0, "nothing has been done yet");

        // What comes after the count is left alone.
        let late = mail::s("a".into(), "b".into()).id("late").header(TENANT, "acme");
        late.send(celeriac.client()).await.unwrap();
        let until = told["until"].as_str().unwrap();
        let to_slow = [("tenant", "acme"), ("to", "slow"), ("until", until), ("back", "bulk")];
        let shown = done(&console, &[&[("act", "bulk_move")][..], &to_slow].concat()).await;
        assert!(shown.contains("4 tasks in the background, as act"), "{shown}");
        let act = last_act(&console).await;
        assert_eq!((&act["action"], &act["found"], &act["done"]), (&json!("move"), &json!(4), &json!(4)));
        assert_eq!(
            (&act["by"], &act["to"], &act["rule"]),
            (&json!("amina"), &json!("slow"), &json!("tenant acme"))
        );
        assert!(act["undoable_until"].is_string(), "{act}");
        assert_eq!((waiting(&celeriac, "mail").await, waiting(&celeriac, "slow").await), (3, 4));

        let shown = page(&console, "/bulk", |body| body.contains("undo until")).await;
        assert!(shown.contains("1 bulk act can be undone.") && shown.contains("undo_bulk"), "{shown}");
        let id = act["id"].as_str().unwrap();
        let undo = [("act", "undo_bulk"), ("id", id), ("action", "move"), ("back", "bulk")];
        done(&console, &undo).await;
        let act = last_act(&console).await;
        assert_eq!((&act["undo"]["back"], &act["undo"]["left"]), (&json!(4), &json!(0)));
        assert_eq!(act["undoable_until"], Value::Null);
        assert_eq!((waiting(&celeriac, "mail").await, waiting(&celeriac, "slow").await), (7, 0));
        let shown = page(&console, "/bulk", |_| true).await;
        assert!(shown.contains("4 back, 0 left as they are") && !shown.contains("undo_bulk"), "{shown}");
    })
    .await;
}

#[actix_web::test]
async fn what_is_purged_or_revoked_is_undone_by_whoever_may_do_it() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        send_some(&celeriac).await;
        for word in ["purge", "revoke"] {
            let act = format!("bulk_{word}");
            let shown = done(&console, &[("act", act.as_str()), ("all", "1")]).await;
            assert!(shown.contains("6 tasks in the background"), "{shown}");
            let act = last_act(&console).await;
            assert_eq!((&act["action"], &act["done"]), (&json!(word), &json!(6)));
            assert_eq!(waiting(&celeriac, "mail").await, 0);
            let id = act["id"].as_str().unwrap();
            let undo = [("act", "undo_bulk"), ("id", id), ("action", word)];
            let guest = Console::new(&celeriac)
                .authorize(|_, check| (check.permission.as_str() == "see").then_some("bola"));
            assert_eq!(self::act(&guest, &undo).await.status, StatusCode::FORBIDDEN);
            let other = [("act", "undo_bulk"), ("id", id), ("action", "move")];
            assert_eq!(self::act(&console, &other).await.status, StatusCode::NOT_FOUND);
            done(&console, &undo).await;
            assert_eq!(last_act(&console).await["undo"]["back"], json!(6));
            assert_eq!(waiting(&celeriac, "mail").await, 6);
        }
    })
    .await;
}

#[actix_web::test]
async fn an_act_on_every_queue_needs_the_permission_for_every_queue() {
    on_both(|celeriac| async move {
        send_some(&celeriac).await;
        let console = Console::new(&celeriac)
            .authorize(|_, check| (check.queue.as_deref() != Some("slow")).then_some("bola"));
        let refused = get(&console, "/confirm?act=bulk_purge&all=1").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(refused.body.contains("choose a queue"), "{}", refused.body);
        for fields in [
            &[("act", "bulk_purge"), ("tenant", "acme")][..],
            &[("act", "bulk_purge"), ("queue", "slow")],
            &[("act", "bulk_move"), ("queue", "mail"), ("to", "slow")],
        ] {
            let refused = act(&console, fields).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{fields:?}: {}", refused.body);
        }
        assert_eq!(waiting(&celeriac, "mail").await, 6);
        for (fields, status) in [
            (&[("act", "bulk_purge")][..], 400),
            (&[("act", "bulk_move"), ("queue", "mail")], 400),
            (&[("act", "bulk_purge"), ("queue", "mail"), ("all", "1")], 400),
            (&[("act", "bulk_move"), ("queue", "mail"), ("to", "nowhere")], 404),
            (&[("act", "undo_bulk"), ("id", "nosuch"), ("action", "move")], 404),
            (&[("act", "undo_bulk"), ("id", "nosuch"), ("action", "explode")], 400),
        ] {
            assert_eq!(act(&console, fields).await.status.as_u16(), status, "{fields:?}");
        }
        done(&console, &[("act", "bulk_purge"), ("queue", "mail"), ("task", "shop.*")]).await;
        assert_eq!(last_act(&console).await["done"], json!(6));

        // Of what was done to tasks of every queue, only those hear who may see every queue.
        celeriac.bulk().purge(&BrakeRule::all()).await.unwrap();
        data(&open(&celeriac), "/bulk", |told| told["acts"].as_array().unwrap().len() == 2).await;
        let told = data(&console, "/bulk", |_| true).await;
        assert_eq!(told["acts"].as_array().unwrap().len(), 1, "{told}");
    })
    .await;
}

/// Who may see the tasks of one tenant is told nothing of others: neither how many they are, nor which, nor what was done to them.
#[actix_web::test]
async fn a_tenant_counts_and_changes_its_own_tasks_and_nobody_elses() {
    on_both(|celeriac| async move {
        send_some(&celeriac).await;
        let console = of_acme(&celeriac);
        let foreign = celeriac.bulk().move_to(&BrakeRule::new().tenant("other"), "slow").await.unwrap();
        celeriac.bulk().wait(&foreign.id).await.unwrap();
        let all = [
            &[("all", "1")][..],
            &[("tenant", "other")],
            &[("tenant", "*")],
            &[("tenant", "acme*")],
            &[("tenant", "other"), ("queue", "slow")],
            &[("queue", "slow")],
            &[("task", "shop.*")],
        ];
        for act in ["bulk_purge", "bulk_revoke", "bulk_retry", "bulk_move"] {
            for conditions in all {
                let fields = [&[("act", act), ("to", "mail")][..], conditions].concat();
                let query: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let refused = get(&console, &format!("/confirm?{}", query.join("&"))).await;
                assert_eq!(refused.status, StatusCode::FORBIDDEN, "{fields:?}: {}", refused.body);
                let refused = self::act(&console, &fields).await;
                assert_eq!(refused.status, StatusCode::FORBIDDEN, "{fields:?}: {}", refused.body);
            }
        }
        let undo = [("act", "undo_bulk"), ("id", foreign.id.as_str()), ("action", "move")];
        assert_eq!(act(&console, &undo).await.status, StatusCode::FORBIDDEN);
        let told = data(&console, "/bulk", |_| true).await;
        assert_eq!(told["acts"], json!([]));

        let path = "/confirm?act=bulk_move&tenant=acme&to=slow";
        let told = data(&console, path, |told| told["count"] == json!(4)).await;
        let waiting_now = &told["bulk"]["waiting"];
        assert_eq!(waiting_now["by_queue"], json!({ "mail": 4 }));
        let sample = waiting_now["sample"].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
        let mut sample: Vec<&str> = sample.collect();
        sample.sort_unstable();
        assert_eq!(sample, ["m-0", "m-1", "m-2", "m-3"]);
        done(&console, &[("act", "bulk_move"), ("tenant", "acme"), ("to", "slow"), ("back", "bulk")]).await;
        let own = last_act(&console).await;
        assert_eq!((&own["done"], &own["by"]), (&json!(4), &json!("acme")));
        assert_eq!((waiting(&celeriac, "mail").await, waiting(&celeriac, "slow").await), (0, 6));
        page(&console, "/bulk", |body| body.contains("undo_bulk")).await;
        let id = own["id"].as_str().unwrap();
        done(&console, &[("act", "undo_bulk"), ("id", id), ("action", "move"), ("back", "bulk")]).await;
        assert_eq!(last_act(&console).await["undo"]["back"], json!(4));
        assert_eq!((waiting(&celeriac, "mail").await, waiting(&celeriac, "slow").await), (4, 2));
    })
    .await;
}

/// Nobody cancels what is over, and nobody without the permission cancels anything.
#[actix_web::test]
async fn an_act_is_cancelled_only_by_whoever_may_do_it_and_while_it_goes_on() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        send_some(&celeriac).await;
        let begun = celeriac.bulk().purge(&BrakeRule::all()).await.unwrap();
        let cancel =
            [("act", "cancel_bulk"), ("id", begun.id.as_str()), ("action", "purge"), ("back", "bulk")];
        let guest = Console::new(&celeriac)
            .authorize(|_, check| (check.permission.as_str() == "see").then_some("bola"));
        assert_eq!(act(&guest, &cancel).await.status, StatusCode::FORBIDDEN);
        let other = [("act", "cancel_bulk"), ("id", begun.id.as_str()), ("action", "move")];
        assert_eq!(act(&console, &other).await.status, StatusCode::NOT_FOUND);
        let ended = celeriac.bulk().wait(&begun.id).await.unwrap();
        let refused = act(&console, &cancel).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("cannot be cancelled: it was over at"), "{}", refused.body);
        assert_eq!(last_act(&console).await["cancel"], Value::Null);
        let shown = page(&console, "/bulk", |_| true).await;
        assert!(!shown.contains("cancel_bulk"), "it is over: {shown}");
        assert_eq!(waiting(&celeriac, "mail").await as u64, 6 - ended.done);
    })
    .await;
}

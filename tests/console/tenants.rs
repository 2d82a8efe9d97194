//! Tenants: who uses most, the pause of one, its weight; and a tenant that may see its own tasks and no others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::web::{Console, Permission};
use celeriac::{Celeriac, State};
use serde_json::{Value, json};

use super::kit::{LONG, act, builder, data, done, embedded, failed, get, on_both, open, page, start};
use super::tasks::{charge, export, fails, import, waits};

/// A console in which Acme may do everything with its own tasks, and nothing else.
pub fn of_acme(celeriac: &Celeriac) -> Console {
    Console::new(celeriac).authorize(|_, check| {
        let opens = check.permission == Permission::See && check.queue.is_none() && check.tenant.is_none();
        (opens || check.tenant.as_deref() == Some("acme")).then_some("acme")
    })
}

fn names(told: &Value) -> Vec<String> {
    let tenants = told["tenants"].as_array().expect("tenants").iter();
    tenants.map(|tenant| tenant["name"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn a_tenant_is_paused_for_an_hour_goes_on_and_gets_a_weight() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        page(&console, "/tenants", |body| body.contains("A tenant is who pays for a task")).await;
        let pause = [("act", "pause_tenant"), ("tenant", "acme"), ("back", "tenants")];
        let shown = done(&console, &pause).await;
        assert!(shown.contains("pause the tenant acme for 1 h"), "{shown}");
        let held = export::s("acme".into(), 1).id("held").send(client.clone()).await.unwrap();
        let other = export::s("zoo".into(), 1).send(client.clone()).await.unwrap();
        assert_eq!(other.get(LONG).await, Ok(4));
        let is_paused = |told: &Value| names(told).contains(&"acme".to_owned());
        let told = data(&console, "/tenants", is_paused).await;
        let acme = told["tenants"].as_array().unwrap().iter().find(|one| one["name"] == "acme").unwrap();
        assert!(acme["paused_until"].is_string(), "{acme}");
        let shown = page(&console, "/tenants", |body| body.contains("paused until")).await;
        assert!(shown.contains(">Undo<") && shown.contains("id=\"release-tenant\""), "{shown}");
        // To pause it twice is to pause it once.
        done(&console, &pause).await;
        assert_eq!(celeriac.brakes().list().await.unwrap().len(), 1);
        let shown = page(&console, "/tenant?name=acme", |body| body.contains("task?id=held")).await;
        assert!(shown.contains("Undo the pause") && shown.contains("Set the weight"), "{shown}");
        let release = [("act", "release_tenant"), ("tenant", "acme"), ("back", "tenants")];
        assert!(done(&console, &release).await.contains("its tasks start in their turn"));
        assert_eq!(held.get(LONG).await, Ok(5));
        assert!(done(&console, &release).await.contains("it was not paused here"));

        let weight =
            |number| [("act", "set_weight"), ("tenant", "acme"), ("weight", number), ("back", "tenants")];
        done(&console, &weight("2.5")).await;
        assert_eq!(celeriac.tenant_weights()["acme"], 2.5);
        data(&console, "/tenant?name=acme", |told| told["tenant"]["weight"] == json!(2.5)).await;
        for number in ["0", "-1", "NaN", "much"] {
            let refused = act(&console, &weight(number)).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{number}: {}", refused.body);
        }
        // Who did it is in the history.
        let history = celeriac.history().read().await.unwrap();
        let marks: Vec<_> =
            history.marks.iter().filter(|mark| mark.mark.who.as_deref() == Some("amina")).collect();
        let whats: BTreeSet<&str> = marks.iter().map(|mark| mark.mark.what.as_str()).collect();
        assert_eq!(whats, BTreeSet::from(["brake", "unbrake", "weight"]));
    })
    .await;
}

#[actix_web::test]
async fn many_tenants_are_read_page_by_page() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        celeriac.pause("mail").await.unwrap();
        let mut wanted = BTreeSet::new();
        for n in 0..120 {
            let name = format!("tenant-{n:03}");
            export::s(name.clone(), n).send(celeriac.client()).await.unwrap();
            wanted.insert(name);
        }
        data(&console, "/tenants", |told| told["count"] == json!(120)).await;
        let (mut found, mut path) = (Vec::new(), "/tenants".to_owned());
        loop {
            let told = data(&console, &path, |_| true).await;
            let page_of = names(&told);
            assert!(page_of.len() <= 50);
            found.extend(page_of);
            let body = page(&console, &path, |_| true).await;
            assert!(body.len() < 50_000, "{path} has {} bytes", body.len());
            match told["next"].as_str() {
                Some(next) => path = format!("/tenants?after={next}"),
                None => break,
            }
        }
        assert_eq!(found.len(), 120, "none comes twice");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
        let told = data(&console, "/tenants?tenant=-11", |_| true).await;
        assert_eq!(names(&told).len(), 10, "tenant-110 to tenant-119: {told}");
        let shown = page(&console, "/tenants?tenant=nobody", |_| true).await;
        assert!(shown.contains("No such tenant"), "{shown}");
    })
    .await;
}

#[actix_web::test]
async fn levers_on_tenants_need_their_permissions() {
    let celeriac = start().await;
    let console = Console::new(&celeriac)
        .authorize(|_, check| (check.permission == Permission::See).then_some("chipo"));
    celeriac.pause("mail").await.unwrap();
    export::s("acme".into(), 1).send(celeriac.client()).await.unwrap();
    for path in ["/tenants", "/tenant?name=acme"] {
        let shown = page(&console, path, |body| body.contains("acme")).await;
        assert!(!shown.contains("Pause for") && !shown.contains("Set the weight"), "{path}: {shown}");
    }
    for fields in [
        &[("act", "pause_tenant"), ("tenant", "acme")][..],
        &[("act", "release_tenant"), ("tenant", "acme")],
        &[("act", "set_weight"), ("tenant", "acme"), ("weight", "9")],
    ] {
        assert_eq!(act(&console, fields).await.status, StatusCode::FORBIDDEN, "{fields:?}");
    }
    assert!(celeriac.brakes().list().await.unwrap().is_empty() && celeriac.tenant_weights().is_empty());
    celeriac.shutdown().await.unwrap();
}

/// Other arguments may make a task one of another tenant, so who may edit the tasks of one cannot send in the name of others.
#[actix_web::test]
async fn an_edit_does_not_lead_to_another_tenant() {
    on_both(|celeriac| async move {
        let (console, client) = (of_acme(&celeriac), celeriac.client());
        let task = charge::s("acme".into(), 0).id("mine").send(client.clone()).await.unwrap();
        failed(&task).await;
        data(&console, "/failed", |told| told["tasks"].as_array().unwrap().len() == 1).await;
        let edit =
            |args| [("act", "edit"), ("id", "mine"), ("args", args), ("kwargs", "{}"), ("back", "failed")];
        for args in ["[\"zoo\", 5]", "[null, 5]"] {
            let refused = act(&console, &edit(args)).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{args}: {}", refused.body);
        }
        assert_eq!(act(&console, &edit("[\"acme\", 5]")).await.status, StatusCode::SEE_OTHER);
        assert_eq!(task.get(LONG).await, Ok(5));
    })
    .await;
}

/// Acme knows the id of a task of Zoo, and tries all that an id is good for.
#[actix_web::test]
async fn a_tenant_sees_its_own_tasks_and_nobody_elses() {
    on_both(|celeriac| async move {
        let (console, client) = (of_acme(&celeriac), celeriac.client());
        for tenant in ["acme", "zoo"] {
            let bad = fails::s(format!("{tenant} is down")).id(format!("{tenant}-bad")).tenant(tenant);
            failed(&bad.send(client.clone()).await.unwrap()).await;
        }
        let everybody = open(&celeriac);
        data(&everybody, "/failed", |told| told["tasks"].as_array().unwrap().len() == 2).await;
        celeriac.pause("mail").await.unwrap();
        let own = export::s("acme".into(), 7).id("acme-1").send(client.clone()).await.unwrap();
        export::s("zoo".into(), 7).id("zoo-1").send(client.clone()).await.unwrap();
        // One of no tenant is nobody's.
        fails::s("zoo".into()).id("zoo-none").send(client.clone()).await.unwrap();
        data(&everybody, "/tasks", |told| told["tasks"]["tasks"].as_array().unwrap().len() == 3).await;

        let told =
            data(&console, "/tasks", |told| told["tasks"]["tasks"].as_array().unwrap().len() == 1).await;
        assert_eq!(
            (&told["tasks"]["tasks"][0]["id"], &told["tasks"]["looked_at"]),
            (&json!("acme-1"), &json!(null))
        );
        let told = data(&console, "/failed", |_| true).await;
        assert_eq!(told["tasks"].as_array().unwrap().len(), 1);
        assert_eq!(told["tasks"][0]["id"], "acme-bad");
        let told = data(&console, "/tenants", |told| !told["tenants"].as_array().unwrap().is_empty()).await;
        assert_eq!((names(&told), &told["uncounted"]), (vec!["acme".to_owned()], &Value::Null));
        for path in ["/task?id=acme-1", "/task?id=acme-bad", "/arguments?id=acme-1", "/tenant?name=acme"] {
            assert_eq!(get(&console, path).await.status, StatusCode::OK, "{path}");
        }
        let shown = page(&console, "/task?id=acme-bad", |_| true).await;
        assert!(shown.contains("Run again as it was") && shown.contains("Edit and run again"), "{shown}");
        for path in [
            "/task?id=zoo-1",
            "/task?id=zoo-bad",
            "/task?id=zoo-none",
            "/arguments?id=zoo-1",
            "/confirm?act=revoke&id=zoo-1",
            "/confirm?act=delete&id=zoo-bad",
            "/confirm?act=delete_all",
            "/confirm?act=bulk_purge&tenant=zoo",
            "/confirm?act=bulk_purge&queue=mail",
            "/tenant?name=zoo",
            "/queue?name=mail",
            "/lanes",
            "/limits",
            "/history?by=task",
            "/history?by=tenant",
            "/history?by=tenant&name=zoo",
            "/history?by=tenant&name=zoo&queue=mail",
            "/brakes?try=1&action=pause&tenant=zoo",
        ] {
            let answer = get(&console, path).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.body);
            assert!(!answer.body.contains("zoo is down"), "{path}: {}", answer.body);
        }
        for path in [
            "",
            "/tasks?tenant=zoo",
            "/tasks?find=zoo-1",
            "/tasks?argument=zoo",
            "/failed?tenant=zoo",
            "/failed?error=zoo",
            "/tenants?tenant=zoo",
            "/processes",
            "/downloads",
            "/live",
            "/acts",
            "/bulk",
            "/bulk?act=bulk_purge&tenant=zoo",
            "/brakes",
            "/history",
            "/history?by=tenant&name=acme",
        ] {
            let shown = page(&console, path, |_| true).await;
            assert!(!shown.contains("id=zoo-") && !shown.contains("zoo is down"), "{path}: {shown}");
            assert!(!shown.contains("name=zoo"), "{path}: {shown}");
        }
        for (fields, status) in [
            (&[("act", "revoke"), ("id", "zoo-1")][..], 403),
            (&[("act", "revoke"), ("id", "zoo-none")], 403),
            (&[("act", "retry"), ("id", "zoo-bad")], 403),
            (&[("act", "edit"), ("id", "zoo-bad"), ("args", "[\"good\"]")], 403),
            (&[("act", "delete"), ("id", "zoo-bad")], 403),
            (&[("act", "delete_all")], 403),
            (&[("act", "retry_all"), ("tenant", "acme")], 403),
            (&[("act", "bulk_revoke"), ("tenant", "zoo")], 403),
            (&[("act", "bulk_purge"), ("queue", "mail")], 403),
            (&[("act", "pause"), ("queue", "mail")], 403),
            (&[("act", "pause_tenant"), ("tenant", "zoo")], 403),
            (&[("act", "set_weight"), ("tenant", "zoo"), ("weight", "9")], 403),
            (&[("act", "set_brake"), ("action", "expire"), ("tenant", "zoo")], 403),
            (&[("act", "set_brake"), ("action", "expire"), ("tenant", "*"), ("sure", "1")], 403),
            (
                &[("act", "enqueue"), ("task", "shop.export"), ("arg.domain", "\"zoo\""), ("arg.form", "1")],
                403,
            ),
            (&[("act", "revoke"), ("id", "acme-1"), ("back", "tasks")], 303),
            (&[("act", "delete"), ("id", "acme-bad"), ("back", "failed")], 303),
        ] {
            let answer = act(&console, fields).await;
            assert_eq!(answer.status.as_u16(), status, "{fields:?}: {}", answer.body);
        }
        failed(&own).await;
        assert_eq!(own.state().await, Ok(State::Revoked));
        let told = data(&everybody, "/failed", |told| told["tasks"].as_array().unwrap().len() == 1).await;
        assert_eq!(told["tasks"][0]["id"], "zoo-bad");
        // What somebody else did to no queue in particular is not shown to a tenant.
        let shared = console.clone().authorize(|_, _| Some("amina"));
        done(&shared, &[("act", "pause_tenant"), ("tenant", "zoo"), ("back", "acts")]).await;
        let told = data(&console, "/acts", |_| true).await;
        assert!(told["acts"].as_array().unwrap().iter().all(|act| act["who"] == "acme"), "{told}");
    })
    .await;
}

/// Two tenants share a serial key, so one waits for the other.
#[actix_web::test]
async fn why_a_task_waits_names_no_task_of_another_tenant() {
    on_both(|celeriac| async move {
        let (console, client) = (of_acme(&celeriac), celeriac.client());
        celeriac.pause("keyed").await.unwrap();
        let send = async |id: &str, tenant: &str| {
            import::s("shared".into()).id(id).tenant(tenant).send(client.clone()).await.unwrap()
        };
        let zoo = send("zoo-in", "zoo").await;
        send("acme-next", "acme").await;
        send("acme-last", "acme").await;
        let told = |text: &'static str| move |told: &Value| told["why"].to_string().contains(text);
        for path in ["/task?id=acme-next", "/task?id=acme-last"] {
            data(&open(&celeriac), path, told("zoo-in")).await;
            let own = data(&console, path, told("lane_busy")).await;
            assert!(!own.to_string().contains("zoo"), "{path}: {own}");
            let shown = page(&console, path, |body| body.contains("Why it waits")).await;
            assert!(!shown.contains("zoo"), "{path}: {shown}");
        }
        zoo.revoke(false).await.unwrap();
        // The one is in the lane now, so that the other one waits for a task of its own tenant.
        let own = data(&console, "/task?id=acme-last", told("acme-next")).await;
        assert_eq!(own["why"]["tenant"], json!("acme"), "{own}");
    })
    .await;
}

/// A failed task without a record is kept longer than its id is taken.
#[actix_web::test]
async fn who_takes_the_id_of_a_failed_task_does_not_get_that_task() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let (everybody, acme, client) = (open(&celeriac), of_acme(&celeriac), celeriac.client());
    let lost = fails::s("down".into()).id("taken").tenant("zoo").ignore_result(true);
    lost.send(client.clone()).await.unwrap();
    data(&everybody, "/failed", |told| told["tasks"].as_array().unwrap().len() == 1).await;
    celeriac.pause("mail").await.unwrap();
    export::s("acme".into(), 1).id("taken").send(client.clone()).await.unwrap();
    data(&acme, "/task?id=taken", |told| told["tenant"] == json!("acme")).await;
    for fields in [
        &[("act", "delete"), ("id", "taken")][..],
        &[("act", "retry"), ("id", "taken")],
        &[("act", "edit"), ("id", "taken"), ("args", "[\"acme\"]"), ("kwargs", "{}")],
    ] {
        let refused = act(&acme, fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{fields:?}: {}", refused.body);
    }
    let told = data(&everybody, "/failed", |told| !told["tasks"].as_array().unwrap().is_empty()).await;
    assert_eq!((&told["tasks"][0]["id"], &told["tasks"][0]["tenant"]), (&json!("taken"), &json!("zoo")));
    let shown = done(&everybody, &[("act", "delete"), ("id", "taken"), ("back", "failed")]).await;
    assert!(shown.contains("1 task is deleted"), "{shown}");
    celeriac.shutdown().await.unwrap();
}

/// All of them are fetched, for the prefetch is larger than the flood.
#[actix_web::test]
async fn what_the_program_has_fetched_is_counted_and_all_that_look_see_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let row = || {
        let row = QueueRow::new("reports").with_pool(Pool::Io).with_workers(1);
        builder().queue(row.with_target(Duration::from_millis(1)))
    };
    for celeriac in [row().in_memory(), row().directory(dir.path())] {
        let celeriac = celeriac.start().await.unwrap();
        let (console, client) = (open(&celeriac), celeriac.client());
        let runs = waits::s("the year".into()).queue("reports").send(client.clone()).await.unwrap();
        let began = Instant::now();
        while runs.state().await != Ok(State::Started) {
            assert!(began.elapsed() < LONG, "it does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (tenant, count) in [("zoo", 30), ("acme", 3)] {
            for n in 0..count {
                export::s(tenant.into(), n).queue("reports").send(client.clone()).await.unwrap();
            }
        }
        let ready = |told: &Value, name: &str| {
            let tenants = told["tenants"].as_array().unwrap();
            let found = tenants.iter().find(|one| one["name"] == name);
            found.map(|one| (one["ready"].as_u64().unwrap(), one["delivered"].as_u64().unwrap()))
        };
        let expected = [("zoo", (30, 0)), ("acme", (3, 0))];
        let is_right =
            |told: &Value| expected.iter().all(|(name, counts)| ready(told, name) == Some(*counts));
        data(&console, "/tenants", is_right).await;

        let told = celeriac.tenants("reports", 10).await.unwrap();
        let told: Vec<_> =
            told.tenants.iter().map(|one| (one.tenant.as_str(), (one.ready, one.unsettled))).collect();
        assert_eq!(told, expected);
        assert_eq!(celeriac.queue("reports").await.unwrap().ready, 33);

        let report = celeriac.report().await;
        let queue = report.queues.iter().find(|queue| queue.name == "reports").unwrap();
        let top = queue.top_tenant.as_ref().unwrap();
        assert_eq!((top.tenant.as_str(), top.ready, top.tenants, top.or_more), ("zoo", 30, 2, false));
        let says = "Tenant `zoo` has 30 of its 33 ready tasks; 1 other tenant has some.";
        let causes = &report.of_queue("reports").unwrap().causes;
        assert!(causes.iter().any(|cause| cause.says == says), "{causes:?}");
        page(&console, "/queue?name=reports", |body| body.contains(says)).await;
        runs.revoke(true).await.unwrap();
        celeriac.shutdown().await.unwrap();
    }
}

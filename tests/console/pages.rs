//! What the pages show, and that they are the same as data.

use std::collections::BTreeSet;

use celeriac::Celeriac;
use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow, TargetClass};
use celeriac::web::{Console, Permission};
use serde_json::{Value, json};

use super::kit::{LONG, builder, data, embedded, failed, get, keep_log_lines, on_both, open, page, start};
use super::tasks::{blocks, fails, import, let_go, mail, rejects, talks, waits};

/// The most bytes of a page.
const MOST_BYTES: usize = 50_000;

/// A program in which something waits, something has failed, and a lane has a line; the paths of all pages.
async fn scene(celeriac: &Celeriac) -> Vec<String> {
    let client = celeriac.client();
    failed(&fails::s("no such customer".into()).id("bad").send(client.clone()).await.unwrap()).await;
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    mail::s("a@example.org".into(), "hello".into()).id("good").send(client.clone()).await.unwrap();
    for _ in 0..2 {
        import::s("malawi".into()).send(client.clone()).await.unwrap();
    }
    let paths = [
        "",
        "/",
        "/queue?name=mail",
        "/tasks",
        "/tasks?find=good&queue=mail&standing=ready",
        "/task?id=good",
        "/task?id=bad",
        "/failed",
        "/failed?kind=dead&task=shop.*&error=x&argument=a%3Db",
        "/lanes",
        "/lane?scope=shop.import&key=malawi",
        "/lane?scope=none&key=none",
        "/periodic",
        "/entry?name=yearly",
        "/processes",
        "/downloads",
        "/downloads?id=good",
        "/live",
        "/acts",
        "/brakes",
        "/brakes?try=1&action=pause&all=1",
        "/tenants",
        "/tenants?tenant=nobody",
        "/tenant?name=acme",
        "/limits",
        "/history",
        "/history?by=tenant&hours=168",
        "/enqueue",
        "/enqueue?task=shop.mail",
        "/bulk",
        "/bulk?act=bulk_purge&queue=mail",
        "/confirm?act=bulk_purge&queue=mail",
        "/confirm?act=revoke&id=good",
        "/confirm?act=delete&id=bad",
        "/confirm?act=delete_all&queue=mail",
    ];
    paths.map(str::to_owned).into()
}

#[actix_web::test]
async fn every_page_opens_with_rights_and_stays_shut_without() {
    let celeriac = start().await;
    let paths = scene(&celeriac).await;
    let closed = Console::new(&celeriac);
    let denied = Console::new(&celeriac).authorize(|_, _| false);
    let open = open(&celeriac);
    for path in &paths {
        for (console, text) in [(&closed, "authorize(|request, check|"), (&denied, "the permission `see`")] {
            let answer = get(console, path).await;
            assert_eq!(answer.status, 403, "{path}");
            assert!(answer.body.contains(text), "{path}: {}", answer.body);
            assert!(!answer.body.contains("shop."), "{path}: {}", answer.body);
        }
        let body = page(&open, path, |_| true).await;
        assert!(body.len() < MOST_BYTES, "{path} has {} bytes", body.len());
        assert_eq!(body.matches("<h1>").count(), 1, "{path}: {body}");
        assert_eq!(body.matches("<script").count(), 1, "{path}: nothing is inline");
        assert!(!body.contains(" style=") && !body.contains(" onclick="), "{path}: nothing is inline");
        for part in
            ["<html lang=\"en\">", "class=\"skip\"", "<main id=\"main\"", "aria-live=\"polite\"", "<nav"]
        {
            assert!(body.contains(part), "{path}: {part}");
        }
        let answer = get(&open, path).await;
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert!(!answer.header("content-security-policy").contains("unsafe"), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        let told = data(&open, path, |_| true).await;
        assert!(told.is_object() || told.is_null(), "{path}: {told}");
    }
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queue_says_its_promise_what_waits_and_what_was_done_to_it() {
    let celeriac = start().await;
    let console = open(&celeriac);
    celeriac.pause("mail").await.unwrap();
    for n in 0..3 {
        mail::s(format!("{n}@example.org"), "hello".into()).send(celeriac.client()).await.unwrap();
    }
    let is_mail = |queue: &Value| queue["name"] == "mail";
    let told = data(&console, "", |told| {
        let queues = told["queues"].as_array().unwrap();
        queues
            .iter()
            .any(|queue| is_mail(queue) && queue["ready"] == json!(3) && queue["paused"] == json!(true))
    })
    .await;
    let queue = told["queues"].as_array().unwrap().iter().find(|queue| is_mail(queue)).unwrap().clone();
    assert_eq!((&queue["condition"], &queue["target"]), (&json!("paused"), &json!("1h")));
    assert!(queue["promise_used"].as_f64().is_some_and(|used| used < 1.0), "{queue}");
    let shown =
        page(&console, "", |body| body.contains("<strong>mail</strong> is paused; 3 tasks wait.")).await;
    assert!(shown.contains("data-l=\"ready\">3<") && shown.contains(">Resume<"), "{shown}");
    assert!(shown.contains("of the promise used"), "{shown}");
    let shown = page(&console, "/queue?name=mail", |body| body.contains("3 tasks; that is all")).await;
    assert!(shown.contains("Mails to &lt;customers&gt;") && shown.contains("0@example.org"), "{shown}");
    let none = page(&console, "/queue?name=mail&standing=scheduled", |body| body.contains("0 tasks")).await;
    assert!(!none.contains("0@example.org"), "{none}");
    celeriac.shutdown().await.unwrap();
}

/// What the first page says of all queues has to be true of those that wait for later, and of those that say nothing.
#[actix_web::test]
async fn the_sentence_of_the_first_page_is_true() {
    let celeriac = start().await;
    let console = open(&celeriac);
    page(&console, "", |body| body.contains("<h1>Nothing waits, and nothing runs.</h1>")).await;
    let later = mail::s("a@example.org".into(), "hello".into()).countdown(super::kit::LONG * 100);
    later.send(celeriac.client()).await.unwrap();
    let sentence = "<h1>Nothing is ready, and nothing runs; 1 task waits for its time or its lane.</h1>";
    page(&console, "", |body| body.contains(sentence)).await;
    let blocks = blocks::s().send(celeriac.client()).await.unwrap();
    let is_slow = |name: &Value| name == "slow";
    let is_missing = |told: &Value| told["missing"].as_array().is_some_and(|all| all.iter().any(is_slow));
    data(&console, "", is_missing).await;
    let shown = page(&console, "", |body| body.contains("not answer")).await;
    assert!(!shown.contains("All queues are well") && !shown.contains("Nothing is ready"), "{shown}");
    assert!(shown.contains("<strong>slow</strong> does not answer within a second"), "{shown}");
    let_go();
    assert_eq!(blocks.get(super::kit::LONG).await, Ok(()));
    page(&console, "", |body| body.contains(sentence)).await;
    celeriac.shutdown().await.unwrap();
}

/// The ids of a list, page by page.
async fn all_ids(console: &Console, path: &str) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), None::<String>);
    for _ in 0..100 {
        let place = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let told = data(console, &format!("{path}{place}"), |_| true).await;
        let list = if told["tasks"].is_array() { &told } else { &told["tasks"] };
        let tasks = list["tasks"].as_array().expect("tasks");
        assert!(tasks.len() <= 50, "{} rows on a page", tasks.len());
        ids.extend(tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        match list["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return ids,
        }
    }
    panic!("the list does not end: {ids:?}");
}

#[actix_web::test]
async fn a_list_is_read_page_by_page_and_none_is_left_out() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        let mut wanted = BTreeSet::new();
        let mut results = Vec::new();
        for n in 0..60 {
            let task =
                fails::s(format!("error {n}")).id(format!("bad-{n}")).send(client.clone()).await.unwrap();
            wanted.insert(format!("bad-{n}"));
            results.push(task);
        }
        for result in &results {
            failed(result).await;
        }
        let ids = all_ids(&console, "/failed?kind=failed").await;
        assert_eq!(ids.len(), 60, "none comes twice");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(all_ids(&console, "/failed?error=error+17").await, ["bad-17"]);
        assert_eq!(all_ids(&console, "/failed?argument=text%3Derror+17").await, ["bad-17"]);
        assert!(all_ids(&console, "/failed?kind=dead").await.is_empty());

        celeriac.pause("mail").await.unwrap();
        let mut wanted = BTreeSet::new();
        for n in 0..120 {
            let call = mail::s(format!("{n}@example.org"), "hello".into()).id(format!("m-{n}"));
            let call = if n % 2 == 0 { call } else { call.countdown(super::kit::LONG) };
            call.send(client.clone()).await.unwrap();
            wanted.insert(format!("m-{n}"));
        }
        let ids = all_ids(&console, "/tasks?queue=mail").await;
        assert_eq!(ids.len(), 120, "none comes twice");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(all_ids(&console, "/tasks?queue=mail&standing=scheduled").await.len(), 60);
        assert_eq!(all_ids(&console, "/queue?name=mail&standing=ready").await.len(), 60);
        assert_eq!(all_ids(&console, "/tasks?argument=to%3D77@example.org").await, ["m-77"]);
        for path in ["/tasks?queue=mail", "/failed", "/queue?name=mail"] {
            let body = page(&console, path, |_| true).await;
            assert!(body.len() < MOST_BYTES, "{path} has {} bytes", body.len());
            assert!(body.contains("Next page"), "{path}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_task_is_told_from_its_start_to_its_end() {
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        // One that has succeeded.
        let good =
            mail::s("a@example.org".into(), "hi".into()).id("done").send(client.clone()).await.unwrap();
        assert_eq!(good.get(super::kit::LONG).await, Ok(15));
        let told = data(&console, "/task?id=done", |told| told["state"] == "SUCCESS").await;
        assert_eq!((&told["result"], &told["task"]), (&json!("15"), &json!("shop.mail")));
        let shown = page(&console, "/task?id=done", |_| true).await;
        assert!(shown.contains("has succeeded") && !shown.contains("Revoke"), "{shown}");
        // One that has failed for good, with its attempt and its arguments.
        failed(&fails::s("no such customer".into()).id("bad").send(client.clone()).await.unwrap()).await;
        let told = data(&console, "/task?id=bad", |told| !told["kept"].is_null()).await;
        assert_eq!((&told["state"], &told["failed_attempts"][0]["attempt"]), (&json!("FAILURE"), &json!(1)));
        assert_eq!(
            told["arguments"]["shown"][0],
            json!({
                "name": "text", "text": "\"no such customer\"", "bytes": 18, "is_cut": false,
            })
        );
        let shown = page(&console, "/task?id=bad", |_| true).await;
        for text in ["no such customer", "Run again as it was", "Delete", "Edit and run again"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        let (_, way) = shown.split_once("class=\"pad way\"").expect("its way");
        let steps = ["PENDING, enqueued", "STARTED, last run", "attempt 1 failed", "FAILURE"];
        let places: Vec<_> = steps.iter().map(|step| way.find(step)).collect();
        assert!(places[0].is_some() && places.is_sorted(), "{places:?}: {way}");
        let exact = get(&console, "/arguments?id=bad").await;
        assert_eq!(exact.json(), json!({ "args": ["no such customer"], "kwargs": {} }));
        assert!(exact.header("content-disposition").starts_with("attachment"));
        // A dead letter.
        failed(&rejects::s("not for us".into()).id("dead").send(client.clone()).await.unwrap()).await;
        let told = data(&console, "/task?id=dead", |told| !told["kept"].is_null()).await;
        assert_eq!((&told["state"], &told["kept"]["is_dead_letter"]), (&json!("REJECTED"), &json!(true)));
        assert_eq!(all_ids(&console, "/failed?kind=dead").await, ["dead"]);
        // One that runs.
        let runs = waits::s("a".into()).id("runs").send(client.clone()).await.unwrap();
        let told = data(&console, "/task?id=runs", |told| told["state"] == "STARTED").await;
        assert_eq!(told["queue"], "slow");
        let told = data(&console, "/processes", |told| told["count"] == json!(1)).await;
        assert_eq!(
            (&told["running"][0]["task"], &told["running"][0]["attempt"]),
            (&json!("shop.waits"), &json!(1))
        );
        runs.revoke(true).await.unwrap();
        // One that waits, and one that nobody knows.
        celeriac.pause("mail").await.unwrap();
        mail::s("b@example.org".into(), "hi".into()).id("waits").send(client.clone()).await.unwrap();
        data(&console, "/task?id=waits", |told| told["state"] == "PENDING" || told["state"] == "RECEIVED")
            .await;
        data(&console, "/task?id=waits", |told| told["why"]["reason"]["code"] == "paused").await;
        let shown =
            page(&console, "/task?id=waits", |body| body.contains("its queue `mail` is paused")).await;
        assert!(shown.contains("Why it waits") && shown.contains("What helps"), "{shown}");
        assert!(shown.contains("Revoke…"), "{shown}");
        assert_eq!(get(&console, "/task?id=nobody").await.status, 404);
    })
    .await;
}

#[actix_web::test]
async fn lanes_entries_and_charts_say_what_they_know() {
    let celeriac = start().await;
    let console = open(&celeriac);
    celeriac.pause("keyed").await.unwrap();
    for _ in 0..3 {
        import::s("malawi".into()).send(celeriac.client()).await.unwrap();
    }
    let told = data(&console, "/lanes", |told| told["lanes"][0]["waiting"] == json!(2)).await;
    assert_eq!(
        (&told["lanes"][0]["key"], &told["lanes"][0]["scope"]),
        (&json!("malawi"), &json!("shop.import"))
    );
    let shown =
        page(&console, "/lane?scope=shop.import&key=malawi", |body| body.contains("2 tasks wait")).await;
    assert!(shown.contains("Stop it…") && shown.contains("shop.import"), "{shown}");
    // Beat answers when it leads.
    let told = data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    assert_eq!(told["entries"][0]["in_words"], "at 00:00 on day 1 in January (UTC)");
    let told = data(&console, "/entry?name=yearly", |_| true).await;
    let upcoming = told["upcoming"].as_array().unwrap();
    assert_eq!(upcoming.len(), 20);
    assert!(upcoming.iter().all(|at| at.as_str().unwrap().contains("-01-01T00:00:00")), "{upcoming:?}");
    let shown = page(&console, "/entry?name=yearly", |_| true).await;
    assert!(shown.contains("Run now…") && shown.contains("shop.mail"), "{shown}");
    // A chart begins with the third sample.
    let told = data(&console, "/live", |told| told["at"].as_array().is_some_and(|at| at.len() >= 2)).await;
    assert_eq!(told["at"].as_array().unwrap().len(), told["all"]["ready"].as_array().unwrap().len());
    assert!(page(&console, "/live", |_| true).await.contains("<polyline class=\"line\""));
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_cannot_be_is_a_page_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let console = open(&celeriac);
    let long = "x".repeat(2_000);
    let most = "x".repeat(255);
    for (path, status) in [
        ("/task".to_owned(), 400),
        ("/task?id=".to_owned(), 400),
        (format!("/task?id={long}"), 400),
        (format!("/task?id={most}"), 404),
        ("/task?id=%00%ff%22%3E%3Cscript%3E".to_owned(), 404),
        ("/task?id=../../etc/passwd".to_owned(), 404),
        ("/queue".to_owned(), 400),
        ("/queue?name=nowhere%3Cscript%3E".to_owned(), 404),
        ("/queue?name=mail&standing=asleep".to_owned(), 400),
        ("/queue?name=mail&after=!!".to_owned(), 400),
        ("/tasks?after=x".to_owned(), 400),
        ("/tasks?after=m%25".to_owned(), 400),
        (format!("/tasks?{}", "a=b&".repeat(40)), 400),
        ("/failed?kind=odd".to_owned(), 400),
        ("/failed?after=99".to_owned(), 400),
        ("/failed?until=never".to_owned(), 400),
        ("/lanes?after=-1".to_owned(), 400),
        ("/lanes?after=99999999".to_owned(), 400),
        ("/lane?scope=a".to_owned(), 400),
        ("/periodic?after=x".to_owned(), 400),
        ("/entry?name=none%3Cscript%3E".to_owned(), 404),
        ("/processes?after=x".to_owned(), 400),
        ("/brakes?after=x".to_owned(), 400),
        ("/brakes?count=none%3Cscript%3E".to_owned(), 404),
        ("/brakes?try=1&action=explode".to_owned(), 400),
        ("/tenants?after=-1".to_owned(), 400),
        ("/tenant".to_owned(), 400),
        (format!("/tenant?name={}", "x".repeat(300)), 400),
        ("/limits?after=x".to_owned(), 400),
        ("/history?by=%3Cscript%3E".to_owned(), 400),
        ("/enqueue?task=%3Cscript%3E".to_owned(), 404),
        ("/confirm".to_owned(), 400),
        ("/confirm?act=explode".to_owned(), 400),
        ("/confirm?act=delete&id=nobody".to_owned(), 404),
        ("/arguments?id=nobody".to_owned(), 404),
        ("/nowhere".to_owned(), 404),
        (format!("/{}", "x".repeat(20_000)), 404),
        ("/task/x/y".to_owned(), 404),
    ] {
        let start = std::time::Instant::now();
        // Beat answers when it leads.
        let answer = loop {
            let answer = get(&console, &path).await;
            if answer.status != 503 {
                break answer;
            }
            assert!(start.elapsed() < super::kit::LONG, "{path}: {}", answer.body);
        };
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
        assert!(answer.body.contains("<h1>") && answer.body.len() < 10_000, "{path}: {}", answer.body);
        assert!(!answer.body.contains("<script>"), "{path}: {}", answer.body);
        let told =
            get(&console, &format!("{path}{}format=json", if path.contains('?') { '&' } else { '?' })).await;
        assert_eq!(told.status.as_u16(), status, "{path}");
        assert!(
            told.json()["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{path}: {}",
            told.body
        );
    }
    celeriac.shutdown().await.unwrap();
}

/// What a run logs is read while it goes on, and its page stays as small as others.
#[actix_web::test]
async fn a_run_that_goes_on_is_told_with_what_it_logs() {
    keep_log_lines();
    on_both(|celeriac| async move {
        let (console, client) = (open(&celeriac), celeriac.client());
        let runs = talks::s(60).id("talks").send(client.clone()).await.unwrap();
        let is_whole = |told: &Value| told["log"].as_array().is_some_and(|log| log.len() == 50);
        let told = data(&console, "/task?id=talks", is_whole).await;
        assert_eq!((&told["log_left_out"], &told["log"][49]["text"]), (&json!(10), &json!("line 59 <b>")));
        assert_eq!(told["log"][0]["level"], json!("INFO"));
        let shown = page(&console, "/task?id=talks", |body| body.contains("What it logs")).await;
        assert!(shown.contains("line 59 &lt;b&gt;") && shown.contains("10 lines before these"), "{shown}");
        assert!(!shown.contains("<b>"), "{shown}");
        // A task of which nothing runs here has no such card.
        celeriac.pause("mail").await.unwrap();
        mail::s("a".into(), "b".into()).id("waits").send(client).await.unwrap();
        let told = data(&console, "/task?id=waits", |_| true).await;
        assert_eq!((&told["log"], &told["log_left_out"]), (&Value::Null, &json!(0)));
        runs.revoke(true).await.unwrap();
        let told = data(&console, "/task?id=talks", |told| told["state"] == "REVOKED").await;
        assert_eq!(told["log"], Value::Null, "what has ended without a failure keeps none");
    })
    .await;
}

/// The chart of the last minutes is on the pages of queues, too, and grows while somebody looks.
#[actix_web::test]
async fn the_pages_of_queues_have_a_chart_of_the_last_minutes() {
    let celeriac = start().await;
    let console = open(&celeriac);
    page(&console, "/queue?name=mail", |body| body.contains("A chart needs three samples.")).await;
    let says = ["The last minutes", "Ready, tasks that could start: 0.0 now", "<polyline class=\"line\""];
    let is_drawn = |body: &str| says.iter().all(|text| body.contains(text));
    let shown = page(&console, "/queue?name=mail", is_drawn).await;
    assert!(shown.contains("Starts, a second: "), "{shown}");
    let shown = page(&console, "", |body| body.contains("could start · line: the last ")).await;
    assert!(shown.contains("class=\"spark\" role=\"img\" aria-label=\"ready in the last "), "{shown}");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queue_tells_how_it_has_kept_its_promise_in_the_last_day() {
    on_both(|celeriac| async move {
        for n in 0..3 {
            let task = mail::s(n.to_string(), "x".into()).send(celeriac.client()).await.unwrap();
            assert_eq!(task.get(LONG).await, Ok(2));
        }
        let console = open(&celeriac);
        let kept = json!({ "starts": 3, "kept_at_least": 3, "kept_at_most": 3, "budget_left": 1.0 });
        let told = data(&console, "/queue?name=mail", |told| told["queue"]["kept"] == kept).await;
        assert_eq!(told["queue"]["target"], json!("1h"));
        let shown = page(&console, "/queue?name=mail", |_| true).await;
        let says = "3 of 3 starts kept it · of the 1 in 100 that may be late, 100 % is left";
        assert!(shown.contains(says), "{shown}");
        let is_kept = |body: &str| body.contains("data-l=\"kept, 24 h\">100.0 %<");
        page(&console, "", is_kept).await;
        // A queue that promises nothing keeps nothing.
        let told = data(&console, "/queue?name=slow", |told| told["queue"].is_object()).await;
        assert_eq!(told["queue"]["kept"], Value::Null);
    })
    .await;
}

/// The columns that say nothing to the runtime are there for whoever looks at the queue.
#[actix_web::test]
async fn what_the_catalogue_says_of_a_queue_is_on_its_page() {
    let row = QueueRow::new("exports")
        .with_pool(Pool::Io)
        .with_target_class(TargetClass::Minutes)
        .with_description("Exports of forms")
        .with_target_comment("people look at the page meanwhile")
        .with_typical_duration("a minute or two")
        .with_notes("see the runbook of exports");
    let celeriac = builder().queue(row).in_memory().start().await.unwrap();
    let says = [
        "Exports of forms",
        "people look at the page meanwhile",
        "a minute or two",
        "see the runbook of exports",
        TargetClass::Minutes.as_str(),
    ];
    let is_right = |body: &str| says.iter().all(|text| body.contains(*text));
    page(&open(&celeriac), "/queue?name=exports", is_right).await;
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_queue_tells_the_slots_that_it_shares_and_how_good_its_forecasts_are() {
    let io = |name: &str| QueueRow::new(name).with_pool(Pool::Io).with_workers(4);
    let catalogue = Catalogue::new()
        .with_pool(Pool::Io, PoolRow::new(7).with_room(0).with_reserve(0))
        .with_queue(io("reports"))
        .with_queue(io("apart").with_shared(false));
    let celeriac = Celeriac::builder().catalogue(catalogue).in_memory().start().await.unwrap();
    let console = open(&celeriac);
    let says = |body: &str| {
        body.contains("0 of 7 of the pool io are taken · 0 tasks of all its queues wait here for one")
            && body.contains("none has come to an outcome yet")
    };
    page(&console, "/queue?name=reports", says).await;
    let told = data(&console, "/queue?name=reports", |told| told["slots"].is_object()).await;
    assert_eq!(told["slots"], json!({ "pool": "io", "slots": 7, "running": 0, "waiting": 0 }));
    let apart = data(&console, "/queue?name=apart", |told| told["queue"].is_object()).await;
    assert_eq!(apart["slots"], Value::Null);
    // The slots are those of other queues, too, which not everybody sees.
    let clerk = Console::new(&celeriac).authorize(|_, check| {
        let own = check.queue.as_deref().is_none_or(|queue| queue == "reports");
        (own && check.permission == Permission::See).then_some("bola")
    });
    let told = data(&clerk, "/queue?name=reports", |told| told["queue"].is_object()).await;
    assert_eq!(told["slots"], Value::Null);
    celeriac.shutdown().await.unwrap();
}

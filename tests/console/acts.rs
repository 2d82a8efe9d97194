//! What can be done, by plain forms.

use std::future::poll_fn;
use std::task::Poll;

use actix_web::App;
use actix_web::dev::Service;
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, init_service};
use celeriac::broker::TaskFilter;
use celeriac::web::{Console, Permission};
use celeriac::{AsyncResult, Celeriac, State};
use serde_json::json;

use super::kit::{Browser, LONG, act, ask, browser, data, done, failed, get, on_both, open, page, start};
use super::tasks::{fails, import, mail, waits};

async fn is_paused(console: &Console, queue: &str) -> bool {
    let named = |told: &serde_json::Value| told["queue"]["name"] == queue;
    data(console, &format!("/queue?name={queue}"), named).await["queue"]["paused"] == json!(true)
}

#[actix_web::test]
async fn a_queue_is_paused_resumed_and_resized_and_the_log_says_by_whom() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let back = ("back", "queue?name=mail");
    let shown = done(&console, &[("act", "pause"), ("queue", "mail"), back]).await;
    assert!(shown.contains("<strong>pause the queue mail</strong>: nothing more starts"), "{shown}");
    assert!(is_paused(&console, "mail").await);
    let shown = done(&console, &[("act", "resume"), ("queue", "mail"), back]).await;
    assert!(shown.contains("it goes on") && !is_paused(&console, "mail").await, "{shown}");
    done(&console, &[("act", "resize"), ("queue", "mail"), ("workers", "7"), back]).await;
    data(&console, "/queue?name=mail", |told| told["queue"]["workers"] == json!(7)).await;
    let told = data(&console, "/acts", |_| true).await;
    let acts = told["acts"].as_array().unwrap();
    let whats: Vec<_> = acts.iter().map(|act| act["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["give the queue mail 7 workers", "resume the queue mail", "pause the queue mail"]);
    assert!(acts.iter().all(|act| act["who"] == "amina" && act["is_done"] == json!(true)), "{acts:?}");
    assert_eq!(acts[0]["permission"], "resize");
    let shown = page(&console, "/acts", |_| true).await;
    assert!(shown.contains("amina") && shown.contains("pause the queue mail"), "{shown}");
    // A queue that is not there, and a number that is none.
    for (fields, status) in [
        (&[("act", "pause"), ("queue", "nowhere")][..], 404),
        (&[("act", "resize"), ("queue", "mail"), ("workers", "0")], 400),
        (&[("act", "explode")], 400),
        (&[], 400),
    ] {
        assert_eq!(act(&console, fields).await.status.as_u16(), status, "{fields:?}");
    }
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_failed_task_is_tried_again_put_right_and_deleted() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        let send = async |id: &str| {
            let result = fails::s("no such customer".into()).id(id).send(celeriac.client()).await.unwrap();
            failed(&result).await;
            result
        };
        let again = send("again").await;
        done(&console, &[("act", "retry"), ("id", "again"), ("back", "failed")]).await;
        failed(&again).await;
        let right = send("right").await;
        let edit = |args| [("act", "edit"), ("id", "right"), ("args", args), ("kwargs", "{}")];
        let refused = act(&console, &edit("[\"good\"")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("no JSON array"), "{}", refused.body);
        done(&console, &edit("[\"good\"]")).await;
        assert_eq!(right.get(LONG).await.as_deref(), Ok("good"));
        send("gone").await;
        done(&console, &[("act", "delete"), ("id", "gone")]).await;
        let kept = celeriac.failed_tasks(&TaskFilter::new().ids(["gone"]), 1).await.unwrap();
        assert!(kept.is_empty(), "{kept:?}");
        // Its record stays, but there is nothing to be tried again.
        let shown = page(&console, "/task?id=gone", |_| true).await;
        assert!(shown.contains("has failed for good") && !shown.contains("Run again as it was"), "{shown}");
        let nobody = act(&console, &[("act", "retry"), ("id", "nobody")]).await;
        assert_eq!(nobody.status, StatusCode::NOT_FOUND, "{}", nobody.body);
    })
    .await;
}

#[actix_web::test]
async fn all_that_match_are_counted_first_and_what_comes_later_is_left_alone() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        let send = async |id: String, error: &str| {
            failed(&fails::s(error.into()).id(id).send(celeriac.client()).await.unwrap()).await;
        };
        for n in 0..5 {
            send(format!("down-{n}"), "the gateway is down").await;
        }
        for n in 0..2 {
            send(format!("other-{n}"), "no such customer").await;
        }
        let path = "/confirm?act=delete_all&error=gateway&queue=mail";
        let told = data(&console, path, |told| told["count"] == json!(5)).await;
        let shown = page(&console, path, |_| true).await;
        assert!(shown.contains("5 tasks: delete all failed tasks that match"), "{shown}");
        assert!(shown.contains("down-4") && !shown.contains("other-1"), "{shown}");
        send("late".to_owned(), "the gateway is down").await;
        let until = told["until"].as_str().unwrap();
        let fields = [
            ("act", "delete_all"),
            ("error", "gateway"),
            ("queue", "mail"),
            ("until", until),
            ("back", "failed"),
        ];
        let shown = done(&console, &fields).await;
        assert!(shown.contains("5 tasks are deleted"), "{shown}");
        let kept = celeriac.failed_tasks(&TaskFilter::new(), 10).await.unwrap();
        let mut kept: Vec<_> = kept.iter().map(|task| task.message.id.to_string()).collect();
        kept.sort();
        assert_eq!(kept, ["late", "other-0", "other-1"]);
        let again = [("act", "retry_all"), ("error", "customer"), ("back", "failed")];
        let shown = done(&console, &again).await;
        assert!(shown.contains("2 tasks wait in the queue again"), "{shown}");
    })
    .await;
}

async fn is_over<T: celeriac::task::Task>(result: &AsyncResult<T>, state: State) {
    failed(result).await;
    assert_eq!(result.state().await, Ok(state));
}

#[actix_web::test]
async fn tasks_are_revoked_lanes_stopped_and_entries_run_by_hand() {
    let celeriac = start().await;
    let console = open(&celeriac);
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    let task = mail::s("a".into(), "b".into()).id("mine").send(celeriac.client()).await.unwrap();
    let shown = page(&console, "/confirm?act=revoke&id=mine&back=task%3Fid%3Dmine", |_| true).await;
    assert!(shown.contains("revoke the task mine") && shown.contains("name=\"terminate\""), "{shown}");
    let shown = done(&console, &[("act", "revoke"), ("id", "mine"), ("back", "task?id=mine")]).await;
    assert!(shown.contains("it is revoked"), "{shown}");
    assert_eq!(task.state().await, Ok(State::Revoked), "the page was told when it was over");
    is_over(&task, State::Revoked).await;
    // One that runs is over when its run is.
    let runs = waits::s("a".into()).id("runs").send(celeriac.client()).await.unwrap();
    data(&console, "/task?id=runs", |told| told["state"] == "STARTED").await;
    let shown = done(&console, &[("act", "revoke"), ("id", "runs"), ("back", "task?id=runs")]).await;
    assert!(shown.contains("its run goes on, and it is not tried again"), "{shown}");
    runs.revoke(true).await.unwrap();
    is_over(&runs, State::Revoked).await;

    for _ in 0..2 {
        import::s("malawi".into()).send(celeriac.client()).await.unwrap();
    }
    let lane = [("scope", "shop.import"), ("key", "malawi"), ("back", "lanes")];
    let stop = [&[("act", "set_concurrency"), ("concurrency", "0")][..], &lane[..]].concat();
    done(&console, &stop).await;
    let path = "/lane?scope=shop.import&key=malawi";
    data(&console, path, |told| told["concurrency"] == json!(0) && told["is_adjusted"] == json!(true)).await;
    let goes_on = [&[("act", "set_concurrency")][..], &lane[..]].concat();
    done(&console, &goes_on).await;
    data(&console, path, |told| told["is_adjusted"] == json!(false)).await;
    let unblock = [&[("act", "unblock")][..], &lane[..]].concat();
    assert!(done(&console, &unblock).await.contains("it was not blocked"));

    // Beat answers when it leads.
    data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    let shown = done(&console, &[("act", "run_now"), ("entry", "yearly"), ("back", "periodic")]).await;
    assert!(shown.contains("its task was enqueued as"), "{shown}");
    done(&console, &[("act", "pause_entry"), ("entry", "yearly"), ("back", "periodic")]).await;
    data(&console, "/entry?name=yearly", |told| told["paused"] == json!(true)).await;
    done(&console, &[("act", "resume_entry"), ("entry", "yearly")]).await;
    data(&console, "/entry?name=yearly", |told| told["paused"] == json!(false)).await;
    assert_eq!(act(&console, &[("act", "run_now"), ("entry", "none")]).await.status, StatusCode::NOT_FOUND);
    celeriac.shutdown().await.unwrap();
}

/// By a double click a browser sends a form twice, and one that goes back may send it once more.
#[actix_web::test]
async fn a_form_that_is_sent_twice_is_acted_on_once() {
    let celeriac = start().await;
    let console = open(&celeriac);
    celeriac.pause("mail").await.unwrap();
    data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    let form = async || {
        let shown = page(&console, "/confirm?act=run_now&entry=yearly&once=chosen", |_| true).await;
        let (_, rest) = shown.split_once("name=\"once\" value=\"").expect("a form that is told from others");
        rest.split_once('"').unwrap().0.to_owned()
    };
    let (one, other) = (form().await, form().await);
    assert!(one != other && one != "chosen", "{one} {other}");
    let run_now = |form: &str| {
        let fields = [("act", "run_now"), ("entry", "yearly"), ("back", "periodic"), ("once", form)];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    for (form, leads_to) in
        [(&one, "/console/periodic?done=1"), (&one, "/console/acts"), (&other, "/console/periodic?done=2")]
    {
        let fields = run_now(form);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = act(&console, &fields).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, leads_to));
    }
    let told = data(&console, "/tasks?queue=mail", |told| {
        told["tasks"]["tasks"].as_array().is_some_and(|tasks| tasks.len() >= 2)
    })
    .await;
    assert_eq!(told["tasks"]["tasks"].as_array().unwrap().len(), 2, "one for each form");
    celeriac.shutdown().await.unwrap();
}

/// A browser goes away when somebody presses a button twice, or closes the page.
#[actix_web::test]
async fn an_act_goes_on_when_its_browser_goes_away() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let Browser { cookie, token } = browser(&console).await;
    let app = init_service(App::new().service(console.clone())).await;
    let form = [("act", "pause"), ("queue", "mail"), ("token", token.as_str())];
    let request = TestRequest::post().uri("/console/act").insert_header(("Cookie", cookie)).set_form(form);
    let mut asked = Box::pin(app.call(request.to_request()));
    assert!(poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await, "it waits for the queue");
    drop(asked);
    data(&console, "/acts", |told| told["acts"][0]["what"] == "pause the queue mail").await;
    assert!(paused(&celeriac).await);
    celeriac.shutdown().await.unwrap();
}

/// The address of the page, with what was searched for, has no room in a field of the next address.
#[actix_web::test]
async fn an_act_is_offered_however_long_the_search_was() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let error = "é".repeat(200);
    failed(&fails::s(error.clone()).id("bad").send(celeriac.client()).await.unwrap()).await;
    let written: String = error.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let shown =
        page(&console, &format!("/failed?error={written}"), |body| body.contains("act=delete_all")).await;
    let link = shown.split('"').find(|part| part.contains("act=delete_all")).unwrap().replace("&amp;", "&");
    let path = link.strip_prefix("/console").expect("a page of the console");
    let shown = page(&console, path, |_| true).await;
    assert!(shown.contains("1 task: delete all failed tasks that match"), "{shown}");
    celeriac.shutdown().await.unwrap();
}

/// Whether the queue is paused, as the program itself knows it.
async fn paused(celeriac: &Celeriac) -> bool {
    loop {
        if let Ok(status) = celeriac.queue("mail").await {
            return status.paused;
        }
    }
}

#[actix_web::test]
async fn no_form_of_another_site_does_anything() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let own = browser(&console).await;
    let other = browser(&console).await;
    let form = |cookie: &str, token: &str| {
        let fields = [("act", "pause"), ("queue", "mail"), ("token", token)];
        let request = TestRequest::post().uri("/console/act").insert_header(("Host", "127.0.0.1:8080"));
        request.insert_header(("Cookie", cookie.to_owned())).set_form(fields)
    };
    for (name, request) in [
        ("no token", form(&own.cookie, "")),
        ("no cookie", form("", &own.token)),
        ("the token of another browser", form(&own.cookie, &other.token)),
        ("a token of its own making", form("celeriac_console=x", "x")),
        ("another origin", form(&own.cookie, &own.token).insert_header(("Origin", "https://evil.example"))),
        ("no origin", form(&own.cookie, &own.token).insert_header(("Origin", "null"))),
        ("another site", form(&own.cookie, &own.token).insert_header(("Sec-Fetch-Site", "cross-site"))),
        ("another page", form(&own.cookie, &own.token).insert_header(("Referer", "https://evil.example/x"))),
        (
            "a script of another site",
            form("", "")
                .insert_header(("Celeriac-Console", "act"))
                .insert_header(("Origin", "https://evil.example")),
        ),
    ] {
        let answer = ask(&console, request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {}", answer.body);
        assert!(!paused(&celeriac).await, "{name}");
    }
    // Looking changes nothing, whatever its address says.
    assert_eq!(get(&console, "/act?act=pause&queue=mail").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!paused(&celeriac).await);
    // A page of this site may, and so may a script, which is told in JSON.
    let same = form(&own.cookie, &own.token).insert_header(("Origin", "http://127.0.0.1:8080"));
    assert_eq!(ask(&console, same).await.status, StatusCode::SEE_OTHER);
    assert!(paused(&celeriac).await);
    let script = TestRequest::post()
        .uri("/console/act?format=json")
        .insert_header(("Celeriac-Console", "act"))
        .set_form([("act", "resume"), ("queue", "mail")]);
    let told = ask(&console, script).await;
    assert_eq!((told.status, &told.json()["outcome"]), (StatusCode::OK, &json!("it goes on")));
    assert!(!paused(&celeriac).await);
    // Without rights nothing is done, whatever comes along.
    let closed = Console::new(&celeriac);
    assert_eq!(ask(&closed, form(&own.cookie, &own.token)).await.status, StatusCode::FORBIDDEN);
    assert!(!paused(&celeriac).await);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn rights_are_for_each_act_and_each_queue() {
    let celeriac = start().await;
    // Bola sees all queues but `slow`, and may pause `mail`.
    let console = Console::new(&celeriac).authorize_async(|request, check| async move {
        let name =
            request.headers().get("X-User").and_then(|name| name.to_str().ok()).unwrap_or("bola").to_owned();
        let may = match check.permission {
            Permission::See => check.queue.as_deref() != Some("slow"),
            Permission::Pause => check.queue.as_deref() == Some("mail"),
            _ => false,
        };
        may.then_some(name)
    });
    celeriac.pause("slow").await.unwrap();
    super::tasks::waits::s("a".into()).id("secret").send(celeriac.client()).await.unwrap();
    failed(&fails::s("x".into()).id("bad").send(celeriac.client()).await.unwrap()).await;
    let shown = page(&console, "", |body| body.contains("name=mail") && body.contains("name=keyed")).await;
    assert!(
        !shown.contains("slow") && shown.contains("value=\"mail\"") && !shown.contains("value=\"keyed\""),
        "{shown}"
    );
    for path in
        ["/queue?name=slow", "/task?id=secret", "/arguments?id=secret", "/confirm?act=revoke&id=secret"]
    {
        assert_eq!(get(&console, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/tasks", "/tasks?find=secret", "/processes", "/live"] {
        let shown = page(&console, path, |_| true).await;
        assert!(!shown.contains("task?id=secret") && !shown.contains("shop.waits"), "{path}: {shown}");
    }
    let shown = page(&console, "/task?id=bad", |_| true).await;
    assert!(!shown.contains("Run again as it was") && !shown.contains("Delete…"), "{shown}");
    assert_eq!(get(&console, "/confirm?act=delete&id=bad").await.status, StatusCode::FORBIDDEN);
    for (fields, status) in [
        (&[("act", "pause"), ("queue", "mail")][..], 303),
        (&[("act", "pause"), ("queue", "keyed")], 403),
        (&[("act", "resume"), ("queue", "slow")], 403),
        (&[("act", "resize"), ("queue", "mail"), ("workers", "9")], 403),
        (&[("act", "retry"), ("id", "bad")], 403),
        (&[("act", "delete_all")], 403),
        (&[("act", "revoke"), ("id", "secret")], 403),
        (&[("act", "run_now"), ("entry", "yearly")], 403),
    ] {
        assert_eq!(act(&console, fields).await.status.as_u16(), status, "{fields:?}");
    }
    // What was refused is noted as well.
    let told = data(&console, "/acts", |_| true).await;
    let acts = told["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 8);
    assert!(acts.iter().all(|act| act["who"] == "bola"), "{acts:?}");
    assert_eq!(acts.iter().filter(|act| act["is_done"] == json!(true)).count(), 1);
    celeriac.shutdown().await.unwrap();
}

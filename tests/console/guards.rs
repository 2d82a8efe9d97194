//! What keeps a page from being more than text: what others wrote, what is large, what is hidden, and too many who look.

use std::time::Duration;

use actix_web::App;
use actix_web::body::MessageBody;
use actix_web::dev::Service;
use actix_web::test::{TestRequest, init_service};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::{Arguments, NewTask, TENANT, TaskOptions};
use celeriac::web::{Colour, Console, Theme};
use celeriac::{Celeriac, TaskId};
use serde_json::json;

use super::kit::{act, builder, data, done, failed, get, open, page, start};
use super::tasks::{fails, import, mail, notes};

/// What must never be more than text.
const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

/// Sends a task that no program has, with everything evil that a sender can write.
async fn send_evil(celeriac: &Celeriac, queue: &str, id: &str) -> TaskId {
    let mut call = NewTask::new(format!("evil.{EVIL}"), TaskOptions::default());
    call.options.queue = Some(queue.to_owned());
    call.id = Some(id.into());
    call.arguments = Arguments { args: json!([EVIL]).to_string(), kwargs: json!({ EVIL: EVIL }).to_string() };
    call.headers.0.insert(TENANT.to_owned(), json!(EVIL));
    celeriac.client().enqueue(Box::new(call)).await.unwrap().id
}

#[actix_web::test]
async fn what_others_wrote_is_shown_as_text_on_every_page() {
    let queue = format!("q {EVIL}");
    let row = QueueRow::new(&queue).with_pool(Pool::Io).with_workers(1);
    let row =
        row.with_description(EVIL).with_notes(EVIL).with_target_comment(EVIL).with_typical_duration(EVIL);
    let celeriac = builder().queue(row).in_memory().start().await.unwrap();
    let console = Console::new(&celeriac).title(EVIL).environment(EVIL).authorize(|_, _| Some(EVIL));
    let client = celeriac.client();
    failed(&fails::s(EVIL.into()).id(EVIL).send(client.clone()).await.unwrap()).await;
    for name in ["mail", "keyed", queue.as_str()] {
        celeriac.pause(name).await.unwrap();
    }
    let runs = notes::s(EVIL.into()).id("notes").send(client.clone()).await.unwrap();
    page(&console, "/task?id=notes", |body| body.contains("As its user sees it")).await;
    page(&console, "/downloads", |body| body.contains("In progress")).await;
    send_evil(&celeriac, &queue, "waits").await;
    send_evil(&celeriac, "mail", &format!("{EVIL} 2")).await;
    for _ in 0..2 {
        import::s(EVIL.into()).send(client.clone()).await.unwrap();
    }
    let written = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let (id, name) = (written(EVIL), written(&queue));
    let brake =
        [("act", "set_brake"), ("action", "pause"), ("task", EVIL), ("reason", EVIL), ("back", "brakes")];
    done(&console, &brake).await;
    done(&console, &[("act", "pause_tenant"), ("tenant", EVIL), ("back", "tenants")]).await;
    let quoted = json!(EVIL).to_string();
    let call = [
        ("act", "enqueue"),
        ("task", "shop.mail"),
        ("id", "called"),
        ("arg.to", quoted.as_str()),
        ("arg.body", quoted.as_str()),
    ];
    act(&console, &call).await;
    act(&console, &[("act", "pause"), ("queue", EVIL)]).await;
    act(&console, &[("act", "pause_entry"), ("entry", EVIL)]).await;
    done(&console, &[("act", "resume"), ("queue", queue.as_str()), ("back", "acts")]).await;
    celeriac.pause(&queue).await.unwrap();
    for (path, needs) in [
        (String::new(), true),
        (format!("/queue?name={name}"), true),
        ("/tasks".to_owned(), true),
        (format!("/tasks?find={id}&task={id}&argument={id}&error={id}&queue={id}"), true),
        ("/task?id=waits".to_owned(), true),
        ("/task?id=notes".to_owned(), true),
        ("/downloads".to_owned(), true),
        ("/downloads?id=notes".to_owned(), true),
        (format!("/task?id={id}"), true),
        ("/failed".to_owned(), true),
        (format!("/failed?task=*&argument={id}&error={id}"), true),
        ("/lanes".to_owned(), true),
        (format!("/lane?scope=shop.import&key={id}"), true),
        (format!("/lane?scope={id}&key={id}"), true),
        ("/periodic".to_owned(), true),
        ("/processes".to_owned(), true),
        (format!("/downloads?id={id}"), true),
        ("/live".to_owned(), true),
        ("/acts".to_owned(), true),
        ("/brakes".to_owned(), true),
        (
            format!("/brakes?try=1&action=pause&task={id}&tenant={id}&argument={id}&matches=x&reason={id}"),
            true,
        ),
        ("/tenants".to_owned(), true),
        (format!("/tenants?tenant={id}"), true),
        (format!("/tenant?name={id}"), true),
        ("/limits".to_owned(), true),
        ("/history".to_owned(), true),
        (format!("/history?by=tenant&name={id}"), true),
        (format!("/enqueue?name={id}"), true),
        (format!("/enqueue?task={id}"), false),
        ("/task?id=called".to_owned(), true),
        (format!("/confirm?act=delete&id={id}"), true),
        (format!("/confirm?act=delete_all&error={id}"), true),
        (format!("/entry?name={id}"), false),
        (format!("/queue?name={id}"), false),
        (format!("/confirm?act={id}"), false),
        (format!("/{id}"), false),
    ] {
        let body =
            if needs { page(&console, &path, |_| true).await } else { get(&console, &path).await.body };
        for raw in ["<script>alert", "<img src=x", "\"'><"] {
            assert!(!body.contains(raw), "{path}: {raw}: {body}");
        }
        assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{path}: {body}");
        let part =
            get(&console, &format!("{path}{}part=1", if path.contains('?') { '&' } else { '?' })).await;
        assert!(
            !part.body.contains("<script>alert") && !part.body.contains("<img src=x"),
            "{path}: {}",
            part.body
        );
    }
    runs.revoke(true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn ten_megabytes_of_arguments_are_folded() {
    let celeriac = builder().in_memory().max_message_size(12 << 20).start().await.unwrap();
    let console = open(&celeriac);
    celeriac.pause("mail").await.unwrap();
    let body = format!("begin{}end", "x".repeat(10 << 20));
    let size = body.len();
    mail::s("a@example.org".into(), body.clone()).id("large").send(celeriac.client()).await.unwrap();
    for (path, most) in [("/task?id=large", 60_000), ("/tasks", 50_000), ("/queue?name=mail", 50_000)] {
        let shown = page(&console, path, |body| body.contains("large")).await;
        assert!(shown.len() < most, "{path} has {} bytes", shown.len());
        assert!(shown.contains("a@example.org") && !shown.contains("xend"), "{path}: {shown}");
    }
    let shown = page(&console, "/task?id=large", |_| true).await;
    assert!(
        shown.contains("10.5 MB, shown when opened") && shown.contains("This is its beginning."),
        "{shown}"
    );
    let told = data(&console, "/task?id=large", |_| true).await;
    let argument = &told["arguments"]["shown"][1];
    assert_eq!((&argument["name"], &argument["is_cut"]), (&json!("body"), &json!(true)));
    assert!(
        argument["bytes"].as_u64() == Some(size as u64 + 2) && told.to_string().len() < 20_000,
        "{argument}"
    );
    let exact = get(&console, "/arguments?id=large").await.json();
    assert_eq!(exact["args"][1].as_str(), Some(body.as_str()), "exact, to the last byte");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn hidden_arguments_are_nowhere() {
    let celeriac = start().await;
    let console = open(&celeriac).hide_arguments(|message| message.task == "shop.fails");
    let secret = "hunter2";
    celeriac.pause("mail").await.unwrap();
    let hidden = mail::s(secret.into(), secret.into()).argsrepr("(…)").id("hidden");
    hidden.send(celeriac.client()).await.unwrap();
    for path in
        ["/task?id=hidden", "/tasks", "/queue?name=mail", "/task?id=hidden&format=json", "/tasks?format=json"]
    {
        let body = page(&console, path, |body| body.contains("hidden")).await;
        assert!(!body.contains(secret), "{path}: {body}");
    }
    celeriac.resume("mail").await.unwrap();
    // The program hides these, whatever their caller says. What its error quotes is its own affair.
    let failing = fails::s("hunter2".into()).id("failed").send(celeriac.client()).await.unwrap();
    failed(&failing).await;
    let told = data(&console, "/task?id=failed", |told| !told["kept"].is_null()).await;
    assert_eq!((&told["arguments"]["is_hidden"], &told["arguments"]["shown"]), (&json!(true), &json!([])));
    let shown = page(&console, "/task?id=failed", |_| true).await;
    assert!(shown.contains("are hidden") && !shown.contains("Edit and run again"), "{shown}");
    let exact = get(&console, "/arguments?id=failed").await;
    assert_eq!(exact.status, 403, "{}", exact.body);
    assert!(!exact.body.contains(secret), "{}", exact.body);
    celeriac.shutdown().await.unwrap();
}

/// How the program writes arguments is for people: data, searches and the exact text have them as they were sent.
#[actix_web::test]
async fn arguments_are_shown_as_the_program_writes_them() {
    let celeriac = start().await;
    let console = open(&celeriac).hide_arguments(|message| message.id.as_str() == "hidden").format_arguments(
        |task, arguments| match task {
            "shop.mail" => Some(format!("<b>to {}</b>", arguments["to"].as_str()?)),
            "shop.fails" => Some(format!("fails with {}", arguments["text"])),
            _ => None,
        },
    );
    let client = celeriac.client();
    failed(&fails::s("no such customer".into()).id("bad").send(client.clone()).await.unwrap()).await;
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    mail::s("anna@example.org".into(), "dear-anna".into()).id("mailed").send(client.clone()).await.unwrap();
    mail::s("secret@example.org".into(), "x".into()).id("hidden").send(client.clone()).await.unwrap();
    import::s("malawi".into()).id("plain").send(client.clone()).await.unwrap();
    let written = "&lt;b&gt;to anna@example.org&lt;/b&gt;";
    for path in ["/tasks", "/queue?name=mail"] {
        let shown = page(&console, path, |body| body.contains(written)).await;
        assert!(!shown.contains("<b>to") && !shown.contains("dear-anna"), "{path}: {shown}");
        assert!(!shown.contains("secret@"), "{path}: what is hidden is not told: {shown}");
    }
    let shown = page(&console, "/tasks", |body| body.contains("plain")).await;
    assert!(shown.contains("<code>&quot;malawi&quot;</code>"), "as it was sent: {shown}");
    let shown = page(&console, "/failed", |body| body.contains("bad")).await;
    assert!(shown.contains("fails with &quot;no such customer&quot;"), "{shown}");
    let shown = page(&console, "/task?id=mailed", |body| body.contains(written)).await;
    assert!(shown.contains("As they were sent") && shown.contains("dear-anna"), "{shown}");
    let shown = page(&console, "/task?id=hidden", |_| true).await;
    assert!(shown.contains("are hidden") && !shown.contains("secret@"), "{shown}");

    let told = data(&console, "/tasks?argument=to%3Danna@example.org", |_| true).await;
    let found = told["tasks"]["tasks"].as_array().unwrap();
    assert_eq!((found.len(), &found[0]["id"]), (1, &json!("mailed")));
    assert_eq!(found[0]["arguments"], json!("\"anna@example.org\",\"dear-anna\""));
    let told = data(&console, "/tasks?argument=%3Cb%3E", |_| true).await;
    assert_eq!(told["tasks"]["tasks"], json!([]), "nobody has sent that");
    let told = data(&console, "/task?id=mailed", |_| true).await;
    let fields: Vec<&String> = told["arguments"].as_object().unwrap().keys().collect();
    assert!(!fields.contains(&&"formatted".to_owned()), "{fields:?}");
    assert_eq!(told["arguments"]["shown"][1]["text"], json!("\"dear-anna\""));
    let exact = get(&console, "/arguments?id=mailed").await.json();
    assert_eq!(exact["args"], json!(["anna@example.org", "dear-anna"]));
    let shown = page(&console, "/task?id=bad", |_| true).await;
    assert!(shown.contains("[&quot;no such customer&quot;]</textarea>"), "the form has them: {shown}");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn event_streams_are_so_many_and_no_more() {
    let celeriac = start().await;
    let console = Console::new(&celeriac)
        .event_streams(2, 3)
        .authorize(|request, _| Some(request.headers().get("X-User")?.to_str().ok()?.to_owned()));
    let events = |user: &'static str| {
        TestRequest::get().uri("/console?events=1").insert_header(("X-User", user)).to_request()
    };
    // Two server threads, one console.
    let first = init_service(App::new().service(console.clone())).await;
    let second = init_service(App::new().service(console.clone())).await;
    let mut streams = Vec::new();
    for service in [&first, &second] {
        let response = service.call(events("amina")).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
        streams.push(Box::pin(response.into_body()));
    }
    for (user, expected) in [("amina", 503), ("bola", 200), ("chipo", 503)] {
        let response = first.call(events(user)).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{user}");
        if expected == 503 {
            assert!(response.headers().contains_key("retry-after"));
        } else {
            streams.push(Box::pin(response.into_body()));
        }
    }
    // The page itself is there all the same.
    let plain = TestRequest::get().uri("/console").insert_header(("X-User", "chipo")).to_request();
    assert_eq!(first.call(plain).await.unwrap().status().as_u16(), 200);
    // A stream says at once how things are, and one that ends makes room for another.
    let mut stream = streams.remove(0);
    let event =
        std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await.expect("an event").expect("bytes");
    let event = String::from_utf8(event.to_vec()).unwrap();
    assert!(event.starts_with("retry: 2000\nevent: part\ndata: \"") && event.ends_with("\"\n\n"), "{event}");
    drop(stream);
    assert_eq!(first.call(events("chipo")).await.unwrap().status().as_u16(), 200);
    // What does not change by itself has no stream, and whoever may not look has none either.
    let search =
        TestRequest::get().uri("/console/failed?events=1").insert_header(("X-User", "amina")).to_request();
    let response = first.call(search).await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/html; charset=utf-8");
    let nobody = TestRequest::get().uri("/console?events=1").to_request();
    assert_eq!(first.call(nobody).await.unwrap().status().as_u16(), 403);
    drop(streams);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn all_who_look_share_one_look() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let at = async || get(&console, "?format=json").await.json()["at"].as_str().unwrap().to_owned();
    // Where this thread gets no time for a second, it is looked anew.
    let mut tries = 0..100;
    loop {
        let begun = std::time::Instant::now();
        let all = [at().await, at().await, at().await];
        if all[0] == all[1] && all[1] == all[2] {
            break;
        }
        let was_slow = begun.elapsed() > Duration::from_millis(500);
        assert!(was_slow || tries.next().is_some(), "each look is one of its own: {all:?}");
    }
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_console_has_the_place_the_name_and_the_colours_that_it_is_given() {
    let celeriac = start().await;
    let theme = Theme::new().colour(Colour::Accent, "#7a1fa2", "#d9a7ec").unwrap();
    let console = open(&celeriac).at("admin/tasks/").title("Shop").environment("production").theme(&theme);
    let app = init_service(App::new().service(console.clone())).await;
    let ask = async |path: &str| {
        let response = app.call(TestRequest::get().uri(path).to_request()).await.unwrap();
        let status = response.status().as_u16();
        let body =
            actix_web::body::to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("broken off"));
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, body) = ask("/admin/tasks").await;
    assert_eq!(status, 200);
    for part in [
        "<title>Queues · Shop</title>",
        "<span class=\"env\">production</span>",
        "href=\"/admin/tasks/failed\"",
        "/admin/tasks/assets/console.css",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let (status, sheet) = ask("/admin/tasks/assets/console.css").await;
    assert!(status == 200 && sheet.contains("--accent: #7a1fa2;") && sheet.contains("--f-calm"), "{sheet}");
    assert_eq!(ask("/admin/tasks/assets/console.js").await.0, 200);
    assert_eq!(ask("/console").await.0, 404);
    celeriac.shutdown().await.unwrap();
}

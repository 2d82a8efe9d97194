//! Attacks on whoever looks at the console, in a real browser: texts that want to be script, pages of other sites, frames. And what
//! a body logs, and what is too large to be a form.

use std::net::TcpListener;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, Route, rt, web};
use celeriac::web::Console;
use serde_json::json;

use super::browsing::blocking;
use super::chromium::Chromium;
use super::kit::{act, data, done, failed, get, keep_log_lines, open, page, start};
use super::tasks::{export, fails, import, logs};

/// What leaves a mark on the page if any of it is more than text.
const EVIL: &str = "<script>window.pwned=1</script>\"'><img src=x onerror=window.pwned=1><a href=javascript:window.pwned=1>x</a>";

/// Serves the console, and beside it a page that has it in a frame, with another frame that shows that frames are shown. Says at
/// which port.
fn serve_with_frames(console: &Console) -> (u16, ServerHandle) {
    let (listener, port) = listen();
    let console = console.clone();
    let app = move || {
        let frames = "<!doctype html><iframe src=/console></iframe><iframe src=/plain></iframe>";
        App::new().service(console.clone()).route("/frames", html(frames)).route("/plain", html("plain"))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(1);
    (port, started(server.listen(listener).unwrap().run()))
}

/// Serves a page of another site, whose form does something in the console. Says at which port.
fn serve_other_site(console: &str) -> (u16, ServerHandle) {
    let (listener, port) = listen();
    let form = format!(
        "<!doctype html><form method=post action='{console}/act'><input name=act value=pause><input name=queue value=mail></form>"
    );
    let server = HttpServer::new(move || App::new().route("/form", html(&form)));
    let server = server.workers(1).disable_signals().shutdown_timeout(1);
    (port, started(server.listen(listener).unwrap().run()))
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn started(server: Server) -> ServerHandle {
    let handle = server.handle();
    rt::spawn(server);
    handle
}

/// A page.
fn html(text: &str) -> Route {
    let text = text.to_owned();
    web::get().to(move || {
        let text = text.clone();
        async move { HttpResponse::Ok().content_type("text/html").body(text) }
    })
}

#[actix_web::test]
async fn no_text_of_a_task_becomes_script_in_a_browser() {
    keep_log_lines();
    let celeriac = start().await;
    let client = celeriac.client();
    failed(&fails::s(EVIL.into()).id(EVIL).tenant(EVIL).send(client.clone()).await.unwrap()).await;
    failed(&logs::s(EVIL.into()).id("logged").send(client.clone()).await.unwrap()).await;
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    export::s(EVIL.into(), 1).id("waits").send(client.clone()).await.unwrap();
    for _ in 0..2 {
        import::s(EVIL.into()).send(client.clone()).await.unwrap();
    }
    let console = Console::new(&celeriac).title(EVIL).environment(EVIL).authorize(|_, _| Some(EVIL));
    let brake =
        [("act", "set_brake"), ("action", "pause"), ("task", EVIL), ("reason", EVIL), ("back", "brakes")];
    done(&console, &brake).await;
    let is_logged = |body: &str| body.contains("class=\"log\"") && body.contains("&lt;script&gt;");
    page(&console, "/task?id=logged", is_logged).await;
    let written: String = EVIL.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (port, server) = serve_with_frames(&console);
    blocking(move || {
        let chromium = Chromium::start(true);
        let url = format!("http://127.0.0.1:{port}/console");
        for path in [
            "".to_owned(),
            "/queue?name=mail".to_owned(),
            "/tasks".to_owned(),
            format!("/tasks?find={written}"),
            format!("/task?id={written}"),
            "/task?id=logged".to_owned(),
            "/task?id=waits".to_owned(),
            "/failed".to_owned(),
            "/lanes".to_owned(),
            "/tenants".to_owned(),
            format!("/tenant?name={written}"),
            "/brakes".to_owned(),
            "/history?by=tenant".to_owned(),
            "/acts".to_owned(),
            format!("/confirm?act=delete_all&error={written}"),
            format!("/task?id=nobody{written}"),
        ] {
            chromium.go(&format!("{url}{path}"));
            chromium.until("document.readyState === 'complete' && document.querySelector('h1')");
            // A page that changes by itself is put together once more, by its script.
            chromium.until("!document.getElementById('main').dataset.events || document.getElementById('age').textContent.startsWith('live')");
            let made = "document.querySelectorAll('#main img, #main script, header img, header script, a[href^=javascript]').length";
            assert_eq!(chromium.eval(made), json!(0), "{path}");
            assert_eq!(chromium.eval("window.pwned === undefined"), json!(true), "{path}");
            assert_eq!(chromium.eval("document.body.innerText.includes('window.pwned=1')"), json!(true), "{path}");
        }
    })
    .await;
    server.stop(false).await;
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn no_page_of_another_site_acts_and_none_has_the_console_in_a_frame() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let (port, server) = serve_with_frames(&console);
    let url = format!("http://127.0.0.1:{port}");
    let (other, other_server) = serve_other_site(&format!("{url}/console"));
    blocking(move || {
        let chromium = Chromium::start(true);
        // Who is logged in has the console's cookie.
        chromium.go(&format!("{url}/console"));
        chromium.until("document.querySelector('tr[data-key=mail] button')");
        // What the browser refuses to show in a frame is a page of nobody's, into which no script may look.
        chromium.go(&format!("{url}/frames"));
        let frame = |nth: u8| format!("document.querySelectorAll('iframe')[{nth}].contentDocument");
        chromium.until(&format!("{}?.body?.textContent.includes('plain')", frame(1)));
        chromium.until(&format!("{} === null", frame(0)));
        // To a browser, another name of this machine is another site.
        chromium.go(&format!("http://localhost:{other}/form"));
        chromium.until("document.forms.length === 1");
        chromium.eval("setTimeout(() => document.forms[0].submit())");
        chromium
            .until(&format!("location.href === '{url}/console/act' && document.readyState === 'complete'"));
        assert!(!chromium.text().contains("nothing more starts"), "{}", chromium.text());
    })
    .await;
    let told = data(&console, "/queue?name=mail", |told| told["queue"]["name"] == json!("mail")).await;
    assert_eq!(told["queue"]["paused"], json!(false));
    assert_eq!(data(&console, "/acts", |_| true).await["acts"], json!([]));
    other_server.stop(false).await;
    server.stop(false).await;
    celeriac.shutdown().await.unwrap();
}

/// All answers say so, also those to people who may not see anything.
#[actix_web::test]
async fn no_answer_may_be_shown_in_a_frame() {
    let celeriac = start().await;
    let (shut, console) = (Console::new(&celeriac), open(&celeriac));
    for path in ["", "/tasks", "/nowhere", "/act", "/arguments?id=nobody", "/assets/console.js", "/confirm"] {
        for console in [&shut, &console] {
            let answer = get(console, path).await;
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            let policy = answer.header("content-security-policy");
            assert!(
                policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
                "{path}: {policy}"
            );
        }
    }
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_form_of_ten_megabytes_is_refused() {
    let celeriac = start().await;
    let console = open(&celeriac);
    let large = json!("x".repeat(10 << 20)).to_string();
    let call = [("act", "enqueue"), ("task", "shop.mail"), ("arg.to", large.as_str()), ("arg.body", "\"b\"")];
    let refused = act(&console, &call).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    assert!(
        refused.body.contains("The form cannot be read") && refused.body.len() < 10_000,
        "{}",
        refused.body
    );
    assert_eq!(data(&console, "/tasks", |_| true).await["tasks"]["tasks"], json!([]));
    celeriac.shutdown().await.unwrap();
}

/// Ids of acts, of brakes and of places in lists that nobody has given out.
#[actix_web::test]
async fn what_is_forged_names_nothing() {
    let celeriac = start().await;
    let console = open(&celeriac);
    for (fields, status) in [
        (&[("act", "undo_bulk"), ("id", "../../etc/passwd"), ("action", "purge")][..], 404),
        (&[("act", "cancel_bulk"), ("id", "\u{0}"), ("action", "move")], 404),
        (&[("act", "release_brake"), ("id", "tenant-0000000000000000")], 404),
        (&[("act", "revoke"), ("id", "m-1' OR '1'='1")], 404),
        (&[("act", "retry"), ("id", "\u{202e}bad")], 404),
        (&[("act", "run_now"), ("entry", "yearly/../yearly")], 404),
        (&[("act", "pause"), ("queue", "mail\r\nX-Evil: 1")], 404),
        (&[("act", "bulk_move"), ("task", "*"), ("to", "celery@%h")], 404),
    ] {
        // Beat answers when it leads.
        let refused = loop {
            let refused = act(&console, fields).await;
            if refused.status != StatusCode::SERVICE_UNAVAILABLE {
                break refused;
            }
        };
        assert_eq!(refused.status.as_u16(), status, "{fields:?}: {}", refused.body);
    }
    // Where an act leads to is a page of the console, whatever its form says.
    for back in ["//evil.example", "https://evil.example/", "\\\\evil.example", "tasks\r\nSet-Cookie: a=b"] {
        let answer = act(&console, &[("act", "resume"), ("queue", "mail"), ("back", back)]).await;
        assert!(answer.header("location").starts_with("/console/acts?done="), "{back}: {answer:?}");
    }
    celeriac.shutdown().await.unwrap();
}

//! The console in a real browser: in light, in dark, on a telephone, by the keyboard alone, and without its script.

use std::net::TcpListener;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, rt};
use celeriac::Celeriac;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::web::Console;
use serde_json::{Value, json};

use super::chromium::Chromium;
use super::kit::{data, failed, open, start};
use super::tasks::{export, fails, import, mail, waits};

/// Serves the console, and says where.
fn serve(console: &Console) -> (String, ServerHandle) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/console", listener.local_addr().unwrap());
    let console = console.clone();
    let server = HttpServer::new(move || App::new().service(console.clone()))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)
        .unwrap()
        .run();
    let handle = server.handle();
    rt::spawn(server);
    (url, handle)
}

/// Does what blocks without holding up the server.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    rt::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// A program with something of everything.
async fn scene(celeriac: &Celeriac) {
    let client = celeriac.client();
    failed(&fails::s("the gateway is down".into()).id("bad").send(client.clone()).await.unwrap()).await;
    waits::s("a long report".into()).id("runs").send(client.clone()).await.unwrap();
    for queue in ["mail", "keyed"] {
        celeriac.pause(queue).await.unwrap();
    }
    for n in 0..3 {
        mail::s(format!("{n}@example.org"), "hello ".repeat(100))
            .id(format!("m-{n}"))
            .send(client.clone())
            .await
            .unwrap();
        import::s("malawi".into()).send(client.clone()).await.unwrap();
        export::s("acme".into(), n).send(client.clone()).await.unwrap();
    }
    let rule = BrakeRule::new().tenant("zoo").task("shop.*");
    let brake = Brake::new(rule, BrakeAction::slow("6/m")).reason("their exports flood us");
    celeriac.as_operator("amina").brakes().set(brake).await.unwrap();
}

/// Loads a page until a piece of script says that it is whole: a queue whose event loop has no time to answer is not on it,
/// and a page without its script stays as it came.
fn go_until(chromium: &Chromium, url: &str, is_whole: &str) {
    for _ in 0..100 {
        chromium.go(url);
        if chromium.eval(is_whole) == Value::Bool(true) {
            return;
        }
    }
    panic!("{url} never came to `{is_whole}`: {}", chromium.text());
}

/// Waits until the page says this.
fn says(chromium: &Chromium, text: &str) {
    chromium.until(&format!("document.body.innerText.includes({})", json!(text)));
}

/// Makes the window so wide, as a telephone has it or as a desk does.
fn width(chromium: &Chromium, width: u32) {
    let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    chromium.command("Emulation.setDeviceMetricsOverride", &metrics);
}

fn press(chromium: &Chromium, key: &str, number: u32, text: Option<&str>) {
    let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": number });
    if let Some(text) = text {
        event["text"] = json!(text);
    }
    chromium.command("Input.dispatchKeyEvent", &event);
    event["type"] = json!("keyUp");
    chromium.command("Input.dispatchKeyEvent", &event);
}

/// Goes from control to control until a piece of script says that it is there.
fn tab_to(chromium: &Chromium, is_there: &str) {
    for _ in 0..300 {
        press(chromium, "Tab", 9, None);
        if chromium.eval(is_there) == Value::Bool(true) {
            return;
        }
    }
    panic!("no number of tabs leads to `{is_there}`: {}", chromium.text());
}

#[actix_web::test]
async fn each_page_fits_and_its_acts_are_reached_by_the_keyboard() {
    let celeriac = start().await;
    scene(&celeriac).await;
    let console = open(&celeriac).title("Shop").environment("production");
    // Beat answers when it leads.
    data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    let (url, server) = serve(&console);
    blocking(move || {
        let chromium = Chromium::start(true);
        for (path, name) in [
            ("", "queues"),
            ("/queue?name=mail", "queue"),
            ("/tasks", "tasks"),
            ("/task?id=bad", "task"),
            ("/task?id=runs", "task-running"),
            ("/failed", "failed"),
            ("/lanes", "lanes"),
            ("/lane?scope=shop.import&key=malawi", "lane"),
            ("/periodic", "periodic"),
            ("/entry?name=yearly", "entry"),
            ("/brakes", "brakes"),
            ("/brakes?try=1&action=pause&tenant=acme&for=1h&reason=a+flood", "brake-tried"),
            ("/tenants", "tenants"),
            ("/tenant?name=acme", "tenant"),
            ("/limits", "limits"),
            ("/history", "history"),
            ("/enqueue?task=shop.mail", "enqueue"),
            ("/processes", "processes"),
            ("/downloads", "downloads"),
            ("/live", "live"),
            ("/acts", "acts"),
            ("/confirm?act=delete_all&error=gateway", "confirm"),
            ("/task?id=nobody", "problem"),
        ] {
            for (size, wide) in [("", 1280), ("-390", 390)] {
                width(&chromium, wide);
                for (mode, dark) in [("light", false), ("dark", true)] {
                    chromium.dark(dark);
                    chromium.go(&format!("{url}{path}"));
                    chromium.until("document.readyState === 'complete' && document.querySelector('h1')");
                    let too_wide =
                        "document.documentElement.scrollWidth > document.documentElement.clientWidth";
                    assert_eq!(chromium.eval(too_wide), false, "{name} is wider than {wide}");
                    chromium.picture(&format!("console-{name}-{mode}{size}"));
                }
            }
        }
        chromium.dark(false);
        width(&chromium, 1280);

        // By the keyboard alone: the link that skips the head, a button of the page, and what came of it.
        chromium.go(&url);
        chromium.until("document.querySelector('tr[data-key=mail] button')");
        tab_to(&chromium, "document.activeElement.className === 'skip'");
        press(&chromium, "Enter", 13, Some("\r"));
        chromium.until("location.hash === '#main'");
        tab_to(&chromium, "document.activeElement.closest('tr[data-key=mail] form') !== null");
        press(&chromium, "Enter", 13, Some("\r"));
        says(&chromium, "resume the queue mail: it goes on");
        // Each control of a page has a name.
        for path in [
            "/queue?name=mail",
            "/failed",
            "/task?id=bad",
            "/tasks",
            "/lanes",
            "/brakes",
            "/tenants",
            "/tenant?name=acme",
            "/history",
            "/enqueue?task=shop.mail",
        ] {
            chromium.go(&format!("{url}{path}"));
            chromium.until("document.readyState === 'complete'");
            let nameless = "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]\
                            .filter((field) => !field.labels.length).length";
            assert_eq!(chromium.eval(nameless), json!(0), "{path}");
        }
    })
    .await;
    server.stop(false).await;
    celeriac.client().revoke(&"runs".into(), true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_page_follows_what_happens_and_rests_while_nobody_sees_it() {
    let celeriac = start().await;
    scene(&celeriac).await;
    let (url, server) = serve(&open(&celeriac));
    let ready = "document.querySelector('tr[data-key=mail] td[data-l=ready]').textContent";
    let chromium = blocking({
        let url = url.clone();
        move || {
            let chromium = Chromium::start(true);
            chromium.go(&url);
            chromium.until(&format!("{ready} === '6'"));
            chromium.until("document.getElementById('age').textContent.startsWith('live')");
            // Times are those of the reader, and the page says whose.
            chromium.until("document.getElementById('zone').textContent.length > 0");
            chromium.eval("window.witness = true");
            chromium
        }
    })
    .await;
    mail::s("late@example.org".into(), "hello".into()).send(celeriac.client()).await.unwrap();
    let chromium = blocking(move || {
        chromium.until(&format!("{ready} === '7'"));
        assert_eq!(chromium.eval("window.witness"), true, "the page was not loaded again");
        // The keys: held numbers say so, and the letters lead to other pages.
        press(&chromium, ".", 190, Some("."));
        chromium.until("document.getElementById('age').textContent.startsWith('held')");
        press(&chromium, "g", 71, Some("g"));
        press(&chromium, "f", 70, Some("f"));
        chromium.until("location.pathname.endsWith('/failed')");
        // What was found stays as it was found.
        chromium.until("document.querySelector('tr[data-key=bad]')");
        chromium
    })
    .await;
    server.stop(false).await;
    blocking(move || drop(chromium)).await;
    celeriac.client().revoke(&"runs".into(), true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn it_works_without_its_script() {
    let celeriac = start().await;
    scene(&celeriac).await;
    let (url, server) = serve(&open(&celeriac));
    blocking(move || {
        let chromium = Chromium::start(false);
        go_until(
            &chromium,
            &format!("{url}/queue?name=mail"),
            "document.querySelector('.head form button') !== null",
        );
        assert!(chromium.text().contains("mail is paused"), "{}", chromium.text());
        chromium.click(".head form button");
        says(&chromium, "resume the queue mail: it goes on");
        chromium.go(&format!("{url}/failed"));
        chromium.click("tr[data-key=bad] .row-acts a");
        says(&chromium, "This cannot be undone");
        chromium.click("button.danger");
        says(&chromium, "delete the failed task bad: 1 task is deleted");
        assert!(chromium.url().contains("/failed?done="), "{}", chromium.url());
    })
    .await;
    server.stop(false).await;
    celeriac.client().revoke(&"runs".into(), true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

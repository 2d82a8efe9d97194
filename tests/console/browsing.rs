//! Ways to use the console in a real browser: with the keys of a keyboard, in any light, on any screen.

use std::net::TcpListener;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, rt};
use celeriac::Celeriac;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::web::Console;
use serde_json::{Value, json};

use super::chromium::Chromium;
use super::kit::failed;
use super::tasks::{export, fails, import, mail, waits};

/// All pages of a console with the [`scene`], and what they are called.
const PAGES: [(&str, &str); 25] = [
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
    ("/bulk", "bulk"),
    ("/enqueue?task=shop.mail", "enqueue"),
    ("/processes", "processes"),
    ("/downloads", "downloads"),
    ("/live", "live"),
    ("/acts", "acts"),
    ("/confirm?act=delete_all&error=gateway", "confirm"),
    ("/confirm?act=bulk_purge&queue=mail", "confirm-bulk"),
    ("/task?id=nobody", "problem"),
];

/// Serves the console, and says where.
pub fn serve(console: &Console) -> (String, ServerHandle) {
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
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    rt::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// A program with something of everything.
pub async fn scene(celeriac: &Celeriac) {
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
pub fn go_until(chromium: &Chromium, url: &str, is_whole: &str) {
    for _ in 0..100 {
        chromium.go(url);
        if chromium.eval(is_whole) == Value::Bool(true) {
            return;
        }
    }
    panic!("{url} never came to `{is_whole}`: {}", chromium.text());
}

/// Waits until the page says this.
pub fn says(chromium: &Chromium, text: &str) {
    chromium.until(&format!("document.body.innerText.includes({})", json!(text)));
}

/// Does something on each page with the [`scene`], in light and in dark, as wide as a desk has it and as a telephone does. The
/// text that it is called with names the page and the rest. In the end the window is light and wide.
pub fn on_each_page(chromium: &Chromium, url: &str, mut check: impl FnMut(&str)) {
    for (path, name) in PAGES {
        for (size, wide) in [("", 1280), ("-390", 390)] {
            width(chromium, wide);
            for (mode, dark) in [("light", false), ("dark", true)] {
                chromium.dark(dark);
                chromium.go(&format!("{url}{path}"));
                chromium.until("document.readyState === 'complete' && document.querySelector('h1')");
                check(&format!("{name}-{mode}{size}"));
            }
        }
    }
    chromium.dark(false);
    width(chromium, 1280);
}

/// Makes the window so wide, as a telephone has it or as a desk does.
fn width(chromium: &Chromium, width: u32) {
    let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    chromium.command("Emulation.setDeviceMetricsOverride", &metrics);
}

/// Presses a key and lets it go. `text`: what it writes.
pub fn press(chromium: &Chromium, key: &str, number: u32, text: Option<&str>) {
    let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": number });
    if let Some(text) = text {
        event["text"] = json!(text);
    }
    chromium.command("Input.dispatchKeyEvent", &event);
    event["type"] = json!("keyUp");
    chromium.command("Input.dispatchKeyEvent", &event);
}

/// Presses Enter, for a button, a link or a form.
pub fn enter(chromium: &Chromium) {
    press(chromium, "Enter", 13, Some("\r"));
}

/// Writes a text in the place of what a field has.
pub fn write(chromium: &Chromium, text: &str) {
    let all = json!({ "type": "keyDown", "key": "a", "code": "KeyA", "windowsVirtualKeyCode": 65, "modifiers": 2, "commands": ["selectAll"] });
    chromium.command("Input.dispatchKeyEvent", &all);
    chromium.command(
        "Input.dispatchKeyEvent",
        &json!({ "type": "keyUp", "key": "a", "code": "KeyA", "windowsVirtualKeyCode": 65, "modifiers": 2 }),
    );
    for letter in text.chars().map(String::from) {
        press(chromium, &letter, 0, Some(&letter));
    }
}

/// Goes from control to control until a piece of script says that it is there.
pub fn tab_to(chromium: &Chromium, is_there: &str) {
    for _ in 0..300 {
        press(chromium, "Tab", 9, None);
        if chromium.eval(is_there) == Value::Bool(true) {
            return;
        }
    }
    panic!("no number of tabs leads to `{is_there}`: {}", chromium.text());
}

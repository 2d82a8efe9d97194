//! The console in a real browser: in light, in dark, on a telephone, by the keyboard alone, and without its script.

use serde_json::json;

use super::browsing::{blocking, go_until, on_each_page, press, says, scene, serve, tab_to};
use super::chromium::Chromium;
use super::kit::{data, open, start};
use super::tasks::mail;

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
        on_each_page(&chromium, &url, |name| {
            let too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(chromium.eval(too_wide), false, "{name} is wider than the window");
            chromium.picture(&format!("console-{name}"));
        });

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

/// The slider by the keyboard: with the script the page stays and the address follows, without it the button shows the range.
#[actix_web::test]
async fn the_range_of_the_history_is_moved_by_a_slider() {
    let celeriac = start().await;
    let (url, server) = serve(&open(&celeriac));
    blocking(move || {
        let is_slider = "document.activeElement.id === 'slider'";
        for with_script in [true, false] {
            let chromium = Chromium::start(with_script);
            // A step of this range is half a day.
            chromium.go(&format!("{url}/history?by=task&hours=100"));
            chromium.until("document.getElementById('slider') !== null");
            assert!(chromium.text().contains("In the last 100 h"), "{}", chromium.text());
            chromium.eval("window.witness = true");
            tab_to(&chromium, is_slider);
            press(&chromium, "ArrowLeft", 37, None);
            if with_script {
                says(&chromium, "In this range");
                chromium.until("document.querySelector('#slider').getAttribute('aria-valuetext') !== 'now'");
                assert_eq!(chromium.eval(is_slider), true, "who moves it stays there");
                assert_eq!(chromium.eval("window.witness"), true, "the page was not loaded again");
            } else {
                tab_to(&chromium, "document.activeElement.textContent === 'Go there'");
                press(&chromium, "Enter", 13, Some("\r"));
                says(&chromium, "In this range");
            }
            // The address has the whole state, so whoever gets it sees the same.
            let address = chromium.url();
            for field in ["by=task", "hours=100", "until="] {
                assert!(address.contains(field), "{field}: {address}");
            }
            let at = chromium.eval("document.querySelector('#slider').value");
            chromium.go(&address);
            says(&chromium, "In this range");
            assert_eq!(chromium.eval("document.querySelector('#slider').value"), at, "{address}");
            tab_to(&chromium, is_slider);
            press(&chromium, "ArrowRight", 39, None);
            if with_script {
                says(&chromium, "In the last 100 h");
                chromium.until("document.querySelector('#slider').getAttribute('aria-valuetext') === 'now'");
            }
        }
    })
    .await;
    server.stop(false).await;
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

//! What somebody finds out and does who has never seen the console, in a browser, by what stands on its pages: which queue will
//! miss its promise and why, what tenant does it, how that one is held back and let go on, and which form has failed.

use std::time::Duration;

use celeriac::catalogue::{Pool, QueueRow};
use serde_json::{Value, json};

use super::browsing::{blocking, enter, go_until, says, serve, write};
use super::chromium::Chromium;
use super::kit::{LONG, builder, data, open};
use super::tasks::{export, form, waits};

#[actix_web::test]
async fn a_stranger_finds_what_is_wrong_and_puts_it_right() {
    let row =
        QueueRow::new("reports").with_pool(Pool::Io).with_workers(1).with_target(Duration::from_secs(2));
    let celeriac = builder().queue(row).in_memory().start().await.unwrap();
    let client = celeriac.client();
    for (number, title) in [(16, "bad"), (17, "bad"), (18, "good")] {
        let call = form::s(number, title.into()).id(format!("form-{number}"));
        let sent = call.send(client.clone()).await.unwrap();
        assert_eq!(sent.get(LONG).await.is_err(), title == "bad", "{number}");
    }
    let runs = waits::s("the year".into()).queue("reports").send(client.clone()).await.unwrap();
    for (tenant, count) in [("zoo", 400), ("acme", 3)] {
        for n in 0..count {
            export::s(tenant.into(), n).queue("reports").send(client.clone()).await.unwrap();
        }
    }
    let console = open(&celeriac);
    let (url, server) = serve(&console);
    blocking(move || {
        let chromium = Chromium::start(true);
        // Which queue misses its promise, or will? The first page begins with it.
        chromium.go(&url);
        let first = "document.querySelector('[aria-labelledby=needs] li p')";
        chromium.until(&format!("{first}?.textContent.startsWith('reports ')"));
        let said = chromium.eval(&format!("{first}.textContent"));
        let said = said.as_str().expect("a sentence");
        assert!(said.contains("is late") || said.contains("will be late soon"), "{said}");
        // Why, and what tenant does it? The page of the queue says both, and leads on.
        chromium.click("[aria-labelledby=needs] li[data-key=reports] a");
        let why = "document.querySelector('[aria-labelledby=why]')?.textContent";
        chromium.until(&format!("{why}?.includes('Tenant `zoo` has ')"));
        chromium.until(&format!("{why}?.includes('The one worker of queue `reports` has a task.')"));
        chromium.click("[aria-labelledby=why] a");
        chromium.until("document.querySelector('tbody tr')?.dataset.key === 'zoo'");
        // That tenant waits for an hour, and goes on after all.
        chromium.click("tr[data-key=zoo] .row-acts button");
        says(&chromium, "pause the tenant zoo for 1 h");
        let is_paused =
            "document.querySelector('tr[data-key=zoo]')?.textContent.includes('paused until') === true";
        go_until(&chromium, &format!("{url}/tenants"), is_paused);
        chromium.click("tr[data-key=zoo] .row-acts button");
        says(&chromium, "let the tenant zoo go on");
        // The form that has failed is found by its number, with the time at which it failed, and runs with other arguments.
        chromium.click(".nav a[href$='/failed']");
        chromium.until("document.getElementById('argument')");
        chromium.click("#argument");
        write(&chromium, "form_id=17");
        enter(&chromium);
        let rows = "[...document.querySelectorAll('tr[data-key]')].map((row) => row.dataset.key).join()";
        chromium.until(&format!("{rows} === 'form-17'"));
        let when = chromium.eval("document.querySelector('td[data-l=failed]').textContent");
        assert!(when.as_str().is_some_and(|when| !when.is_empty()), "{when}");
        chromium.click("tr[data-key=form-17] th a");
        chromium.until("document.querySelector('[aria-labelledby=acts] summary')");
        chromium.click("[aria-labelledby=acts] summary");
        chromium.click("#args");
        write(&chromium, "[17, \"good\"]");
        chromium.click("[aria-labelledby=acts] button.main");
        says(&chromium, "run the failed task form-17 again with other arguments");
    })
    .await;
    server.stop(false).await;
    let again = celeriac.async_result("form-17");
    assert_eq!(again.get::<Value>(LONG).await.unwrap(), json!(17));
    let told = data(&console, "/acts", |_| true).await;
    let acts = told["acts"].as_array().unwrap().iter();
    let whats: Vec<&str> = acts.map(|act| act["what"].as_str().unwrap()).collect();
    assert_eq!(
        whats,
        [
            "run the failed task form-17 again with other arguments",
            "let the tenant zoo go on",
            "pause the tenant zoo for 1 h"
        ]
    );
    assert!(celeriac.brakes().list().await.unwrap().is_empty());
    runs.revoke(true).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

//! Every act of the console by a keyboard alone, in a browser with its script and in one without.

use celeriac::Celeriac;
use serde_json::json;

use super::browsing::{blocking, enter, go_until, says, serve, tab_to, write};
use super::chromium::Chromium;
use super::kit::{LONG, data, failed, open, start};
use super::tasks::{books, export, fails, import, mail};

/// A program with something for every act.
async fn something_for_every_act(celeriac: &Celeriac) {
    let client = celeriac.client();
    for (id, error) in [
        ("again", "no such customer"),
        ("right", "no such customer"),
        ("gone", "no such customer"),
        ("down-1", "the gateway is down"),
        ("down-2", "the gateway is down"),
        ("old-1", "no such year"),
        ("old-2", "no such year"),
    ] {
        failed(&fails::s(error.into()).id(id).send(client.clone()).await.unwrap()).await;
    }
    failed(&books::s("acme".into()).send(client.clone()).await.unwrap()).await;
    let later = mail::s("a@example.org".into(), "hello".into()).id("later").countdown(LONG * 100);
    later.send(client.clone()).await.unwrap();
    celeriac.pause("keyed").await.unwrap();
    for _ in 0..2 {
        import::s("malawi".into()).send(client.clone()).await.unwrap();
    }
    export::s("acme".into(), 1).queue("keyed").send(client.clone()).await.unwrap();
}

/// A page of the console, and who goes over it with the keys.
struct Keys<'a> {
    chromium: &'a Chromium,
    url: &'a str,
}

impl Keys<'_> {
    /// Goes to a page that has something of this selector which begins with this text. What was just done shows after a moment.
    fn page(&self, path: &str, has: &str, text: &str) {
        let (has, text) = (json!(has), json!(text));
        let is_whole = format!(
            "[...document.querySelectorAll({has})].some((node) => node.textContent.trim().startsWith({text}))"
        );
        go_until(self.chromium, &format!("{}{path}", self.url), &is_whole);
    }

    /// Goes to the control that begins with this text, in what the selector names, and presses Enter.
    fn enter(&self, within: &str, text: &str) {
        let (within, text) = (json!(within), json!(text));
        let is_there = format!(
            "document.activeElement.closest({within}) !== null && document.activeElement.textContent.trim().startsWith({text})"
        );
        tab_to(self.chromium, &is_there);
        enter(self.chromium);
    }

    /// The same for what is asked first: the page of the question has a button of this class, which does it.
    fn confirm(&self, within: &str, text: &str, class: &str) {
        self.enter(within, text);
        says(self.chromium, "What it will do");
        self.enter(&format!("#page button.{class}"), "");
    }

    /// Writes into the field of this id.
    fn write(&self, id: &str, text: &str) {
        tab_to(self.chromium, &format!("document.activeElement.id === {}", json!(id)));
        write(self.chromium, text);
    }

    fn says(&self, text: &str) {
        says(self.chromium, text);
    }

    fn every_act(&self) {
        // Queues.
        self.page("", "tr[data-key=mail] button", "Pause");
        self.enter("tr[data-key=mail]", "Pause");
        self.says("pause the queue mail: nothing more starts");
        self.page("/queue?name=mail", "#workers", "");
        self.write("workers", "7");
        enter(self.chromium);
        self.says("give the queue mail 7 workers");
        // Failed tasks: one, one with other arguments, and all that match.
        self.page("/failed", "tr[data-key=again]", "");
        self.enter("tr[data-key=again]", "Run again");
        self.says("run the failed task again again: ");
        self.page("/failed", "tr[data-key=gone]", "");
        self.confirm("tr[data-key=gone]", "Delete", "danger");
        self.says("delete the failed task gone: 1 task is deleted");
        self.page("/task?id=right", "#args", "");
        self.enter("summary", "Edit and run again");
        self.write("args", "[\"good\"]");
        self.enter("#page button.main", "Run with these arguments");
        self.says("run the failed task right again with other arguments: ");
        self.page("/failed?error=gateway", "tr[data-key=down-1]", "");
        self.confirm("#page", "Run all of them again", "main");
        self.says("2 tasks wait in the queue again");
        self.page("/failed?error=year", "tr[data-key=old-1]", "");
        self.confirm("#page", "Delete all of them", "danger");
        self.says("2 tasks are deleted");
        // A task that waits.
        self.page("/task?id=later", "#page a.button", "Revoke");
        self.confirm("#page", "Revoke", "danger");
        self.says("revoke the task later: ");
        // Lanes.
        self.page("/lane?scope=shop.import&key=malawi", "#page a.button", "Stop it");
        self.confirm("#page", "Stop it", "main");
        self.says("let at most 0 runs of the lane shop.import/malawi go on at a time: ");
        self.page("/lane?scope=shop.import&key=malawi", "#page a.button", "As its tasks state");
        self.confirm("#page", "As its tasks state", "main");
        self.says("let the lane shop.import/malawi run as its tasks state: ");
        self.page("/lane?scope=shop.books&key=acme", "#page a.button", "Let it go on");
        self.confirm("#page", "Let it go on", "main");
        self.says("let the lane shop.books/acme go on: ");
        // Periodic entries.
        self.page("/periodic", "tr[data-key=yearly] a", "Run now");
        self.confirm("tr[data-key=yearly]", "Run now", "main");
        self.says("run the periodic entry yearly now: ");
        self.page("/periodic", "tr[data-key=yearly] button", "Pause");
        self.enter("tr[data-key=yearly]", "Pause");
        self.says("pause the periodic entry yearly: ");
        self.page("/periodic", "tr[data-key=yearly] button", "Resume");
        self.enter("tr[data-key=yearly]", "Resume");
        self.says("resume the periodic entry yearly: ");
        // Brakes.
        self.page("/brakes", "#b-task", "");
        self.write("b-task", "shop.nothing");
        enter(self.chromium);
        self.says("What it would do");
        self.enter("#page button.main", "Set this brake");
        self.says("set a brake: pause for task shop.nothing, for 1 h");
        self.page("/brakes", "tr .row-acts button", "Release");
        self.enter("tr .row-acts", "Release");
        self.says("take the brake ");
        // Tenants.
        self.page("/tenants", "tr[data-key=acme] button", "Pause for 1 h");
        self.enter("tr[data-key=acme]", "Pause for 1 h");
        self.says("pause the tenant acme for 1 h");
        self.page("/tenants", "tr[data-key=acme] button", "Undo");
        self.enter("tr[data-key=acme]", "Undo");
        self.says("let the tenant acme go on");
        self.page("/tenant?name=acme", "#new-weight", "");
        self.write("new-weight", "2");
        enter(self.chromium);
        self.says("give the tenant acme the weight 2");
        // A call.
        self.page("/enqueue?task=shop.export", "#argument-1", "");
        self.write("argument-0", "\"acme\"");
        self.write("argument-1", "7");
        self.enter("#page button.main", "Enqueue");
        self.says("call the task shop.export");
        // Bulk acts: the call, and the task that waits in another queue.
        self.page("/bulk?act=bulk_purge", "#page button.main", "Count them");
        self.write("task", "shop.export");
        enter(self.chromium);
        self.says("What it will do");
        self.says("2 tasks: purge all tasks that wait and match task shop.export?");
        self.enter("#page button.danger", "Purge them");
        self.says("purge all tasks that wait and match task shop.export");
        self.page("/bulk", "tr button", "Undo");
        self.enter("tr", "Undo");
        self.says("undo the bulk purge ");
        // And what waits starts.
        self.page("", "tr[data-key=mail] button", "Resume");
        self.enter("tr[data-key=mail]", "Resume");
        self.says("resume the queue mail: it goes on");
    }
}

async fn by_keys(with_scripts: bool) {
    let celeriac = start().await;
    something_for_every_act(&celeriac).await;
    let console = open(&celeriac);
    // Beat answers when it leads.
    data(&console, "/periodic", |told| told["count"] == json!(1)).await;
    let (url, server) = serve(&console);
    blocking(move || {
        let chromium = Chromium::start(with_scripts);
        Keys { chromium: &chromium, url: &url }.every_act();
    })
    .await;
    server.stop(false).await;
    let told = data(&console, "/acts", |_| true).await;
    let acts = told["acts"].as_array().unwrap();
    assert!(acts.iter().all(|act| act["is_done"] == json!(true)), "{acts:?}");
    assert_eq!(acts.len(), 23, "{acts:?}");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn every_act_is_done_by_the_keyboard_alone() {
    by_keys(true).await;
}

#[actix_web::test]
async fn every_act_is_done_without_the_script() {
    by_keys(false).await;
}

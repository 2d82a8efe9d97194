//! Tasks that are found by an argument that they declare, at once, and by others, by a look through all tasks.

use celeriac::Celeriac;
use celeriac::web::Console;
use serde_json::{Value, json};

use super::kit::{data, embedded, failed, get, on_both, open, page};
use super::tasks::{form, mail};
use super::tenants::of_acme;

/// The ids of a list, sorted, and the argument by whose index it was found.
async fn found(console: &Console, path: &str) -> (Vec<String>, Value) {
    let told = data(console, path, |_| true).await;
    let list = if told["tasks"].is_array() { &told } else { &told["tasks"] };
    let mut ids: Vec<String> =
        list["tasks"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    (ids, list["by_index"].clone())
}

fn ids<const N: usize>(ids: [&str; N]) -> Vec<String> {
    ids.map(str::to_owned).into()
}

/// Forms that wait, two of one number and one of another; one more is hidden.
async fn forms_wait(celeriac: &Celeriac) {
    celeriac.pause("mail").await.unwrap();
    for (id, number) in [("a", 17), ("b", 18), ("c", 17)] {
        form::s(number, "good".into()).id(id).send(celeriac.client()).await.unwrap();
    }
    let hidden = form::s(17, "good".into()).id("hidden").argsrepr("***");
    hidden.send(celeriac.client()).await.unwrap();
    mail::s("17".into(), "hello".into()).id("mail").send(celeriac.client()).await.unwrap();
}

#[actix_web::test]
async fn tasks_are_found_by_the_index_of_an_argument_and_the_page_says_so() {
    on_both(|celeriac| async move {
        let console = open(&celeriac);
        forms_wait(&celeriac).await;
        let by_form = "/tasks?argument=form_id%3D17";
        assert_eq!(found(&console, by_form).await, (ids(["a", "c"]), json!("form_id")));
        assert_eq!(found(&console, &format!("{by_form}&task=shop.*")).await.1, json!("form_id"));
        assert_eq!(found(&console, &format!("{by_form}&task=shop.mail")).await, (ids([]), Value::Null));
        assert_eq!(found(&console, "/tasks?argument=form_id%3D19").await, (ids([]), json!("form_id")));
        let shown = page(&console, by_form, |body| body.contains("found by the index of form_id")).await;
        assert!(shown.contains("Found by the index of <code>form_id</code>"), "{shown}");
        let scanning = "/tasks?argument=form_id%3D17&amp;way=scan\">Look through all tasks</a>";
        assert!(shown.contains(scanning), "{shown}");
        // The others are found as ever, and a page says how far it has looked.
        assert_eq!(found(&console, &format!("{by_form}&way=scan")).await, (ids(["a", "c"]), Value::Null));
        assert_eq!(found(&console, "/tasks?argument=to%3D17").await, (ids(["mail"]), Value::Null));
        assert_eq!(found(&console, "/queue?name=mail&argument=form_id%3D18").await.0, ids(["b"]));
        let shown = page(&console, &format!("{by_form}&way=scan"), |body| body.contains("2 tasks")).await;
        assert!(!shown.contains("the index of"), "{shown}");
    })
    .await;
}

#[actix_web::test]
async fn failed_tasks_are_found_by_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let console = open(&celeriac);
    for (id, number) in [("a", 17), ("b", 18), ("c", 17)] {
        let sent = form::s(number, "bad".into()).id(id).send(celeriac.client()).await.unwrap();
        failed(&sent).await;
    }
    let by_form = "/failed?argument=form_id%3D17";
    assert_eq!(found(&console, by_form).await, (ids(["a", "c"]), json!("form_id")));
    assert_eq!(found(&console, &format!("{by_form}&way=scan")).await, (ids(["a", "c"]), Value::Null));
    let shown = page(&console, by_form, |body| body.contains("found by the index of form_id")).await;
    assert!(shown.contains("/failed?argument=form_id%3D17&amp;way=scan\""), "{shown}");
    // What an act on all of them is about is counted by a look through all, and shows some of them.
    let path = "/confirm?act=delete_all&argument=form_id%3D17";
    let told = data(&console, path, |told| told["count"].is_u64()).await;
    assert_eq!(told["count"], json!(2), "{told}");
    celeriac.shutdown().await.unwrap();
}

/// A page of an index ends at a task of whoever, whose id is nobody's business who may not see it.
#[actix_web::test]
async fn the_next_page_of_a_tenants_list_tells_nothing_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    celeriac.pause("mail").await.unwrap();
    let send = async |id: String, tenant: &str| {
        form::s(17, "good".into()).id(id).tenant(tenant).send(celeriac.client()).await.unwrap();
    };
    send("acme-1".to_owned(), "acme").await;
    for n in 0..60 {
        send(format!("zoo-{n}"), "zoo").await;
    }
    let (everybody, acme) = (open(&celeriac), of_acme(&celeriac));
    let path = "/tasks?argument=form_id%3D17";
    let told = data(&everybody, path, |_| true).await;
    let plain = told["tasks"]["next"].as_str().expect("more follow").to_owned();
    let told = data(&acme, path, |_| true).await;
    assert_eq!(told["tasks"]["tasks"].as_array().unwrap().len(), 1, "{told}");
    let word = told["tasks"]["next"].as_str().expect("more follow").to_owned();
    assert!(word != plain && word.starts_with('s') && word.len() == 33, "{word}");
    assert_eq!(get(&acme, &format!("{path}&after={plain}")).await.status, 400);
    let told = data(&acme, &format!("{path}&after={word}"), |_| true).await;
    assert_eq!((&told["tasks"]["tasks"], &told["tasks"]["next"]), (&json!([]), &Value::Null));
    let told = data(&everybody, &format!("{path}&after={plain}"), |_| true).await;
    assert_eq!(told["tasks"]["tasks"].as_array().unwrap().len(), 21, "the place is the same");
    celeriac.shutdown().await.unwrap();
}

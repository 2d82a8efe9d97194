//! The console of a program whose broker others share: what runs in them, as they say by remote control.

use std::time::Duration;

use actix_web::App;
use actix_web::test::{TestRequest, call_and_read_body, init_service};
use celeriac::Celeriac;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::QueueRow;
use celeriac::web::Console;
use serde_json::{Value, json};

use crate::kit::{Gate, hold, hold_cpu, io_queue, until, until_status};
use crate::rabbit::{builder, steady, vhost};

async fn page(console: &Console, path: &str) -> String {
    let app = init_service(App::new().service(console.clone())).await;
    let request = TestRequest::get().uri(&format!("/console/{path}")).to_request();
    String::from_utf8(call_and_read_body(&app, request).await.to_vec()).unwrap()
}

async fn told(console: &Console, path: &str) -> Value {
    let body = page(console, path).await;
    serde_json::from_str::<Value>(&body).unwrap()["data"].take()
}

/// A console of its own each time, because one shares what it has seen for a while.
fn open(celeriac: &Celeriac) -> Console {
    Console::new(celeriac).authorize(|_, _| Some("amina"))
}

#[actix_web::test]
async fn the_processes_are_told_with_what_runs_in_all_of_them() {
    let url = vhost().await;
    let named = |name: &str| AmqpOptions::default().with_node(name);
    let not_served = |name: &str| QueueRow::new(name).with_served(false);
    let here = Celeriac::builder()
        .queue(io_queue("one", 1))
        .queue(not_served("io"))
        .queue(not_served("cpu"))
        .amqp(steady(&url))
        .amqp_options(named("here@h"));
    let here = here.start().await.unwrap();
    let there = builder(&url).amqp_options(named("there@h")).start().await.unwrap();
    let (deaf, slow) = (Gate::new(), Gate::new());
    let call = hold_cpu::s(deaf.name.clone()).time_limit(Duration::from_secs(2)).id("deaf");
    call.send(there.client()).await.unwrap();
    hold::s(slow.name.clone()).id("slow").send(there.client()).await.unwrap();
    slow.entered(1).await;
    until_status(&there, "cpu", |status| status.stuck == 1).await;

    // Whoever has no time to answer within the second is there at the next look.
    until("it is told what runs in the other one", async || {
        let told = told(&open(&here), "processes?format=json").await;
        let runs = told["fleet_running"].as_array().unwrap().iter();
        let runs: Vec<_> =
            runs.map(|run| (&run["node"], &run["id"], &run["queue"], &run["is_stuck"])).collect();
        let (node, deaf) = (json!("there@h"), (json!("deaf"), json!("cpu"), json!(true)));
        let slow = (json!("slow"), json!("io"), json!(false));
        let expected = [(&node, &deaf.0, &deaf.1, &deaf.2), (&node, &slow.0, &slow.1, &slow.2)];
        let other = told["fleet"].as_array().unwrap().iter().find(|other| other["name"] == node);
        runs == expected && other.is_some_and(|other| other["running"] == 1 && other["stuck"] == 1)
    })
    .await;
    until("people see it, too", async || {
        let shown = page(&open(&here), "processes").await;
        let says = ["Runs in the other programs", "has stuck bodies", "aria-label=\"stuck\"", ">there@h<"];
        assert!(!shown.contains(&slow.name), "arguments are not told here: {shown}");
        says.iter().all(|text| shown.contains(text))
    })
    .await;
    // Whoever sees one queue is told of that one.
    until("of others nothing is told", async || {
        let clerk = Console::new(&here)
            .authorize(|_, check| check.queue.as_deref().is_none_or(|queue| queue == "io"));
        let told = told(&clerk, "processes?format=json").await;
        let runs = told["fleet_running"].as_array().unwrap();
        assert!(runs.iter().all(|run| run["id"] == "slow"), "{told}");
        let other = told["fleet"].as_array().unwrap().iter().find(|other| other["name"] == "there@h");
        runs.len() == 1 && other.is_some_and(|other| other["running"] == 1 && other["stuck"] == 0)
    })
    .await;
    deaf.open();
    slow.open();
    for celeriac in [here, there] {
        celeriac.shutdown().await.unwrap();
    }
}

//! Serial tasks: a Python client sends them by name, as any other task, among those that Rust sends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use celeriac::task::UntypedResult;
use celeriac::{Context, TaskError, TaskId, serial_task};
use serde_json::{Value, json};

use crate::fleet::{Mixed, mixed};
use crate::gates;
use crate::to_python::{PATIENCE, on_rust};

/// What a lane has seen.
#[derive(Clone, Default)]
struct Seen {
    order: Vec<u64>,
    inside: usize,
    most: usize,
    token: u64,
}

static SEEN: Mutex<Option<HashMap<String, Seen>>> = Mutex::new(None);

fn seen<T>(lane: &str, look: impl FnOnce(&mut Seen) -> T) -> T {
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    look(seen.get_or_insert_default().entry(lane.to_owned()).or_default())
}

#[serial_task(name = "rust.in_turn", key = "{lane}", queue = "rust")]
async fn in_turn(ctx: Context, lane: String, n: u64, gate: Option<String>) -> Result<u64, TaskError> {
    let token = ctx.fencing_token().expect("a serial run has one");
    seen(&lane, |seen| {
        assert!(token > seen.token, "{token} after {}", seen.token);
        seen.token = token;
        seen.order.push(n);
        seen.inside += 1;
        seen.most = seen.most.max(seen.inside);
    });
    if let Some(gate) = gate {
        gates::hold(&gate).await?;
    }
    tokio::task::yield_now().await; // another one would have the chance
    seen(&lane, |seen| seen.inside -= 1);
    Ok(n * 10)
}

async fn from_rust(fleet: &Mixed, lane: &str, n: u64, gate: Option<&str>) -> TaskId {
    let call = in_turn::s(lane.to_owned(), n, gate.map(str::to_owned));
    call.send(fleet.celeriac.client()).await.unwrap().id().clone()
}

/// Calls the Python client; it answers with ids, or values.
async fn python<T: serde::de::DeserializeOwned>(case: &'static str, arguments: Value) -> T {
    let asked = tokio::task::spawn_blocking(move || mixed().case(case, arguments));
    serde_json::from_value(asked.await.unwrap()).unwrap()
}

async fn from_python(lane: &str, numbers: &[u64]) -> Vec<String> {
    python("serial.send", json!({ "lane": lane, "numbers": numbers })).await
}

async fn until_waiting(fleet: &Mixed, lane: &str, count: u64) {
    gates::until("they have come to their lane", async || {
        let facts = fleet.celeriac.lane("rust.in_turn", lane).await.unwrap();
        facts.is_some_and(|facts| facts.waiting == count)
    })
    .await;
}

/// Both sides read all of them.
async fn all_are_read(fleet: &Mixed, ids: &[String], values: &[u64]) {
    let read: Vec<u64> = python("serial.read", json!({ "ids": ids })).await;
    assert_eq!(read, values);
    for (id, value) in ids.iter().zip(values) {
        let result = UntypedResult::new(TaskId::from(id.as_str()), fleet.celeriac.client());
        assert_eq!(result.get::<u64>(PATIENCE).await.unwrap(), *value);
    }
}

/// A message without a place in a line gets one when it is fetched; a Rust call has it when it returns.
#[test]
fn in_the_order_in_which_they_came() {
    on_rust(async |fleet| {
        let (lane, gate) = ("in order", "serial-in-order");
        let mut ids = vec![from_rust(fleet, lane, 0, Some(gate)).await.to_string()];
        gates::await_held(gate).await;
        ids.extend(from_python(lane, &[1, 2, 3]).await);
        until_waiting(fleet, lane, 3).await;
        ids.push(from_rust(fleet, lane, 4, None).await.to_string());
        ids.extend(from_python(lane, &[5, 6]).await);
        until_waiting(fleet, lane, 6).await;
        // Others do not wait for it.
        let free = from_python("free", &[7]).await;
        all_are_read(fleet, &free, &[70]).await;
        assert_eq!(seen(lane, |seen| seen.order.clone()), [0]);
        gates::release(gate).await;
        all_are_read(fleet, &ids, &[0, 10, 20, 30, 40, 50, 60]).await;
        let seen = seen(lane, |seen| seen.clone());
        assert_eq!((seen.order, seen.most), (vec![0, 1, 2, 3, 4, 5, 6], 1));
    });
}

/// Both at once: of each sender they stay in order, and no two run at a time.
#[test]
fn from_both_sides_at_once() {
    on_rust(async |fleet| {
        let lane = "at once";
        let numbers: Vec<u64> = (0..60).collect();
        let rust = async {
            let mut ids = Vec::new();
            for n in 100..160 {
                ids.push(from_rust(fleet, lane, n, None).await.to_string());
            }
            ids
        };
        let (python, rust) = tokio::join!(from_python(lane, &numbers), rust);
        let values = |from: u64| (from..from + 60).map(|n| n * 10).collect::<Vec<_>>();
        all_are_read(fleet, &python, &values(0)).await;
        all_are_read(fleet, &rust, &values(100)).await;
        let seen = seen(lane, |seen| seen.clone());
        assert_eq!((seen.most, seen.order.len()), (1, 120));
        let (ours, its): (Vec<u64>, Vec<u64>) = seen.order.into_iter().partition(|n| *n >= 100);
        assert!(ours.is_sorted() && its.is_sorted(), "{ours:?} {its:?}");
    });
}

//! Keys of two things are never the same key, where Redis keeps windows and lanes.

use std::collections::HashMap;
use std::time::Duration;

use celeriac::task::key_of;
use celeriac::{Celeriac, TaskId, serial_task, task};

use crate::kit::{Gate, LONG};
use crate::rabbit::vhost;
use crate::services::{Redis, blocking};
use crate::unique::over_redis;

#[task(name = "keys.export", unique_for = "1h", unique_key = "{user}", queue = "io")]
async fn export(user: String, gate: String) -> String {
    Gate::named(&gate).pass().await;
    user
}

#[task(name = "keys.export-admin", unique_for = "1h", unique_key = "{user}", queue = "io")]
async fn export_admin(user: String, gate: String) -> String {
    Gate::named(&gate).pass().await;
    format!("admin {user}")
}

#[task(name = "keys.cases", unique_for = "1h", unique_key = "{domain}-{kind}", queue = "io")]
async fn of_domain(domain: String, kind: String, gate: String) -> (String, String) {
    Gate::named(&gate).pass().await;
    (domain, kind)
}

#[serial_task(name = "keys.import", key = "{domain}-{kind}", queue = "io")]
async fn import(domain: String, kind: String, gate: String) {
    Gate::named(&gate).pass().await;
    let _ = (domain, kind);
}

#[task(name = "keys.by_arguments", unique_for = "1h", queue = "io")]
async fn by_arguments(counts: HashMap<String, HashMap<String, f64>>, gate: String) -> usize {
    Gate::named(&gate).pass().await;
    counts.len()
}

async fn open() -> Celeriac {
    let (url, prefix) = (vhost().await, TaskId::new().to_string());
    over_redis(&url, &prefix, &blocking(Redis::shared).await.url_of(5)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_handed_the_result_of_somebody_else() {
    let celeriac = open().await;
    let (client, gate) = (|| celeriac.client(), Gate::new());
    let name = || gate.name.clone();
    // `keys.export-admin-7`, whichever way it is taken apart.
    let user = export::s("admin-7".into(), name()).send(client()).await.unwrap();
    let admin = export_admin::s("7".into(), name()).send(client()).await.unwrap();
    // `malawi-fp-cases`.
    let one = of_domain::s("malawi-fp".into(), "cases".into(), name()).send(client()).await.unwrap();
    let other = of_domain::s("malawi".into(), "fp-cases".into(), name()).send(client()).await.unwrap();
    for first in [user.receipt(), admin.receipt(), one.receipt(), other.receipt()] {
        assert!(!first.joined, "{first:?}");
    }
    let again = of_domain::s("malawi-fp".into(), "cases".into(), name()).send(client()).await.unwrap();
    assert!(again.receipt().joined && again.id() == one.id());
    let holder = celeriac.unique("keys.cases", &key_of(["malawi-fp", "cases"])).await.unwrap();
    assert_eq!(holder.as_ref(), Some(one.id()));
    gate.entered(4).await;
    gate.open();
    assert_eq!(user.get(LONG).await.as_deref(), Ok("admin-7"));
    assert_eq!(admin.get(LONG).await.as_deref(), Ok("admin 7"));
    let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(again.get(LONG).await, pair("malawi-fp", "cases"));
    assert_eq!(other.get(LONG).await, pair("malawi", "fp-cases"));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stands_in_the_lane_of_somebody_else() {
    let celeriac = open().await;
    let gate = Gate::new();
    let call = |domain: &str, kind: &str| {
        import::s(domain.into(), kind.into(), gate.name.clone()).send(celeriac.client())
    };
    let both = [call("malawi-fp", "cases").await.unwrap(), call("malawi", "fp-cases").await.unwrap()];
    let behind = call("malawi-fp", "cases").await.unwrap();
    gate.entered(2).await;
    let lane = celeriac.lane("keys.import", &key_of(["malawi-fp", "cases"])).await.unwrap().unwrap();
    assert_eq!((lane.holders.len(), lane.waiting), (1, 1));
    gate.open();
    for import in both.iter().chain([&behind]) {
        assert_eq!(import.get(LONG).await, Ok(()));
    }
    celeriac.shutdown().await.unwrap();
}

/// A map of Rust has no order, and each has another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_maps_are_equal_calls() {
    let celeriac = open().await;
    let gate = Gate::new();
    let map = || -> HashMap<String, HashMap<String, f64>> {
        let inner = |n: u32| (0..9).map(|m| (format!("month-{m}"), f64::from(n * m) / 7.0)).collect();
        (0..9).map(|n| (format!("form-{n}"), inner(n))).collect()
    };
    let mut calls = Vec::new();
    for _ in 0..12 {
        calls.push(by_arguments::s(map(), gate.name.clone()).send(celeriac.client()).await.unwrap());
    }
    assert_eq!(calls.iter().filter(|call| !call.receipt().joined).count(), 1);
    let mut other = map();
    other.get_mut("form-3").unwrap().insert("month-4".into(), 0.1 + 0.2);
    let other = by_arguments::s(other, gate.name.clone()).unique_for(Duration::from_secs(9));
    assert!(!other.send(celeriac.client()).await.unwrap().receipt().joined);
    gate.open();
    for call in calls {
        assert_eq!(call.get(LONG).await, Ok(9));
    }
    assert_eq!(gate.gauge.all(), 2);
    celeriac.shutdown().await.unwrap();
}

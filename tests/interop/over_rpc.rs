//! Results over RabbitMQ, to whoever sent the task: `rpc://` on both sides.

use celeriac::State;
use serde_json::{Value, json};

use crate::cases::{ON_ONE_SIDE, ON_TWO_SIDES};
use crate::fleet::{Mixed, mixed_rpc, on_runtime};
use crate::to_python::{PATIENCE, ended, python, send};

#[test]
fn python_sends_to_rust() {
    for case in ON_ONE_SIDE {
        mixed_rpc().case(case, json!({ "side": "rust" }));
    }
    mixed_rpc().case("plain.many", json!({ "side": "rust", "count": 200 }));
    mixed_rpc().case("times.countdown", json!({ "side": "rust", "seconds": 1.2 }));
}

#[test]
fn python_builds_workflows_of_both() {
    for case in ON_TWO_SIDES {
        for (here, there) in [("rust", "python"), ("python", "rust")] {
            mixed_rpc().case(case, json!({ "here": here, "there": there }));
        }
    }
}

fn on_rust(test: impl AsyncFnOnce(&'static Mixed)) {
    let fleet = mixed_rpc();
    on_runtime(test(fleet));
}

#[test]
fn rust_sends_to_python() {
    on_rust(async |fleet| {
        let mut sums = Vec::new();
        for n in 0..200 {
            sums.push(send(fleet, python("add", json!([n, n]))).await);
        }
        for (n, sum) in sums.iter().enumerate() {
            assert_eq!(sum.get::<usize>(PATIENCE).await, Ok(2 * n));
        }
        assert_eq!(send(fleet, python("flaky", json!([3]))).await.get::<u32>(PATIENCE).await, Ok(3));
    });
}

#[test]
fn errors_and_revocations_of_python() {
    on_rust(async |fleet| {
        let failed = ended(&send(fleet, python("fail", json!([]))).await).await;
        assert_eq!((failed.state, failed.error_type.as_deref()), (State::Failure, Some("ValueError")));
        assert_eq!(failed.errors, ["bad", "42"]);
        let key = celeriac::TaskId::new().to_string();
        let running = send(fleet, python("hold", json!([key]))).await;
        crate::gates::await_held(&key).await;
        assert_eq!(running.revoke(true).await, Ok(true));
        assert_eq!(ended(&running).await.state, State::Revoked);
    });
}

/// Each step arrives while the task runs.
#[test]
fn progress_of_python() {
    on_rust(async |fleet| {
        let key = celeriac::TaskId::new().to_string();
        let running = send(fleet, python("progress", json!([key, 3]))).await;
        for step in 1..=3 {
            crate::gates::await_held(&key).await;
            let wanted: Value = json!({ "current": step, "total": 3 });
            crate::gates::until("the step is told", async || {
                running.tracked().await.unwrap().is_some_and(|seen| seen.meta == wanted)
            })
            .await;
            crate::gates::release(&key).await;
        }
        assert_eq!(running.get::<u32>(PATIENCE).await, Ok(3));
    });
}

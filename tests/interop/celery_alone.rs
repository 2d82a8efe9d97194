//! The cases, where Celery is on both sides: they ask for nothing that Celery does not do.

use serde_json::json;

use crate::cases::{ON_ONE_SIDE, ON_ONE_SIDE_OF_REDIS, ON_TWO_SIDES, ON_TWO_SIDES_OF_REDIS};
use crate::fleet::{Backend, Fleet};

fn holds(fleet: &Fleet, on_one_side: &[&str], on_two_sides: &[&str]) {
    for case in on_one_side {
        fleet.case(case, json!({ "side": "rust" }));
    }
    for case in on_two_sides {
        for (here, there) in [("python", "rust"), ("rust", "python")] {
            fleet.case(case, json!({ "here": here, "there": there }));
        }
    }
}

#[test]
fn over_redis() {
    let fleet = Fleet::start("celery-alone", Backend::Redis, &["python", "rust"]);
    holds(&fleet, &ON_ONE_SIDE, &ON_TWO_SIDES);
    holds(&fleet, &ON_ONE_SIDE_OF_REDIS, &ON_TWO_SIDES_OF_REDIS);
    fleet.case("plain.many", json!({ "side": "rust", "count": 200 }));
    fleet.case("times.countdown", json!({ "side": "rust", "seconds": 1.2 }));
    fleet.case("times.priorities", json!({ "side": "rust", "queue": "rust-priority" }));
    fleet.case("canvas.mapped", json!({ "there": "rust" }));
    fleet.case("events.compared", json!({}));
    fleet.case("exporters.read", json!({ "nodes": ["python-many@localhost", "rust-many@localhost"] }));
    fleet.case("plain.broadcast", json!({}));
}

#[test]
fn over_rpc() {
    holds(&Fleet::start("celery-alone-rpc", Backend::Rpc, &["python", "rust"]), &ON_ONE_SIDE, &ON_TWO_SIDES);
}

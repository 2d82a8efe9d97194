//! Rust and Python in one fleet: real Celery workers and clients beside ours, over real RabbitMQ and Redis.
//!
//! The Python side is in `python/`: an app whose tasks exist on both sides, and *cases*, each of which is what a Python
//! client asks for and what it is to see. That the cases are right is proven by [`celery_alone`], where Celery has the
//! place of the Rust worker.

use celeriac_test_support as services;

mod cases;
mod celery_alone;
mod control;
mod defaults;
mod events;
mod example;
mod fleet;
mod from_python;
mod gates;
mod ladder;
mod odd_messages;
mod over_rpc;
mod python_client;
mod rust_log;
mod serial;
mod tasks;
mod to_python;
mod workflows_from_python;
mod workflows_from_rust;

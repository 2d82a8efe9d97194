//! Each broker keeps each promise.

#[path = "../services/mod.rs"]
mod services;

mod amqp;
mod embedded;
mod laned;
mod laned_model;
mod lanes;
mod memory;
mod model;
mod outbox;
mod volatile;

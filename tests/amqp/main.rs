//! RabbitMQ as the broker, on nodes of the tests' own.

#[path = "../services/mod.rs"]
mod services;

mod quickstart;

//! RabbitMQ as the broker, on nodes of the tests' own.
#![cfg(feature = "amqp")]

#[path = "../runtime/kit.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod kit;
#[path = "../services/mod.rs"]
mod services;

mod declared;
mod delays;
mod keeping;
mod letters;
mod quickstart;
mod rabbit;
mod recovery;
mod revocation;
mod rusty_celery;
#[cfg(all(feature = "redis", feature = "tls"))]
mod tls;
mod unique;

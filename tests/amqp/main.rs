//! RabbitMQ as the broker, on nodes of the tests' own.

#[path = "../runtime/kit.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod kit;

use celeriac_test_support as services;

mod blockage;
#[cfg(feature = "redis")]
mod brakes;
mod broadcast;
mod confirm;
mod console;
mod control;
mod dead_letters;
mod declared;
mod delays;
mod deleted_queue;
mod events;
mod exchanges;
mod expiry;
mod failed;
#[cfg(feature = "redis")]
mod fan_out;
mod fleet;
mod guard_queue;
mod hostile;
mod inspect;
mod keys;
mod levers;
mod partitions;
mod quickstart;
mod rabbit;
mod raw;
mod recovery;
mod refusal;
#[cfg(feature = "redis")]
mod refused_for_good;
mod revocation;
mod rusty_celery;
mod status;
#[cfg(all(feature = "redis", feature = "tls"))]
mod tls;
mod unique;
mod why;

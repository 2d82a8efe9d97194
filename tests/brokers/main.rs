//! Each broker keeps each promise.

use celeriac_test_support as services;

mod amqp;
mod bulk_model;
mod embedded;
mod lanes;
mod memory;
mod model;
mod outbox;
mod promises;
mod redis_lanes;
mod redis_lanes_model;
mod redis_lanes_refusal;
mod split;
mod split_steps;
mod tenants_model;
mod volatile;

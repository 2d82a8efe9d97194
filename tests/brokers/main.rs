//! Each broker keeps each promise.

mod embedded;
mod lanes;
mod memory;
mod model;
mod outbox;
mod volatile;

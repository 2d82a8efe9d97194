//! Each broker keeps each promise.

mod embedded;
mod memory;
mod model;
mod outbox;
mod volatile;

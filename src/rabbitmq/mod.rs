//! What the broker over RabbitMQ and the results over `rpc` share of RabbitMQ: where it is, and the connection.

mod address;
pub(crate) mod frame_guard;
mod refusal;

pub(crate) use address::{AddressError, AddressParts, Addresses};
pub(crate) use refusal::{ACCESS_REFUSED, PRECONDITION_FAILED, code, is_refusal};

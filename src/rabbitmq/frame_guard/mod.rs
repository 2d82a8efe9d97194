//! Stands between the socket and the client library, and makes what RabbitMQ sends readable for the library.
//!
//! RabbitMQ hands on whatever a publisher has put into the properties of a message. The client library reads them
//! on the one thread of a connection. A text that is not UTF-8, or a header larger than a frame, costs that
//! connection. A table that is nested some thousand deep costs the process, because the library reads tables
//! recursively. RabbitMQ then delivers the message again, to this process or to another one, and all other
//! deliveries of the connection come again with it.
//!
//! So the guard looks at each frame first, without recursion. It changes a frame that the library cannot read
//! until the library can, and puts the properties as they came [aside](Aside). Whoever takes the delivery finds
//! them there, under its channel and its delivery tag, and makes a dead letter of the message with them. No
//! connection is lost, and no other task is disturbed.

mod aside;
mod frames;
mod method;
mod properties;
mod transport;

pub(crate) use aside::{Aside, Unread, UnreadWatch};
pub(crate) use frames::{FRAME, room};
pub(crate) use properties::MAX_DEPTH;
pub(super) use transport::connect;

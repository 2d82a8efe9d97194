//! What a program that has tasks names daily, for one `use celeriac::prelude::*`.
//!
//! A name that the program defines or imports itself hides the one of the prelude, so its own `Data`, `Json` or `State`
//! goes on to mean what it meant. All names are at the root of the crate as well.
//!
//! ```
//! use celeriac::prelude::*;
//! use std::time::Duration;
//!
//! #[task(queue = "email")]
//! async fn send_email(user: u64) -> Result<String, TaskError> {
//!     Ok(format!("sent to user {user}"))
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let email = QueueRow::new("email").with_io_bound(true);
//! let celeriac = Celeriac::builder().in_memory().queue(email).start().await?;
//! let both = group([send_email::s(1), send_email::s(2)]).delay().await?;
//! assert_eq!(both.get(Duration::from_secs(60)).await?, ["sent to user 1", "sent to user 2"]);
//! celeriac.shutdown().await?;
//! # Ok(()) }
//! ```

pub use crate::macros::{periodic_task, serial_task, task};
pub use crate::{
    AsyncResult, Builder, Canvas, Catalogue, Celeriac, Client, Context, Data, Due, Durability, EnqueueError,
    GetError, HookEvent, Interrupt, Json, Periodic, Pool, QueueRow, QueueStatus, Receipt, Signature, Source,
    SourcePoller, State, TaskError, TaskId, Tenant, Timestamp, Zone, async_trait, chain, chord, group,
    signature,
};

//! The application layer: a [`Builder`] configures and starts a runtime, and a [`Celeriac`] handle leads to it from
//! any thread until it is shut down. The files here join the catalogue, the broker, the store, the runtime and the
//! actors; none of them decides how a task runs.

mod accounts;
#[cfg(test)]
pub(crate) mod alone;
mod backend;
mod beat;
mod builder;
mod child_process;
mod client;
mod commands;
mod commit_table;
mod control;
mod defaults;
mod downloads;
mod events;
mod failed;
mod fleet;
mod handle;
mod health;
mod hooks;
mod lanes;
mod layers;
mod listener;
#[cfg(feature = "metrics")]
mod metrics;
mod persistent;
mod program_data;
mod replies;
mod revocation_orders;
mod routing;
mod schedule;
mod shutdown;
mod slot_pools;
mod soil;
mod source_pollers;
mod start;
mod start_error;
#[cfg(all(unix, feature = "systemd"))]
mod systemd;
mod takeover;
mod unfinished;
pub(crate) mod variables;

#[cfg(feature = "cli")]
pub(crate) use backend::Backend;
pub use beat::BeatHandle;
pub use builder::Builder;
pub use child_process::is_child_process;
pub use fleet::{Fleet, NodeReplies};
pub use handle::{Celeriac, ControlError};
pub use health::{Health, Trouble, TroubleKind};
#[cfg(feature = "metrics")]
pub use metrics::MetricsReader;
pub use persistent::PersistentLevers;
pub use replies::Replies;
#[cfg(feature = "cli")]
pub(crate) use revocation_orders::order;
pub use schedule::{ScheduleError, ScheduleErrors};
pub use shutdown::ShutdownReport;
#[cfg(feature = "cli")]
pub(crate) use start::too_many_blocking_workers;
pub use start_error::StartError;
pub use unfinished::RevokedTasks;

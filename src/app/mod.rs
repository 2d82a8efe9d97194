//! The application layer: a [`Builder`] configures and starts a runtime, and a [`Celeriac`] handle leads to it from
//! any thread until it is shut down. The files here join the catalogue, the broker, the store, the runtime and the
//! actors; none of them decides how a task runs.

mod accounts;
#[cfg(test)]
pub(crate) mod alone;
mod autoscale;
mod backend;
mod beat;
mod brakes;
mod builder;
mod bulk;
#[cfg(feature = "web")]
mod called_tasks;
mod child_process;
mod client;
mod client_only;
mod commands;
mod commit_table;
mod control;
mod control_error;
mod defaults;
mod demotion;
mod downloads;
mod durations;
mod events;
mod explain;
mod failed;
mod fleet;
mod handle;
mod health;
mod history;
mod hooks;
mod lanes;
mod layers;
mod limits;
mod listener;
#[cfg(unix)]
mod local_control;
#[cfg(feature = "metrics")]
mod metrics;
mod persistent;
mod program_data;
mod replies;
mod report;
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
mod task_pages;
#[cfg(feature = "web")]
mod task_sighting;
mod tenants;
mod unfinished;
pub(crate) mod variables;

pub use crate::runtime::rule_count::RuleCount;
#[cfg(feature = "cli")]
pub(crate) use backend::Backend;
pub use beat::BeatHandle;
pub use brakes::{BrakeHandle, BrakeScope, DryRun};
pub use builder::Builder;
pub use bulk::{BulkAct, BulkAction, BulkCancel, BulkForecast, BulkHandle, BulkUndo, MOST_UNDOABLE};
#[cfg(feature = "cli")]
pub(crate) use bulk::{BulkOrder, acts_in, begin_in, why_not_undoable};
pub use child_process::is_child_process;
pub use control_error::ControlError;
pub use durations::DurationQuery;
#[cfg(feature = "cli")]
pub(crate) use explain::{ended, of_message, told, wait_in_broker};
pub use fleet::{Fleet, NodeReplies};
pub use handle::Celeriac;
pub use health::{Health, Trouble, TroubleKind};
pub use history::HistoryQuery;
#[cfg(all(unix, feature = "cli"))]
pub(crate) use local_control::SOCKET;
#[cfg(feature = "metrics")]
pub use metrics::MetricsReader;
pub use persistent::PersistentLevers;
#[cfg(feature = "cli")]
pub(crate) use persistent::paused_since;
pub use replies::Replies;
#[cfg(feature = "cli")]
pub(crate) use report::{blocked_lanes, top_tenant};
#[cfg(feature = "cli")]
pub(crate) use revocation_orders::order;
pub use schedule::{ScheduleError, ScheduleErrors};
pub use shutdown::ShutdownReport;
#[cfg(feature = "cli")]
pub(crate) use start::too_many_blocking_workers;
pub use start_error::StartError;
#[cfg(feature = "web")]
pub(crate) use task_sighting::{TaskSighting, TaskStand};
pub use unfinished::RevokedTasks;

pub use crate::actors::QueueHold;
pub use crate::core::durations::RunTimeFigures;
pub use crate::core::history::{DurationTotals, HistoryBy, HistoryCounts, HistoryRow, Mark, WaitSpread};
pub use crate::store::history::{History, HistoryMark};

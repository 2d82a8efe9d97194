//! Soil shows a task's progress and its file to the user for whom the task runs. CommCare HQ's utility of that name
//! does the same.
//!
//! A task reports its progress with [`Context::progress`](crate::Context::progress) and offers a file with
//! [`Context::expose_download`](crate::Context::expose_download). Anyone who knows the task's id reads both from a
//! [`Soil`] handle. The id of a download is the id of its task. The pages `docs/progress.md` and `docs/downloads.md`
//! are the manual.
//!
//! ```no_run
//! # use celeriac::Celeriac;
//! # use celeriac::soil::SoilState;
//! # async fn demo(celeriac: Celeriac, id: celeriac::TaskId) -> Result<(), Box<dyn std::error::Error>> {
//! let soil = celeriac.soil();
//! let status = soil.status(&id).await?;
//! match status.state {
//!     SoilState::Success => println!("ready: {:?}", status.download.map(|file| file.name)),
//!     SoilState::Failed => println!("failed: {:?}", status.errors),
//!     _ => println!("{:?}", status.progress),
//! }
//! # Ok(()) }
//! ```

mod group;
mod handle;
mod links;
#[cfg(feature = "web")]
mod overview;
mod poll_interval;
mod queue_position;
mod status;
mod status_cache;
mod watch;
mod why_waiting;

pub use group::{GroupStatus, MemberErrors, PartialFailure};
pub(crate) use handle::SoilHost;
pub use handle::{OpenDownload, Soil, SoilError};
#[cfg(feature = "web")]
pub(crate) use overview::Overview;
pub use queue_position::QueueSummary;
pub use status::{SoilState, Status};
pub(crate) use status_cache::StatusCache;
pub use why_waiting::{StartsBetween, WhyWaiting};

pub use crate::core::Progress;
pub use crate::runtime::task_location::QueuePosition;
pub use crate::store::payloads::{DownloadBody, content_disposition};
pub use crate::task::{Download, DownloadError, DownloadFacts};
pub use object_store;

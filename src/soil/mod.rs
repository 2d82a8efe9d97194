//! Soil: what a task's user sees of it, from the start to the file.
//!
//! A task tells how far it is ([`Context::progress`](crate::Context::progress)) and makes a file
//! ([`Context::expose_download`](crate::Context::expose_download)); whoever knows its id asks here. A download's id is its
//! task's id. The manual has [progress](https://docs.rs/celeriac) and downloads a page each.
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
mod line;
mod sights;
mod status;
mod watch;

pub use group::{GroupStatus, MemberErrors, PartialFailure};
pub use handle::{OpenDownload, Soil, SoilError};
pub(crate) use handle::{Premises, Whereabouts};
pub use line::{Place, QueueFacts};
pub(crate) use sights::Sights;
pub use status::{SoilState, Status};

pub use crate::core::Progress;
pub use crate::store::payloads::{Body, content_disposition};
pub use crate::task::{Download, DownloadError, DownloadFacts};
pub use object_store;

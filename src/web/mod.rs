//! Pages for actix-web programs, which a program mounts beside its own: Soil's, the console of those who look after the
//! queues, the probes of its health, and its metrics.
//!
//! Only this room and the actors name actix.

mod asset;
mod console;
mod health;
#[cfg(feature = "metrics")]
mod metrics;
mod origin;
mod run;
pub mod soil;
mod streams;
mod theme;

#[cfg(feature = "cli")]
pub(crate) use console::ConsoleServer;
pub use console::{Authorization, Console, Permission, PermissionCheck};
pub use health::health;
#[cfg(feature = "metrics")]
pub use metrics::metrics;
pub use origin::same_origin;
pub use run::{RunError, run};
pub use soil::{SoilPages, soil};
pub use theme::{Colour, Theme, ThemeError};

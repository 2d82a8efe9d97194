//! Pages for actix-web programs, which a program mounts beside its own: Soil's, the probes of its health, and its metrics.
//!
//! Only this room and the actors name actix.

mod health;
#[cfg(feature = "metrics")]
mod metrics;
mod origin;
mod run;
pub mod soil;
mod theme;

pub use health::health;
#[cfg(feature = "metrics")]
pub use metrics::metrics;
pub use origin::same_origin;
pub use run::{RunError, run};
pub use soil::{SoilPages, soil};
pub use theme::{Colour, Theme, ThemeError};

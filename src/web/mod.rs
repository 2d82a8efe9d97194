//! Pages for actix-web programs, which a program mounts beside its own.
//!
//! Only this room and the actors name actix.

mod origin;
mod run;
pub mod soil;
mod theme;

pub use origin::same_origin;
pub use run::{RunError, run};
pub use soil::{SoilPages, soil};
pub use theme::{Colour, Theme, ThemeError};

//! Pages for actix-web programs, mounted beside the program's own.
//!
//! Only this room and the actors name actix.

pub mod soil;

pub use soil::{SoilPages, soil};

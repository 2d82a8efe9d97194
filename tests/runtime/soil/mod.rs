//! What Soil promises: bars that never go back, failures that say why, files that are there when they are ready.

mod downloads;
mod failures;
mod files;
mod progress;
mod sweep;

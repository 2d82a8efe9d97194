//! What Soil promises: bars that never go back, failures that say why, files that are there when they are ready.

mod downloads;
mod failures;
mod files;
mod full_disk;
mod panics;
mod progress;
#[cfg(feature = "s3")]
mod s3;
mod sweep;

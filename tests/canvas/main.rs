//! Chains, groups, chords and all that follows from the end of a task, on the memory and on the embedded form,
//! and on a broker whose results are kept elsewhere.

mod example;
mod failures;
mod flows;
mod ids;
mod kit;
mod memory;
mod random;
mod relations;
mod shared;
mod values;

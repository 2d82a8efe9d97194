//! Chains, groups, chords and all that follows from the end of a task, on the memory and on the embedded form.

mod failures;
mod flows;
mod kit;

//! The commands of the `celeriac` binary.

//! The attribute macros of `celeriac`; use them through that crate.

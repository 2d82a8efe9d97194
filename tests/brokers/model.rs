//! A broker against a model of it.

//! The queue catalogue: the shipped file is whole, every mistake is told at once, and nothing brings it down.

mod any_text;
mod brakes;
mod defaults;
mod environments;
mod floods;
mod limits;
mod mistakes;
mod periodic;
mod pools;
mod routes;
mod shipped;
mod tenants;

use celeriac::catalogue::Catalogue;

/// The file at the root of the repository.
const SHIPPED: &str = include_str!("../../celeriac.toml");

fn parse(text: &str) -> Catalogue {
    Catalogue::parse(text, "celeriac.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors_of(text: &str) -> String {
    match Catalogue::parse(text, "celeriac.toml") {
        Ok(_) => panic!("no mistake was found in:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

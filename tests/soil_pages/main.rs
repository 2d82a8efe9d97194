//! Soil's pages: as requests see them, and in a real browser.

mod appearance;
mod browser;
mod chromium;
mod forecast;
mod guards;
mod program;
mod proxy;
mod routes;
mod tasks;

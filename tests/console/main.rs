//! The console: as requests see it, and in a real browser.

mod acts;
mod brakes;
mod browser;
mod calls;
#[path = "../soil_pages/chromium.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod chromium;
mod guards;
mod history;
mod kit;
mod limits;
mod pages;
mod rights;
mod tasks;
mod tenants;

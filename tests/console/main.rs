//! The console: as requests see it, and in a real browser.

mod acts;
mod browser;
mod bulk;
#[path = "../soil_pages/chromium.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod chromium;
mod guards;
mod kit;
mod pages;
mod rights;
mod tasks;

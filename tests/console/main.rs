//! The console: as requests see it, and in a real browser.

use celeriac_test_support as services;

mod accessibility;
mod acts;
mod browser;
mod browsing;
#[path = "../soil_pages/chromium.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod chromium;
mod guards;
mod json;
mod keyboard;
mod kit;
mod pages;
mod rights;
mod search;
mod tasks;

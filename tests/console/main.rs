//! The console: as requests see it, and in a real browser.

use celeriac_test_support as services;

mod accessibility;
mod acts;
mod attacks;
mod brakes;
mod browser;
mod browsing;
mod bulk;
mod calls;
#[path = "../soil_pages/chromium.rs"]
#[allow(dead_code)] // these tests use their own part of it
mod chromium;
mod counting;
mod guards;
mod history;
mod json;
mod keyboard;
mod kit;
mod limits;
mod pages;
mod rights;
mod search;
mod stranger;
mod tasks;
mod tenants;

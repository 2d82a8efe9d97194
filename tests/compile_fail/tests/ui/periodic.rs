//! Periodic tasks that are none.
#![allow(unused)]
use celeriac::core::calendar::Tenant;
use celeriac::periodic_task;

#[periodic_task]
async fn never() {}

#[periodic_task(queue = "a")]
async fn not_when() {}

#[periodic_task(crontab("0 0 * * *"), every = "30s")]
async fn both() {}

#[periodic_task(crontab(day_of_week = 6))]
fn every_minute_of_saturday() {}

#[periodic_task(crontab(minute = 0, day_of_month = "1,15"))]
fn every_hour_of_that_day() {}

#[periodic_task(crontab(hour = 5))]
fn every_minute_of_that_hour() {}

#[periodic_task(crontab(minute = 60, hour = 0))]
fn sixty() {}

#[periodic_task(crontab(minute = 0, hours = 1))]
fn misspelt() {}

#[periodic_task(crontab("0 0 * *"))]
fn four_fields() {}

#[periodic_task(crontab("0 0 * * 7"))]
fn sunday_is_zero() {}

#[periodic_task(crontab = "0 0 * * *")]
fn shape() {}

#[periodic_task(every = "0s")]
fn no_interval() {}

#[periodic_task(every = "30s", zone = "Asia/Kolkata")]
fn zone_of_an_interval() {}

#[periodic_task(every = "30s", misfire = "all")]
fn no_bound() {}

#[periodic_task(every = "30s", misfire = "never", overlap = "wait", environments = 5)]
fn words() {}

#[periodic_task(every = "30s", overlaps = "skip", max_retires = 1)]
fn unknown() {}

#[periodic_task(every = "30s")]
fn arguments(days: u32) {}

async fn tenants() -> Vec<Tenant> {
    Vec::new()
}

#[periodic_task(crontab("0 0 * * *"), tenants = tenants)]
fn no_tenant() {}

#[periodic_task(crontab("0 0 * * *"), spread = "4h")]
fn nobody_to_spread() {}

#[periodic_task(every = "30s")]
struct NoFunction;

fn main() {}

//! Parameters that cannot travel.
#![allow(unused)]
use celeriac::{Context, task};

#[task]
async fn borrowed(name: &str, rows: &[u8], path: &std::path::Path, form: &mut Vec<String>) {}

#[task]
async fn borrowed_within(a: Vec<&str>, b: Option<&'static str>, c: std::borrow::Cow<'_, str>) {}

#[task]
async fn no_type(a: impl Into<String>, b: Box<dyn Fn()>, c: *const u8) {}

#[task]
async fn patterns((a, b): (u8, u8), _: u8, ref c: u8, d @ 0..: u8) {}

#[task]
async fn context_later(user: u64, ctx: &Context) {}

#[task]
async fn context_twice(a: Context, b: &celeriac::Context) {}

#[task]
async fn context_mutable(ctx: &mut Context) {}

#[task]
#[rustfmt::skip]
async fn seventeen(
    a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8, m: u8, n: u8, o: u8, p: u8,
    q: u8,
) {}

use celeriac::task::{Data, Rest, RestByName};

#[task]
async fn rest_before(lines: Rest<String>, order: u64) {}

#[task]
async fn rest_behind_names(options: RestByName<u8>, lines: Rest<u8>) {}

#[task]
async fn rest_twice(a: Rest<u8>, b: Rest<u8>) {}

#[task]
async fn default_of_the_rest(#[default = 5] lines: Rest<u8>) {}

#[task]
async fn default_of_no_argument(#[default = 5] pool: Data<u8>) {}

#[task]
async fn default_without_value(#[default] a: u8, #[default(5)] b: u8) {}

#[task]
async fn default_twice(#[default = 5] #[default = 6] a: u8) {}

fn main() {}

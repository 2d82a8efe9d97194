//! The attribute macros of `celeriac`. Use them through that crate.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod crontab;
mod duration;
mod errors;
mod expand;
mod grammar;
mod key;
mod limits;
mod options;
mod periodic;
mod rate;
mod search;
mod serial;
mod signature;
mod tenant;
mod unique;

use proc_macro::TokenStream;

/// It is used through the crate `celeriac`, whose documentation is its manual.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::task(options.into(), item.into()).into()
}

/// It is used through the crate `celeriac`, whose documentation is its manual.
#[proc_macro_attribute]
pub fn serial_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::serial_task(options.into(), item.into()).into()
}

/// It is used through the crate `celeriac`, whose documentation is its manual.
#[proc_macro_attribute]
pub fn periodic_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::periodic_task(options.into(), item.into()).into()
}

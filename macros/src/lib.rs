//! The attribute macros of `celeriac`; use them through that crate.

use proc_macro::TokenStream;

/// Placeholder.
#[proc_macro_attribute]
pub fn task(_options: TokenStream, item: TokenStream) -> TokenStream {
    item
}

//! Compile errors, collected so that the developer sees all of them at once.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::Error;

/// The compile errors that were found so far, as one error.
#[derive(Default)]
pub struct Errors(Option<Error>);

impl Errors {
    pub fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// Adds an error that the compiler shows at these tokens.
    pub fn at(&mut self, tokens: impl ToTokens, text: impl std::fmt::Display) {
        self.push(Error::new_spanned(tokens, text));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn into_tokens(self) -> TokenStream {
        self.0.map(|errors| errors.into_compile_error()).unwrap_or_default()
    }
}

/// The question that ends the text of an error, such as "; did you mean `queue`?". It is empty if no known name
/// resembles `name` enough. The crate has the same for its own errors.
pub fn did_you_mean<N: AsRef<str>>(name: &str, known: impl IntoIterator<Item = N>) -> String {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(known.as_ref(), name), known))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, known)| format!("; did you mean `{}`?", known.as_ref()))
}

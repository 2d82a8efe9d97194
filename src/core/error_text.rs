//! Why `Debug` of an error prints the same sentence as `Display`.
//!
//! A program whose `main` returns `Result<(), Box<dyn Error>>` ends with `Error: ` and the `Debug` of the error, and
//! so do `unwrap` and `expect`. A user who reads `Catalogue(CatalogueErrors { file: …` learns less than one who reads
//! the sentence.

/// Implements `Debug` as `Display` for each type named, which therefore must not derive `Debug`.
macro_rules! debug_as_display {
    ($($error:ty),+ $(,)?) => {$(
        impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }
    )+};
}

pub(crate) use debug_as_display;

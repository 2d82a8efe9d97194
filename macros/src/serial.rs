//! The lane options of a serial task, and the method that makes the lane of a call from its arguments.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Error, Ident, LitStr, Meta};

use crate::errors::Errors;
use crate::key::Key;
use crate::options::{choice, delay, integer, value, word};
use crate::signature::TaskFn;

/// The options that a serial task has besides those of a task, in the order of the manual.
pub const NAMES: &[&str] = &["key", "scope", "concurrency", "newcomer", "fail_after", "after_failure"];

/// The options of the lane as the attribute states them.
#[derive(Default)]
pub struct SerialOptions {
    key: Option<Key>,
    scope: Option<LitStr>,
    concurrency: Option<u32>,
    newcomer: Option<(Ident, Span)>,
    fail_after: Option<Duration>,
    after_failure: Option<Ident>,
}

impl SerialOptions {
    /// Reads an option. Returns false if this attribute has none of this name.
    pub fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<bool> {
        match name {
            "key" => self.key = Some(Key::read(name, meta)?),
            "scope" => self.scope = Some(word(name, meta)?),
            "concurrency" => {
                let concurrency = integer(name, meta, "1 is the default")?;
                if concurrency == 0 {
                    let text = "`concurrency` is at least 1: with 0 no run would ever start";
                    return Err(Error::new_spanned(value(name, meta, "1")?, text));
                }
                self.concurrency = Some(concurrency);
            }
            "newcomer" => {
                let newcomer = choice(name, meta, &["wait", "skip", "replace"])?;
                self.newcomer = Some((newcomer, meta.span()));
            }
            "fail_after" => self.fail_after = Some(delay(name, meta)?),
            "after_failure" => self.after_failure = Some(choice(name, meta, &["next", "block", "park"])?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks the options that depend on the function or on each other.
    pub fn check(&mut self, task: &TaskFn, errors: &mut Errors) {
        if let Some(key) = &mut self.key {
            key.check(task, errors);
        }
        if let (Some((newcomer, span)), Some(_)) = (&self.newcomer, self.fail_after)
            && newcomer != "Wait"
        {
            errors.push(Error::new(
                *span,
                "`fail_after` says how long a newcomer waits, and with \"skip\" or \"replace\" there is no line to wait in: leave one of the two out",
            ));
        }
    }

    /// The parameters that the template of the key names.
    pub fn key_params(&self) -> &[Ident] {
        self.key.as_ref().map_or(&[], Key::params)
    }

    /// The code of the method `Task::serial`.
    pub fn method(&self, task: &TaskFn) -> TokenStream {
        let names: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
        let args = Ident::new("args", Span::mixed_site());
        let key = match &self.key {
            Some(key) => key.expression(&names),
            None => quote!(::std::string::String::new()),
        };
        let scope = match &self.scope {
            Some(scope) => quote!(#scope),
            None => quote!(<Self as ::celeriac::task::Task>::NAME),
        };
        let concurrency = self.concurrency.unwrap_or(1);
        let newcomer = match (&self.newcomer, self.fail_after) {
            (_, Some(patience)) => {
                let (seconds, nanos) = (patience.as_secs(), patience.subsec_nanos());
                quote!(FailAfter(::core::time::Duration::new(#seconds, #nanos)))
            }
            (Some((newcomer, _)), None) => quote!(#newcomer),
            (None, None) => quote!(Wait),
        };
        let after_failure = self.after_failure.clone().unwrap_or_else(|| format_ident!("Next"));
        quote! {
            #[allow(unused_variables, clippy::ptr_arg)]
            fn serial(#args: &Self::Args) -> ::core::option::Option<::celeriac::task::SerialHeader> {
                let (#(#names,)*) = #args;
                let lane = ::celeriac::task::LaneName::new(#scope, #key);
                ::core::option::Option::Some(
                    ::celeriac::task::SerialHeader::new(lane)
                        .with_concurrency(#concurrency)
                        .with_newcomer(::celeriac::task::Newcomer::#newcomer)
                        .with_after_failure(::celeriac::task::AfterFailure::#after_failure),
                )
            }
        }
    }
}

//! The options of a task's unique window, and the method that makes the window of a call from its arguments.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Ident, Meta};

use crate::errors::Errors;
use crate::expand;
use crate::key::Key;
use crate::options::{choice, span_of_time};
use crate::signature::TaskFn;

/// The options of the window, in the order of the manual.
pub const NAMES: &[&str] = &["unique_for", "unique_until", "unique_key"];

/// The options of the window as the attribute states them.
#[derive(Default)]
pub struct UniqueOptions {
    window: Option<Duration>,
    until: Option<Ident>,
    key: Option<Key>,
    /// The last option that makes sense only with a window, and where it stands.
    besides: Option<(&'static str, Span)>,
}

impl UniqueOptions {
    /// Reads an option. Returns false if this attribute has none of this name.
    pub fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<bool> {
        match name {
            "unique_for" => {
                self.window = Some(span_of_time(name, meta, "nothing would ever be a duplicate")?);
            }
            "unique_until" => {
                self.until = Some(choice(name, meta, &["done", "start"])?);
                self.besides = Some(("unique_until", meta.span()));
            }
            "unique_key" => {
                self.key = Some(Key::read(name, meta)?);
                self.besides = Some(("unique_key", meta.span()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks the options that depend on the function or on each other.
    pub fn check(&mut self, task: &TaskFn, acks_late: Option<bool>, errors: &mut Errors) {
        if let Some(key) = &mut self.key {
            key.check(task, errors);
        }
        match (self.window, &self.besides) {
            (None, Some((name, span))) => {
                let serial = match *name {
                    "unique_key" => " (the key of a `#[serial_task]` is `key = \"{domain}\"`)",
                    _ => "",
                };
                let text = format!(
                    "`{name}` says more about a unique window, and none is given: add `unique_for = \"5m\"`{serial}"
                );
                errors.push(syn::Error::new(*span, text));
            }
            (Some(_), _) if acks_late == Some(false) && self.until.as_ref().is_none_or(|u| u == "Done") => {
                let text = "with `acks_late = false` nobody knows when a run is over, because its message is gone before: write `unique_until = \"start\"`, or leave `acks_late` out";
                errors.push(syn::Error::new(Span::call_site(), text));
            }
            _ => {}
        }
    }

    /// Whether the task has a unique window.
    pub fn is_given(&self) -> bool {
        self.window.is_some()
    }

    /// The parameters that the template of the key names.
    pub fn key_params(&self) -> &[Ident] {
        self.key.as_ref().map_or(&[], Key::params)
    }

    /// The code of the method `Task::unique`, if there is a window.
    pub fn method(&self, task: &TaskFn) -> Option<TokenStream> {
        let window = expand::duration(self.window?);
        let names: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
        let args = Ident::new("args", Span::mixed_site());
        let name = quote!(<Self as ::celeriac::task::Task>::NAME);
        let key = match &self.key {
            Some(key) => {
                let text = key.expression(&names);
                quote!({
                    let (#(#names,)*) = #args;
                    ::celeriac::task::UniqueKey::new(#name, #text)
                })
            }
            None => quote!(::celeriac::task::UniqueKey::of_args(#name, #args)),
        };
        let until = self.until.clone().unwrap_or_else(|| format_ident!("Done"));
        Some(quote! {
            #[allow(unused_variables, clippy::ptr_arg)]
            fn unique(#args: &Self::Args) -> ::core::option::Option<::celeriac::task::Unique> {
                let key = #key;
                ::core::option::Option::Some(
                    ::celeriac::task::Unique::new(key, #window)
                        .until(::celeriac::task::UniqueUntil::#until),
                )
            }
        })
    }
}

//! The options that limit the starts of a task by a key, and the methods that make the keys of a call from its arguments.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Ident, Meta, Token};

use crate::errors::{Errors, did_you_mean};
use crate::expand;
use crate::key::Key;
use crate::options::{choice, integer, span_of_time, value};
use crate::signature::TaskFn;

/// The options of these limits, in the order of the manual.
pub const NAMES: &[&str] = &["rate_key", "rate_scope", "max_running", "limit_key", "breaker"];

const BREAKER: [&str; 4] = ["errors", "of", "pause", "longest"];
/// The most runs that a breaker looks back at; the crate has the same number.
const MOST_RUNS: u32 = 64;

/// The options as the attribute states them.
#[derive(Default)]
pub struct LimitOptions {
    rate_key: Option<Key>,
    rate_scope: Option<Ident>,
    max_running: Option<u32>,
    limit_key: Option<Key>,
    breaker: Option<BreakerOption>,
    /// The last option that says more about a rate, and the last that says more about counted runs, and where they stand.
    besides_rate: Option<(&'static str, Span)>,
    besides_runs: Option<Span>,
}

/// A breaker; what is not stated has the crate's default.
#[derive(Clone, Copy, Default)]
struct BreakerOption {
    errors: Option<u32>,
    of: Option<u32>,
    pause: Option<Duration>,
    longest: Option<Duration>,
}

impl LimitOptions {
    /// Reads an option. Returns false if this attribute has none of this name.
    pub fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<bool> {
        match name {
            "rate_key" => {
                self.rate_key = Some(Key::read(name, meta)?);
                self.besides_rate = Some(("rate_key", meta.span()));
            }
            "rate_scope" => {
                self.rate_scope = Some(choice(name, meta, &["cluster", "process"])?);
                self.besides_rate = Some(("rate_scope", meta.span()));
            }
            "max_running" => {
                let most = integer(name, meta, "leave it out for no limit")?;
                if most == 0 {
                    let text = "`max_running` is at least 1: with 0 no run would ever start";
                    return Err(Error::new_spanned(value(name, meta, "3")?, text));
                }
                self.max_running = Some(most);
            }
            "limit_key" => {
                self.limit_key = Some(Key::read(name, meta)?);
                self.besides_runs = Some(meta.span());
            }
            "breaker" => self.breaker = Some(breaker(meta)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks the options that depend on the function or on each other.
    pub fn check(&mut self, task: &TaskFn, has_rate: bool, errors: &mut Errors) {
        for key in [&mut self.rate_key, &mut self.limit_key].into_iter().flatten() {
            key.check(task, errors);
        }
        if let Some((name, span)) = self.besides_rate.filter(|_| !has_rate) {
            let text =
                format!("`{name}` says more about a rate, and none is given: add `rate_limit = \"8/s\"`");
            errors.push(Error::new(span, text));
        }
        if let Some(span) = self.besides_runs.filter(|_| self.max_running.is_none() && self.breaker.is_none())
        {
            let text = "`limit_key` says which runs are counted together, and nothing counts them: add `max_running = 3` or a `breaker` (the key of a rate is `rate_key`)";
            errors.push(Error::new(span, text));
        }
    }

    /// The parameters that the templates of the keys name.
    pub fn key_params(&self) -> impl Iterator<Item = &Ident> {
        [&self.rate_key, &self.limit_key].into_iter().flatten().flat_map(Key::params)
    }

    /// The code of the methods `Task::rate_key` and `Task::limit_key`, as far as there are keys.
    pub fn methods(&self, task: &TaskFn) -> TokenStream {
        let names: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
        let args = Ident::new("args", Span::mixed_site());
        let keys = [("rate_key", &self.rate_key), ("limit_key", &self.limit_key)];
        let methods = keys.into_iter().filter_map(|(method, key)| {
            let (method, key) = (format_ident!("{method}"), key.as_ref()?.expression(&names));
            Some(quote! {
                #[allow(unused_variables, clippy::ptr_arg)]
                fn #method(#args: &Self::Args) -> ::core::option::Option<::std::string::String> {
                    let (#(#names,)*) = #args;
                    ::core::option::Option::Some(#key)
                }
            })
        });
        methods.collect()
    }

    /// The expressions for the fields `rate_key` and `limit_key` of the task's definition.
    pub fn keys_of(&self, task: &Ident) -> [TokenStream; 2] {
        let keys = [("rate_key_of", &self.rate_key), ("limit_key_of", &self.limit_key)];
        keys.map(|(function, key)| match key {
            Some(_) => {
                let function = format_ident!("{function}");
                quote!(::core::option::Option::Some(::celeriac::task::#function::<#task::Task>))
            }
            None => quote!(::core::option::Option::None),
        })
    }

    /// The values of the fields of `TaskOptions` that are stated.
    pub fn fields(&self) -> Vec<(TokenStream, TokenStream)> {
        let limit = quote!(::celeriac::core::start_limit);
        let mut fields = Vec::new();
        if let Some(scope) = &self.rate_scope {
            fields.push((quote!(rate_scope), quote!(#limit::RateScope::#scope)));
        }
        if let Some(most) = self.max_running {
            fields.push((quote!(max_running), quote!(#most)));
        }
        if let Some(BreakerOption { errors, of, pause, longest }) = self.breaker {
            let (pause, longest) = (pause.map(expand::duration), longest.map(expand::duration));
            let numbers = [("errors", errors.map(|n| quote!(#n))), ("of", of.map(|n| quote!(#n)))];
            let stated = numbers.into_iter().chain([("pause", pause), ("longest", longest)]);
            let set = stated.filter_map(|(field, value)| {
                let (field, value) = (format_ident!("{field}"), value?);
                Some(quote!(breaker.#field = #value;))
            });
            let made = quote!({
                #[allow(unused_mut)]
                let mut breaker = <#limit::Breaker as ::core::default::Default>::default();
                #(#set)*
                breaker
            });
            fields.push((quote!(breaker), made));
        }
        fields
    }
}

/// Reads `breaker(errors = 5, of = 10, pause = "1m", longest = "1h")`, or `breaker` alone.
fn breaker(meta: &Meta) -> syn::Result<BreakerOption> {
    let list = match meta {
        Meta::Path(_) => return Ok(BreakerOption::default()),
        Meta::List(list) => list,
        Meta::NameValue(_) => {
            let text = "`breaker` has settings of its own: write `breaker(errors = 5, of = 10, pause = \"1m\", longest = \"1h\")`";
            return Err(Error::new_spanned(meta, text));
        }
    };
    let settings = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
    let mut breaker = BreakerOption::default();
    for setting in &settings {
        let name = setting.path().get_ident().map_or_else(String::new, ToString::to_string);
        let zero = "a pause of nothing is none";
        match name.as_str() {
            "errors" => breaker.errors = Some(integer(&name, setting, "5 is the default")?),
            "of" => breaker.of = Some(integer(&name, setting, "10 is the default")?),
            "pause" => breaker.pause = Some(span_of_time(&name, setting, zero)?),
            "longest" => breaker.longest = Some(span_of_time(&name, setting, zero)?),
            _ => {
                let nearest = did_you_mean(&name, BREAKER);
                let text =
                    format!("a breaker has no `{name}`{nearest}\nits settings are: {}", BREAKER.join(", "));
                return Err(Error::new_spanned(setting.path(), text));
            }
        }
    }
    let (errors, of) = (breaker.errors.unwrap_or(5), breaker.of.unwrap_or(10));
    let (pause, longest) = (
        breaker.pause.unwrap_or(Duration::from_secs(60)),
        breaker.longest.unwrap_or(Duration::from_secs(3600)),
    );
    let fault = if errors == 0 {
        "`errors` is at least 1".to_owned()
    } else if of < errors || of > MOST_RUNS {
        format!(
            "`of` is {of}: a breaker looks back at as many runs as `errors` ({errors}) at least, and at {MOST_RUNS} at most"
        )
    } else if longest < pause {
        format!("`longest` ({longest:?}) is shorter than `pause` ({pause:?})")
    } else {
        return Ok(breaker);
    };
    Err(Error::new_spanned(meta, fault))
}

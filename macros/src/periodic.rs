//! The options of `#[periodic_task]` that `#[task]` does not have: when beat calls the task, and what happens to
//! ticks that are missed or overlap.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, LitStr, Meta, MetaList, Path, Token};

use crate::crontab::{self, FIELDS};
use crate::errors::{Errors, did_you_mean};
use crate::expand::{attributes, duration};
use crate::grammar::Bounds;
use crate::options::{function, span_of_time, value, word};
use crate::signature::TaskFn;

/// All options of the schedule, in the order of the manual.
pub const NAMES: &[&str] = &[
    "crontab",
    "every",
    "zone",
    "entry",
    "misfire",
    "misfire_within",
    "overlap",
    "environments",
    "tenants",
    "spread",
];

/// The options of the schedule as the attribute states them.
#[derive(Default)]
pub struct PeriodicOptions {
    crontab: Option<CrontabInput>,
    every: Option<Duration>,
    zone: Option<LitStr>,
    entry: Option<LitStr>,
    misfire: Option<LitStr>,
    misfire_within: Option<Duration>,
    overlap: Option<LitStr>,
    environments: Vec<LitStr>,
    tenants: Option<Path>,
    spread: Option<Duration>,
}

/// A crontab, given as one text or field by field.
enum CrontabInput {
    Text(LitStr),
    /// The fields, by their index in [`FIELDS`].
    Fields([Option<String>; 5]),
}

impl PeriodicOptions {
    /// Reads the options of the schedule, and adds their mistakes to `errors`.
    pub fn parse(metas: &[&Meta], whole: &TokenStream, errors: &mut Errors) -> Self {
        let mut periodic = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for meta in metas {
            let name = meta.path().get_ident().map_or_else(String::new, ToString::to_string);
            if seen.contains(&name) {
                errors.push(Error::new_spanned(meta.path(), format!("`{name}` is given twice")));
            } else if let Err(error) = periodic.set(&name, meta) {
                errors.push(error);
            }
            seen.push(name);
        }
        let has = |name: &str| seen.iter().any(|seen| seen == name);
        let mut wrong = |name: &str, text: &str| {
            let meta = metas.iter().find(|meta| meta.path().is_ident(name));
            match meta {
                Some(meta) => errors.push(Error::new_spanned(meta, text)),
                None if whole.is_empty() => {
                    errors.push(Error::new(proc_macro2::Span::call_site(), text));
                }
                None => errors.push(Error::new_spanned(whole, text)),
            }
        };
        match (has("crontab"), has("every")) {
            (false, false) => wrong(
                "",
                "a periodic task says when: `crontab(minute = 0, hour = 0)`, `crontab(\"0 0 * * *\")` or `every = \"30s\"`",
            ),
            (true, true) => wrong("every", "`crontab` and `every` are both given; keep one of the two"),
            (false, true) if has("zone") => {
                wrong("zone", "`every` knows no zone; take `zone` out or write a `crontab`");
            }
            _ => {}
        }
        let all = periodic.misfire.as_ref().is_some_and(|misfire| misfire.value() == "all");
        if all && !has("misfire_within") {
            wrong("misfire", "`misfire = \"all\"` needs a bound: write `misfire_within = \"1h\"`");
        } else if !all && has("misfire_within") {
            wrong("misfire_within", "`misfire_within` belongs to `misfire = \"all\"`");
        }
        if has("spread") && !has("tenants") {
            wrong("spread", "`spread` belongs to `tenants = path::to::function`");
        }
        if has("tenants") && has("every") {
            wrong(
                "tenants",
                "`tenants` fires once for each tenant and day: write a `crontab` with one minute and one hour",
            );
        }
        periodic
    }

    fn set(&mut self, name: &str, meta: &Meta) -> syn::Result<()> {
        match name {
            "crontab" => self.crontab = Some(crontab(meta)?),
            "every" => self.every = Some(span_of_time(name, meta, "it would never end")?),
            "zone" => self.zone = Some(word(name, meta)?),
            "entry" => self.entry = Some(word(name, meta)?),
            "misfire" => {
                self.misfire = Some(choice(
                    name,
                    meta,
                    &["once", "skip", "all"],
                    "\"once\" (one run stands for all that was missed), \"skip\" or \"all\"",
                )?);
            }
            "misfire_within" => {
                self.misfire_within = Some(span_of_time(name, meta, "that is `misfire = \"skip\"`")?);
            }
            "overlap" => {
                self.overlap = Some(choice(
                    name,
                    meta,
                    &["buffer_one", "skip", "allow"],
                    "\"buffer_one\" (the next one waits for the end of this), \"skip\" or \"allow\"",
                )?);
            }
            "environments" => self.environments = environments(meta)?,
            "tenants" => self.tenants = Some(function(name, meta)?),
            _ => self.spread = Some(crate::duration::from_expr(value(name, meta, "\"4h\"")?)?),
        }
        Ok(())
    }

    /// Checks that beat can call the function: it takes no arguments, or only a tenant.
    pub fn check(&self, task: &TaskFn, errors: &mut Errors) {
        match (&self.tenants, task.params.as_slice()) {
            (None, []) | (Some(_), [_]) => {}
            (None, [(name, _), ..]) => errors.at(
                name,
                "a periodic task takes no arguments, because nobody is there to pass them; for one that does, write #[task] and an entry with `args` in celeriac.toml, or `Periodic::calling` at the start",
            ),
            (Some(tenants), []) => {
                errors.at(tenants, "with `tenants` the task takes one argument, the tenant's name: `tenant: String`");
            }
            (Some(_), [_, (name, _), ..]) => {
                errors.at(name, "with `tenants` the task takes one argument, the tenant's name, and no other");
            }
        }
    }

    /// The code that registers the entry.
    pub fn expand(&self, function: &ItemFn) -> TokenStream {
        let name = &function.sig.ident;
        let plain = name.unraw().to_string();
        let cfgs = attributes(function, &["cfg"]);
        let task = quote!(<#name::Task as ::celeriac::task::Task>::NAME);
        let entry = self.entry.as_ref().map_or_else(|| task.clone(), |entry| quote!(#entry));
        let zone = option(self.zone.as_ref().map(|zone| quote!(#zone)));
        let schedule = match (&self.crontab, self.every) {
            (Some(CrontabInput::Text(text)), _) => {
                quote!(::celeriac::task::periodic::crontab(::core::result::Result::Err(#text), #zone)?)
            }
            (Some(CrontabInput::Fields(fields)), _) => {
                let set = FIELDS.iter().zip(fields).filter_map(|(Bounds { name: field, .. }, text)| {
                    let field = syn::Ident::new(field, proc_macro2::Span::call_site());
                    let text = text.as_ref()?;
                    Some(quote!(fields.#field = ::core::option::Option::Some(::std::string::String::from(#text));))
                });
                quote!({
                    #[allow(unused_mut)]
                    let mut fields = ::celeriac::core::calendar::Fields::default();
                    #(#set)*
                    ::celeriac::task::periodic::crontab(::core::result::Result::Ok(fields), #zone)?
                })
            }
            (None, every) => {
                let every = duration(every.unwrap_or(Duration::MAX));
                quote!(::celeriac::core::calendar::Schedule::Every(#every))
            }
        };
        let policies = self.policies();
        let tenants = self.tenants.as_ref().map(|source| {
            let spread = duration(self.spread.unwrap_or_default());
            let listed = quote_spanned!(source.span()=> #source().await);
            quote! {
                fn __celeriac_tenants() -> ::celeriac::task::TenantsFuture {
                    ::std::boxed::Box::pin(async {
                        ::celeriac::task::periodic::IntoTenants::into_tenants(#listed)
                    })
                }
                let entry = entry.for_tenants(__celeriac_tenants, #spread);
            }
        });
        let location = quote!(::core::concat!(::core::file!(), ":", ::core::line!()));
        let doc = format!("The periodic entry of `{plain}`.");
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            #[allow(deprecated, non_local_definitions)]
            const _: () = {
                #[doc = #doc]
                fn __celeriac_entry()
                -> ::core::result::Result<::celeriac::task::Periodic, ::celeriac::task::PeriodicFault> {
                    let schedule = #schedule;
                    let entry = ::celeriac::task::Periodic::new(#entry, #task, schedule);
                    #policies
                    #tenants
                    ::core::result::Result::Ok(entry)
                }

                ::celeriac::__inventory::submit! {
                    ::celeriac::task::PeriodicDefinition {
                        name: #entry,
                        location: #location,
                        entry: __celeriac_entry,
                    }
                }
            };
        }
    }

    fn policies(&self) -> TokenStream {
        let mut set = TokenStream::new();
        if self.crontab.is_some() && self.zone.is_none() {
            set.extend(quote!(let entry = entry.in_default_zone();));
        }
        if let Some(misfire) = &self.misfire {
            let misfire = match misfire.value().as_str() {
                "all" => {
                    let within = duration(self.misfire_within.unwrap_or_default());
                    quote!(All { within: #within })
                }
                "skip" => quote!(Skip),
                _ => quote!(Once),
            };
            set.extend(quote!(let entry = entry.misfire(::celeriac::core::calendar::Misfire::#misfire);));
        }
        if let Some(overlap) = &self.overlap {
            let overlap = match overlap.value().as_str() {
                "skip" => quote!(Skip),
                "allow" => quote!(Allow),
                _ => quote!(BufferOne),
            };
            set.extend(quote!(let entry = entry.overlap(::celeriac::core::calendar::Overlap::#overlap);));
        }
        for environment in &self.environments {
            set.extend(quote!(let entry = entry.on(#environment);));
        }
        set
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    value.map_or_else(
        || quote!(::core::option::Option::None),
        |value| quote!(::core::option::Option::Some(#value)),
    )
}

/// Whether a float such as `7.0` has only zeros behind the point.
fn is_whole(digits: &str) -> bool {
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    whole.bytes().all(|byte| byte.is_ascii_digit()) && rest.bytes().all(|byte| byte == b'0')
}

/// A number in a field of a crontab. Celery refuses the float `7.0`, or fails with it when the time comes; as it can only
/// mean 7, it counts as that.
fn number(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) if number.suffix().is_empty() => {
            Some(number.base10_digits().to_owned())
        }
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. })
            if number.suffix().is_empty() && is_whole(number.base10_digits()) =>
        {
            let digits = number.base10_digits();
            Some(digits.split_once('.').map_or(digits, |(whole, _)| whole).to_owned())
        }
        _ => None,
    }
}

/// Reads `crontab("0 0 * * *")` or `crontab(minute = 0, hour = "8-17")`.
fn crontab(meta: &Meta) -> syn::Result<CrontabInput> {
    let shape = "`crontab` is written `crontab(minute = 0, hour = 0)` or `crontab(\"0 0 * * *\")`";
    let Meta::List(MetaList { tokens, .. }) = meta else {
        return Err(Error::new_spanned(meta, shape));
    };
    if let Ok(text) = syn::parse2::<LitStr>(tokens.clone()) {
        crontab::check_text(&text.value()).map_err(|error| Error::new(text.span(), error))?;
        return Ok(CrontabInput::Text(text));
    }
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens.clone());
    let metas = metas.map_err(|error| Error::new(error.span(), format!("{error}; {shape}")))?;
    let mut fields: [Option<String>; 5] = Default::default();
    for meta in &metas {
        let name = meta.path().get_ident().map_or_else(String::new, ToString::to_string);
        let Some(index) = FIELDS.iter().position(|field| field.name == name) else {
            let known = FIELDS.map(|field| field.name);
            let nearest = did_you_mean(&name, known);
            let text =
                format!("a crontab has no field `{name}`{nearest}\nthe fields are: {}", known.join(", "));
            return Err(Error::new_spanned(meta.path(), text));
        };
        let expr = value(&name, meta, "\"*/15\"")?;
        let text = match expr {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            Expr::Array(list) => {
                list.elems.iter().map(number).collect::<Option<Vec<_>>>().map(|numbers| numbers.join(","))
            }
            other => number(other),
        };
        let Some(text) = text else {
            let text = format!(
                "`{name}` is a number, a list of numbers or text: write `{name} = 0`, `{name} = [0, 1]` or `{name} = \"*/15\"`"
            );
            return Err(Error::new_spanned(expr, text));
        };
        crontab::check_field(FIELDS[index], &text).map_err(|error| Error::new_spanned(expr, error))?;
        if fields[index].replace(text).is_some() {
            return Err(Error::new_spanned(meta.path(), format!("`{name}` is given twice")));
        }
    }
    // The crate refuses this at the start, so it is refused here too: HQ's `crontab(day_of_week=6)` ran each minute.
    let coarse = (1..5).find(|index| fields[*index].is_some()).map(|index| FIELDS[index].name);
    if let (Some(coarse), None) = (coarse, &fields[0]) {
        let text = format!(
            "`{coarse}` is named and `minute` is not, so it would run every minute of that {}; write `minute = 0`, or `minute = \"*\"` if that is meant",
            if coarse == "hour" { "hour" } else { "day" }
        );
        return Err(Error::new_spanned(tokens, text));
    }
    if let (Some(coarse), None) = (coarse.filter(|coarse| *coarse != "hour"), &fields[1]) {
        let text = format!(
            "`{coarse}` is named and `hour` is not, so it would run every hour of that day; write `hour = 0`, or `hour = \"*\"` if that is meant"
        );
        return Err(Error::new_spanned(tokens, text));
    }
    Ok(CrontabInput::Fields(fields))
}

fn choice(name: &str, meta: &Meta, words: &[&str], text: &str) -> syn::Result<LitStr> {
    let given = word(name, meta)?;
    if words.contains(&given.value().as_str()) {
        Ok(given)
    } else {
        Err(Error::new(given.span(), format!("`{name}` is {text}")))
    }
}

/// Reads `environments = ["production", "india"]`, or a single name.
fn environments(meta: &Meta) -> syn::Result<Vec<LitStr>> {
    let expr = value("environments", meta, "[\"production\"]")?;
    let one = |expr: &Expr| match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.clone()),
        _ => None,
    };
    let all = match expr {
        Expr::Array(array) => array.elems.iter().map(one).collect(),
        other => one(other).map(|one| vec![one]),
    };
    all.filter(|all: &Vec<_>| !all.is_empty()).ok_or_else(|| {
        Error::new_spanned(expr, "`environments` is a list of names: write `environments = [\"production\"]`")
    })
}

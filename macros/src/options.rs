//! The options of an attribute, `#[task(name = value, ...)]`: reads and checks them, and reports all errors at once.
//!
//! To add an option, add a field here, an arm in [`Options::set`], a name in [`NAMES`], a line in `expand.rs`, and an
//! entry in the manual of the macro.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::format_ident;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Meta, Path, Token};

use crate::duration;
use crate::errors::{Errors, did_you_mean};
use crate::limits::{self, LimitOptions};
use crate::search::SearchOption;
use crate::serial::SerialOptions;
use crate::tenant::TenantOption;
use crate::unique::{self, UniqueOptions};

/// All options in the order of the manual.
const NAMES: &[&str] = &[
    "name",
    "queue",
    "priority",
    "max_retries",
    "default_retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "autoretry",
    "retry_if",
    "throws",
    "acks_late",
    "acks_on_failure_or_timeout",
    "soft_time_limit",
    "time_limit",
    "expires",
    "ignore_result",
    "store_errors_even_if_ignored",
    "track_started",
    "result_expires",
    "durability",
    "confirm",
    "rate_limit",
    "rate_key",
    "rate_scope",
    "max_running",
    "limit_key",
    "breaker",
    "send_events",
    "keep_log",
    "unique_for",
    "unique_until",
    "unique_key",
    "tenant",
    "search",
    "before_start",
    "on_success",
    "on_retry",
    "on_failure",
    "after_return",
];

/// Names that Celery users may write, and what Celeriac has instead.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "timeout",
        "a lane is held as long as its run lives, so there is no time to state; `time_limit` limits a run",
    ),
    ("bind", "take a `Context` as the first parameter, it is Celery's `self.request`"),
    ("autoretry_for", "every error is retried by default; `retry_if = path::to::predicate` says which are"),
    ("dont_autoretry_for", "`retry_if = path::to::predicate` says which errors are retried"),
    ("retry_kwargs", "`max_retries` and `default_retry_delay` are options of their own"),
    ("serializer", "arguments and results are JSON"),
    ("countdown", "it belongs to one call: `task::s(..).countdown(..)`"),
    ("eta", "it belongs to one call: `task::s(..).eta(..)`"),
];

/// The options of a task as the attribute states them. `None` means the default, which `TaskOptions` knows.
#[derive(Default)]
pub struct Options {
    pub name: Option<LitStr>,
    pub queue: Option<LitStr>,
    pub priority: Option<u8>,
    pub max_retries: Option<u32>,
    pub default_retry_delay: Option<Duration>,
    pub retry_backoff: Option<bool>,
    pub retry_backoff_max: Option<Duration>,
    pub retry_jitter: Option<bool>,
    pub autoretry: Option<bool>,
    pub retry_if: Option<Path>,
    pub throws: Option<Path>,
    pub acks_late: Option<bool>,
    pub acks_on_failure_or_timeout: Option<bool>,
    pub soft_time_limit: Option<Duration>,
    pub time_limit: Option<Duration>,
    pub expires: Option<Duration>,
    pub ignore_result: Option<bool>,
    pub store_errors_even_if_ignored: Option<bool>,
    pub track_started: Option<bool>,
    pub result_expires: Option<Duration>,
    pub durability: Option<DurabilityOption>,
    pub confirm: Option<bool>,
    pub rate_limit: Option<LitStr>,
    pub send_events: Option<bool>,
    pub keep_log: Option<bool>,
    pub before_start: Option<Path>,
    pub on_success: Option<Path>,
    pub on_retry: Option<Path>,
    pub on_failure: Option<Path>,
    pub after_return: Option<Path>,
    /// The options that limit the starts by a key.
    pub limits: LimitOptions,
    /// The options of the unique window.
    pub unique: UniqueOptions,
    /// The tenants of the calls.
    pub tenant: TenantOption,
    /// The parameters by whose values tasks are found.
    pub search: SearchOption,
    /// The options of the lane, if the task is serial.
    pub serial: Option<SerialOptions>,
}

/// Where a waiting call is kept.
#[derive(Clone, Copy)]
pub enum DurabilityOption {
    Disk,
    Memory,
}

/// Splits the tokens of an attribute into its options.
pub fn metas(tokens: TokenStream, errors: &mut Errors) -> Vec<Meta> {
    match Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(metas) => metas.into_iter().collect(),
        Err(error) => {
            errors.push(Error::new(
                error.span(),
                format!("{error}; options are written `name = value`, with commas between them"),
            ));
            Vec::new()
        }
    }
}

impl Options {
    /// Reads the options. `others` are names of options that the attribute has besides. A wrong option goes to
    /// `errors` and counts as not given, so that the compiler checks the rest of the program as well.
    pub fn parse(metas: &[&Meta], others: &[&str], is_serial: bool, errors: &mut Errors) -> Self {
        let mut options = Self { serial: is_serial.then(SerialOptions::default), ..Self::default() };
        let mut seen: Vec<String> = Vec::new();
        let mut soft_limit = None;
        for meta in metas {
            let name = meta.path().get_ident().map_or_else(String::new, ToString::to_string);
            if seen.contains(&name) {
                errors.push(Error::new_spanned(meta.path(), format!("`{name}` is given twice")));
                continue;
            }
            if let Err(error) = options.set(&name, meta, others) {
                errors.push(error);
            }
            if name == "soft_time_limit" {
                soft_limit = Some(meta);
            }
            if name == "acks_late" && is_serial && options.acks_late == Some(false) {
                errors.at(
                    meta,
                    "a serial task is settled when its run is over, because its lane is held until then: leave `acks_late` out",
                );
                options.acks_late = None;
            }
            seen.push(name);
        }
        if let (Some(soft), Some(hard), Some(meta)) =
            (options.soft_time_limit, options.time_limit, soft_limit)
            && soft >= hard
        {
            errors.push(Error::new_spanned(
                meta,
                format!(
                    "soft_time_limit ({soft:?}) is not below time_limit ({hard:?}): the soft limit tells the body to end, and it needs time to do so before the hard one ends it"
                ),
            ));
        }
        options
    }

    fn set(&mut self, name: &str, meta: &Meta, others: &[&str]) -> syn::Result<()> {
        match name {
            "name" => self.name = Some(word(name, meta)?),
            "queue" => self.queue = Some(word(name, meta)?),
            "priority" => self.priority = Some(integer(name, meta, "255 goes first, 0 is the default")?),
            "max_retries" => {
                let hint = "0 is never; for Celery's `None`, for ever, write 4294967295";
                self.max_retries = Some(integer(name, meta, hint)?);
            }
            "default_retry_delay" => self.default_retry_delay = Some(delay(name, meta)?),
            "retry_backoff" => self.retry_backoff = Some(boolean(name, meta)?),
            "retry_backoff_max" => self.retry_backoff_max = Some(delay(name, meta)?),
            "retry_jitter" => self.retry_jitter = Some(boolean(name, meta)?),
            "autoretry" => self.autoretry = Some(boolean(name, meta)?),
            "retry_if" => self.retry_if = Some(function(name, meta)?),
            "throws" => self.throws = Some(function(name, meta)?),
            "acks_late" => self.acks_late = Some(boolean(name, meta)?),
            "acks_on_failure_or_timeout" => self.acks_on_failure_or_timeout = Some(boolean(name, meta)?),
            "soft_time_limit" => {
                self.soft_time_limit = Some(span_of_time(name, meta, "it would end every run at its start")?);
            }
            "time_limit" => {
                self.time_limit = Some(span_of_time(name, meta, "it would end every run at its start")?);
            }
            "expires" => {
                self.expires = Some(span_of_time(name, meta, "every call would be too late")?);
            }
            "ignore_result" => self.ignore_result = Some(boolean(name, meta)?),
            "store_errors_even_if_ignored" => {
                self.store_errors_even_if_ignored = Some(boolean(name, meta)?);
            }
            "track_started" => self.track_started = Some(boolean(name, meta)?),
            "result_expires" => {
                self.result_expires =
                    Some(span_of_time(name, meta, "to keep no results, write `ignore_result`")?);
            }
            "durability" => self.durability = Some(durability(name, meta)?),
            "confirm" => self.confirm = Some(boolean(name, meta)?),
            "rate_limit" => self.rate_limit = Some(rate_limit(name, meta)?),
            "send_events" => self.send_events = Some(boolean(name, meta)?),
            "keep_log" => self.keep_log = Some(boolean(name, meta)?),
            name if unique::NAMES.contains(&name) => drop(self.unique.set(name, meta)?),
            name if limits::NAMES.contains(&name) => drop(self.limits.set(name, meta)?),
            "tenant" => self.tenant.set(name, meta)?,
            "search" => self.search.set(name, meta)?,
            "before_start" => self.before_start = Some(function(name, meta)?),
            "on_success" => self.on_success = Some(function(name, meta)?),
            "on_retry" => self.on_retry = Some(function(name, meta)?),
            "on_failure" => self.on_failure = Some(function(name, meta)?),
            "after_return" => self.after_return = Some(function(name, meta)?),
            _ => {
                let is_known = match &mut self.serial {
                    Some(serial) => serial.set(name, meta)?,
                    None => false,
                };
                if !is_known {
                    return Err(unknown(name, meta, others, self.serial.is_some()));
                }
            }
        }
        Ok(())
    }
}

fn unknown(name: &str, meta: &Meta, others: &[&str], is_serial: bool) -> Error {
    let serial = if is_serial { crate::serial::NAMES } else { &[] };
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
        return Error::new_spanned(meta.path(), format!("there is no option `{name}`: {instead}"));
    }
    if !is_serial && crate::serial::NAMES.contains(&name) {
        let text = format!("`{name}` is an option of a serial task: write `#[serial_task(..)]`");
        return Error::new_spanned(meta.path(), text);
    }
    let names: Vec<&str> = others.iter().chain(NAMES).chain(serial).copied().collect();
    let nearest = did_you_mean(name, &names);
    let what = if name.is_empty() {
        "an option is one word".to_owned()
    } else {
        format!("unknown option `{name}`{nearest}")
    };
    Error::new_spanned(meta.path(), format!("{what}\nthe options are: {}", names.join(", ")))
}

/// The expression behind the `=` of an option. `example` is a value for the error.
pub fn value<'a>(name: &str, meta: &'a Meta, example: &str) -> syn::Result<&'a Expr> {
    match meta {
        Meta::NameValue(pair) => Ok(&pair.value),
        _ => Err(Error::new_spanned(meta, format!("`{name}` needs a value: write `{name} = {example}`"))),
    }
}

fn boolean(name: &str, meta: &Meta) -> syn::Result<bool> {
    if let Meta::Path(_) = meta {
        return Ok(true);
    }
    match value(name, meta, "true")? {
        Expr::Lit(ExprLit { lit: Lit::Bool(b), .. }) => Ok(b.value),
        other => Err(Error::new_spanned(other, format!("`{name}` is true or false: write `{name} = true`"))),
    }
}

pub fn integer<N>(name: &str, meta: &Meta, hint: &str) -> syn::Result<N>
where
    N: std::str::FromStr<Err: std::fmt::Display> + OptionBounds,
{
    let expr = value(name, meta, "3")?;
    if let Expr::Lit(ExprLit { lit: Lit::Int(n), .. }) = expr
        && n.suffix().is_empty()
        && let Ok(n) = n.base10_parse()
    {
        return Ok(n);
    }
    let text = format!("`{name}` is a whole number from 0 to {}; {hint}", N::MAX);
    Err(Error::new_spanned(expr, text))
}

pub trait OptionBounds {
    const MAX: u32;
}

impl OptionBounds for u8 {
    const MAX: u32 = Self::MAX as u32;
}

impl OptionBounds for u32 {
    const MAX: u32 = Self::MAX;
}

/// Reads a text of 1 to 255 bytes, which is what AMQP allows for names.
pub fn word(name: &str, meta: &Meta) -> syn::Result<LitStr> {
    let expr = value(name, meta, "\"...\"")?;
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = expr else {
        return Err(Error::new_spanned(expr, format!("`{name}` is text: write `{name} = \"...\"`")));
    };
    match text.value().len() {
        1..=255 => Ok(text.clone()),
        n => Err(Error::new_spanned(expr, format!("`{name}` has {n} bytes; it has 1 to 255"))),
    }
}

pub fn delay(name: &str, meta: &Meta) -> syn::Result<Duration> {
    duration::from_expr(value(name, meta, "\"30s\"")?)
}

pub fn span_of_time(name: &str, meta: &Meta, zero: &str) -> syn::Result<Duration> {
    let duration = delay(name, meta)?;
    if duration.is_zero() {
        let expr = value(name, meta, "\"30s\"")?;
        return Err(Error::new_spanned(expr, format!("`{name}` is more than 0: {zero}")));
    }
    Ok(duration)
}

pub fn function(name: &str, meta: &Meta) -> syn::Result<Path> {
    match value(name, meta, "path::to::function")? {
        Expr::Path(path) if path.qself.is_none() => Ok(path.path.clone()),
        other => Err(Error::new_spanned(
            other,
            format!("`{name}` is a function: write its path without quotes, `{name} = path::to::function`"),
        )),
    }
}

/// Reads one of these words, and makes the name of an enum variant of it.
pub fn choice(name: &str, meta: &Meta, words: &[&str]) -> syn::Result<Ident> {
    let expr = value(name, meta, &format!("\"{}\"", words[0]))?;
    if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = expr {
        let text = text.value();
        if words.contains(&text.as_str()) {
            let (first, rest) = text.split_at(1);
            return Ok(format_ident!("{}{rest}", first.to_uppercase()));
        }
    }
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    Err(Error::new_spanned(expr, format!("`{name}` is one of {}", words.join(", "))))
}

/// A rate limit as Celery writes it.
fn rate_limit(name: &str, meta: &Meta) -> syn::Result<LitStr> {
    let text = word(name, meta)?;
    let what = "so many starts in each process: `\"10/s\"`, `\"10/m\"` or `\"10/h\"`";
    match crate::rate::rate(&text.value()) {
        Ok(Some(_)) => Ok(text),
        Ok(None) => Err(Error::new_spanned(text, format!("`{name}` is {what}; leave it out for no limit"))),
        Err(crate::rate::RateError::NotANumber(part)) => {
            Err(Error::new_spanned(text, format!("`{name}` is {what}, and `{part}` is no number of starts")))
        }
        Err(crate::rate::RateError::Unit(part)) => {
            Err(Error::new_spanned(text, format!("`{name}` is {what}, and `{part}` is none of s, m and h")))
        }
    }
}

fn durability(name: &str, meta: &Meta) -> syn::Result<DurabilityOption> {
    let expr = value(name, meta, "\"memory\"")?;
    if let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = expr {
        match text.value().as_str() {
            "disk" => return Ok(DurabilityOption::Disk),
            "memory" => return Ok(DurabilityOption::Memory),
            _ => {}
        }
    }
    let text =
        "`durability` is \"disk\" (survives a power cut) or \"memory\" (gone with the process, and faster)";
    Err(Error::new(expr.span(), text))
}

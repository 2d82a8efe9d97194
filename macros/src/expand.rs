//! What an attribute expands to: the unchanged function, a module of the same name, and the registration of the task.
//!
//! The module holds the items that callers name: `Task`, `s`, `delay`. The rest is in a `const _` beside the
//! function. There the types of the function's signature have the same meaning as in the function, and may be as
//! private as the function.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ExprLit, Ident, ItemFn, Lit, Path, Type, Visibility};

use crate::errors::Errors;
use crate::options::{self, DurabilityOption, Options};
use crate::periodic::{self, PeriodicOptions};
use crate::signature::{self, Input, Output, TaskFn};

/// Expands `#[task]`, which makes a function a task.
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand("task", options, item)
}

/// Expands `#[serial_task]`, which makes a task whose calls stand in lanes.
pub fn serial_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand("serial_task", options, item)
}

/// Expands `#[periodic_task]`, which makes a task and an entry that calls it.
pub fn periodic_task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand("periodic_task", options, item)
}

fn expand(attribute: &str, tokens: TokenStream, item: TokenStream) -> TokenStream {
    let mut function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error = syn::Error::new(
                Span::call_site(),
                format!("#[{attribute}] goes on a function: `#[{attribute}] async fn name(..) {{..}}`"),
            );
            let error = error.into_compile_error();
            return quote!(#item #error);
        }
    };
    let mut errors = Errors::default();
    let task = TaskFn::of(&function, &mut errors);
    signature::strip(&mut function);
    // A function that can be a task becomes one even if an option is wrong. Otherwise the compiler reports errors
    // that only follow from that.
    let is_task = errors.is_empty();
    let others = if attribute == "periodic_task" { periodic::NAMES } else { &[] };
    let metas = options::metas(tokens.clone(), &mut errors);
    let (of_schedule, of_task): (Vec<_>, Vec<_>) =
        metas.iter().partition(|meta| others.iter().any(|name| meta.path().is_ident(name)));
    // If the options cannot even be parsed, nobody knows whether a schedule is missing.
    let is_read = tokens.is_empty() || !metas.is_empty();
    let periodic = (!others.is_empty() && is_read).then(|| {
        let periodic = PeriodicOptions::parse(&of_schedule, &tokens, &mut errors);
        periodic.check(&task, &mut errors);
        periodic
    });
    let mut options = Options::parse(&of_task, others, attribute == "serial_task", &mut errors);
    if is_task {
        if let Some(serial) = &mut options.serial {
            serial.check(&task, &mut errors);
        }
        options.unique.check(&task, options.acks_late, &mut errors);
        options.limits.check(&task, options.rate_limit.is_some(), &mut errors);
        options.tenant.check(&task, &mut errors);
        options.search.check(&task, &mut errors);
        // A function may take a parameter for a key alone, which must not cause a warning about an unused variable.
        let of_lane = options.serial.iter().flat_map(|serial| serial.key_params());
        let of_call = of_lane.chain(options.unique.key_params()).chain(options.tenant.params());
        for param in of_call.chain(options.limits.key_params()) {
            function.block.stmts.insert(0, syn::parse_quote!(let _ = &#param;));
        }
    }
    if let (Some(predicate), Output::Unit | Output::Value(_)) = (&options.retry_if, &task.output) {
        errors.at(predicate, "`retry_if` asks about the error of a `Result`, and this task returns none");
        options.retry_if = None;
    }
    if let (Some(predicate), Output::Unit | Output::Value(_)) = (&options.throws, &task.output) {
        errors.at(predicate, "`throws` asks about the error of a `Result`, and this task returns none");
        options.throws = None;
    }
    let is_entry = errors.is_empty();
    let expansion = is_task.then(|| {
        let module = module(&function, &task);
        let registration = registration(&function, &task, &options);
        let entry = periodic.filter(|_| is_entry).map(|periodic| periodic.expand(&function));
        quote!(#module #registration #entry)
    });
    let errors = errors.into_tokens();
    quote!(#function #expansion #errors)
}

/// The module with the items that callers of the task use.
fn module(function: &ItemFn, task: &TaskFn) -> TokenStream {
    let name = &function.sig.ident;
    let plain = name.unraw();
    let cfgs = attributes(function, &["cfg", "deprecated"]);
    let outer = &function.vis;
    let vis = one_deeper(&function.vis);
    let names: Vec<&Ident> = task.params.iter().map(|(name, _)| name).collect();
    let types = task.params.iter().map(|(_, ty)| {
        let mut ty = ty.clone();
        Deeper.visit_type_mut(&mut ty);
        ty
    });
    let types: Vec<Type> = types.collect();
    let params: Vec<TokenStream> = names.iter().zip(&types).map(|(name, ty)| quote!(#name: #ty)).collect();
    let module_doc =
        format!("The task [`{plain}`](fn@{plain}): enqueue it with `delay`, or prepare a call with `s`.");
    let task_doc = format!("The task `{plain}` as a type.");
    let s_doc =
        format!("A call of `{plain}` with these arguments, not made yet: a signature, to be given options.");
    let partial = partial(function, task, &vis, &names, &params);
    let delay_doc = format!("Enqueues a call of `{plain}` with these arguments; await it.");
    let on_commit_doc = format!(
        "Enqueues a call of `{plain}` with these arguments when the transaction commits; await it, or `wait()`."
    );
    // The user's parameters stand beside these names.
    let transaction = Ident::new("transaction", Span::mixed_site());
    let calls = Ident::new("calls", Span::mixed_site());
    // The arguments of one call of many: a tuple, or the argument itself if there is only one.
    let (call, open) = match (types.as_slice(), names.as_slice()) {
        ([ty], [name]) => (quote!(#ty), quote!(#name)),
        _ => (quote!((#(#types),*)), quote!((#(#names),*))),
    };
    let many_doc = format!(
        "Enqueues many calls of `{plain}` with one receipt; await it, or `wait()`. Each item has the arguments of one call: a tuple, or the argument itself if there is one."
    );
    quote! {
        #(#cfgs)*
        #[doc = #module_doc]
        #[allow(unused_imports, dead_code, clippy::too_many_arguments, clippy::type_complexity)]
        #outer mod #name {
            use super::*;

            #[doc = #task_doc]
            #vis struct Task;

            #[doc = #s_doc]
            #vis fn s(#(#params),*) -> ::celeriac::task::Signature<Task> {
                ::celeriac::task::Signature::<Task>::new(&(#(#names,)*))
            }

            #partial

            #[doc = #delay_doc]
            #vis fn delay(#(#params),*) -> ::celeriac::task::Enqueue<Task> {
                self::s(#(#names),*).delay()
            }

            #[doc = #many_doc]
            #vis fn delay_many(
                #calls: impl ::core::iter::IntoIterator<Item = #call>,
            ) -> ::celeriac::task::EnqueueMany<Task> {
                let #calls = ::core::iter::IntoIterator::into_iter(#calls);
                ::celeriac::task::Signature::<Task>::delay_many(
                    ::core::iter::Iterator::map(#calls, |#open| self::s(#(#names),*)),
                )
            }

            #[doc = #on_commit_doc]
            #vis fn delay_on_commit(
                #transaction: &mut impl ::celeriac::task::CommitTransaction,
                #(#params),*
            ) -> ::celeriac::task::OnCommit<'_, Task> {
                self::s(#(#names),*).delay_on_commit(#transaction)
            }
        }
    }
}

/// The function `p`, which makes a call whose first argument is open. A task without positional parameters has none.
fn partial(
    function: &ItemFn,
    task: &TaskFn,
    vis: &TokenStream,
    names: &[&Ident],
    params: &[TokenStream],
) -> Option<TokenStream> {
    let open = match *task.stars.first()? {
        "**" => return None,
        // It takes the open argument, and more.
        "*" => 0,
        _ => 1,
    };
    let (rest_names, rest_params) = (&names[open..], &params[open..]);
    let plain = function.sig.ident.unraw();
    let doc = format!(
        "A call of `{plain}` that takes its first argument from what comes before it in a canvas. Celery's partial."
    );
    Some(quote! {
        #[doc = #doc]
        #vis fn p(#(#rest_params),*) -> ::celeriac::task::canvas::Canvas<<Task as ::celeriac::task::Task>::Output> {
            ::celeriac::task::canvas::partial::<Task, _>(Task, &(#(#rest_names,)*))
        }
    })
}

/// The registration of the task, with all that the runtime needs to run it.
fn registration(function: &ItemFn, task: &TaskFn, options: &Options) -> TokenStream {
    let function_name = &function.sig.ident;
    let plain = function_name.unraw().to_string();
    let cfgs = attributes(function, &["cfg"]);
    let types: Vec<&Type> = task.params.iter().map(|(_, ty)| ty).collect();
    let args = quote_spanned!(function.sig.paren_token.span.join()=> (#(#types,)*));
    let params = task.params.iter().zip(&task.stars);
    let params = params.map(|((name, _), star)| format!("{star}{}", name.unraw()));
    let (defaults, rests) = (defaults(task), rests(task));
    let output = match &task.output {
        Output::Unit => quote!(()),
        Output::Value(ty) => quote!(#ty),
        Output::Result(ty) => quote_spanned!(ty.span()=> <#ty as ::celeriac::task::Fallible>::Ok),
    };
    let task_name = match &options.name {
        Some(name) => quote!(#name),
        None => quote!(::core::concat!(::core::module_path!(), "::", #plain)),
    };
    let serial = options.serial.as_ref().map(|serial| serial.method(task));
    let serial_of = match serial {
        Some(_) => some(quote!(::celeriac::task::serial_of::<#function_name::Task>)),
        None => quote!(::core::option::Option::None),
    };
    let unique = options.unique.method(task);
    let unique_of = match options.unique.is_given() {
        true => some(quote!(::celeriac::task::unique_of::<#function_name::Task>)),
        false => quote!(::core::option::Option::None),
    };
    let limit_keys = options.limits.methods(task);
    let [rate_key_of, limit_key_of] = options.limits.keys_of(function_name);
    let tenant = options.tenant.method(task);
    let tenant_of = match options.tenant.is_given() {
        true => some(quote!(::celeriac::task::tenant_of::<#function_name::Task>)),
        false => quote!(::core::option::Option::None),
    };
    let search = options.search.expression();
    let data = task.data();
    let set_options = set_options(options);
    let set_hooks = set_hooks(options);
    let (run, kind) = run(function, task, options);
    quote! {
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(deprecated, non_local_definitions, clippy::field_reassign_with_default)]
        const _: () = {
            impl ::celeriac::task::Task for #function_name::Task {
                type Args = #args;
                type Output = #output;
                const NAME: &'static str = #task_name;
                const PARAMS: &'static [&'static str] = &[#(#params),*];

                fn options() -> ::celeriac::task::TaskOptions {
                    #set_options
                }

                #defaults

                #serial

                #unique

                #limit_keys

                #tenant
            }

            #rests

            #run

            fn __celeriac_hooks() -> ::celeriac::task::Hooks {
                #set_hooks
            }

            ::celeriac::__inventory::submit! {
                ::celeriac::task::TaskDefinition {
                    name: <#function_name::Task as ::celeriac::task::Task>::NAME,
                    params: <#function_name::Task as ::celeriac::task::Task>::PARAMS,
                    location: ::core::concat!(::core::file!(), ":", ::core::line!()),
                    kind: ::celeriac::task::TaskKind::#kind,
                    options: <#function_name::Task as ::celeriac::task::Task>::options,
                    body: ::celeriac::task::Body::#kind(__celeriac_run),
                    hooks: __celeriac_hooks,
                    data: &[#(<#data>::NEEDED),*],
                    serial: #serial_of,
                    unique: #unique_of,
                    rate_key: #rate_key_of,
                    limit_key: #limit_key_of,
                    tenant: #tenant_of,
                    search: #search,
                }
            }
        };
    }
}

/// The code of the method `Task::default_of`, if a parameter has a default.
fn defaults(task: &TaskFn) -> Option<TokenStream> {
    // The user's expressions stand beside these names.
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let (param, value) = (local("param"), local("value"));
    let params = task.params.iter().zip(&task.defaults).enumerate();
    let arms: Vec<TokenStream> = params
        .filter_map(|(at, ((_, ty), default))| {
            let default = default.as_ref()?;
            let given = match default {
                Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => {
                    quote_spanned!(default.span()=> ::core::convert::Into::into(#default))
                }
                _ => quote!(#default),
            };
            let checked = quote_spanned!(default.span()=> let #value: #ty = #given;);
            Some(quote!(#at => ::core::option::Option::Some({
                #checked
                ::celeriac::task::param_default(&#value)
            }),))
        })
        .collect();
    (!arms.is_empty()).then(|| {
        quote! {
            fn default_of(#param: usize) -> ::celeriac::task::ParamDefault {
                match #param {
                    #(#arms)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    })
}

/// Lets the compiler check that the types that take the rest are those of the crate, and not others of their names.
fn rests(task: &TaskFn) -> TokenStream {
    let params = task.params.iter().zip(&task.stars);
    let checks = params.filter_map(|((_, ty), star)| match *star {
        "*" => Some(quote_spanned!(ty.span()=> const _: fn(#ty) = |_: ::celeriac::task::Rest<_>| {};)),
        "**" => Some(quote_spanned!(ty.span()=> const _: fn(#ty) = |_: ::celeriac::task::RestByName<_>| {};)),
        _ => None,
    });
    checks.collect()
}

/// The function that runs the task, from encoded arguments to an encoded outcome; and the kind of the task.
fn run(function: &ItemFn, task: &TaskFn, options: &Options) -> (TokenStream, Ident) {
    let name = &function.sig.ident;
    // The generated names stand beside names of the user's function. Hygiene keeps them apart.
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let (context, arguments, returned) = (local("context"), local("arguments"), local("returned"));
    let values: Vec<Ident> = (0..task.params.len()).map(|i| local(&format!("a{i}"))).collect();
    // This is the same variable, but an error about its type points at the parameter of the user's function.
    let context_there =
        task.context.as_ref().map(|ty| Ident::new("context", Span::mixed_site().located_at(ty.span())));
    let pass_context = task.context.as_ref().map(|ty| match ty {
        Type::Reference(_) => quote_spanned!(ty.span()=> &#context_there,),
        _ => quote!(#context_there,),
    });
    // The function's parameters in its own order: those that travel, and the data of the runtime between them.
    let mut travelling = values.iter();
    let (mut take_data, mut passed) = (TokenStream::new(), Vec::new());
    for (at, input) in task.inputs.iter().enumerate() {
        match input {
            Input::Argument => passed.extend(travelling.next().cloned()),
            Input::Data(ty) => {
                let value = local(&format!("d{at}"));
                take_data.extend(quote_spanned!(ty.span()=> let #value = <#ty>::of(&#context)?;));
                passed.push(value);
            }
        }
    }
    let this = quote!(#name::Task);
    let decode = quote!(
        let (#(#values,)*) = ::celeriac::task::decode_args::<#this>(&#context, #arguments)?;
        #take_data
    );
    let wait = function.sig.asyncness.is_some().then(|| quote!(.await));
    let call = quote!(#name(#pass_context #(#passed),*) #wait);
    let outcome = match &task.output {
        Output::Unit => quote! {
            #call;
            ::celeriac::task::encode_output::<#this>(&())
        },
        Output::Value(_) => quote!(::celeriac::task::encode_output::<#this>(&#call)),
        Output::Result(ty) => {
            let failed = failed(ty, options);
            quote! {
                #[allow(unused_imports)]
                use ::celeriac::task::PlainError as _;
                let #returned = #call;
                match ::celeriac::task::Fallible::into_result(#returned) {
                    ::core::result::Result::Ok(value) => ::celeriac::task::encode_output::<#this>(&value),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(#failed),
                }
            }
        }
    };
    if function.sig.asyncness.is_some() {
        let run = quote! {
            fn __celeriac_run(
                #context: ::celeriac::Context,
                #arguments: &::celeriac::task::Arguments,
            ) -> ::core::result::Result<::celeriac::task::BodyFuture, ::celeriac::TaskError> {
                #decode
                ::core::result::Result::Ok(::std::boxed::Box::pin(async move { #outcome }))
            }
        };
        (run, format_ident!("Io"))
    } else {
        let run = quote! {
            fn __celeriac_run(
                #context: ::celeriac::Context,
                #arguments: &::celeriac::task::Arguments,
            ) -> ::celeriac::task::Outcome {
                #decode
                #outcome
            }
        };
        (run, format_ident!("Cpu"))
    }
}

/// An expression that makes a `TaskError` of the variable `error`.
fn failed(ty: &Type, options: &Options) -> TokenStream {
    let converted = converted(ty, options);
    let Some(predicate) = &options.throws else {
        return converted;
    };
    let checked = quote_spanned! {predicate.span()=>
        #[allow(clippy::type_complexity)] // as complex as the type that the task returns
        let is_expected: fn(&<#ty as ::celeriac::task::Fallible>::Err) -> bool = #predicate;
    };
    quote! {{
        #checked
        let is_expected = is_expected(&error);
        let error = #converted;
        error.or_expected(is_expected)
    }}
}

/// The same without a word about whether the error was expected.
fn converted(ty: &Type, options: &Options) -> TokenStream {
    // `into_error` is a method of the types that have no way into a `TaskError`, else one of `PlainError`.
    let error = quote_spanned!(ty.span()=> ::celeriac::task::ErrorOf(error).into_error());
    let converted = quote_spanned!(ty.span()=> ::celeriac::task::IntoTaskError::into_task_error(#error));
    let Some(predicate) = &options.retry_if else {
        return converted;
    };
    let checked = quote_spanned! {predicate.span()=>
        #[allow(clippy::type_complexity)] // as complex as the type that the task returns
        let is_transient: fn(&<#ty as ::celeriac::task::Fallible>::Err) -> bool = #predicate;
    };
    quote! {{
        #checked
        let is_transient = is_transient(&error);
        #converted.or_transient(is_transient)
    }}
}

fn set_options(options: &Options) -> TokenStream {
    let mut set = TokenStream::new();
    let mut assign = |field: TokenStream, value: Option<TokenStream>| {
        if let Some(value) = value {
            set.extend(quote!(options.#field = #value;));
        }
    };
    fn plain<T: ToTokens>(value: Option<T>) -> Option<TokenStream> {
        value.map(ToTokens::into_token_stream)
    }
    assign(quote!(queue), options.queue.as_ref().map(|q| some(quote!(::std::string::String::from(#q)))));
    assign(quote!(priority), plain(options.priority));
    assign(quote!(retry.max_retries), plain(options.max_retries));
    assign(quote!(retry.delay), options.default_retry_delay.map(duration));
    assign(quote!(retry.backoff), plain(options.retry_backoff));
    assign(quote!(retry.max_delay), options.retry_backoff_max.map(duration));
    assign(quote!(retry.jitter), plain(options.retry_jitter));
    assign(quote!(autoretry), plain(options.autoretry));
    assign(quote!(acks_late), plain(options.acks_late));
    assign(quote!(acks_on_failure_or_timeout), plain(options.acks_on_failure_or_timeout));
    assign(quote!(soft_time_limit), options.soft_time_limit.map(duration).map(some));
    assign(quote!(time_limit), options.time_limit.map(duration).map(some));
    assign(quote!(expires), options.expires.map(duration).map(some));
    assign(quote!(ignore_result), plain(options.ignore_result));
    assign(quote!(store_errors_even_if_ignored), plain(options.store_errors_even_if_ignored));
    assign(quote!(track_started), plain(options.track_started));
    assign(quote!(result_expires), options.result_expires.map(duration));
    assign(
        quote!(durability),
        options.durability.map(|durability| match durability {
            DurabilityOption::Disk => quote!(::celeriac::task::Durability::Disk),
            DurabilityOption::Memory => quote!(::celeriac::task::Durability::Memory),
        }),
    );
    assign(quote!(confirm), plain(options.confirm));
    assign(
        quote!(rate_limit),
        options
            .rate_limit
            .as_ref()
            .map(|text| quote!(::celeriac::core::token_bucket::RateLimit::parse(#text).ok().flatten())),
    );
    assign(quote!(send_events), plain(options.send_events));
    for (field, value) in options.limits.fields() {
        assign(field, Some(some(value)));
    }
    assign(quote!(keep_log), plain(options.keep_log));
    // Options whose value may be that of no statement at all: the program's defaults do not hold for what is stated.
    for (field, is_stated) in [
        (quote!(stated.acks_late), options.acks_late.is_some()),
        (quote!(stated.autoretry), options.autoretry.is_some()),
        (quote!(stated.max_retries), options.max_retries.is_some()),
        (quote!(stated.retry_delay), options.default_retry_delay.is_some()),
        (quote!(stated.retry_backoff), options.retry_backoff.is_some()),
        (quote!(stated.retry_backoff_max), options.retry_backoff_max.is_some()),
        (quote!(stated.retry_jitter), options.retry_jitter.is_some()),
        (quote!(stated.result_expires), options.result_expires.is_some()),
        (quote!(stated.rate_limit), options.rate_limit.is_some()),
    ] {
        assign(field, is_stated.then(|| quote!(true)));
    }
    let default = quote!(<::celeriac::task::TaskOptions as ::core::default::Default>::default());
    if set.is_empty() { default } else { quote!(let mut options = #default; #set options) }
}

fn set_hooks(options: &Options) -> TokenStream {
    let mut set = TokenStream::new();
    for (field, hook) in [
        ("before_start", &options.before_start),
        ("on_success", &options.on_success),
        ("on_retry", &options.on_retry),
        ("on_failure", &options.on_failure),
        ("after_return", &options.after_return),
    ] {
        if let Some(hook) = hook {
            set.extend(set_hook(&format_ident!("{field}"), hook));
        }
    }
    let default = quote!(<::celeriac::task::Hooks as ::core::default::Default>::default());
    if set.is_empty() { default } else { quote!(let mut hooks = #default; #set hooks) }
}

fn set_hook(field: &Ident, hook: &Path) -> TokenStream {
    let checked = quote_spanned!(hook.span()=> let hook: ::celeriac::task::Hook = #hook;);
    quote! {
        #checked
        hooks.#field = ::core::option::Option::Some(hook);
    }
}

fn some(value: TokenStream) -> TokenStream {
    quote!(::core::option::Option::Some(#value))
}

pub fn duration(duration: Duration) -> TokenStream {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanos))
}

pub fn attributes<'a>(function: &'a ItemFn, names: &[&str]) -> Vec<&'a Attribute> {
    function.attrs.iter().filter(|a| names.iter().any(|name| a.path().is_ident(name))).collect()
}

/// The same visibility, as it has to be written inside a module.
fn one_deeper(vis: &Visibility) -> TokenStream {
    match vis {
        Visibility::Public(_) => quote!(pub),
        Visibility::Inherited => quote!(pub(super)),
        Visibility::Restricted(restricted) => {
            let mut path = (*restricted.path).clone();
            Deeper.visit_path_mut(&mut path);
            quote!(pub(in #path))
        }
    }
}

/// Rewrites paths so that they mean the same inside the module as outside.
struct Deeper;

impl VisitMut for Deeper {
    fn visit_path_mut(&mut self, path: &mut Path) {
        visit_mut::visit_path_mut(self, path);
        if path.leading_colon.is_some() {
            return;
        }
        let Some(first) = path.segments.first_mut() else { return };
        let outer = Ident::new("super", first.ident.span());
        if first.ident == "self" {
            first.ident = outer;
        } else if first.ident == "super" || first.ident == "Task" {
            // This is the user's `Task`, which the generated one hides.
            path.segments.insert(0, outer.into());
        }
    }
}

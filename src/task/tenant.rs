//! The tenant of a call: on whose behalf the task runs.
//!
//! The tenant travels in the header [`TENANT`](super::TENANT). Whoever enqueues finds it once, by the first of these that
//! says something: the header that the call states itself (so may a Python program), the catalogue for the task, the task's
//! own `tenant = "{domain}"`, the catalogue for all tasks. A retry keeps the header, so a task stays with its tenant.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Arguments, Headers, TENANT, Task};

/// The most bytes of the name of a tenant.
pub const LONGEST_TENANT: usize = 256;

/// Makes the name of the tenant of a call from the call's encoded arguments. `None`: the arguments name none.
pub type TenantFn = fn(&Arguments) -> Option<String>;

/// Which arguments name the tenants of tasks, as the catalogue says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantRules {
    /// The name of the argument that names the tenant, for all tasks that have such an argument.
    pub argument: Option<String>,
    /// The same of single tasks, by their exact names. An empty text: the task has no tenant. These win over what the tasks
    /// say themselves.
    pub tasks: BTreeMap<String, String>,
}

impl TenantRules {
    /// The rows that name an argument which their tasks do not have: each with its task and the parameters of that task.
    /// `params` says which parameters a task has; `None`: the task is not known.
    pub(crate) fn faults(
        &self,
        params: impl Fn(&str) -> Option<&'static [&'static str]>,
    ) -> impl Iterator<Item = (&str, &str, &'static [&'static str])> {
        self.tasks.iter().filter_map(move |(task, argument)| {
            let known = params(task)?;
            // What `**options` takes has any name.
            let may_have =
                argument.is_empty() || known.iter().any(|name| name == argument || name.starts_with("**"));
            (!may_have).then_some((task.as_str(), argument.as_str(), known))
        })
    }

    /// The tenant of a call, which the task would name by `own`. `params` are the names of the task's parameters, empty if
    /// they are not known.
    pub(crate) fn tenant(
        &self,
        task: &str,
        params: &[&str],
        own: Option<TenantFn>,
        arguments: &Arguments,
    ) -> Option<String> {
        let tenant = match (self.tasks.get(task), own) {
            (Some(argument), _) => named(argument, params, arguments),
            (None, Some(own)) => own(arguments),
            (None, None) => named(self.argument.as_deref()?, params, arguments),
        };
        tenant.filter(|tenant| !tenant.is_empty())
    }
}

/// Makes the tenant of a call from its encoded arguments, for calls by name. Arguments that do not decode name none: the
/// worker rejects them, and says why.
#[doc(hidden)]
pub fn tenant_of<T: Task>(arguments: &Arguments) -> Option<String> {
    T::tenant(&arguments.decode_call::<T>().ok()?)
}

/// The value of an argument as the name of a tenant: a text or a number. Anything else names none.
fn named(name: &str, params: &[&str], arguments: &Arguments) -> Option<String> {
    let by_name: BTreeMap<String, &RawValue> = serde_json::from_str(&arguments.kwargs).unwrap_or_default();
    let value = match by_name.get(name) {
        Some(value) => (*value).get(),
        None => {
            let by_position: Vec<&RawValue> = serde_json::from_str(&arguments.args).ok()?;
            let place = params.iter().position(|param| *param == name)?;
            (*by_position.get(place)?).get()
        }
    };
    match serde_json::from_str(value).ok()? {
        Value::String(text) => Some(text),
        Value::Number(_) => Some(value.to_owned()), // with the digits that it was sent with
        _ => None,
    }
}

/// Checks the name of the tenant that the headers of a call state.
///
/// # Errors
/// It is too long. The text says what the name begins with, unless the call hides its arguments.
pub(crate) fn check(headers: &Headers) -> Result<(), String> {
    let Some(tenant) = headers.0.get(TENANT).and_then(Value::as_str) else { return Ok(()) };
    if tenant.len() <= LONGEST_TENANT {
        return Ok(());
    }
    let begin: String = tenant.chars().take(40).collect();
    let shown = match headers.hide_arguments() {
        true => String::new(),
        false => format!(" (it begins with `{}`)", begin.escape_debug()),
    };
    Err(format!("the name of its tenant{shown} has {} bytes; give it at most {LONGEST_TENANT}", tenant.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Message, TaskOptions};

    #[crate::task(tenant = "{domain}")]
    fn export(report: u64, domain: String) {
        let _ = (report, domain);
    }

    #[crate::task(tenant = payer)]
    fn bill(account: u64) {
        let _ = account;
    }

    fn payer(account: &u64) -> String {
        if *account == 0 { String::new() } else { format!("account-{account}") }
    }

    fn arguments(args: &str, kwargs: &str) -> Arguments {
        Arguments { args: args.into(), kwargs: kwargs.into() }
    }

    fn rules(argument: Option<&str>, tasks: &[(&str, &str)]) -> TenantRules {
        let tasks = tasks.iter().map(|(task, argument)| ((*task).to_owned(), (*argument).to_owned()));
        TenantRules { argument: argument.map(str::to_owned), tasks: tasks.collect() }
    }

    #[test]
    fn a_task_makes_its_tenant_of_its_arguments() {
        assert_eq!(export::Task::tenant(&(7, "acme".into())).as_deref(), Some("acme"));
        let of = |args, kwargs| tenant_of::<export::Task>(&arguments(args, kwargs));
        assert_eq!(of("[7,\"acme\"]", "").as_deref(), Some("acme"));
        assert_eq!(of("[7]", "{\"domain\":\"acme\"}").as_deref(), Some("acme"));
        assert_eq!((of("[7]", ""), of("[]", "no JSON")), (None, None), "the worker says what is wrong");
        let of = |args| {
            rules(None, &[]).tenant("bill", &["account"], Some(tenant_of::<bill::Task>), &arguments(args, ""))
        };
        assert_eq!((of("[7]").as_deref(), of("[0]")), (Some("account-7"), None), "an empty name is none");
    }

    #[test]
    fn the_catalogue_names_an_argument() {
        let params = ["report", "domain"];
        let all = rules(Some("domain"), &[("mail", "report"), ("none", "")]);
        let of = |task: &str, own: Option<TenantFn>, args: &str, kwargs: &str| {
            all.tenant(task, &params, own, &arguments(args, kwargs))
        };
        assert_eq!(of("any", None, "[7,\"acme\"]", "").as_deref(), Some("acme"));
        assert_eq!(of("any", None, "[]", "{\"domain\":\"acme\"}").as_deref(), Some("acme"));
        assert_eq!(
            of("mail", None, "[18446744073709551616,\"acme\"]", "").as_deref(),
            Some("18446744073709551616")
        );
        let own: TenantFn = |_| Some("own".to_owned());
        assert_eq!(of("any", Some(own), "[7,\"acme\"]", "").as_deref(), Some("own"), "the task knows better");
        assert_eq!(of("mail", Some(own), "[7]", "").as_deref(), Some("7"), "a row for the task wins");
        assert_eq!(of("none", Some(own), "[7,\"acme\"]", ""), None);
        for nothing in ["[7,null]", "[7,true]", "[7,[\"acme\"]]", "[7,\"\"]", "[7]", "[]", "", "no JSON"] {
            assert_eq!(of("any", None, nothing, ""), None, "{nothing}");
        }
        assert_eq!(rules(None, &[]).tenant("any", &params, None, &arguments("[7,\"acme\"]", "")), None);
    }

    #[test]
    fn rows_that_name_no_parameter_are_told() {
        let rules = rules(None, &[("a", "domian"), ("b", "domain"), ("c", "x"), ("d", "x"), ("e", "")]);
        let params = |task: &str| -> Option<&'static [&'static str]> {
            match task {
                "d" => None,
                "c" => Some(&["domain", "**options"]),
                _ => Some(&["report", "domain"]),
            }
        };
        let faults: Vec<_> = rules.faults(params).collect();
        assert_eq!(faults, [("a", "domian", &["report", "domain"][..])]);
    }

    #[test]
    fn a_name_has_up_to_256_bytes() {
        let now = crate::core::Timestamp::ZERO;
        let mut message =
            Message::new("a".into(), "t", Arguments::default(), "q", TaskOptions::default(), now);
        let mut named = |tenant: Value| {
            message.headers.0.insert(TENANT.to_owned(), tenant);
            (message.tenant().map(str::to_owned), check(&message.headers))
        };
        let longest = "t".repeat(LONGEST_TENANT);
        assert_eq!(named(longest.clone().into()), (Some(longest.clone()), Ok(())));
        let (tenant, refused) = named(format!("{longest}t").into());
        let text = "the name of its tenant (it begins with `tttttttttttttttttttttttttttttttttttttttt`) has 257 bytes; give it at most 256";
        assert_eq!((tenant, refused), (None, Err(text.to_owned())), "nobody's line has such a name");
        let hidden = [("argsrepr", "<hidden>".into()), (TENANT, format!("{longest}t").into())];
        let hidden = Headers(hidden.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into());
        let text = "the name of its tenant has 257 bytes; give it at most 256";
        assert_eq!(check(&hidden), Err(text.to_owned()));
        for none in ["".into(), Value::Null, 7.into()] {
            assert_eq!(named(none), (None, Ok(())));
        }
    }
}

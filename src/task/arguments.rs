//! The encoded arguments of a call: JSON, positional and by keyword, as in Celery.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Headers, Task, envelope, finite};

/// The encoded arguments of one call: Celery's `args` and `kwargs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// The positional arguments, as a JSON array.
    pub args: String,
    /// The arguments by name, as a JSON object. The text is empty if there are none.
    pub kwargs: String,
}

/// The value of a parameter, as JSON, for a call that leaves it out; or why it has no form in JSON. It is `None` if the
/// parameter has no default.
#[doc(hidden)]
pub type ParamDefault = Option<Result<String, serde_json::Error>>;

/// Encodes the default value of a parameter.
///
/// # Errors
/// The value has no form in JSON.
#[doc(hidden)]
pub fn param_default<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    finite::to_string(value)
}

/// Whether a parameter of this name takes the rest of the arguments: `*rest` those by position, `**options` those by name.
fn takes_rest(name: &str) -> bool {
    name.starts_with('*')
}

fn takes_names(name: &str) -> bool {
    name.starts_with("**")
}

/// The error of arguments that could not be decoded. Its text names the parameter and the value that was there instead.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ArgumentsError {
    text: String,
    /// The text of the error without any value in it.
    discreet: String,
}

impl ArgumentsError {
    /// An error whose text quotes no value.
    fn new(text: String) -> Self {
        Self { discreet: text.clone(), text }
    }

    /// The text without any argument in it, for a call that [hides](super::Message::hides_arguments) its arguments.
    pub fn without_values(&self) -> &str {
        &self.discreet
    }

    /// The text that a log or a record may show for a call with these headers.
    pub(crate) fn told(&self, headers: &Headers) -> String {
        if headers.hide_arguments() { self.discreet.clone() } else { self.text.clone() }
    }
}

crate::core::debug_as_display!(ArgumentsError);

impl Arguments {
    /// Encodes a tuple of arguments as positional arguments.
    ///
    /// # Errors
    /// A value has no form in JSON: it is a map whose keys are not text, or a number that is NaN or infinite.
    pub fn encode<A: Serialize>(args: &A) -> Result<Self, serde_json::Error> {
        let mut text = finite::to_string(args)?;
        if text == "null" {
            text = "[]".to_owned(); // the unit type: no arguments
        }
        Ok(Self { args: text, kwargs: String::new() })
    }

    /// Encodes the arguments of a call of a task with these parameters: what the parameters `*rest` and `**options` hold
    /// stands among the other arguments, as it does in a call in Python.
    pub(crate) fn encode_call<A: Serialize>(args: &A, params: &[&str]) -> Result<Self, serde_json::Error> {
        let encoded = Self::encode(args)?;
        if !params.last().is_some_and(|name| takes_rest(name)) {
            return Ok(encoded);
        }
        let values: Vec<&RawValue> = serde_json::from_str(&encoded.args)?;
        let (mut positional, mut kwargs) = (Vec::new(), String::new());
        for (name, value) in params.iter().zip(values) {
            if takes_names(name) {
                kwargs = Some(value.get()).filter(|text| *text != "{}").unwrap_or_default().to_owned();
            } else if takes_rest(name) {
                positional.extend(serde_json::from_str::<Vec<&RawValue>>(value.get())?);
            } else {
                positional.push(value);
            }
        }
        Ok(Self { args: serde_json::to_string(&positional)?, kwargs })
    }

    /// The number of bytes that the arguments take in a message.
    pub fn len(&self) -> usize {
        self.args.len() + self.kwargs.len()
    }

    /// Whether there is no argument at all.
    pub fn is_empty(&self) -> bool {
        self.kwargs.is_empty() && matches!(self.args.as_str(), "" | "[]")
    }

    /// Decodes the arguments into the tuple `A`, for the named parameters in order. Each [envelope](super::envelope) is
    /// decoded as the value that it holds. A keyword argument goes to the parameter of its name, as in Python. A
    /// missing argument is decoded as null, which is right for an `Option`. A last parameter `*rest` takes the positional
    /// arguments that are left over, as a list, and `**options` the keyword arguments, as a map.
    ///
    /// # Errors
    /// There are too many arguments, one is missing or was given twice, a keyword is unknown, or a value has the wrong
    /// type. The text of the error says which argument it is.
    pub fn decode<A: DeserializeOwned>(&self, params: &[&str]) -> Result<A, ArgumentsError> {
        self.decode_with(params, |_| None)
    }

    /// Decodes the arguments of a call of this task, with the defaults of its parameters.
    pub(crate) fn decode_call<T: Task>(&self) -> Result<T::Args, ArgumentsError> {
        self.decode_with(T::PARAMS, T::default_of)
    }

    fn decode_with<A: DeserializeOwned>(
        &self,
        params: &[&str],
        default_of: fn(usize) -> ParamDefault,
    ) -> Result<A, ArgumentsError> {
        let is_plain = params.last().is_some_and(|name| !takes_rest(name));
        if self.kwargs.is_empty() && is_plain && !envelope::has_envelopes(&self.args) {
            // Most calls have positional arguments only, and those need no detour over the single parts.
            if let Ok(args) = serde_json::from_str(&self.args) {
                return Ok(args);
            }
        }
        let values = self.bind(params, default_of)?;
        if params.is_empty() {
            return serde_json::from_str("null").map_err(|e| ArgumentsError::new(e.to_string()));
        }
        // The values are joined as text, so that each number has the digits that it was sent with.
        let text = format!("[{}]", values.join(","));
        envelope::from_str(&text).map_err(|e| explain::<A>(params, &values, &e))
    }

    /// Finds the JSON text of each parameter, in the order of `params`.
    pub(crate) fn bind(
        &self,
        params: &[&str],
        default_of: fn(usize) -> ParamDefault,
    ) -> Result<Vec<Cow<'_, str>>, ArgumentsError> {
        let expected = || format!("the task takes ({})", params.join(", "));
        let (params, rests) = params.split_at(params.iter().take_while(|name| !takes_rest(name)).count());
        let wrong = |what: &str, error: serde_json::Error| {
            let discreet = format!("the {what}");
            ArgumentsError { text: format!("{discreet}: {error}"), discreet }
        };
        let positional = if self.args.is_empty() { "[]" } else { &self.args };
        let mut values: Vec<Option<&RawValue>> = serde_json::from_str::<Vec<&RawValue>>(positional)
            .map_err(|e| wrong("positional arguments are not a JSON array", e))?
            .into_iter()
            .map(Some)
            .collect();
        let more = values.split_off(values.len().min(params.len()));
        if !more.is_empty() && !rests.iter().any(|name| takes_rest(name) && !takes_names(name)) {
            return Err(ArgumentsError::new(format!(
                "{} positional arguments were given, but {}",
                values.len() + more.len(),
                expected()
            )));
        }
        values.resize(params.len(), None);
        let mut others: BTreeMap<String, &RawValue> = BTreeMap::new();
        if !self.kwargs.is_empty() {
            let keywords: BTreeMap<String, &RawValue> = serde_json::from_str(&self.kwargs)
                .map_err(|e| wrong("keyword arguments are not a JSON object", e))?;
            for (name, value) in keywords {
                match params.iter().position(|p| *p == name) {
                    None if rests.iter().any(|name| takes_names(name)) => {
                        others.insert(name, value);
                    }
                    None => {
                        return Err(ArgumentsError::new(format!("unknown keyword `{name}`: {}", expected())));
                    }
                    Some(at) if values[at].is_some() => {
                        return Err(ArgumentsError::new(format!("argument `{name}` was given twice")));
                    }
                    Some(at) => values[at] = Some(value),
                }
            }
        }
        let no_form = |what: &str, error: serde_json::Error| {
            ArgumentsError::new(format!("{what} has no form in JSON: {error}"))
        };
        let mut bound = Vec::with_capacity(params.len() + rests.len());
        for (at, value) in values.into_iter().enumerate() {
            bound.push(match (value, params[at]) {
                (Some(value), _) => Cow::Borrowed(value.get()),
                (None, name) => match default_of(at) {
                    Some(Ok(default)) => Cow::Owned(default),
                    Some(Err(error)) => return Err(no_form(&format!("the default of `{name}`"), error)),
                    // It is tried as null; an `Option` takes that, and every other type refuses it.
                    None => Cow::Borrowed("null"),
                },
            });
        }
        for name in rests {
            let rest =
                if takes_names(name) { serde_json::to_string(&others) } else { serde_json::to_string(&more) };
            bound.push(Cow::Owned(rest.map_err(|error| no_form(name, error))?));
        }
        Ok(bound)
    }
}

/// Names the argument that does not decode. The error of serde alone only counts columns.
fn explain<A>(params: &[&str], values: &[Cow<'_, str>], error: &serde_json::Error) -> ArgumentsError {
    let given: Vec<String> = params
        .iter()
        .zip(values)
        .map(|(p, v)| {
            let text = envelope::unwrapped(v);
            match text.char_indices().nth(60) {
                None => format!("{p}={text}"),
                Some(_) => {
                    let end = (0..=57).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                    format!("{p}={}...", &text[..end])
                }
            }
        })
        .collect();
    let wanted = std::any::type_name::<A>();
    ArgumentsError {
        text: format!("the arguments ({}) do not decode as {wanted}: {error}", given.join(", ")),
        discreet: format!(
            "the arguments ({}) do not decode as {wanted}; what is wrong with them is not shown, because the call hides them",
            params.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Json;

    fn decode<A: DeserializeOwned>(args: &str, kwargs: &str, params: &[&str]) -> Result<A, String> {
        Arguments { args: args.into(), kwargs: kwargs.into() }.decode(params).map_err(|e| e.to_string())
    }

    #[test]
    fn positional_keyword_and_missing_optional() {
        let p = ["user", "note"];
        assert_eq!(decode::<(u64, Option<String>)>("[1,\"x\"]", "", &p), Ok((1, Some("x".into()))));
        assert_eq!(decode::<(u64, Option<String>)>("[1]", "", &p), Ok((1, None)));
        assert_eq!(
            decode::<(u64, Option<String>)>("[]", r#"{"note":"n","user":2}"#, &p),
            Ok((2, Some("n".into())))
        );
        assert_eq!(decode::<()>("[]", "", &[]), Ok(()));
        let one = Arguments::encode(&(7_u8,)).unwrap();
        assert_eq!(one.decode::<(u8,)>(&["n"]), Ok((7,)));
        assert!(Arguments::encode(&()).unwrap().is_empty());
    }

    /// As in `def f(first, second=5, *rest, **options)`.
    #[test]
    fn the_rest_goes_where_python_puts_it() {
        type Args = (u8, u8, Vec<u8>, BTreeMap<String, Json>);
        let params = ["first", "second", "*rest", "**options"];
        let second = |at: usize| (at == 1).then(|| param_default(&5));
        let read = |args: &str, kwargs: &str| {
            let arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
            arguments.decode_with::<Args>(&params, second).map_err(|error| error.to_string())
        };
        let named = |name: &str, value: &str| -> BTreeMap<String, Json> {
            BTreeMap::from([(name.to_owned(), value.parse().unwrap())])
        };
        for (args, kwargs, expected) in [
            ("[1]", "", (1, 5, vec![], BTreeMap::new())),
            ("[1,2,3,4]", "", (1, 2, vec![3, 4], BTreeMap::new())),
            ("[1]", r#"{"second":2,"n":1e3}"#, (1, 2, vec![], named("n", "1e3"))),
            ("[]", r#"{"first":9,"rest":[7]}"#, (9, 5, vec![], named("rest", "[7]"))),
        ] {
            assert_eq!(read(args, kwargs), Ok(expected.clone()), "{args} {kwargs}");
            let written = Arguments::encode_call(&expected, &params).unwrap();
            assert_eq!(read(&written.args, &written.kwargs), Ok(expected));
        }
        // A list that is an argument is no rest.
        assert!(read("[1,2,[3]]", "").unwrap_err().contains("*rest=[[3]]"));
        assert!(
            read("[1,null]", "").unwrap_err().contains("second=null"),
            "null was given, and is not left out"
        );
        let twice = read("[1]", r#"{"first":1}"#).unwrap_err();
        assert_eq!(twice, "argument `first` was given twice");
        let e = decode::<(u8, Vec<u8>)>("[1,2]", r#"{"x":1}"#, &["n", "*rest"]).unwrap_err();
        assert_eq!(e, "unknown keyword `x`: the task takes (n, *rest)");
        let e = decode::<(u8, BTreeMap<String, u8>)>("[1,2]", "", &["n", "**names"]).unwrap_err();
        assert_eq!(e, "2 positional arguments were given, but the task takes (n, **names)");
        let written =
            Arguments::encode_call(&(1, vec!["a"], BTreeMap::from([("x", 2)])), &["n", "*r", "**k"]);
        let expected = Arguments { args: r#"[1,"a"]"#.into(), kwargs: r#"{"x":2}"#.into() };
        assert_eq!(written.unwrap(), expected);
    }

    #[test]
    fn envelopes_are_taken_as_what_they_hold() {
        let day = r#"{"__type__":"date","__value__":"2026-11-22"}"#;
        let expected = chrono::NaiveDate::from_ymd_opt(2026, 11, 22).unwrap();
        assert_eq!(decode::<(chrono::NaiveDate,)>(&format!("[{day}]"), "", &["day"]), Ok((expected,)));
        assert_eq!(
            decode::<(chrono::NaiveDate,)>("[]", &format!(r#"{{"day":{day}}}"#), &["day"]),
            Ok((expected,))
        );
        let error = decode::<(u8,)>(&format!("[{day}]"), "", &["day"]).unwrap_err();
        assert!(error.contains("(day=\"2026-11-22\")"), "{error}");
    }

    #[test]
    fn a_value_gets_what_is_inside_of_an_envelope() {
        let json =
            r#"{"big":1000000000000000000000000000000,"at":{"__type__":"date","__value__":"2026-11-22"}}"#;
        let plain = r#"{"big":1000000000000000000000000000000,"at":"2026-11-22"}"#;
        for (args, kwargs) in
            [(format!("[{json}]"), String::new()), ("[]".to_owned(), format!(r#"{{"v":{json}}}"#))]
        {
            let value = decode::<(serde_json::Value,)>(&args, &kwargs, &["v"]).unwrap().0;
            assert_eq!(value["at"], "2026-11-22");
            // An integer beyond 64 bits is a float in a `Value`.
            assert!(value["big"].is_f64() && value["big"] == 1e30, "{value}");
            // In a `Json`, everything else stays as it was sent.
            assert_eq!(decode::<(Json,)>(&args, &kwargs, &["v"]).unwrap().0.text(), plain);
        }
        // A program may use these two names for fields of its own.
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Own {
            __type__: String,
            __value__: String,
        }
        let own = decode::<(Own,)>(r#"[{"__type__":"date","__value__":"x"}]"#, "", &["v"]).unwrap().0;
        assert_eq!(own, Own { __type__: "date".into(), __value__: "x".into() });
    }

    #[test]
    fn numbers_keep_their_digits_by_position_and_by_keyword() {
        let big = 10_i128.pow(30);
        assert_eq!(decode::<(i128,)>(&format!("[{big}]"), "", &["n"]), Ok((big,)));
        assert_eq!(decode::<(i128,)>("[]", &format!(r#"{{"n":{big}}}"#), &["n"]), Ok((big,)));
        let float = 117.633_311_394_000_17_f64;
        for (args, kwargs) in [("[117.63331139400017]", ""), ("[]", r#"{"n":117.63331139400017}"#)] {
            assert_eq!(decode::<(f64,)>(args, kwargs, &["n"]).unwrap().0.to_bits(), float.to_bits());
        }
        assert!(decode::<(f64,)>("[1e400]", "", &["n"]).unwrap_err().contains("number out of range"));
        // If a name occurs twice, the last value counts, as in Python.
        assert_eq!(decode::<(u8,)>("[]", r#"{"n":1,"n":2}"#, &["n"]), Ok((2,)));
    }

    #[test]
    fn what_is_hidden_is_not_quoted() {
        for (args, kwargs) in [
            (r#"["hunter2"]"#, ""),
            ("[]", r#"{"user":"hunter2"}"#),
            (r#""hunter2""#, ""),
            ("[]", r#""hunter2""#),
            (r#"["hunter2","hunter2"]"#, ""),
            (r#"["hunter2"]"#, r#"{"user":"hunter2"}"#),
        ] {
            let arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
            let error = arguments.decode::<(u64,)>(&["user"]).unwrap_err();
            assert!(!error.without_values().contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn nan_and_infinity_are_no_arguments() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Arguments::encode(&(1, Some(vec![float]))).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a number in it is {float}, which JSON")), "{error}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let p = ["user"];
        let e = decode::<(u64,)>("[1,2]", "", &p).unwrap_err();
        assert_eq!(e, "2 positional arguments were given, but the task takes (user)");
        let e = decode::<(u64,)>("[]", r#"{"usr":1}"#, &p).unwrap_err();
        assert_eq!(e, "unknown keyword `usr`: the task takes (user)");
        let e = decode::<(u64,)>("[1]", r#"{"user":1}"#, &p).unwrap_err();
        assert_eq!(e, "argument `user` was given twice");
        let e = decode::<(u64,)>("[\"x\"]", "", &p).unwrap_err();
        assert!(e.starts_with("the arguments (user=\"x\") do not decode as (u64,): invalid type"), "{e}");
        assert!(decode::<(u64,)>("{}", "", &p).unwrap_err().contains("not a JSON array"));
        assert!(decode::<(u64,)>("[]", "", &p).is_err());
        assert!(decode::<()>("[1]", "", &[]).is_err());
    }
}

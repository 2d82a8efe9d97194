//! A task's arguments on their way: JSON, positional and by keyword, as in Celery.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::envelope;

/// The arguments of one call, encoded. Celery's `args` and `kwargs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// A JSON array: the positional arguments.
    pub args: String,
    /// A JSON object: the arguments by name. Empty text where there are none.
    pub kwargs: String,
}

/// Why arguments could not be decoded; the text names the parameter and what was there instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArgumentsError(String);

impl Arguments {
    /// Encodes a tuple of arguments as positional ones.
    ///
    /// # Errors
    /// When a value has no form in JSON, for example a map whose keys are not text.
    pub fn encode<A: Serialize>(args: &A) -> Result<Self, serde_json::Error> {
        let mut text = serde_json::to_string(args)?;
        if text == "null" {
            text = "[]".to_owned(); // the unit type: no arguments
        }
        Ok(Self { args: text, kwargs: String::new() })
    }

    /// How many bytes the arguments take in a message.
    pub fn len(&self) -> usize {
        self.args.len() + self.kwargs.len()
    }

    /// Whether there is no argument at all.
    pub fn is_empty(&self) -> bool {
        self.kwargs.is_empty() && matches!(self.args.as_str(), "" | "[]")
    }

    /// Decodes into the tuple `A` for the named parameters, in order, [envelopes](super::envelope) as what they hold. Arguments by keyword go to the
    /// parameter of their name, as Python does it; a missing one that may be null (an `Option`) is null.
    ///
    /// # Errors
    /// Too many arguments, a missing one, one given twice, an unknown keyword, or a value of the wrong type:
    /// the text says which.
    pub fn decode<A: DeserializeOwned>(&self, params: &[&str]) -> Result<A, ArgumentsError> {
        if self.kwargs.is_empty() && !params.is_empty() {
            // The usual case, without a detour over `Value`.
            if let Ok(args) = serde_json::from_str(&self.args) {
                return Ok(args);
            }
        }
        let mut values = self.bind(params)?;
        if params.is_empty() {
            return serde_json::from_value(Value::Null).map_err(|e| ArgumentsError(e.to_string()));
        }
        if let Ok(args) = serde_json::from_value(Value::Array(values.clone())) {
            return Ok(args);
        }
        // What Python sends as a type of its own is taken as what it holds.
        values.iter_mut().for_each(envelope::unwrap);
        serde_json::from_value(Value::Array(values.clone())).map_err(|e| explain::<A>(params, &values, &e))
    }

    /// One value for each parameter.
    pub(crate) fn bind(&self, params: &[&str]) -> Result<Vec<Value>, ArgumentsError> {
        let expected = || format!("the task takes ({})", params.join(", "));
        let positional = if self.args.is_empty() { "[]" } else { &self.args };
        let mut values: Vec<Option<Value>> = serde_json::from_str::<Vec<Value>>(positional)
            .map_err(|e| ArgumentsError(format!("the positional arguments are not a JSON array: {e}")))?
            .into_iter()
            .map(Some)
            .collect();
        if values.len() > params.len() {
            return Err(ArgumentsError(format!(
                "{} positional arguments were given, but {}",
                values.len(),
                expected()
            )));
        }
        values.resize(params.len(), None);
        if !self.kwargs.is_empty() {
            let keywords: serde_json::Map<String, Value> = serde_json::from_str(&self.kwargs)
                .map_err(|e| ArgumentsError(format!("the keyword arguments are not a JSON object: {e}")))?;
            for (name, value) in keywords {
                match params.iter().position(|p| *p == name) {
                    None => {
                        return Err(ArgumentsError(format!("unknown keyword `{name}`: {}", expected())));
                    }
                    Some(at) if values[at].is_some() => {
                        return Err(ArgumentsError(format!("argument `{name}` was given twice")));
                    }
                    Some(at) => values[at] = Some(value),
                }
            }
        }
        // A missing argument is tried as null, which is right for an `Option` and refused by the rest.
        Ok(values.into_iter().map(|v| v.unwrap_or(Value::Null)).collect())
    }
}

/// Says which argument it was; serde alone only counts columns.
fn explain<A>(params: &[&str], values: &[Value], error: &serde_json::Error) -> ArgumentsError {
    let given: Vec<String> = params
        .iter()
        .zip(values)
        .map(|(p, v)| {
            let mut text = v.to_string();
            if text.len() > 60 {
                text.truncate((0..=57).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0));
                text.push_str("...");
            }
            format!("{p}={text}")
        })
        .collect();
    ArgumentsError(format!(
        "the arguments ({}) do not decode as {}: {error}",
        given.join(", "),
        std::any::type_name::<A>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

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

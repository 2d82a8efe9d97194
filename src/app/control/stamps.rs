//! Revokes tasks by what is stamped on them.

use std::sync::Arc;

use serde_json::Value;

use super::arguments::{python_error, quoted};
use super::{CommandResult, ControlCommand, PATIENCE, ok};
use crate::protocol::keyword_repr;
use crate::runtime::revoked_stamps::Stamps;

pub(super) async fn revoke_by_stamped_headers(command: &ControlCommand<'_>) -> CommandResult {
    let (stamps, shown) = read(command.arguments.get("headers"))?;
    if !command.inner.runtime.revoked_stamps.add(&stamps) {
        return Err(python_error("ValueError", "too many stamps are revoked in this process; restart it"));
    }
    if !command.arguments.switch("terminate") {
        return Ok(ok(format!("headers {shown} flagged as revoked, but not terminated")));
    }
    let found = command.inner.queues.terminate_stamped(Arc::new(stamps), PATIENCE).await;
    if found.is_empty() {
        return Ok(ok(format!("headers {shown} were not terminated")));
    }
    let mut all = Stamps::new();
    for (name, values) in found.into_iter().flatten() {
        let known = all.entry(name).or_default();
        for value in values {
            if !known.contains(&value) {
                known.push(value);
            }
        }
    }
    Ok(ok(format!("headers {} revoked", as_sets(&all))))
}

/// The stamps of the argument, and the argument as Python shows it.
fn read(headers: Option<&Value>) -> Result<(Stamps, String), String> {
    let wrong = || {
        let text = "revoke_by_stamped_headers() needs 'headers', an object of values by stamp, or a list of 'stamp=value'";
        python_error("TypeError", text)
    };
    let mut stamps = Stamps::new();
    let shown = match headers {
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                let values = match value {
                    Value::Array(values) => values.clone(),
                    Value::Null => Vec::new(),
                    single => vec![single.clone()],
                };
                stamps.insert(name.clone(), values);
            }
            keyword_repr(&Value::Object(headers.clone()).to_string())
        }
        Some(Value::Array(pairs)) => {
            let mut shown = serde_json::Map::new();
            for pair in pairs {
                // As Celery splits it: what follows a second `=` is lost.
                let mut parts = pair.as_str().ok_or_else(wrong)?.split('=');
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return Err(wrong()) };
                stamps.insert(name.to_owned(), vec![value.into()]);
                shown.insert(name.to_owned(), value.into());
            }
            keyword_repr(&Value::Object(shown).to_string())
        }
        _ => return Err(wrong()),
    };
    Ok((stamps, shown.unwrap_or_default()))
}

/// What Python shows of a `defaultdict(set)`.
fn as_sets(stamps: &Stamps) -> String {
    let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), quoted);
    let set = |values: &[Value]| values.iter().map(value).collect::<Vec<_>>().join(", ");
    let all: Vec<String> =
        stamps.iter().map(|(name, values)| format!("{}: {{{}}}", quoted(name), set(values))).collect();
    format!("defaultdict(<class 'set'>, {{{}}})", all.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stamps_are_read_and_shown_as_celery_does() {
        let (stamps, shown) = read(Some(&json!({"tenant": ["acme2"], "site": "a"}))).unwrap();
        assert_eq!(shown, "{'site': 'a', 'tenant': ['acme2']}");
        assert_eq!(stamps["tenant"], [json!("acme2")]);
        assert_eq!(stamps["site"], [json!("a")]);
        let (stamps, shown) = read(Some(&json!(["k=v", "l=w=x"]))).unwrap();
        assert_eq!((shown.as_str(), &stamps["l"]), ("{'k': 'v', 'l': 'w'}", &vec![json!("w")]));
        for wrong in [json!("k=v"), json!(["k"]), json!([5]), json!(5)] {
            assert!(read(Some(&wrong)).is_err_and(|error| error.starts_with("TypeError(")), "{wrong}");
        }
        assert!(read(None).is_err());
        let all = Stamps::from([("k".to_owned(), vec![json!("v"), json!(5)])]);
        assert_eq!(as_sets(&all), "defaultdict(<class 'set'>, {'k': {'v', 5}})");
    }
}

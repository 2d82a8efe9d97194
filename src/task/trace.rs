//! The headers that say to which trace a task belongs.
//!
//! OpenTelemetry and Sentry write them into the message of a call, and read them where its task runs. Celeriac carries them
//! always, whether it traces itself (feature `otel`) or not: they stay in the message of a task through all of its attempts,
//! and what follows from the task inherits them. So a trace that begins in a program in Python goes on behind a task in Rust.
//!
//! Invariants:
//! - What a call states itself stays as it is.
//! - A header that is inherited has at most [`LONGEST`] bytes, so a trace does not make messages grow without bound.

use serde_json::{Map, Value};

use super::Headers;
use super::canvas::json_len;

/// The headers of a trace: those of the W3C, and Sentry's own.
pub(crate) const TRACE_HEADERS: [&str; 4] = [PARENT, STATE, "baggage", "sentry-trace"];

/// The header that names the trace and the span in it from which the task follows.
const PARENT: &str = "traceparent";
/// What tracers of several vendors add to [`PARENT`]. It means nothing beside another one.
const STATE: &str = "tracestate";

/// The header in which Sentry's client for Python writes its headers, and all others, once more. A worker in Python that
/// finds this table takes `self.request.headers` from it alone.
const TABLE: &str = "headers";

/// The most bytes of a header that is inherited. The W3C lets a list of baggage have as many.
pub(crate) const LONGEST: usize = 8192;

impl Headers {
    /// The headers of the trace that a task with these headers belongs to.
    pub(crate) fn trace(&self) -> Self {
        let mut trace = Self(picked(|name| self.0.get(name)).collect());
        if let Some(Value::Object(table)) = self.0.get(TABLE) {
            let table: Map<String, Value> = picked(|name| table.get(name)).collect();
            if !table.is_empty() {
                trace.0.insert(TABLE.to_owned(), Value::Object(table));
            }
        }
        trace
    }

    /// How many bytes a message takes more that inherits these headers of a trace.
    pub(crate) fn inherited_bytes(&self) -> usize {
        if self.0.is_empty() { 0 } else { json_len(self) }
    }

    /// Adds the headers of a trace, except where the call states its own.
    pub(crate) fn inherit_trace(&mut self, trace: &Self) {
        let has_parent = self.0.contains_key(PARENT);
        for (name, value) in &trace.0 {
            let is_stated = self.0.contains_key(name) || (has_parent && name == STATE);
            if name != TABLE && !is_stated {
                self.0.insert(name.clone(), value.clone());
            }
        }
        if let Some(Value::Object(inherited)) = trace.0.get(TABLE) {
            self.inherit_table(inherited);
        }
    }

    /// Puts the headers of a span in the place of those of the span that it follows from.
    pub(crate) fn continue_trace(&mut self, span: &Self) {
        if span.0.contains_key(PARENT) {
            self.0.remove(STATE);
        }
        if let Some(Value::Object(table)) = self.0.get_mut(TABLE) {
            if span.0.contains_key(PARENT) {
                table.remove(STATE);
            }
            table.extend(span.0.iter().filter(|(name, _)| *name != TABLE).map(owned));
        }
        self.0.extend(span.0.iter().filter(|(name, _)| *name != TABLE).map(owned));
    }

    /// Adds Sentry's table, with what the message itself says by now.
    fn inherit_table(&mut self, inherited: &Map<String, Value>) {
        let mut table: Map<String, Value> = match self.0.get(TABLE) {
            None => self.0.iter().filter(|(name, _)| is_for_python(name)).map(owned).collect(),
            Some(Value::Object(table)) => table.clone(),
            Some(_) => return,
        };
        for (name, value) in inherited {
            let value = self.0.get(name).unwrap_or(value);
            table.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.0.insert(TABLE.to_owned(), Value::Object(table));
    }
}

/// The headers of the span that this thread is in. Without the feature `otel` there are none.
#[cfg(feature = "otel")]
pub(crate) fn span_headers() -> Headers {
    super::otel::current_headers()
}

/// The headers of the span that this thread is in: none, without the feature `otel`.
#[cfg(not(feature = "otel"))]
pub(crate) fn span_headers() -> Headers {
    Headers::default()
}

/// The headers of a trace among those that `get` finds.
fn picked<'a>(get: impl Fn(&str) -> Option<&'a Value> + 'a) -> impl Iterator<Item = (String, Value)> + 'a {
    TRACE_HEADERS.into_iter().filter_map(move |name| {
        let value = get(name).filter(|value| value.as_str().is_some_and(|text| text.len() <= LONGEST))?;
        Some((name.to_owned(), value.clone()))
    })
}

/// Whether a header is one that a body in Python looks for, and not Celeriac's own.
fn is_for_python(name: &str) -> bool {
    !name.starts_with("celeriac") && !matches!(name, "argsrepr" | "kwargsrepr")
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(headers: Value) -> Headers {
        serde_json::from_value(headers).unwrap()
    }

    fn inherited(own: Value, parent: Value) -> Value {
        let mut own = headers(own);
        own.inherit_trace(&headers(parent).trace());
        serde_json::to_value(own).unwrap()
    }

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_headers_of_a_trace_are_inherited_and_no_others() {
        let parent = json!({
            "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b", "sentry-trace": "4bf9-00f0-1",
            "sentry-task-enqueued-time": 1.5, "tenant": "acme", "celeriac_once": "x",
        });
        let expected = json!({ "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b", "sentry-trace": "4bf9-00f0-1" });
        assert_eq!(inherited(json!({}), parent.clone()), expected);
        assert_eq!(inherited(json!({ "baggage": "own=1" }), parent)["baggage"], "own=1");
        assert_eq!(inherited(json!({ "x": 1 }), json!({ "tenant": "acme" })), json!({ "x": 1 }));
    }

    #[test]
    fn a_stated_parent_is_not_mixed_with_another_state() {
        let parent = json!({ "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b" });
        let own = json!({ "traceparent": "00-1-2-01" });
        assert_eq!(inherited(own, parent), json!({ "traceparent": "00-1-2-01", "baggage": "a=b" }));
    }

    #[test]
    fn what_is_no_text_or_too_long_is_not_inherited() {
        let parent = json!({ "traceparent": 7, "baggage": "b".repeat(LONGEST + 1), "tracestate": null });
        assert_eq!(inherited(json!({}), parent), json!({}));
        let longest = json!({ "baggage": "b".repeat(LONGEST) });
        assert_eq!(inherited(json!({}), longest.clone()), longest);
        assert_eq!(headers(json!({})).trace().inherited_bytes(), 0);
        assert!(headers(longest).trace().inherited_bytes() > LONGEST);
    }

    /// Sentry's client for Python reads the table, and a body reads its own headers there.
    #[test]
    fn sentrys_table_goes_along_with_what_the_call_states() {
        let table = json!({ "sentry-trace": "1-2-1", "baggage": "a=b", "sentry-monitor-slug": "nightly" });
        let parent = json!({ "sentry-trace": "1-2-1", "baggage": "a=b", "headers": table });
        let own = json!({ "tenant": "acme", "celeriac_once": "x", "baggage": "own=1" });
        let told = inherited(own, parent.clone());
        let expected = json!({ "tenant": "acme", "baggage": "own=1", "sentry-trace": "1-2-1" });
        assert_eq!(told["headers"], expected);
        assert_eq!(told["sentry-trace"], "1-2-1");
        let own = inherited(json!({ "headers": { "sentry-trace": "3-4-0" } }), parent.clone());
        assert_eq!(own["headers"], json!({ "sentry-trace": "3-4-0", "baggage": "a=b" }));
        assert_eq!(inherited(json!({ "headers": 3 }), parent)["headers"], 3);
    }

    #[test]
    fn a_span_takes_the_place_of_the_one_before() {
        let table = json!({ "traceparent": W3C, "tracestate": "v=1", "tenant": "acme" });
        let own =
            json!({ "traceparent": W3C, "tracestate": "v=1", "baggage": "a=b", "x": 1, "headers": table });
        let mut continued = headers(own.clone());
        continued.continue_trace(&headers(json!({ "traceparent": "00-1-2-01", "headers": { "y": 1 } })));
        let table = json!({ "traceparent": "00-1-2-01", "tenant": "acme" });
        let expected = json!({ "traceparent": "00-1-2-01", "baggage": "a=b", "x": 1, "headers": table });
        assert_eq!(serde_json::to_value(continued).unwrap(), expected);
        let mut same = headers(own.clone());
        same.continue_trace(&Headers::default());
        assert_eq!(serde_json::to_value(same).unwrap(), own);
    }

    #[test]
    fn inheriting_twice_is_inheriting_once() {
        let table = json!({ "sentry-trace": "1-2-1" });
        let trace = headers(json!({ "traceparent": W3C, "headers": table })).trace();
        let mut once = headers(json!({ "tenant": "acme" }));
        once.inherit_trace(&trace);
        let mut twice = once.clone();
        twice.inherit_trace(&trace);
        assert_eq!(once, twice);
    }
}

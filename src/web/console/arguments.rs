//! The arguments of a task as the pages show them: as the program writes them for people, or else short ones as they are and long
//! ones folded, and none that the program or the caller hides.
//!
//! Invariants:
//! - However large the arguments are, what a page shows of them is bounded. The exact text is an answer of its own.
//! - What is hidden is not found either, and the program is not asked how to write it.
//! - How the program writes arguments changes what people see, and nothing else: data, searches and forms have them as they
//!   were sent.

use std::collections::BTreeMap;

use maud::{Markup, Render, html};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Console, HideHook, words};
use crate::core::text::shortened;
use crate::task::{Arguments, Message};

/// The most bytes of an argument that are shown without being asked for.
const SHORT: usize = 200;
/// The most bytes of an argument that are shown when it is unfolded.
const FOLDED: usize = 4_000;
/// The most bytes of all arguments together.
const ALL: usize = 24_000;
/// The most arguments that are shown.
const MOST: usize = 40;
/// The most bytes of all arguments in a row of a list.
const IN_A_ROW: usize = 140;
/// The most bytes of arguments that the program is asked to write for people: a page has many tasks, and each is read for it.
const FORMATTED: usize = 64 << 10;
/// In the place of arguments that are hidden.
const HIDDEN: &str = "hidden";

/// The arguments of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ShownArguments {
    /// Whether they are hidden.
    pub(super) is_hidden: bool,
    /// The bytes that they take in the message.
    pub(super) bytes: usize,
    /// Those that are shown, in their order.
    pub(super) shown: Vec<ShownArgument>,
    /// How many are not shown because there are so many.
    pub(super) more: usize,
    /// What the program writes in their place.
    #[serde(skip)]
    formatted: Option<String>,
}

/// The arguments of a task on one line. As data they are as they were sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct ArgumentLine {
    sent: String,
    /// What the program writes in their place.
    #[serde(skip)]
    formatted: Option<String>,
}

impl Render for ArgumentLine {
    fn render(&self) -> Markup {
        html! { @match &self.formatted { Some(text) => (text), None => code { (self.sent) } } }
    }
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ShownArgument {
    /// Its name, or its position from 0 if nobody here knows its name.
    pub(super) name: String,
    /// Its JSON text, or the beginning of it.
    pub(super) text: String,
    /// The bytes of the whole text.
    pub(super) bytes: usize,
    /// Whether the text is only its beginning.
    pub(super) is_cut: bool,
}

impl Console {
    /// Whether the arguments of a task are hidden: by its caller, or by the program.
    pub(super) fn hides(&self, message: &Message) -> bool {
        are_hidden(self.hides.as_ref(), message)
    }

    /// Says of a message whether it may be found by its arguments: those that are hidden must not be. Whoever can ask whether
    /// they contain a text finds out what they are, letter by letter.
    pub(super) fn shows_arguments(&self) -> impl Fn(&Message) -> bool + Send + Sync + use<> {
        let hook = self.hides.clone();
        move |message| !are_hidden(hook.as_ref(), message)
    }

    /// The arguments as one line, for a row of a list.
    pub(super) fn argument_line(&self, message: &Message) -> ArgumentLine {
        if self.hides(message) {
            return ArgumentLine { sent: HIDDEN.to_owned(), formatted: None };
        }
        let Arguments { args, kwargs } = &message.arguments;
        // Only the beginning of a long text is looked at.
        let inner = |text: &str| -> String {
            let cut = shortened(text, IN_A_ROW);
            let text = cut.strip_prefix(['[', '{']).unwrap_or(&cut);
            text.strip_suffix([']', '}']).unwrap_or(text).to_owned()
        };
        let both: Vec<String> =
            [inner(args), inner(kwargs)].into_iter().filter(|text| !text.is_empty()).collect();
        let formatted = self.formatted(message).map(|text| words::line(&text, IN_A_ROW));
        ArgumentLine { sent: words::line(&both.join(", "), IN_A_ROW), formatted }
    }

    /// The arguments one by one.
    pub(super) fn arguments(&self, message: &Message) -> ShownArguments {
        let bytes = message.arguments.len();
        if self.hides(message) {
            return ShownArguments { is_hidden: true, bytes, shown: Vec::new(), more: 0, formatted: None };
        }
        let all = named(&message.arguments, self.celeriac.parameters_of(&message.task));
        let mut room = ALL;
        let mut shown = Vec::new();
        for (name, text) in all.iter().take(MOST) {
            let cut = shortened(text, FOLDED.min(room));
            room = room.saturating_sub(cut.len());
            shown.push(ShownArgument {
                name: words::line(name, 100),
                bytes: text.len(),
                is_cut: cut.len() != text.len() || *cut != **text,
                text: cut.into_owned(),
            });
        }
        let formatted = self.formatted(message).map(|text| shortened(&text, FOLDED).into_owned());
        ShownArguments { is_hidden: false, bytes, more: all.len() - shown.len(), shown, formatted }
    }

    /// What the program writes in the place of these arguments, which are not hidden. `None`: they are shown as they were sent.
    fn formatted(&self, message: &Message) -> Option<String> {
        let formats = self.formats.as_ref().filter(|_| message.arguments.len() <= FORMATTED)?;
        let call = call_of(&message.arguments, self.celeriac.parameters_of(&message.task))?;
        formats(&message.task, &object_of(call))
    }
}

fn are_hidden(hook: Option<&HideHook>, message: &Message) -> bool {
    message.hides_arguments() || hook.is_some_and(|hides| hides(message))
}

/// The arguments with their names, each as JSON text. What is no call is shown as it was sent.
fn named<'a>(arguments: &'a Arguments, parameters: &[&str]) -> Vec<(String, &'a str)> {
    call_of(arguments, parameters).unwrap_or_else(|| {
        vec![("args".to_owned(), arguments.args.as_str()), ("kwargs".to_owned(), arguments.kwargs.as_str())]
    })
}

/// The arguments of a call with their names, each as JSON text. `None`: it is no call.
fn call_of<'a>(arguments: &'a Arguments, parameters: &[&str]) -> Option<Vec<(String, &'a str)>> {
    let positional: Vec<&RawValue> = match arguments.args.as_str() {
        "" => Vec::new(),
        args => serde_json::from_str(args).ok()?,
    };
    let by_name: BTreeMap<String, &RawValue> = match arguments.kwargs.as_str() {
        "" => BTreeMap::new(),
        kwargs => serde_json::from_str(kwargs).ok()?,
    };
    let name_of = |at: usize| match parameters.get(at) {
        Some(name) if !name.starts_with('*') => (*name).to_owned(),
        _ => at.to_string(),
    };
    let positional = positional.into_iter().enumerate().map(|(at, value)| (name_of(at), value.get()));
    Some(positional.chain(by_name.into_iter().map(|(name, value)| (name, value.get()))).collect())
}

/// The same arguments as one JSON object.
fn object_of(call: Vec<(String, &str)>) -> Value {
    // Each was read as JSON before. What is nested too deeply for a value is null.
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    Value::Object(call.into_iter().map(|(name, text)| (name, value(text))).collect())
}

/// The exact arguments as one JSON text.
pub(super) fn exact(arguments: &Arguments) -> String {
    let or = |text: &str, empty: &str| if text.is_empty() { empty.to_owned() } else { text.to_owned() };
    format!("{{\"args\":{},\"kwargs\":{}}}", or(&arguments.args, "[]"), or(&arguments.kwargs, "{}"))
}

/// The card of the arguments.
pub(super) fn markup(arguments: &ShownArguments, exact_at: &str) -> Markup {
    let ShownArguments { is_hidden, bytes, shown, more: _, formatted } = arguments;
    html! {
        section class="card" aria-labelledby="arguments" data-still {
            header {
                h2 id="arguments" { "Arguments" }
                p class="scope" { @if formatted.is_some() { "as this program writes them · " } @else { "as they were sent · " } (words::size(*bytes)) }
            }
            @if *is_hidden {
                div class="pad" { p class="note" { "The arguments of this task are hidden, by its caller or by this program." } }
            } @else if let Some(text) = formatted {
                div class="pad" { pre { (text) } }
                details { summary { "As they were sent" } div { (as_sent(arguments)) } }
            } @else {
                (as_sent(arguments))
            }
            @if !is_hidden && !shown.is_empty() {
                div class="pad" { p class="small" { a href=(exact_at) download="arguments.json" { "All of them, exact, as JSON" } } }
            }
        }
    }
}

/// The arguments as they were sent, long ones folded.
fn as_sent(arguments: &ShownArguments) -> Markup {
    let ShownArguments { is_hidden: _, bytes: _, shown, more, formatted: _ } = arguments;
    let (short, long): (Vec<_>, Vec<_>) = shown.iter().partition(|argument| argument.bytes <= SHORT);
    html! {
        @if shown.is_empty() {
            div class="pad" { p class="faint small" { "It has none." } }
        }
        @if !short.is_empty() {
            div class="pad" { dl class="facts" { @for argument in &short { dt { (argument.name) } dd { code { (argument.text) } } } } }
        }
        @for argument in &long {
            details {
                summary { strong { (argument.name) } span class="faint" { (words::size(argument.bytes)) ", shown when opened" } }
                pre { (argument.text) }
                @if argument.is_cut { p class="faint small" { "This is its beginning." } }
            }
        }
        @if *more > 0 { div class="pad" { p class="faint small" { "And " (words::count(*more as u64)) " more." } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: &str, kwargs: &str) -> Arguments {
        Arguments { args: args.into(), kwargs: kwargs.into() }
    }

    #[test]
    fn arguments_have_the_names_of_their_parameters_and_their_own_digits() {
        let arguments = call("[1e30,\"a\",9007199254740993]", "{\"z\":null,\"b\":1.50}");
        let named = named(&arguments, &["size", "name", "*rest"]);
        let shown: Vec<(&str, &str)> = named.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let expected =
            [("size", "1e30"), ("name", "\"a\""), ("2", "9007199254740993"), ("b", "1.50"), ("z", "null")];
        assert_eq!(shown, expected);
        assert_eq!(exact(&call("", "")), "{\"args\":[],\"kwargs\":{}}");
        assert_eq!(
            exact(&arguments),
            "{\"args\":[1e30,\"a\",9007199254740993],\"kwargs\":{\"z\":null,\"b\":1.50}}"
        );
    }

    #[test]
    fn what_is_no_call_is_shown_as_it_came() {
        let call = call("<xml>", "[]");
        let named = named(&call, &[]);
        assert_eq!(named, [("args".to_owned(), "<xml>"), ("kwargs".to_owned(), "[]")]);
    }

    #[test]
    fn the_program_is_told_the_arguments_by_their_names() {
        let object = |args, kwargs| call_of(&call(args, kwargs), &["to", "*rest"]).map(object_of);
        let expected = serde_json::json!({ "to": "a@example.org", "1": [2], "copy": null });
        assert_eq!(object("[\"a@example.org\",[2]]", "{\"copy\":null}"), Some(expected));
        assert_eq!(object("", ""), Some(serde_json::json!({})));
        assert_eq!(object("<xml>", "{}"), None, "what is no call is not told");
        assert_eq!(object("[]", "[]"), None);
        let deep = format!("[{}1{}]", "[".repeat(500), "]".repeat(500));
        assert_eq!(object(&deep, ""), Some(serde_json::json!({ "to": null })), "too deep for a value");
    }

    #[test]
    fn a_line_is_data_as_it_was_sent_and_text_for_people() {
        let formatted = Some("to <b>".to_owned());
        let line = ArgumentLine { sent: "\"<i>\"".to_owned(), formatted };
        assert_eq!(serde_json::to_value(&line).unwrap(), serde_json::json!("\"<i>\""));
        assert_eq!(line.render().into_string(), "to &lt;b&gt;");
        let plain = ArgumentLine { formatted: None, ..line };
        assert_eq!(plain.render().into_string(), "<code>&quot;&lt;i&gt;&quot;</code>");
    }
}

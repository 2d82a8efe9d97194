//! The facts about a task that Celery has no word for, in the header `celeriac`.
//!
//! The header is JSON text rather than a table, so that it passes unharmed through every broker and every retry of a
//! Python worker. A message with this header is Celeriac's own, or a copy of one.
//!
//! Most of the text is the same in all messages of a task: it differs in `enqueued_at`, which comes first. So each thread
//! remembers the rest of the text that it has written last, and of the one that it has read last.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::text::first_errors;
use crate::core::{RetryPolicy, Timestamp};
use crate::task::{Message, Pass, SerialHeader, Unique};

/// The name of the header.
pub(super) const HEADER: &str = "celeriac";

/// How the text begins. The number and the rest follow.
const BEGIN: &str = "{\"enqueued_at\":";
/// A longer rest is not remembered.
const LONGEST_REST: usize = 512;

thread_local! {
    /// The rest that this thread has written last, with what it says.
    static WRITTEN: RefCell<Option<(Private, String)>> = const { RefCell::new(None) };
    /// The rest that this thread has read last, with what it says.
    static READ: RefCell<Option<(Private, String)>> = const { RefCell::new(None) };
}

/// Writes the header of a message that is to be sent. `argsrepr` and `kwargsrepr` say whether the application gave these texts.
///
/// # Errors
/// A part cannot be written as JSON.
pub(super) fn write(
    message: &Message,
    argsrepr: bool,
    kwargsrepr: bool,
) -> Result<String, serde_json::Error> {
    let private = Private { argsrepr, kwargsrepr, ..Private::of(message) };
    if !private.is_usual() {
        return serde_json::to_string(&private);
    }
    WRITTEN.with_borrow_mut(|written| match written {
        Some((like, rest)) if like.has_rest_of(&private) => {
            let mut text = String::with_capacity(BEGIN.len() + 20 + rest.len());
            text.push_str(BEGIN);
            // Writing into a string never fails.
            let _ = write!(text, "{}", private.enqueued_at.as_micros());
            text.push_str(rest);
            Ok(text)
        }
        _ => {
            let text = serde_json::to_string(&private)?;
            if let Some((_, rest)) = split(&text) {
                *written = Some((private, rest.to_owned()));
            }
            Ok(text)
        }
    })
}

/// Reads the header of a message that has come.
///
/// # Errors
/// The text is no such header.
pub(super) fn read(text: &str) -> Result<Private, serde_json::Error> {
    let split = split(text);
    READ.with_borrow_mut(|read| {
        if let (Some((enqueued_at, rest)), Some((like, known))) = (split, &*read)
            && rest == known
        {
            return Ok(Private { enqueued_at, ..like.clone() });
        }
        let private: Private = serde_json::from_str(text)?;
        if let Some((_, rest)) = split.filter(|(_, rest)| rest.len() <= LONGEST_REST && private.is_usual()) {
            *read = Some((private.clone(), rest.to_owned()));
        }
        Ok(private)
    })
}

/// The time of the enqueue and the rest, if the text begins with that time as Celeriac writes it. A rest that makes a valid
/// header with one such time does so with each.
fn split(text: &str) -> Option<(Timestamp, &str)> {
    let after = text.strip_prefix(BEGIN)?;
    let (number, rest) = after.split_at(after.find(|letter: char| !letter.is_ascii_digit())?);
    if number.starts_with('0') {
        return None; // JSON has no leading zeros
    }
    Some((Timestamp::from_micros(number.parse().ok()?), rest))
}

/// The content of the header. A missing field is zero or unknown, and fields that a later version adds are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Private {
    enqueued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    crashes: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    continuations: u32,
    retry: RetryPolicy,
    autoretry: bool,
    acks_late: bool,
    result_expires: Duration,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last_errors: Vec<String>,
    /// The unique window of the task. The runtime that ends the task ends the window too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<Box<Unique>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Box<SerialHeader>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<Pass>,
    /// Whether the application gave the text of `argsrepr`, which was not made from the arguments then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) argsrepr: bool,
    /// Whether the application gave the text of `kwargsrepr`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) kwargsrepr: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(yes: &bool) -> bool {
    !yes
}

impl Private {
    /// Whether it says nothing that only this message has, beside the time of the enqueue.
    fn is_usual(&self) -> bool {
        let Self { first_started_at, crashes, continuations, last_errors, unique, serial, pass, .. } = self;
        let has_begun = first_started_at.is_some() || *crashes > 0 || *continuations > 0;
        !has_begun && last_errors.is_empty() && unique.is_none() && serial.is_none() && pass.is_none()
    }

    /// Whether the text of both is the same but for the time of the enqueue.
    fn has_rest_of(&self, other: &Self) -> bool {
        Self { enqueued_at: other.enqueued_at, ..self.clone() } == *other
    }

    /// The header of a message that is to be sent.
    fn of(message: &Message) -> Self {
        Self {
            enqueued_at: message.enqueued_at,
            first_started_at: message.first_started_at,
            crashes: message.crashes,
            continuations: message.continuations,
            retry: message.retry.clone(),
            autoretry: message.autoretry,
            acks_late: message.acks_late,
            result_expires: message.result_expires,
            last_errors: first_errors(&message.last_errors),
            unique: message.unique.clone(),
            serial: message.serial.clone(),
            pass: message.serial.as_ref().and_then(|serial| serial.pass),
            argsrepr: false,
            kwargsrepr: false,
        }
    }

    /// Copies all fields into a message that was received.
    pub(super) fn apply(self, message: &mut Message) {
        message.enqueued_at = self.enqueued_at;
        message.first_started_at = self.first_started_at;
        message.crashes = self.crashes;
        message.continuations = self.continuations;
        message.retry = self.retry;
        message.autoretry = self.autoretry;
        message.acks_late = self.acks_late;
        message.result_expires = self.result_expires;
        message.last_errors = self.last_errors;
        message.unique = self.unique;
        message.serial = self.serial;
        if let Some(serial) = &mut message.serial {
            serial.pass = self.pass;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::{Arguments, TaskOptions, UniqueKey};

    fn message(enqueued_at: u64, max_retries: u32, acks_late: bool, result_expires: u64) -> Message {
        let retry = RetryPolicy { max_retries, ..RetryPolicy::default() };
        let result_expires = Duration::from_millis(result_expires);
        let options = TaskOptions { retry, acks_late, result_expires, ..TaskOptions::default() };
        let now = Timestamp::from_micros(enqueued_at);
        Message::new("a".into(), "t", Arguments::default(), "q", options, now)
    }

    proptest! {
        /// What was remembered of an earlier message never shows.
        #[test]
        fn a_text_is_written_and_read_as_serde_does(
            all in prop::collection::vec((any::<u64>(), 0..2_u32, any::<bool>(), 0..2_u64, 0..6_u8), 1..20),
        ) {
            for (enqueued_at, max_retries, acks_late, result_expires, kind) in all {
                let mut message = message(enqueued_at, max_retries, acks_late, result_expires);
                match kind {
                    1 => message.crashes = 1,
                    2 => message.first_started_at = Some(Timestamp::ZERO),
                    3 => message.last_errors = vec!["late".to_owned()],
                    4 => {
                        let key = UniqueKey::new("t", "k");
                        message.unique = Some(Box::new(Unique::new(key, Duration::from_secs(1))));
                    }
                    _ => {}
                }
                let (argsrepr, kwargsrepr) = (kind == 5, acks_late && kind == 5);
                let private = Private { argsrepr, kwargsrepr, ..Private::of(&message) };
                let text = write(&message, argsrepr, kwargsrepr).unwrap();
                prop_assert_eq!(&text, &serde_json::to_string(&private).unwrap());
                prop_assert_eq!(read(&text).unwrap(), serde_json::from_str::<Private>(&text).unwrap());
            }
        }
    }

    #[test]
    fn what_serde_refuses_is_refused_after_a_like_text_too() {
        let text = write(&message(1_000, 3, true, 5), false, false).unwrap();
        let read_back = read(&text).unwrap();
        assert_eq!(read_back.enqueued_at, Timestamp::from_micros(1_000));
        for (number, is_read) in [
            ("7", true),
            ("0", true),
            ("18446744073709551615", true),
            ("18446744073709551616", false),
            ("07", false),
            ("-7", false),
            ("7.5", false),
            ("", false),
            ("null", false),
        ] {
            let other = text.replacen("1000", number, 1);
            assert_eq!(serde_json::from_str::<Private>(&other).is_ok(), is_read, "{number}");
            assert_eq!(read(&other).is_ok(), is_read, "{number}");
        }
        assert!(read(&text[..text.len() - 1]).is_err() && read(&format!("{text}x")).is_err());
    }
}

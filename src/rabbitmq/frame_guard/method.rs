//! Looks at the methods that RabbitMQ sends: makes texts in them UTF-8, and reads the delivery tags of the
//! messages that follow.
//!
//! A routing key is the publisher's and may be any bytes. The text of an error is RabbitMQ's, which cuts it after
//! 252 bytes, also in the midst of a character.

use super::properties::{as_text, short_text};

/// What a method says that the guard needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodFact {
    /// A message with this delivery tag follows.
    Delivery(u64),
    /// No frame will be larger than this; zero means that there is no limit.
    FrameMax(u32),
    /// The method says nothing that the guard needs.
    Nothing,
}

/// The fields of those methods whose texts are not the server's own: `s` is a short text, a digit is a number of
/// bytes.
fn fields(class: u16, method: u16) -> &'static str {
    match (class, method) {
        (10, 50) | (20, 40) => "2s", // connection.close, channel.close
        (10, 60) => "s",             // connection.blocked
        (50, 11) => "s",             // queue.declare-ok
        (60, 21 | 30 | 31) => "s",   // basic.consume-ok, cancel, cancel-ok
        (60, 50) => "2sss",          // basic.return
        (60, 60) => "s81ss",         // basic.deliver
        (60, 71) => "81ss",          // basic.get-ok
        _ => "",
    }
}

/// Makes all texts in a method UTF-8, in place.
pub(super) fn look(payload: &mut [u8]) -> MethodFact {
    let (Some(class), Some(method)) = (u16_at(payload, 0), u16_at(payload, 2)) else {
        return MethodFact::Nothing;
    };
    let (mut at, mut told) = (4, MethodFact::Nothing);
    if (class, method) == (10, 30) {
        let frame_max = payload.get(6..10).and_then(|bytes| bytes.try_into().ok());
        return frame_max
            .map_or(MethodFact::Nothing, |bytes| MethodFact::FrameMax(u32::from_be_bytes(bytes)));
    }
    for field in fields(class, method).bytes() {
        if field == b's' {
            let Some(text) = short_text(payload, at, payload.len()) else { return told };
            at = text.end;
            as_text(&mut payload[text]);
        } else {
            if field == b'8'
                && let Some(bytes) = payload.get(at..at + 8).and_then(|b| b.try_into().ok())
            {
                told = MethodFact::Delivery(u64::from_be_bytes(bytes));
            }
            at += usize::from(field - b'0');
        }
    }
    told
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

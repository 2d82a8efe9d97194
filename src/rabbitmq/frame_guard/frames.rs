//! Cuts the stream from RabbitMQ into frames and looks at each; message bodies pass as they are.

use std::io;

use super::aside::{Aside, Unread};
use super::method::{self, MethodFact};
use super::properties::{self, FLAGS, Wrong};
use crate::core::number_map::NumberMap;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The bytes of a frame's type, channel and size, which come before its payload.
const HEAD: usize = 7;
/// The bytes that a frame has beside its payload: the head, and one byte at its end.
const AROUND: usize = HEAD + 1;
/// RabbitMQ's own limit of a frame in bytes, unless it is configured otherwise. It is this side's limit too, so
/// that a message that has come can be sent on.
pub(crate) const FRAME: usize = 128 << 10;
/// More bytes than any method or header takes: such a frame is nonsense from the server.
const NONSENSE: usize = 64 << 20;

/// The bytes that a frame with properties may take if no frame may take more than `frame_max`.
pub(crate) const fn room(frame_max: usize) -> usize {
    frame_max - frame_max / 8
}

/// Cuts a stream into frames, and looks at each.
#[derive(Debug)]
pub(super) struct Frames {
    /// A frame of which only a part has come.
    partial: Vec<u8>,
    /// The number of bytes of a body that are still to come.
    passing: usize,
    /// Whether the stream has no frames: a server that speaks another version says so, and closes.
    is_foreign: bool,
    /// The largest frame in bytes.
    frame_max: usize,
    /// The delivery tag of the message that comes through each channel.
    tags: NumberMap<u16, u64>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            passing: 0,
            is_foreign: false,
            frame_max: FRAME,
            tags: NumberMap::default(),
        }
    }
}

impl Frames {
    /// Starts with the limit that the client has of its own, if it has one.
    pub(super) fn of_at_most(frame_max: Option<u32>) -> Self {
        let mut frames = Self::default();
        frames.limit(frame_max.unwrap_or(0));
        frames
    }

    fn limit(&mut self, frame_max: u32) {
        if let Some(frame_max) = usize::try_from(frame_max).ok().filter(|max| *max > 0) {
            self.frame_max = self.frame_max.min(frame_max);
        }
    }

    /// The bytes that properties may take. They are sent on with some more headers, at worst with the reason why
    /// they were refused.
    fn room(&self) -> usize {
        room(self.frame_max) - AROUND
    }

    /// Takes in the bytes that have come, and writes to `out` what the client library is to read.
    ///
    /// # Errors
    /// The server sends nonsense.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, aside: &Aside) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.is_foreign {
                out.extend(bytes);
                return Ok(());
            }
            if self.passing > 0 {
                let (passing, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend(passing);
                self.passing -= passing.len();
                bytes = rest;
                continue;
            }
            // Most frames come whole, and are copied once.
            if self.partial.is_empty()
                && let Some(frame) = whole_frame(bytes)
            {
                self.look(frame, out, aside);
                bytes = &bytes[frame.len()..];
                continue;
            }
            let whole = self.size().map_or(HEAD, |size| size + AROUND);
            let (next, rest) = bytes.split_at((whole - self.partial.len()).min(bytes.len()));
            self.partial.extend(next);
            bytes = rest;
            if self.partial.len() < whole {
                return Ok(());
            }
            match self.size() {
                Some(size) if whole == HEAD => self.begin(size, out)?,
                _ => self.end(out, aside),
            }
        }
        Ok(())
    }

    /// The size of the payload, once it is known.
    fn size(&self) -> Option<usize> {
        let size = self.partial.get(3..HEAD)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(size)).ok()
    }

    /// Begins a frame of which the head has come.
    fn begin(&mut self, size: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match self.partial[0] {
            METHOD | HEADER if size > NONSENSE => {
                return Err(io::Error::other(format!("RabbitMQ has announced a frame of {size} bytes")));
            }
            METHOD | HEADER => return Ok(()),
            BODY | HEARTBEAT => self.passing = size + 1,
            _ => self.is_foreign = true,
        }
        out.append(&mut self.partial);
        Ok(())
    }

    /// Ends a method or a header that has come in parts.
    fn end(&mut self, out: &mut Vec<u8>, aside: &Aside) {
        let mut frame = std::mem::take(&mut self.partial);
        self.look(&frame, out, aside);
        frame.clear();
        self.partial = frame;
    }

    /// Looks at a whole method or header, and writes to `out` what the client library is to read.
    fn look(&mut self, frame: &[u8], out: &mut Vec<u8>, aside: &Aside) {
        let channel = u16::from_be_bytes([frame[1], frame[2]]);
        let (start, end) = (out.len(), frame.len() - 1);
        out.extend_from_slice(frame);
        let copy = &mut out[start + HEAD..start + end];
        if frame[0] == METHOD {
            match method::look(copy) {
                MethodFact::Delivery(tag) => drop(self.tags.insert(channel, tag)),
                MethodFact::FrameMax(frame_max) => self.limit(frame_max),
                MethodFact::Nothing => {}
            }
            return;
        }
        let tag = self.tags.remove(&channel);
        let Some(Wrong { why, instead }) = properties::look(copy, self.room()) else { return };
        tracing::warn!(channel, why, "a message from RabbitMQ cannot be read as it is");
        if let Some(tag) = tag {
            let properties = frame[HEAD..end].get(FLAGS..).unwrap_or_default().to_vec();
            aside.put(channel, tag, Unread { properties, why });
        }
        if let Some(instead) = instead {
            out.truncate(start + 3);
            out.extend((instead.len() as u32).to_be_bytes());
            out.extend(instead);
            out.push(frame[end]);
        }
    }
}

/// The method or header with which these bytes begin, if it is there whole. One that is nonsense does not count.
fn whole_frame(bytes: &[u8]) -> Option<&[u8]> {
    if !matches!(bytes.first(), Some(&(METHOD | HEADER))) {
        return None;
    }
    let size = usize::try_from(u32::from_be_bytes(bytes.get(3..HEAD)?.try_into().ok()?)).ok()?;
    bytes.get(..size.checked_add(AROUND)?).filter(|_| size <= NONSENSE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use lapin::types::{AMQPValue, FieldTable};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    const TAG: u64 = 7;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind], &channel.to_be_bytes()[..], &size, payload, &[0xce]].concat()
    }

    fn short(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    fn long(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let ids = [0, 60, 0, 60];
        let payload = [&ids[..], &short(b"tag"), &TAG.to_be_bytes(), &[0], &short(b""), &short(routing_key)];
        frame(METHOD, 1, &payload.concat())
    }

    fn header(flags: u16, properties: &[u8]) -> Vec<u8> {
        let before = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        frame(HEADER, 1, &[&before[..], &flags.to_be_bytes(), properties].concat())
    }

    /// A table that is nested so deep, each level in a table of its own.
    fn nested(depth: usize) -> Vec<u8> {
        let mut table = long(b"");
        for _ in 1..depth {
            table = long(&[&short(b"k")[..], b"F", &table].concat());
        }
        table
    }

    /// The bytes that are written for the client library, and the properties that were put aside.
    fn guarded(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Unread>) {
        let (aside, mut frames, mut out) = (Arc::new(Aside::default()), Frames::default(), Vec::new());
        let watch = aside.watch(1);
        for piece in bytes.chunks(piece) {
            frames.feed(piece, &mut out, &aside).unwrap();
        }
        (out, watch.take(TAG))
    }

    /// What the client library reads, and the properties that were put aside.
    fn read(bytes: &[u8], piece: usize) -> (Vec<AMQPFrame>, Option<Unread>) {
        let (out, unread) = guarded(bytes, piece);
        let (mut rest, mut read) = (&out[..], Vec::new());
        while !rest.is_empty() {
            let (after, frame) = parse_frame(rest).unwrap_or_else(|error| panic!("{error}: {rest:x?}"));
            read.push(frame);
            rest = after;
        }
        (read, unread)
    }

    /// The headers of the second frame.
    fn headers(frames: &[AMQPFrame]) -> FieldTable {
        let AMQPFrame::Header(_, header) = &frames[1] else { panic!("{frames:?}") };
        header.properties.headers().clone().unwrap_or_default()
    }

    #[test]
    fn what_can_be_read_goes_by_as_it_is() {
        let table = [&short(b"a")[..], b"S", &long(b"text \xff"), &short(b"b"), b"l", &[0; 8]].concat();
        let properties = [short(b"application/json"), long(&table), short(b"id")].concat();
        let whole =
            [deliver(b"q"), header(0b1010_0100_0000_0000, &properties), frame(BODY, 1, b"{}")].concat();
        for piece in [1, 3, 7, 1000] {
            let (aside, mut frames, mut out) = (Arc::new(Aside::default()), Frames::default(), Vec::new());
            let watch = aside.watch(1);
            whole.chunks(piece).for_each(|piece| frames.feed(piece, &mut out, &aside).unwrap());
            assert_eq!((&out, watch.take(TAG)), (&whole, None));
        }
    }

    #[test]
    fn a_text_that_is_not_utf_8_is_changed_and_kept() {
        for (flag, name) in [
            (15, "content_type"),
            (14, "content_encoding"),
            (10, "correlation_id"),
            (9, "reply_to"),
            (8, "expiration"),
            (7, "message_id"),
            (5, "type"),
            (4, "user_id"),
            (3, "app_id"),
            (2, "cluster_id"),
        ] {
            let properties = short(b"a\xffb");
            let (frames, unread) = read(&[deliver(b"q"), header(1 << flag, &properties)].concat(), 5);
            assert_eq!(frames.len(), 2);
            let unread = unread.unwrap();
            assert_eq!(unread.why, format!("its `{name}` is not UTF-8"));
            assert_eq!(unread.properties, [&(1_u16 << flag).to_be_bytes()[..], &properties].concat());
        }
        let table = long(&[&short(b"k\xff")[..], b"V"].concat());
        let (frames, unread) = read(&[deliver(b"q"), header(1 << 13, &table)].concat(), 1000);
        assert!(headers(&frames).contains_key("k?"));
        assert_eq!(unread.unwrap().why, "the name of a header is not UTF-8");
    }

    #[test]
    fn a_routing_key_and_an_error_may_be_any_bytes() {
        let (frames, unread) = read(&[deliver(b"q\xc3"), header(0, b"")].concat(), 1000);
        assert_eq!((frames.len(), unread), (2, None));
        // RabbitMQ cuts texts after a number of bytes.
        let text = [&"\u{e4}".repeat(126).into_bytes()[..251], b"..."].concat();
        let closed = [&[0, 20, 0, 40, 1, 0x94][..], &short(&text), &[0, 50, 0, 10]].concat();
        let (frames, _) = read(&frame(METHOD, 1, &closed), 1000);
        assert_eq!(frames.len(), 1);
    }

    #[test]
    fn what_is_nested_too_deep_becomes_bytes() {
        use super::super::properties::MAX_DEPTH;
        for (depth, deep) in [(MAX_DEPTH, false), (MAX_DEPTH + 1, true), (9_000, true)] {
            let (frames, unread) = read(&[deliver(b"q"), header(1 << 13, &nested(depth))].concat(), 1000);
            assert_eq!(unread.is_some(), deep, "{depth}");
            let (mut inner, mut levels) = (AMQPValue::FieldTable(headers(&frames)), 0);
            while let AMQPValue::FieldTable(table) = inner {
                levels += 1;
                inner = table.inner().values().next().cloned().unwrap_or(AMQPValue::Void);
            }
            assert_eq!(levels, MAX_DEPTH);
            assert_eq!(matches!(inner, AMQPValue::ByteArray(_)), deep);
        }
    }

    #[test]
    fn of_properties_too_large_for_a_frame_only_whose_they_are_is_read() {
        let entry = |name: &[u8], value: &[u8]| [&short(name)[..], b"S", &long(value)].concat();
        let table = [entry(b"id", b"me"), entry(b"big", &[b'x'; 130_000]), entry(b"task", b"t.add")].concat();
        let properties = [long(&table), short(b"me"), short(b"reply")].concat();
        let flags = 0b0010_0110_0000_0000;
        let (frames, unread) = read(&[deliver(b"q"), header(flags, &properties)].concat(), 4096);
        let unread = unread.unwrap();
        assert!(unread.why.contains("take 130"), "{}", unread.why);
        assert_eq!(unread.properties, [&flags.to_be_bytes()[..], &properties].concat());
        let table = headers(&frames);
        assert_eq!(table.inner().len(), 2);
        assert_eq!(table.inner()["id"].as_long_string().unwrap().as_bytes(), b"me");
        let AMQPFrame::Header(_, header) = &frames[1] else { panic!("{frames:?}") };
        assert_eq!(header.body_size, 2);
        assert_eq!(header.properties.reply_to().as_ref().unwrap().as_str(), "reply");
    }

    /// Headers with values of all types, some of whose bytes are changed.
    fn any_header() -> impl Strategy<Value = Vec<u8>> {
        let value = select(vec![
            &b"V"[..],
            b"t\x01",
            b"b\xff",
            b"s\0\x01",
            b"I\0\0\0\x01",
            b"l\0\0\0\0\0\0\0\x01",
            b"d\0\0\0\0\0\0\0\x01",
            b"D\x02\0\0\0\x07",
            b"S\0\0\0\x02ab",
            b"x\0\0\0\x01\xff",
            b"F\0\0\0\x04\x01aV\0",
            b"F\0\0\0\x03\x01aV",
            b"A\0\0\0\x02VV",
            b"A\0\0\0\0",
            b"z",
            b"F\xff\0\0\0",
            b"F\0\0\0\x0a\x01aF\0\0\0\x03\x01bV",
        ]);
        let key = select(vec![&b"a"[..], b"id", b"task", b"\xc3", b"", b"\xed\xa0\xbd"]);
        let table = vec((key, value), 0..6).prop_map(|entries| {
            let entries = entries.iter().flat_map(|(key, value)| [short(key), value.to_vec()].concat());
            long(&entries.collect::<Vec<_>>())
        });
        let text = select(vec![&b"application/json"[..], b"\xff", b"a\xc3", b""]);
        (table, vec(text, 10), any::<u16>(), vec((any::<Index>(), any::<u8>()), 0..3)).prop_map(
            |(table, texts, flags, changes)| {
                let mut texts = texts.iter().map(|text| short(text));
                let mut bytes = Vec::new();
                for bit in (0..16).rev().filter(|bit| flags >> bit & 1 == 1) {
                    match bit {
                        13 => bytes.extend(&table),
                        12 | 11 => bytes.push(2),
                        6 => bytes.extend([0; 8]),
                        0 | 1 => {}
                        _ => bytes.extend(texts.next().unwrap_or_default()),
                    }
                }
                for (at, byte) in changes {
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                }
                header(flags, &bytes)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// A frame that comes whole is looked at where it is, and one that comes in parts is put together first.
        #[test]
        fn it_is_of_no_meaning_how_the_bytes_come(headers in vec(any_header(), 1..4), piece in 1..300_usize) {
            let all = headers.iter().flat_map(|header| {
                [deliver(b"q"), header.clone(), frame(BODY, 1, b"{}"), frame(HEARTBEAT, 0, b"")].concat()
            });
            let all: Vec<u8> = all.collect();
            prop_assert_eq!(guarded(&all, piece), guarded(&all, all.len()));
        }

        /// Whatever a publisher has put into its properties, the client library reads on.
        #[test]
        fn the_client_library_can_read_all_that_is_left(header in any_header(), piece in 1..100_usize) {
            let all = [deliver(b"q"), header, frame(BODY, 1, b"{}"), frame(HEARTBEAT, 0, b"")].concat();
            let (frames, _) = read(&all, piece);
            prop_assert_eq!(frames.len(), 4);
            prop_assert!(matches!(&frames[1], AMQPFrame::Header(1, header) if header.body_size == 2));
        }
    }
}

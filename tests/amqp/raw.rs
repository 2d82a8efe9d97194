//! A publisher that writes its frames by hand, so that it can send what no client library would.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::services::{PATIENCE, RabbitMq};

/// A connection with one channel, on which RabbitMQ confirms.
pub struct Raw {
    stream: TcpStream,
}

/// Properties as they are on the wire: the flags, and what they announce.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    flags: u16,
    after: Vec<u8>,
}

impl Properties {
    /// Of a task of this name and id, with these bytes behind its headers.
    pub fn of_task(task: &str, id: &str, more: &[u8]) -> Self {
        let headers =
            [&long_header("task", task.as_bytes()), &long_header("id", id.as_bytes()), more].concat();
        Self::default().short(15, b"application/json").short(14, b"utf-8").long(13, &headers)
    }

    /// A short text; to be given in the order of their bits, from the highest to the lowest.
    pub fn short(self, bit: u16, text: &[u8]) -> Self {
        self.with(bit, &short(text))
    }

    pub fn long(self, bit: u16, bytes: &[u8]) -> Self {
        self.with(bit, &long(bytes))
    }

    fn with(mut self, bit: u16, bytes: &[u8]) -> Self {
        assert!(self.flags.trailing_zeros() > u32::from(bit), "in their order");
        self.flags |= 1 << bit;
        self.after.extend(bytes);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.flags.to_be_bytes()[..], &self.after].concat()
    }
}

pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A header whose value is a long text.
pub fn long_header(name: &str, text: &[u8]) -> Vec<u8> {
    [&short(name.as_bytes())[..], b"S", &long(text)].concat()
}

/// A header in which so many tables, or arrays, are nested.
pub fn nested(name: &str, depth: usize, kind: u8) -> Vec<u8> {
    let mut inner = long(b"");
    for _ in 1..depth {
        let key = if kind == b'F' { short(b"k") } else { Vec::new() };
        inner = long(&[&key[..], &[kind], &inner].concat());
    }
    [&short(name.as_bytes())[..], &[kind], &inner].concat()
}

impl Raw {
    /// Connects to a vhost of the shared node.
    pub fn connect(url: &str) -> Self {
        let vhost = url.rsplit_once('/').unwrap().1;
        let stream = TcpStream::connect(RabbitMq::shared().address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Self { stream };
        raw.stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        raw.await_method(10, 10);
        let start = [&long(b"")[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
        raw.method(0, 10, 11, &start);
        raw.await_method(10, 30);
        raw.method(0, 10, 31, &[0, 16, 0, 2, 0, 0, 0, 0]); // sixteen channels, frames of 128 KiB, no heartbeat
        raw.method(0, 10, 40, &[&short(vhost.as_bytes())[..], &[0, 0]].concat());
        raw.await_method(10, 41);
        raw.method(1, 20, 10, &[0]);
        raw.await_method(20, 11);
        raw.method(1, 85, 10, &[0]);
        raw.await_method(85, 11);
        raw
    }

    /// Publishes to a queue, and waits until RabbitMQ has it.
    pub fn send(&mut self, queue: &str, properties: &Properties, body: &[u8]) {
        self.publish("", queue.as_bytes(), properties, body);
    }

    pub fn publish(&mut self, exchange: &str, key: &[u8], properties: &Properties, body: &[u8]) {
        self.method(1, 60, 40, &[&[0, 0], &short(exchange.as_bytes())[..], &short(key), &[0]].concat());
        let size = (body.len() as u64).to_be_bytes();
        self.frame(2, 1, &[&[0, 60, 0, 0], &size[..], &properties.bytes()].concat());
        for piece in body.chunks(100_000) {
            self.frame(3, 1, piece);
        }
        self.await_method(60, 80);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let ids = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(1, channel, &[&ids, arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&[kind], &channel.to_be_bytes()[..], &size].concat();
        self.stream.write_all(&[&head, payload, &[0xce]].concat()).unwrap();
    }

    /// Fetches a message and gives it back: from now on it was delivered before.
    pub fn fetch_and_return(&mut self, queue: &str) {
        self.method(1, 60, 70, &[&[0, 0][..], &short(queue.as_bytes()), &[0]].concat());
        let got = self.await_method(60, 71);
        const REQUEUE: u8 = 2;
        self.method(1, 60, 120, &[&got[4..12], &[REQUEUE]].concat());
        // What is answered after it has come after it.
        self.method(1, 85, 10, &[0]);
        self.await_method(85, 11);
    }

    /// Reads frames until this method comes.
    fn await_method(&mut self, class: u16, method: u16) -> Vec<u8> {
        let ids = [class.to_be_bytes(), method.to_be_bytes()].concat();
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).unwrap();
            let size = u32::from_be_bytes(head[3..].try_into().unwrap());
            let mut payload = vec![0; size as usize + 1];
            self.stream.read_exact(&mut payload).unwrap();
            if head[0] == 1 && payload.starts_with(&ids) {
                return payload;
            }
            let closes = [[0, 10, 0, 50], [0, 20, 0, 40]].iter().any(|close| payload.starts_with(close));
            assert!(!closes, "RabbitMQ refuses: {}", String::from_utf8_lossy(&payload));
        }
    }
}

//! A way to RabbitMQ and Redis on which a process is killed before a given step of its work reaches a server.
//!
//! A step is whatever changes something there: an AMQP `publish`, `ack`, `nack` or `reject`, a command of Redis that writes,
//! a transaction. Both ways pass one step at a time, and what was sent before the kill arrives, nothing after it: so the servers
//! have exactly the steps of a process that died between two of them, whatever the process believed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::services::free_port;

/// Ends with the test.
pub struct Tripwire {
    shared: Arc<Shared>,
    pub amqp: SocketAddr,
    pub redis: SocketAddr,
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// The process, and how many of its steps may still pass.
    armed: Option<(u32, u64)>,
    /// The steps since it was armed.
    passed: Vec<String>,
    /// Before which step it was killed.
    tripped: Option<String>,
}

impl Tripwire {
    /// Before these two servers.
    pub fn start(amqp: SocketAddr, redis: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let amqp = listen(amqp, amqp_step, Arc::clone(&shared));
        let redis = listen(redis, redis_step, Arc::clone(&shared));
        Self { shared, amqp, redis }
    }

    /// From now on the process dies before its step number `nth` (from 1 on).
    pub fn arm(&self, pid: u32, nth: u64) {
        *self.shared.lock() = State { armed: Some((pid, nth - 1)), ..State::default() };
    }

    /// It lives. What it had done since [`arm`](Self::arm), and the step that it did not do.
    pub fn disarm(&self) -> (Vec<String>, Option<String>) {
        let state = std::mem::take(&mut *self.shared.lock());
        (state.passed, state.tripped)
    }

    /// Whether it was killed.
    pub fn has_tripped(&self) -> bool {
        self.shared.lock().tripped.is_some()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this step may pass; if not, the process is dead.
    fn passes(&mut self, step: String) -> bool {
        if self.tripped.is_some() {
            return false;
        }
        match &mut self.armed {
            None => true,
            Some((pid, 0)) => {
                let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).expect("a pid");
                kill_process(pid, Signal::KILL).expect("it lives");
                self.tripped = Some(step);
                false
            }
            Some((_, left)) => {
                *left -= 1;
                self.passed.push(step);
                true
            }
        }
    }
}

/// What the beginning of the bytes is.
enum Unit {
    /// More bytes are needed to know.
    Unfinished,
    /// So many bytes that change nothing by themselves.
    Other(usize),
    /// A step of so many bytes.
    Step(usize, String),
}

/// Reads one unit of what a connection sends; `true`: within a transaction of Redis.
type Read_ = fn(&[u8], &mut bool) -> Unit;

fn listen(target: SocketAddr, read: Read_, shared: Arc<Shared>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("the port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(target).expect("the server is there");
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (back, front) =
                (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || up(client, server, read, &shared));
            std::thread::spawn(move || down(back, front));
        }
    });
    address
}

/// Passes on what the process sends. Its end is passed on as an end: what had passed before it is read by the server.
fn up(mut client: TcpStream, mut server: TcpStream, read: Read_, shared: &Shared) {
    let (mut bytes, mut buffer, mut within) = (Vec::new(), vec![0; 64 << 10], false);
    'connection: loop {
        match client.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        loop {
            let unit = read(&bytes, &mut within);
            let mut state = shared.lock();
            let length = match unit {
                Unit::Unfinished => break,
                Unit::Other(_) if state.tripped.is_some() => break 'connection,
                Unit::Other(length) => length,
                Unit::Step(length, step) => match state.passes(step) {
                    true => length,
                    false => break 'connection,
                },
            };
            if server.write_all(&bytes[..length]).is_err() {
                break 'connection;
            }
            bytes.drain(..length);
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

/// Passes on what the server sends, and reads it to its end, also when nobody is there any more: a connection that is closed
/// with unread bytes is reset, and the server might not see all that was sent.
fn down(mut server: TcpStream, mut client: TcpStream) {
    let (mut buffer, mut gone) = (vec![0; 64 << 10], false);
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        gone = gone || client.write_all(&buffer[..count]).is_err();
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// A frame of AMQP 0-9-1.
fn amqp_step(bytes: &[u8], _: &mut bool) -> Unit {
    if bytes.starts_with(b"AMQP") {
        return if bytes.len() < 8 { Unit::Unfinished } else { Unit::Other(8) };
    }
    let Some(head) = bytes.get(..7) else { return Unit::Unfinished };
    let length =
        7 + usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).expect("32 bits") + 1;
    if bytes.len() < length {
        return Unit::Unfinished;
    }
    let frame = &bytes[7..length - 1];
    let text = |at: usize| {
        let length = usize::from(*frame.get(at)?);
        Some(String::from_utf8_lossy(frame.get(at + 1..at + 1 + length)?).into_owned())
    };
    match (head[0], frame.get(..4)) {
        (1, Some([0, 60, 0, 40])) => {
            let exchange = text(6).unwrap_or_default();
            let key = text(7 + exchange.len()).unwrap_or_default();
            Unit::Step(length, format!("publish to {exchange}/{key}"))
        }
        (1, Some([0, 60, 0, 80])) => Unit::Step(length, "ack".to_owned()),
        (1, Some([0, 60, 0, 90 | 120])) => Unit::Step(length, "nack".to_owned()),
        _ => Unit::Other(length),
    }
}

/// Commands of Redis that change nothing.
const LOOKS: [&str; 22] = [
    "AUTH",
    "CLIENT",
    "CONFIG",
    "EXISTS",
    "GET",
    "HELLO",
    "HGET",
    "HGETALL",
    "HMGET",
    "INFO",
    "MGET",
    "PING",
    "PSUBSCRIBE",
    "PTTL",
    "SCRIPT",
    "SELECT",
    "SUBSCRIBE",
    "TIME",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WATCH",
    "ZRANGE",
];

/// A command of Redis. Of a transaction the step is its end.
fn redis_step(bytes: &[u8], within: &mut bool) -> Unit {
    let Some((length, words)) = command(bytes) else { return Unit::Unfinished };
    let word =
        |n: usize| words.get(n).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
    let name = word(0).to_uppercase();
    match name.as_str() {
        "MULTI" => {
            *within = true;
            Unit::Other(length)
        }
        "EXEC" => {
            *within = false;
            Unit::Step(length, name)
        }
        _ if *within || LOOKS.contains(&name.as_str()) => Unit::Other(length),
        // Whoever minds the lanes of serial tasks comes by once in a while, whatever else goes on.
        "EVALSHA" | "EVAL" if word(3).contains("celeriac:lanes:") => Unit::Other(length),
        "EVALSHA" | "EVAL" => Unit::Step(length, format!("script on {}", word(3))),
        _ => Unit::Step(length, format!("{name} {}", word(1))),
    }
}

/// An array of bulk strings at the beginning, and how long it is.
fn command(bytes: &[u8]) -> Option<(usize, Vec<&[u8]>)> {
    let mut at = 0;
    let number = |at: &mut usize, sign: u8| -> Option<usize> {
        let end = *at + bytes[*at..].windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(bytes[*at], sign, "it speaks RESP");
        let number = std::str::from_utf8(&bytes[*at + 1..end]).ok()?.parse().ok()?;
        *at = end + 2;
        Some(number)
    };
    let count = number(&mut at, b'*')?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(&mut at, b'$')?;
        words.push(bytes.get(at..at + length)?);
        at += length + 2;
    }
    (at <= bytes.len()).then_some((at, words))
}

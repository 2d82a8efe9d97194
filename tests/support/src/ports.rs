//! Free ports on the loopback interface.
//!
//! They are taken below the range from which the kernel serves outgoing connections: a service that is stopped for a
//! while finds its port free when it comes back.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 14_000;
const COUNT: u32 = 18_000;

/// A port that nobody listens on, and that this process has not handed out lately. Others start elsewhere at random.
pub fn free() -> u16 {
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new((RandomState::new().hash_one("port") >> 40) as u32));
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(port).expect("below 2^16");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

//! Free ports on the loopback interface.
//!
//! They are taken below the range from which the kernel serves outgoing connections: a service that is stopped for a
//! while finds its port free when it comes back. Test binaries run at once: one that has a port keeps a lock of that
//! number until it ends, also while nobody listens there.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::home::target;

const FIRST: u32 = 14_000;
const COUNT: u32 = 18_000;

/// A port that nobody listens on, and that no other test has now. Each process starts elsewhere at random.
pub fn free() -> u16 {
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new((RandomState::new().hash_one("port") >> 40) as u32));
    static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = target().join("tmp/ports");
    std::fs::create_dir_all(&locks).expect("a directory below target/");
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(port).expect("below 2^16");
        let lock = File::create(locks.join(port.to_string())).expect("a file in target/");
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

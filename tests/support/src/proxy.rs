//! A TCP proxy that breaks on demand: it cuts, refuses, delays, or takes everything and passes nothing on.
//!
//! It runs on a thread of its own, so that a test that blocks its runtime does not hold up the way to the service.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ports;

/// The proxy; it ends, and with it all connections, when this is dropped.
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
    listening: watch::Receiver<bool>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    /// The generation of each open connection.
    open: Mutex<Vec<u64>>,
}

impl Counts {
    fn open(&self) -> MutexGuard<'_, Vec<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Pass,
    Refuse,
    Delay(Duration),
    Swallow,
}

impl Proxy {
    /// A proxy before this address, on a port of its own.
    pub fn start(target: SocketAddr) -> Self {
        let port = ports::free();
        let (state, states) = watch::channel(State { mode: Mode::Pass, generation: 0 });
        let (heard, mut listening) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let run = move || runtime.block_on(serve(port, target, states, heard, counted));
        std::thread::Builder::new().name("proxy".to_owned()).spawn(run).expect("a thread");
        wait_for(&mut listening, true);
        Self { port, state, counts, listening }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A service's URL with the proxy's port in it. Panics if the URL does not name the port.
    pub fn url(&self, url: &str) -> String {
        let at = url.rfind("127.0.0.1:").expect("services are on 127.0.0.1") + "127.0.0.1:".len();
        let end = url[at..].find('/').map_or(url.len(), |length| at + length);
        format!("{}{}{}", &url[..at], self.port, &url[end..])
    }

    /// Resets all connections that there are now, and returns when they are; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
        self.wait_for_the_cut();
    }

    /// Resets all connections, and listens no more: who connects is refused. Returns when it is so.
    pub fn refuse(&self) {
        self.set(Mode::Refuse, true);
        wait_for(&mut self.listening.clone(), false);
        self.wait_for_the_cut();
    }

    /// Each piece of data, either way, arrives so much later.
    pub fn delay(&self, by: Duration) {
        self.set(Mode::Delay(by), false);
    }

    /// Half open: connections are taken and kept, and nothing passes any more, either way.
    pub fn swallow(&self) {
        self.set(Mode::Swallow, false);
    }

    /// Everything passes again. What was swallowed meanwhile waits in its connection and passes now.
    pub fn resume(&self) {
        self.set(Mode::Pass, false);
        wait_for(&mut self.listening.clone(), true);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.counts.open().len()
    }

    /// How many connections there have ever been.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    fn set(&self, mode: Mode, cut: bool) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.generation += u64::from(cut);
        });
    }

    fn wait_for_the_cut(&self) {
        let now = self.state.borrow().generation;
        super::await_condition("the proxy cuts", || {
            match self.counts.open().iter().filter(|born| **born < now).count() {
                0 => Ok(()),
                open => Err(format!("{open} connections are open")),
            }
        });
    }
}

/// Blocks until the thread of the proxy has done what the test goes on to rely on.
fn wait_for(listening: &mut watch::Receiver<bool>, wanted: bool) {
    super::await_condition("the proxy", || {
        if *listening.borrow_and_update() == wanted { Ok(()) } else { Err(format!("listens: {}", !wanted)) }
    });
}

async fn serve(
    port: u16,
    target: SocketAddr,
    mut states: watch::Receiver<State>,
    heard: watch::Sender<bool>,
    counts: Arc<Counts>,
) {
    let ended = |states: &watch::Receiver<State>| states.has_changed().is_err();
    while !ended(&states) {
        if states.borrow_and_update().mode == Mode::Refuse {
            heard.send_replace(false);
            let _ = states.changed().await;
            continue;
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the proxy's port is its own");
        heard.send_replace(true);
        loop {
            tokio::select! {
                taken = listener.accept() => {
                    let Ok((client, _)) = taken else { continue };
                    reset(&client);
                    let State { mode, generation } = *states.borrow();
                    if mode == Mode::Refuse {
                        continue;
                    }
                    counts.accepted.fetch_add(1, Ordering::SeqCst);
                    counts.open().push(generation);
                    let (states, counts) = (states.clone(), Arc::clone(&counts));
                    tokio::spawn(async move {
                        carry(client, target, states, generation).await;
                        let mut open = counts.open();
                        if let Some(at) = open.iter().position(|born| *born == generation) {
                            open.swap_remove(at);
                        }
                    });
                }
                changed = states.changed() => {
                    if changed.is_err() || states.borrow_and_update().mode == Mode::Refuse {
                        break;
                    }
                }
            }
        }
    }
}

/// One connection, until it is closed, or cut because there is a newer generation than its own.
async fn carry(client: TcpStream, target: SocketAddr, states: watch::Receiver<State>, generation: u64) {
    let mut cut = states.clone();
    tokio::select! {
        _ = cut.wait_for(|state| state.generation != generation) => {}
        () = pass(client, target, states) => {}
    }
}

async fn pass(client: TcpStream, target: SocketAddr, states: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    reset(&server);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pump(&mut from_client, &mut to_server, states.clone());
    let down = pump(&mut from_server, &mut to_client, states);
    // An end is passed on, and the other way stays open. A way that breaks breaks both, as the dead say nothing more.
    let _ = tokio::try_join!(up, down);
}

/// Closing then resets the connection, as a host or a firewall that goes away does.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let delay = match states.borrow().mode {
            Mode::Delay(by) => by,
            _ => Duration::ZERO,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // Dropped with the proxy: the connection ends with it.
        if states.wait_for(|state| state.mode != Mode::Swallow).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

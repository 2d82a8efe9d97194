//! A TCP proxy that breaks on demand: it cuts, refuses, delays, or takes everything and passes nothing on.
//!
//! It runs on a thread of its own, so that a test that blocks its runtime does not hold up the way to the service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ports;

/// The proxy; it ends, and with it all connections, when this is dropped.
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    listening: watch::Receiver<bool>,
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
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::new(AtomicUsize::new(0));
        let counts = (Arc::clone(&connections), Arc::clone(&accepted));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let run = move || runtime.block_on(serve(port, target, states, heard, counts));
        std::thread::Builder::new().name("proxy".to_owned()).spawn(run).expect("a thread");
        wait_for(&mut listening, true);
        Self { port, state, connections, accepted, listening }
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

    /// Resets all connections that there are now; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Resets all connections, and listens no more: who connects is refused.
    pub fn refuse(&self) {
        self.set(Mode::Refuse, true);
        wait_for(&mut self.listening.clone(), false);
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
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections there have ever been.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn set(&self, mode: Mode, cut: bool) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.generation += u64::from(cut);
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
    (connections, accepted): (Arc<AtomicUsize>, Arc<AtomicUsize>),
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
                    accepted.fetch_add(1, Ordering::SeqCst);
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (states, connections) = (states.clone(), Arc::clone(&connections));
                    tokio::spawn(async move {
                        carry(client, target, states).await;
                        connections.fetch_sub(1, Ordering::SeqCst);
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

/// One connection, until it is closed or cut.
async fn carry(client: TcpStream, target: SocketAddr, states: watch::Receiver<State>) {
    let born = states.borrow().generation;
    let mut cut = states.clone();
    let Ok(server) = TcpStream::connect(target).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    reset(&client);
    reset(&server);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = cut.wait_for(|state| state.generation != born) => {}
        _ = async {
            let up = pump(&mut from_client, &mut to_server, states.clone());
            let down = pump(&mut from_server, &mut to_client, states.clone());
            // An end is passed on, and the other way stays open. A way that breaks breaks both, as the dead say nothing more.
            tokio::try_join!(up, down)
        } => {}
    }
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

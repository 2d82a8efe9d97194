//! The child's side of the process pool: this process serves the program that has started it.
//!
//! The program's `main` runs up to the start of the runtime, with all that it builds on its way: data, hooks, a log. The
//! runtime does not start; a thread of its own [serves](serve) tasks until the program dismisses the child or is gone.
//! Whatever event loop `main` has goes on, so that what it has spawned there lives.

mod client;
mod downloads;
mod keeper;
mod runs;
mod sinks;
mod uplink;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;
use rustix::process::{Signal, kill_current_process_group};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use self::client::ChildClient;
use self::runs::{ChildRuns, RunSlot};
use self::uplink::Uplink;
use super::protocol::{Down, RunOrder, Up, Welcome, codec};
use super::{VARIABLE, memory};
use crate::core::text::logged_errors;
use crate::runtime::body::guard;
use crate::runtime::hooks::WorkerHook;
use crate::task::registry::Registry;
use crate::task::{Client, DataMap, Ending, Layers, Message, install};

/// What a child needs of the program's setup.
pub(crate) struct ChildSetup {
    pub(crate) registry: Registry,
    pub(crate) data: Arc<DataMap>,
    /// The program's code around every body.
    pub(crate) layers: Layers,
    pub(crate) on_worker_start: Option<Box<WorkerHook>>,
    /// The most bytes of JSON that a task's value may take.
    pub(crate) max_result_size: usize,
}

type FrameReader = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// Whether this process is a child of a process pool: its program has said so, and speaks to it through its standard
/// input. (What a child starts itself inherits the word, but not the socket.)
pub(crate) fn is_child() -> bool {
    static IS_CHILD: OnceLock<bool> = OnceLock::new();
    *IS_CHILD.get_or_init(|| {
        let is_socket = || {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map(Socket::from);
            stdin.and_then(|socket| socket.local_addr()).is_ok()
        };
        std::env::var_os(VARIABLE).is_some() && is_socket()
    })
}

/// Serves the program that has started this process, on a thread of its own, until the process ends. With an error in place
/// of the setup, the program is told that this child cannot work.
///
/// # Errors
/// The socket is not there, or no thread can be started.
pub(crate) fn serve(setup: Result<ChildSetup, String>) -> io::Result<()> {
    let socket = take_socket()?;
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            let ended = runtime.block_on(serve_on(socket, setup));
            tracing::error!(error = %ended, "a child process cannot serve its program, and ends");
        }
        std::process::exit(1);
    };
    std::thread::Builder::new().name("celeriac-child".to_owned()).spawn(serve).map(drop)
}

/// Takes the socket off the standard input, so that bodies and what they start do not find it there.
fn take_socket() -> io::Result<Socket> {
    let socket = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves until the process ends. Returns only if it cannot even begin.
async fn serve_on(socket: Socket, setup: Result<ChildSetup, String>) -> io::Error {
    let (reader, writer) = match UnixStream::from_std(socket) {
        Ok(socket) => socket.into_split(),
        Err(error) => return error,
    };
    // The program decides when its children end. A signal to all processes of a service must not end them before it.
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let uplink = Arc::new(Uplink::default());
    let written = tokio::spawn(uplink::write(Arc::clone(&uplink), writer));
    let mut frames = FramedRead::new(reader, codec());
    uplink.push(Up::Hello);
    let welcome = loop {
        if let Down::Welcome(welcome) = next(&mut frames).await {
            break welcome;
        }
    };
    let setup = match setup.and_then(|setup| begin(&setup, &welcome).map(|()| setup)) {
        Ok(setup) => setup,
        Err(why) => {
            uplink.push(Up::CannotStart(why));
            uplink.close();
            let _ = written.await;
            std::process::exit(1);
        }
    };
    let client: Arc<dyn Client> = Arc::new(ChildClient(Arc::clone(&uplink)));
    install(Arc::clone(&client));
    let slot = Arc::new(RunSlot::default());
    let (orders, mut waiting) = mpsc::unbounded_channel();
    tokio::spawn(listen(frames, Arc::clone(&uplink), Arc::clone(&slot), orders));
    let mut runs = ChildRuns::new(setup, welcome.tells_memory, Arc::clone(&uplink), slot, client);
    uplink.push(Up::Ready);
    while let Some(order) = waiting.recv().await {
        runs.run(*order).await;
    }
    drop(signals);
    io::ErrorKind::BrokenPipe.into()
}

/// Makes the process a child: its memory is limited, and the program's hook for workers is called.
fn begin(setup: &ChildSetup, welcome: &Welcome) -> Result<(), String> {
    take_name();
    memory::go_first();
    if let Some(bytes) = welcome.memory_limit {
        memory::limit(bytes)
            .map_err(|error| format!("cannot be limited to {bytes} bytes of memory: {error}"))?;
    }
    let Some(hook) = &setup.on_worker_start else { return Ok(()) };
    guard(|| hook(&welcome.queue, welcome.slot)).map_err(|ending| {
        let panic = match ending {
            Ending::Failure { messages, .. } => logged_errors(&messages).join(": "),
            _ => String::new(),
        };
        format!("ended because `on_worker_start` panicked: {panic}")
    })
}

/// Gives the process the name of its program, which tools such as `top` show. It was started as `/proc/self/exe`.
fn take_name() {
    if cfg!(target_os = "linux") {
        let program = std::env::current_exe().unwrap_or_default();
        let name = program.file_name().unwrap_or_default().as_encoded_bytes();
        // The kernel takes no more. If it takes nothing, the name says less.
        let _ = std::fs::write("/proc/self/comm", &name[..name.len().min(15)]);
    }
}

/// The next frame of the program. Without one the program is gone, and this process ends.
async fn next(frames: &mut FrameReader) -> Down<Message> {
    let frame = frames.next().await.and_then(Result::ok);
    match frame.and_then(|frame| postcard::from_bytes(&frame).ok()) {
        Some(down) => down,
        None => die(),
    }
}

/// Ends this process, and what its bodies have started, because the program is gone.
fn die() -> ! {
    let _ = kill_current_process_group(Signal::KILL);
    std::process::abort();
}

/// Takes in what the program says, also while a body runs.
async fn listen(
    mut frames: FrameReader,
    uplink: Arc<Uplink>,
    slot: Arc<RunSlot>,
    orders: mpsc::UnboundedSender<Box<RunOrder<Message>>>,
) {
    loop {
        match next(&mut frames).await {
            Down::Run(order) => drop(orders.send(order)),
            Down::Interrupt { run, interrupt } => slot.interrupt(run, interrupt),
            Down::GiveWay { run } => slot.give_way(run),
            Down::Answer { question, answer } => uplink.answered(question, *answer),
            Down::ChunkTaken { question } => uplink.chunk_taken(question),
            Down::PermitLost { run, holder } => slot.lost_permit(run, &holder),
            Down::Dismiss => std::process::exit(0),
            Down::Welcome(_) => {}
        }
    }
}

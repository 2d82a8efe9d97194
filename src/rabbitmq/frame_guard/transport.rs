//! Connects the client library to a socket whose incoming frames are looked at.
//!
//! The library takes a custom transport only as the streams of a runtime. So this is tokio's runtime with other
//! streams.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use super::aside::Aside;
use super::frames::Frames;

/// The bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Connects, by TLS if the address says so. Properties that cannot be read are put into `aside`.
pub(in super::super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
    aside: Arc<Aside>,
) -> lapin::Result<Connection> {
    let (plain, guarding) = (Tokio::current(), Guarding(Tokio::current()));
    let open = async move |uri: AMQPUri, _: Runtime<Guarding>| {
        let runtime = Runtime::new(plain.clone());
        let stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await?;
        let frames = Frames::of_at_most(uri.query.frame_max);
        Ok(AsyncTcpStream::Plain(GuardedStream::new(stream, frames, Arc::clone(&aside))))
    };
    Connection::connector(uri, Runtime::new(guarding), open, properties).await
}

/// Tokio's streams, with or without TLS.
type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// A stream whose incoming frames are looked at.
pub(super) struct GuardedStream {
    stream: Socket,
    frames: Frames,
    aside: Arc<Aside>,
    chunk: Box<[u8]>,
    /// The bytes that the library may read, from `at` on.
    ready: Vec<u8>,
    at: usize,
}

impl GuardedStream {
    fn new(stream: Socket, frames: Frames, aside: Arc<Aside>) -> Self {
        let chunk = vec![0; CHUNK].into_boxed_slice();
        Self { stream, frames, aside, chunk, ready: Vec::new(), at: 0 }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.at == this.ready.len() {
            let read = match Pin::new(&mut this.stream).poll_read(cx, &mut this.chunk) {
                Poll::Ready(Ok(read)) => read,
                other => return other,
            };
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            this.ready.clear();
            this.at = 0;
            this.frames.feed(&this.chunk[..read], &mut this.ready, &this.aside)?;
        }
        let ready = &this.ready[this.at..];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        this.at += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Tokio's runtime, with streams whose incoming frames are looked at.
#[derive(Clone, Debug)]
struct Guarding(Tokio);

impl RuntimeKit for Guarding {}

impl Executor for Guarding {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Guarding {
    type TcpStream = GuardedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody calls this: the client library connects, and registers no sockets of others.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<GuardedStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, span: Duration) -> Self::Sleep {
        self.0.sleep(span)
    }

    fn interval(&self, span: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(span)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            let stream = AsyncTcpStream::Plain(connecting.await?);
            Ok(GuardedStream::new(stream, Frames::default(), Arc::default()))
        }
    }
}

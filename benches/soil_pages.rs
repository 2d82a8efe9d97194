//! Soil's pages under many eyes: `cargo bench --bench soil_pages [-- --quick]`.
//!
//! 100 downloads that run, 10,000 clients that poll the JSON status when it says so, and 1,000 that listen to events, each over
//! a connection of its own on loopback. Server and clients share the machine, so the figures are below what a server alone
//! would do. An event is late by the time from its progress (the clock in the note) to the client.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer};
use celeriac::app::catalogue::{Pool, QueueRow};
use celeriac::web::{SoilPages, soil};
use celeriac::{Celeriac, Context, TaskError, task};
use hdrhistogram::Histogram;
use support::process::{cpu, resident, size};
use support::{headline, nanos, sized};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const DOWNLOADS: usize = 100;
static STOP: AtomicBool = AtomicBool::new(false);

/// Goes on until it is told to stop, a percent a second.
#[task(queue = "watched")]
async fn watched(ctx: Context) -> Result<(), TaskError> {
    for step in 0..99 {
        ctx.check()?;
        ctx.progress_note(&nanos().to_string());
        ctx.progress(step + 1, 100);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

/// Reads a head; answers with the length of its body, if it says so.
async fn head(reader: &mut BufReader<TcpStream>) -> std::io::Result<(u16, usize)> {
    let (mut status, mut length, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok((status, length));
        }
        if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
            status = rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
        }
        let lower = text.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}

/// Polls as it is told; tells how long each answer took.
async fn poll(address: String, path: String, took: mpsc::UnboundedSender<u64>) -> std::io::Result<()> {
    let mut reader = BufReader::new(TcpStream::connect(&address).await?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    while !STOP.load(Ordering::Relaxed) {
        let start = Instant::now();
        reader.get_mut().write_all(request.as_bytes()).await?;
        let (status, length) = head(&mut reader).await?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let _ = took.send(start.elapsed().as_micros() as u64);
        let view: serde_json::Value = serde_json::from_slice(&body)?;
        let Some(pause) = view["next_poll_ms"].as_u64() else { break };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// Listens; tells how late each event is.
async fn listen(address: String, path: String, late: mpsc::UnboundedSender<u64>) -> std::io::Result<()> {
    let mut reader = BufReader::new(TcpStream::connect(&address).await?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).await?;
    head(&mut reader).await?;
    let mut line = String::new();
    while reader.read_line(&mut line).await? > 0 {
        if let Some(data) = line.strip_prefix("data: ")
            && let Ok(view) = serde_json::from_str::<serde_json::Value>(data)
            && let Some(at) = view["note"].as_str().and_then(|note| note.parse::<u64>().ok())
        {
            let _ = late.send(nanos().saturating_sub(at) / 1_000);
        }
        line.clear();
    }
    Ok(())
}

/// All that is told within the time, in microseconds.
async fn collect(mut told: mpsc::UnboundedReceiver<u64>, deadline: tokio::time::Instant) -> Histogram<u64> {
    let mut all = Histogram::new(3).expect("a histogram");
    while let Ok(Some(one)) = tokio::time::timeout_at(deadline, told.recv()).await {
        all.saturating_record(one);
    }
    all
}

fn show(what: &str, all: &Histogram<u64>, seconds: f64) {
    let quantile = |q: f64| all.value_at_quantile(q) as f64 / 1_000.0;
    println!(
        "{what}: {} in {seconds:.0} s ({:.0}/s), median {:.1} ms, 99% {:.1} ms, most {:.1} ms",
        all.len(),
        all.len() as f64 / seconds,
        quantile(0.5),
        quantile(0.99),
        all.max() as f64 / 1_000.0
    );
}

#[actix_web::main]
async fn main() {
    headline("soil_pages");
    let (pollers, listeners) = (sized(10_000, 100), sized(1_000, 50));
    let span = sized(Duration::from_secs(20), Duration::from_secs(2));
    let wanted = 2 * (pollers + listeners) as u64 + 1_000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("the limit of open files");
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "needs {wanted} open files: raise `ulimit -Hn`");
    nanos();

    let row = QueueRow::new("watched").with_pool(Pool::Io).with_workers(DOWNLOADS);
    let celeriac = Celeriac::builder().in_memory().queue(row).arbiters(1).start().await.expect("it starts");
    let pages = SoilPages::new([7; 32]).expect("a secret");
    let mut links = Vec::new();
    for _ in 0..DOWNLOADS {
        let task = watched::s().send(celeriac.client()).await.expect("accepted");
        links.push(pages.start(task.id()).url());
    }
    let server = HttpServer::new({
        let (celeriac, pages) = (celeriac.clone(), pages.clone());
        move || App::new().service(soil(&celeriac, &pages))
    })
    .workers(1)
    .backlog(16_384)
    .keep_alive(Duration::from_secs(75))
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .expect("a port");
    let address = server.addrs()[0].to_string();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    let before = resident();
    let failed = Arc::new(AtomicU64::new(0));
    let clients = std::thread::spawn({
        let failed = Arc::clone(&failed);
        move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let path = |at: usize, more: &str| {
                    let (path, query) = links[at % DOWNLOADS].split_once('?').expect("a key");
                    format!("{path}{more}?{query}")
                };
                let (took, polls) = mpsc::unbounded_channel();
                let (late, events) = mpsc::unbounded_channel();
                let mut all = tokio::task::JoinSet::new();
                for at in 0..pollers.max(listeners) {
                    if at < pollers {
                        all.spawn(poll(address.clone(), path(at, "/status"), took.clone()));
                    }
                    if at < listeners {
                        all.spawn(listen(address.clone(), path(at, "/events"), late.clone()));
                    }
                    if at % 100 == 99 {
                        tokio::time::sleep(Duration::from_millis(20)).await; // as people come
                    }
                }
                drop((took, late));
                let deadline = tokio::time::Instant::now() + span;
                let (polls, events) = tokio::join!(collect(polls, deadline), collect(events, deadline));
                while let Some(done) = all.try_join_next() {
                    if !matches!(done, Ok(Ok(()))) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                (polls, events)
            })
        }
    });
    let (start, used) = (Instant::now(), cpu());
    let (polls, events) =
        actix_web::web::block(move || clients.join().expect("clients")).await.expect("a thread");
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{pollers} pollers, {listeners} listeners, {DOWNLOADS} downloads; {} broken",
        failed.load(Ordering::Relaxed)
    );
    show("polls", &polls, seconds);
    show("events", &events, seconds);
    println!(
        "memory, server and clients: {} more; {:.2} cores in use",
        size(resident().saturating_sub(before)),
        (cpu() - used).as_secs_f64() / seconds
    );
    STOP.store(true, Ordering::Relaxed);
    handle.stop(false).await;
    celeriac.shutdown().await.expect("it ends");
}

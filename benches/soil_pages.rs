//! Soil's pages under many eyes: `cargo bench --bench soil_pages [-- --quick]`.
//!
//! 100 downloads that run, 10,000 clients that poll the JSON status when it says so, and 1,000 that listen to events, each over
//! a connection of its own on loopback. Server and clients share the machine, so the figures are below what a server alone
//! would do. An event is late by the time from its progress (the clock in the note) to the client.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::{App, HttpServer};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::web::{SoilPages, soil};
use celeriac::{Celeriac, Context, TaskError, task};
use hdrhistogram::Histogram;
use support::process::{cpu, resident, size};
use support::{headline, sized};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const DOWNLOADS: usize = 100;
static STOP: AtomicBool = AtomicBool::new(false);

/// What the clock of the machine says, for both processes.
fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Goes on until it is told to stop, a percent a second.
#[task(queue = "watched")]
async fn watched(ctx: Context) -> Result<(), TaskError> {
    for step in 0..99 {
        ctx.check()?;
        ctx.progress_note(micros().to_string());
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
            let _ = late.send(micros().saturating_sub(at));
        }
        line.clear();
    }
    Ok(())
}

/// All that is told within the time, in microseconds.
async fn collect(mut told: mpsc::UnboundedReceiver<u64>, deadline: tokio::time::Instant) -> Histogram<u64> {
    let mut all = Histogram::new(3).expect("a histogram");
    while let Ok(Some(one)) = tokio::time::timeout_at(deadline, told.recv()).await {
        all.record(one).expect("it grows");
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

/// As many open files as there may be.
fn raise_limit(wanted: u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let enough = limit.maximum.is_none_or(|most| most >= wanted);
    assert!(raised.is_ok() && enough, "needs {wanted} open files: raise `ulimit -Hn`");
}

/// The other side, in a process of its own: `address`, then the links.
fn clients(words: &[String]) {
    let (pollers, listeners, span) = size_of_it();
    let (address, links) = words.split_first().expect("an address and links");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let path = |at: usize, more: &str| {
            let (path, query) = links[at % links.len()].split_once('?').expect("a key");
            format!("{path}{more}?{query}")
        };
        let (took, polls) = mpsc::unbounded_channel();
        let (late, events) = mpsc::unbounded_channel();
        let mut all = tokio::task::JoinSet::new();
        let start = Instant::now();
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
        let seconds = start.elapsed().as_secs_f64();
        let mut broken = 0;
        while let Some(done) = all.try_join_next() {
            broken += u32::from(!matches!(done, Ok(Ok(()))));
        }
        println!(
            "{pollers} pollers, {listeners} listeners, {DOWNLOADS} downloads; {broken} connections broken"
        );
        show("polls", &polls, seconds);
        show("events", &events, seconds);
    });
}

fn size_of_it() -> (usize, usize, Duration) {
    let span = sized(Duration::from_secs(20), Duration::from_secs(2));
    (sized(10_000, 100), sized(1_000, 50), span)
}

#[actix_web::main]
async fn main() {
    let (pollers, listeners, _) = size_of_it();
    raise_limit((pollers + listeners) as u64 + 500);
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--clients").skip(1).collect();
    if !words.is_empty() {
        return actix_web::web::block(move || clients(&words)).await.expect("a thread");
    }
    headline("soil_pages");
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

    let (before, start, used) = (resident(), Instant::now(), cpu());
    let mut others = std::process::Command::new(std::env::current_exe().expect("this program"));
    others.args(std::env::args().filter(|word| word == "--quick")).arg("--clients").arg(address).args(links);
    let ended =
        actix_web::web::block(move || others.status()).await.expect("a thread").expect("the clients start");
    assert!(ended.success());
    println!(
        "the server: {} more memory; {:.2} cores in use",
        size(resident().saturating_sub(before)),
        (cpu() - used).as_secs_f64() / start.elapsed().as_secs_f64()
    );
    STOP.store(true, Ordering::Relaxed);
    handle.stop(false).await;
    celeriac.shutdown().await.expect("it ends");
}

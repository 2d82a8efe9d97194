//! Deploys: a new program takes over the store of an old one under load, and a program whose pages are open in browsers
//! ends within its grace.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use celeriac::web::{SoilPages, soil};
use celeriac::{Celeriac, Context, EnqueueError, task};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::child::{Child, Failure, say};
use crate::ledger::{How, Line, Reader};
use crate::process::{Home, Life, PATIENCE};
use crate::tasks::Run;

/// Longer than a test waits: whoever waits for the end of the grace has hung.
const GRACE: Duration = Duration::from_secs(600);
/// Between two requests: 200 in a second.
const PACE: Duration = Duration::from_millis(5);
/// The most requests that are on their way; each takes a descriptor here and one in the program.
const ON_THEIR_WAY: usize = 400;
/// So many requests are acknowledged before the next step.
const ENOUGH: usize = 300;
/// Pages that are open when the program is told to end.
const PAGES: u64 = 10;

#[task(queue = "io")]
async fn counted(ctx: Context, n: u64) {
    Run::start(&ctx, n, 0).end(How::Value);
}

async fn enqueue(n: web::Path<u64>) -> HttpResponse {
    let n = n.into_inner();
    match counted::s(n).id(format!("deploy-{n}")).delay().await {
        // A request that comes a second time, because its first answer got lost, finds its task there.
        Ok(_) | Err(EnqueueError::DuplicateId { .. }) => HttpResponse::Ok().finish(),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}

/// Serves from the first moment on, and waits for the directory.
pub async fn serving(child: Child) -> Result<(), Failure> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let server = HttpServer::new(|| App::new().route("/{n}", web::post().to(enqueue)));
    let server = server.workers(2).disable_signals().shutdown_timeout(GRACE.as_secs());
    let mut server = server.listen(listener)?.run();
    say(&format!("port {port}"));
    let starting = child.builder().shutdown_grace(GRACE).wait_for_directory(PATIENCE).start();
    let celeriac = tokio::select! {
        biased; // calls wait for the start from its first look on, so this one is first
        started = starting => started?,
        ended = &mut server => return Err(format!("the server has ended: {ended:?}").into()),
    };
    say("up");
    until_told(server, &celeriac).await
}

/// Shows a page for each of some tasks that wait for a long time.
pub async fn showing(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().shutdown_grace(GRACE).start().await?;
    let pages = SoilPages::new([7; 32])?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let (handle, shown) = (celeriac.clone(), pages.clone());
    let server = HttpServer::new(move || App::new().service(soil(&handle, &shown)));
    let server = server.workers(2).disable_signals().shutdown_timeout(GRACE.as_secs());
    let server = server.listen(listener)?.run();
    say(&format!("port {port}"));
    for n in 0..PAGES {
        let task = counted::s(n).countdown(Duration::from_secs(3600)).delay().await?;
        let url = pages.start(task.id()).url();
        let (path, key) = url.split_once('?').ok_or("a link has a key")?;
        say(&format!("page {path}/events?{key}"));
    }
    until_told(server, &celeriac).await
}

/// Says `listening` as soon as a signal would be heard, and ends server and runtime at one.
async fn until_told(mut server: Server, celeriac: &Celeriac) -> Result<(), Failure> {
    let listening = async {
        say("listening");
        std::future::pending::<()>().await;
    };
    let report = tokio::select! {
        biased; // the first look installs the handlers
        ended = celeriac::web::run(&mut server, celeriac) => ended?,
        () = listening => return Err("nobody waits for ever".into()),
    };
    if report.drained { Ok(()) } else { Err(format!("runs were cut short: {report:?}").into()) }
}

/// What the parent knows of its requests.
#[derive(Default)]
struct Requests {
    sent: u64,
    acknowledged: Vec<u64>,
    refused: Vec<String>,
    /// Requests that got no answer and were sent again.
    repeated: u64,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// A steady load, as a proxy passes it on.
struct Load {
    port: AtomicU16,
    ends: AtomicBool,
    requests: Mutex<Requests>,
}

impl Load {
    fn on(port: u16) -> Arc<Self> {
        Arc::new(Self {
            port: AtomicU16::new(port),
            ends: AtomicBool::new(false),
            requests: Mutex::default(),
        })
    }

    fn look<T>(&self, look: impl FnOnce(&mut Requests) -> T) -> T {
        look(&mut self.requests.lock().unwrap())
    }

    async fn send(self: Arc<Self>) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let places = Arc::new(Semaphore::new(ON_THEIR_WAY));
        let mut on_their_way = tokio::task::JoinSet::new();
        let mut n = 0;
        while !self.ends.load(Ordering::SeqCst) {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            pace.tick().await;
            self.look(|requests| requests.sent += 1);
            on_their_way.spawn(Arc::clone(&self).request(n, place));
            while on_their_way.try_join_next().is_some() {}
            n += 1;
        }
        while on_their_way.join_next().await.is_some() {}
    }

    /// Sends one request until it is answered, with the same id each time.
    async fn request(self: Arc<Self>, n: u64, _place: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let mut again = tokio::time::interval(PACE);
        while begun.elapsed() < PATIENCE {
            again.tick().await;
            let asked = ask(self.port.load(Ordering::SeqCst), n);
            let why = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok((200, _))) => {
                    self.look(|requests| {
                        requests.acknowledged.push(n);
                        let gap = requests.last.replace(Instant::now()).map(|last| last.elapsed());
                        requests.longest_gap = requests.longest_gap.max(gap.unwrap_or_default());
                    });
                    return;
                }
                Ok(Ok((status, answer))) => format!("{status} {answer}"),
                // Nobody has answered: whoever passes requests on asks the next program.
                Ok(Err(_)) => {
                    self.look(|requests| requests.repeated += 1);
                    continue;
                }
                Err(_) => "no answer".to_owned(),
            };
            self.look(|requests| requests.refused.push(format!("{n}: {why}")));
            return;
        }
        self.look(|requests| requests.refused.push(format!("{n}: nobody has answered")));
    }

    fn until(&self, what: &str, reached: impl Fn(&Requests) -> bool) {
        let begun = Instant::now();
        while !self.look(|requests| reached(requests)) {
            let so_far = self.look(|r| format!("{} sent, {} taken", r.sent, r.acknowledged.len()));
            assert!(begun.elapsed() < PATIENCE, "{what}: {so_far}");
            std::thread::sleep(PACE); // a poll
        }
    }
}

/// The status and the rest of an answer.
async fn ask(port: u16, n: u64) -> std::io::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!("POST /{n} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no answer"))?;
    Ok((status, answer))
}

fn port_of(life: &Life) -> u16 {
    let line = life.expect("port ");
    line.trim_start_matches("port ").parse().expect("a port")
}

pub fn a_new_program_takes_over_under_load() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("threads");
    let mut home = Home::new();
    let first = home.spawn("serving", "");
    let load = Load::on(port_of(&first));
    let sending = runtime.spawn(Arc::clone(&load).send());
    load.until("the first program takes tasks", |requests| requests.acknowledged.len() >= ENOUGH);
    first.expect("listening");

    let second = home.spawn("serving", "");
    load.port.store(port_of(&second), Ordering::SeqCst);
    let before = load.look(|requests| requests.sent);
    load.until("some wait for the second program", |requests| requests.sent >= before + 20);
    let told = Instant::now();
    first.signal(Signal::TERM);
    first.death().assert_clean();
    let ended = told.elapsed();
    second.expect("up");
    let took_over = told.elapsed().saturating_sub(ended);
    second.expect("listening");
    let before = load.look(|requests| requests.acknowledged.len());
    load.until("the second program takes tasks", |r| r.acknowledged.len() >= before + ENOUGH);
    load.ends.store(true, Ordering::SeqCst);
    runtime.block_on(sending).expect("all requests are over");
    second.signal(Signal::TERM);
    second.death().assert_clean();
    home.spawn("drain", "").death().assert_clean();

    let mut runs = HashMap::<u64, u32>::new();
    for line in Reader::open(&home.ledger()).lines() {
        if let Line::Start { n, .. } = line {
            *runs.entry(n).or_default() += 1;
        }
    }
    load.look(|requests| {
        println!(
            "    {} tasks, none refused, {} requests repeated; the old program ended after {ended:.1?}, the new one \
             was up {took_over:.1?} later; the longest gap between two answers was {:.1?}",
            requests.acknowledged.len(),
            requests.repeated,
            requests.longest_gap,
        );
        assert_eq!(requests.refused, [""; 0], "no enqueue is refused");
        assert_eq!(requests.acknowledged.len() as u64, requests.sent);
        let wrong: Vec<_> =
            requests.acknowledged.iter().filter(|n| runs.get(n) != Some(&1)).map(|n| (n, runs.get(n))).collect();
        assert!(wrong.is_empty(), "these did not run once: {wrong:?}");
    });
}

/// Reads until the first event of a stream has come.
fn first_event(stream: &mut TcpStream) {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains("event: status") {
        let length = stream.read(&mut part).expect("an event comes");
        assert!(length > 0, "the stream has ended: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..length]));
    }
}

pub fn open_pages_do_not_hold_up_the_end() {
    let mut home = Home::new();
    let life = home.spawn("showing", "");
    let port = port_of(&life);
    let mut streams = Vec::new();
    for _ in 0..PAGES {
        let line = life.expect("page ");
        let path = line.trim_start_matches("page ");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the program listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the program reads");
        first_event(&mut stream);
        streams.push(stream);
    }
    life.expect("listening");
    let told = Instant::now();
    life.signal(Signal::TERM);
    for mut stream in streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the stream ends, and its connection is closed");
    }
    // It would wait for the streams as long as the grace is, which is longer than anybody waits here.
    life.death().assert_clean();
    println!("    {PAGES} open pages, ended after {:.1?} of a grace of {GRACE:?}", told.elapsed());
}

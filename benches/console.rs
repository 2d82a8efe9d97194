//! The console under many eyes: `cargo bench --bench console [-- --quick]`.
//!
//! A program with the 24 queues of the shipped catalogue, in which tasks of fifty tenants wait, are scheduled, stand in lanes, have
//! run and have failed. First each page: its bytes, and the time that the server takes for it, without the way to a browser. Then
//! fifty consoles that are open in a process of their own, each with its event stream: what they cost a program that has nothing
//! to do, and what is left of the throughput of one that has. The limit is the same program without them.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, HttpServer, web};
use celeriac::catalogue::Catalogue;
use celeriac::task::Signature;
use celeriac::web::Console;
use celeriac::{Celeriac, TaskError, serial_task, task};
use support::figures::{Latency, Series, Table, goal, rate};
use support::process::{cpu, size};
use support::store::{Running, directory};
use support::{headline, rounds, sized};

/// How many consoles are open.
const CONSOLES: usize = 50;
const TENANTS: u64 = 50;
/// The word by which this program looks at the consoles of another one: behind it is the address.
const LOOK: &str = "--look";
/// The header that says who looks.
const USER: &str = "x-user";
/// The goals: the bytes of a page, the time of the server, and the share of a core for all consoles.
const BYTES: usize = 50_000;
const TIME: Duration = Duration::from_millis(3);
const IDLE: f64 = 0.01;
/// The queue whose throughput is measured, and those who fill it.
const BUSY: &str = "background_queue";
const PRODUCERS: usize = 32;

/// How many of the plain tasks have run.
static DONE: AtomicU64 = AtomicU64::new(0);

#[task(name = "console.form", ignore_result, search = ["form_id"], max_retries = 0)]
async fn form(form_id: u64, title: String) -> Result<(), TaskError> {
    if title == "bad" { Err(TaskError::permanent(format!("form {form_id} is not readable"))) } else { Ok(()) }
}

#[serial_task(name = "console.export", key = "{domain}", ignore_result)]
async fn export(domain: String, file: u64) {
    let _ = (domain, file);
}

#[task(name = "console.plain", ignore_result)]
async fn plain() {
    DONE.fetch_add(1, Ordering::Relaxed);
}

fn catalogue() -> Catalogue {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml");
    Catalogue::load(file).expect("the shipped catalogue is right")
}

fn queues(celeriac: &Celeriac) -> Vec<String> {
    celeriac.catalogue().queues.iter().map(|row| row.name.clone()).collect()
}

fn domain(number: u64) -> String {
    format!("domain-{}", number % TENANTS)
}

/// Sends calls of forms of all tenants to a queue.
async fn send(queue: &str, title: &str, count: u64, countdown: Option<Duration>) {
    let calls = (0..count).map(|number| {
        let call = form::s(number, title.to_owned()).queue(queue).tenant(domain(number));
        match countdown {
            Some(countdown) => call.countdown(countdown),
            None => call,
        }
    });
    Signature::delay_many(calls).await.expect("accepted");
}

/// What the pages show. Answers with the id of a task that waits.
async fn load(running: &Running) -> String {
    let (celeriac, each) = (&running.celeriac, sized(500, 20));
    for queue in queues(celeriac) {
        send(&queue, "good", each, None).await;
        send(&queue, "bad", each / 10, None).await;
        running.settled(&queue).await;
        celeriac.pause(&queue).await.expect("it pauses");
        send(&queue, "good", each, None).await;
        send(&queue, "later", each / 5, Some(Duration::from_secs(3_600))).await;
    }
    let exports = (0..each).map(|file| export::s(domain(file), file).queue("export_download_queue"));
    Signature::delay_many(exports).await.expect("accepted");
    let sent = form::s(1, "shown".to_owned()).queue(BUSY).delay().await.expect("accepted");
    sent.id().to_string()
}

/// The pages, with the fields that those need which are about one thing.
fn pages(task: &str) -> Vec<String> {
    let plain = [
        "",
        "/tasks",
        "/failed",
        "/lanes",
        "/periodic",
        "/brakes",
        "/tenants",
        "/limits",
        "/enqueue",
        "/history",
        "/processes",
        "/downloads",
        "/live",
        "/bulk",
        "/acts",
    ];
    let of_one = [
        format!("/queue?name={BUSY}"),
        format!("/task?id={task}"),
        "/tenant?name=domain-7".to_owned(),
        "/tasks?argument=form_id%3D7".to_owned(),
        "/enqueue?task=console.form".to_owned(),
        format!("/confirm?act=bulk_move&queue={BUSY}&to=celery"),
    ];
    plain.into_iter().map(str::to_owned).chain(of_one).collect()
}

/// A console that takes each browser for a person of its own.
fn console(celeriac: &Celeriac) -> Console {
    Console::new(celeriac).authorize(|request: &HttpRequest, _| {
        let user = request.headers().get(USER).and_then(|user| user.to_str().ok());
        Some(user.unwrap_or("amina").to_owned())
    })
}

/// How large each page is, and how long the server takes for it.
async fn measure(console: &Console, task: &str) {
    let mut table = Table::new(&["page", "bytes", "p50", "p95", "p99", "max", ""]);
    let app = init_service(App::new().service(console.clone())).await;
    for page in pages(task) {
        let (mut took, mut bytes) = (Latency::new(), 0);
        for _ in 0..sized(100, 5) {
            let request = TestRequest::get().uri(&format!("/console{page}")).to_request();
            let start = Instant::now();
            let response = app.call(request).await.unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(response.status().is_success(), "{page}: {}", response.status());
            let body =
                to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("{page}: it broke off"));
            took.record(start.elapsed().as_nanos() as u64);
            bytes = body.len();
        }
        let met = bytes < BYTES && took.quantile(0.5) < TIME;
        let cells =
            [vec![page, bytes.to_string()], took.cells().to_vec(), vec![goal(met, "50 KB, p50 of 3 ms")]];
        table.row(cells.concat());
    }
    table.print("Each page, at the server");
}

/// Opens consoles and reads what they are sent, until somebody ends this process. Says when all are open.
fn look(address: &str) {
    let open = |number: usize| {
        let mut stream = TcpStream::connect(address).expect("the server answers");
        let head =
            format!("GET /console?events=1 HTTP/1.1\r\nHost: {address}\r\n{USER}: user-{number}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it is sent");
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).expect("an answer");
        assert!(status.contains(" 200 "), "{status}");
        reader
    };
    let readers: Vec<_> = (0..CONSOLES).map(open).collect();
    println!("open");
    let threads = readers.into_iter().map(|mut reader| {
        std::thread::spawn(move || {
            let mut read = [0; 16 << 10];
            while reader.read(&mut read).is_ok_and(|bytes| bytes > 0) {}
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("it reads to the end");
    }
}

/// A process in which consoles are open. It ends with this value.
struct Lookers(Child);

impl Lookers {
    /// Comes back when all are open.
    async fn open(address: String) -> Self {
        let opened = web::block(move || {
            let program = std::env::current_exe().expect("this program");
            let mut child = Command::new(program)
                .args([LOOK, address.as_str()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("it starts");
            let mut line = String::new();
            let out = child.stdout.take().expect("its output");
            BufReader::new(out).read_line(&mut line).expect("a line");
            assert_eq!(line.trim(), "open");
            Self(child)
        });
        opened.await.expect("a thread")
    }
}

impl Drop for Lookers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU per wall clock, for a while.
async fn cpu_share(span: Duration) -> f64 {
    let (before, start) = (cpu(), Instant::now());
    tokio::time::sleep(span).await;
    (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

/// How many tasks run a second, for a while.
async fn throughput(running: &Running, span: Duration) -> f64 {
    let (before, start) = (DONE.load(Ordering::Relaxed), Instant::now());
    let producers = (0..PRODUCERS).map(|_| {
        tokio::spawn(async move {
            while start.elapsed() < span {
                let _ = plain::s().queue(BUSY).delay().await.expect("accepted");
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.expect("a producer ends");
    }
    running.settled(BUSY).await;
    (DONE.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// What consoles cost that are open, beside the same without them.
async fn open_consoles(dir: &Path) {
    let running = Running::embedded(dir, catalogue()).await;
    let console = console(&running.celeriac);
    let server = HttpServer::new(move || App::new().service(console.clone())).workers(1).disable_signals();
    let server = server.bind(("127.0.0.1", 0)).expect("a port");
    let address = server.addrs()[0].to_string();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    let (mut idle, mut watched, mut alone, mut beside) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    let span = sized(Duration::from_secs(10), Duration::from_millis(500));
    for _ in 0..rounds() {
        idle.push(cpu_share(span).await);
        alone.push(throughput(&running, span).await);
        let lookers = Lookers::open(address.clone()).await;
        watched.push(cpu_share(span).await);
        beside.push(throughput(&running, span).await);
        drop(lookers);
    }
    let share = |share: f64| format!("{:.2}%", share * 100.0);
    let mut table = Table::new(&["event streams", "none", &CONSOLES.to_string()]);
    table.row(["CPU of an idle program, of one core".to_owned(), idle.show(share), watched.show(share)]);
    table.row(["durable tasks, from call to end".to_owned(), alone.show(rate), beside.show(rate)]);
    table.print(&format!("{CONSOLES} open consoles"));
    let more = watched.median() - idle.median();
    println!(
        "\n{}",
        goal(more < IDLE, &format!("{CONSOLES} open consoles under 1% of a core ({})", share(more)))
    );
    println!("throughput beside them: {} of that without", beside.over(&alone).show(share));
    handle.stop(false).await;
    running.shutdown().await;
}

async fn measured() {
    headline("console");
    let dir = directory();
    let running = Running::embedded(dir.path(), catalogue()).await;
    let task = load(&running).await;
    println!("the store has {}", size(support::process::disk(dir.path())));
    measure(&console(&running.celeriac), &task).await;
    running.shutdown().await;
    open_consoles(directory().path()).await;
}

fn main() {
    let address = std::env::args().skip_while(|word| word != LOOK).nth(1);
    match address {
        Some(address) => look(&address),
        None => actix_web::rt::System::new().block_on(measured()),
    }
}

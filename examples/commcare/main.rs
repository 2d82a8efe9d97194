//! CommCare HQ in miniature: its 24 queues, with real work on each of them, in one actix-web program.
//!
//! `cargo run --release --example commcare` prints the URL of a console that shows the queues live.
//! `cargo run --release --example commcare -- --once` feeds a mixed load through all of them, looks at what came of it,
//! prints the table, and exits non-zero if anything was lost or left.

mod db;
mod hq;
mod load;
mod once;
mod source_pollers;
mod table;
mod tasks;
mod web;

use std::error::Error;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, middleware};
use celeriac::Celeriac;
use celeriac::catalogue::Catalogue;
use clap::Parser;

use hq::Hq;
use load::ledger::Ledger;
use web::sink::Sink;

/// The catalogue that comes with the program; `--catalogue` takes another.
const CATALOGUE: &str = include_str!("../../celeriac.toml");

/// CommCare HQ in miniature: its 24 queues with real work on them.
#[derive(Parser)]
#[command(name = "commcare")]
struct Options {
    /// Where everything is kept: the queues, the database, uploads, exports, mails.
    #[arg(long, value_name = "DIR", default_value = "data/commcare")]
    data: PathBuf,
    /// The port of the pages; 0 takes any that is free.
    #[arg(long, default_value_t = 8024)]
    port: u16,
    /// The address to listen at. The pages have no login: think before it is anything but loopback.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Another catalogue of queues.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Which [environment.…] of the catalogue applies.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Send mails to this SMTP server (`host:port`, no TLS) instead of writing them to files.
    #[arg(long, value_name = "HOST:PORT", value_parser = smtp_server)]
    smtp: Option<(String, u16)>,
    /// Post analytics, SMS, logs and repeat records to this http:// address instead of the program's own sink.
    #[arg(long, value_name = "URL", conflicts_with = "once", value_parser = plain_http)]
    endpoint: Option<String>,
    /// How many seconds running tasks get when the program is told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// How many seconds an export of Soil's demo takes; its other tasks take a part or a multiple of that.
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    demo_seconds: u64,
    /// Feed a mixed load through all queues, print how it went, and exit.
    #[arg(long)]
    once: bool,
}

fn smtp_server(text: &str) -> Result<(String, u16), String> {
    let text = text.strip_prefix("smtp://").unwrap_or(text);
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "25"));
    let port = port.parse().map_err(|_| format!("`{port}` is no port; write host:port"))?;
    if host.is_empty() {
        Err("the host is missing; write host:port".to_owned())
    } else {
        Ok((host.to_owned(), port))
    }
}

fn plain_http(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write an http:// address; this example is built without TLS".to_owned()),
    }
}

#[actix_web::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // In `--once` some tasks are meant to fail; that they do is checked, not logged.
    let quiet = if options.once {
        "warn,celeriac::actors::run=off,celeriac::broker=error"
    } else {
        "warn,commcare=info"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| quiet.into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("commcare: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let port = if options.once { 0 } else { options.port };
    let listener = TcpListener::bind((options.host.as_str(), port))
        .map_err(|e| format!("cannot listen at {}:{port}: {e}; try another --port", options.host))?;
    let url = format!("http://{}", listener.local_addr()?);
    // What others write for it, such as SQLite and the mailer, is closed to other accounts as well.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    hq::create_private_dir(&options.data)?;

    // The surroundings first: tasks left over from the last run start with the runtime. The store is opened before
    // anything is written, so that a second program on the same data is told off by the runtime.
    let endpoint = options.endpoint.clone().unwrap_or_else(|| format!("{url}/sink"));
    Hq::open(&options.data, url.clone(), endpoint, options.smtp.clone())?.install();
    load::keep_ledger(Ledger::open(&options.data)?);
    let sink = actix_web::web::Data::new(Sink::open(&options.data)?);
    let celeriac = start(&options).await?;

    let pages = web::demo::pages(&options.data)?;
    let pace = web::demo::Pace { seconds: options.demo_seconds };
    let server = serve(listener, celeriac.clone(), sink.clone(), pages, pace)?;
    let outcome = if options.once {
        once::run(&celeriac, &sink, options.catalogue.is_none()).await
    } else {
        let told = signal()?; // listened for before anybody knows where we are
        // In one line: whoever reads the first one may close the pipe then.
        println!("CommCare's queues are at {url}/ and buttons that give them work at {url}/soil-demo");
        told.await;
        Ok(true)
    };
    // The runtime first: what runs may still post to the sink. What is enqueued from now on gets a 503.
    let report = celeriac.shutdown().await?;
    server.stop(true).await;
    if !options.once {
        let how = if report.drained {
            "all running tasks ended"
        } else {
            "unfinished tasks go on at the next start"
        };
        println!("ended in {:.1?}: {how}", report.took);
    }
    outcome
}

async fn start(options: &Options) -> Result<Celeriac, Box<dyn Error>> {
    let mut builder = Celeriac::builder()
        .directory(options.data.join("queues"))
        // The fixed load is to find nothing else in the queues, whatever midnight it is somewhere.
        .beat(!options.once)
        .on_ready(tasks::ready::file_is_ready)
        .shutdown_grace(Duration::from_secs(options.grace));
    let interval = if options.once { Duration::from_millis(200) } else { Duration::from_secs(10) };
    for poller in source_pollers::all(interval) {
        builder = builder.poller(poller);
    }
    builder = match &options.catalogue {
        Some(file) => builder.catalogue_file(file),
        None => builder.catalogue(Catalogue::parse(CATALOGUE, "celeriac.toml")?),
    };
    if let Some(environment) = &options.environment {
        builder = builder.environment(environment);
    }
    Ok(builder.start().await?)
}

fn serve(
    listener: TcpListener,
    celeriac: Celeriac,
    sink: actix_web::web::Data<Sink>,
    pages: celeriac::web::SoilPages,
    pace: web::demo::Pace,
) -> Result<ServerHandle, Box<dyn Error>> {
    // It has no login here: whoever reaches this address may do everything.
    let console = celeriac::web::Console::new(&celeriac).title("CommCare").authorize(|_, _| true);
    let celeriac = actix_web::web::Data::new(celeriac);
    let server = HttpServer::new(move || {
        App::new()
            .wrap(middleware::from_fn(web::own_origin_only))
            .app_data(celeriac.clone())
            .app_data(sink.clone())
            .app_data(actix_web::web::Data::new(pages.clone()))
            .app_data(actix_web::web::Data::new(pace))
            .service(celeriac::web::soil(&celeriac, &pages))
            .service(console.clone())
            .service(celeriac::web::health(&celeriac))
            .service(celeriac::web::metrics(&celeriac))
            .configure(web::routes)
    })
    .workers(2)
    .disable_signals()
    .shutdown_timeout(2)
    .listen(listener)?
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// Completes at SIGTERM or SIGINT, heard from now on.
#[cfg(unix)]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Completes at Ctrl-C.
#[cfg(not(unix))]
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

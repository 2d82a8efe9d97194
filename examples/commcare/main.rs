//! A program in the likeness of CommCare HQ: an actix-web server with HQ's 24 queues and real work on them.
//!
//! `cargo run --release --example commcare` serves a live page of the queues at the URL that it prints.
//! `... -- --once` sends a fixed load through all queues, prints their table and fails if anything was lost or left.
//!
//! As in HQ, each module holds the tasks of one application; messages carry ids, and tasks fetch what they need. Tasks
//! may run twice (a process can die at any time), so each of them can be repeated without harm.

mod accounting;
mod database;
mod email;
mod exports;
mod imports;
mod logistics;
mod once;
mod reminders;
mod reports;
mod settings;
mod sink;
mod submissions;
mod table;
mod ucr;
mod web;

use std::process::ExitCode;

use celeriac::Celeriac;
use clap::Parser;
use settings::{Arguments, Settings};
use tracing_subscriber::EnvFilter;

type AnyError = Box<dyn std::error::Error>;

#[actix_web::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let quiet = if arguments.once { "off" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("commcare: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, AnyError> {
    let once = arguments.once;
    let server = web::bind(&arguments)?;
    Settings::install(&arguments, server.url())?;
    database::create()?;
    let mut builder = Celeriac::builder()
        .catalogue_file(&arguments.catalogue)
        .directory(arguments.data.join("queues"))
        .shutdown_grace(std::time::Duration::from_secs(arguments.grace));
    if let Some(environment) = &arguments.environment {
        builder = builder.environment(environment);
    }
    let celeriac = builder.start().await?;
    let url = server.url().to_owned();
    let (handle, serving) = server.start(celeriac.clone())?;
    println!("commcare listens on {url}");
    let code = if once {
        once::run(&celeriac).await?
    } else {
        // Signals end the server first: it takes no requests while the tasks come to their end.
        serving.await??;
        ExitCode::SUCCESS
    };
    handle.stop(false).await;
    let report = celeriac.shutdown().await?;
    eprintln!("commcare ended: {report:?}");
    Ok(code)
}

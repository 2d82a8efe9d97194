//! `celeriac console`: the console by itself, for a store whose program does not run, or for a fleet over RabbitMQ.
//!
//! It runs no tasks. It listens on this machine only unless it is told otherwise, and lets in who has the address that it
//! prints. Without `--allow-acts` that one may look, and no more.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::Failure;
use super::local::{LocalProgram, StoreOrProgram, open_or_ask};
use super::place::{BrokerSource, Place, store_options};
use crate::Celeriac;
use crate::app::variables::RESULT_BACKEND;
use crate::app::{Builder, StartError};
use crate::broker::Broker as _;
use crate::catalogue::{Catalogue, QueueRow, one_line};
use crate::web::{ConsoleServer, RunError};

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    #[command(flatten)]
    source: BrokerSource,
    /// Where the results of a fleet are, as `redis://host:6379/0`. An embedded store has its own.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
    /// The catalogue that names the queues and what they promise. RabbitMQ does not tell which queues there are.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// Apply the changes of this environment to the catalogue.
    #[arg(short, long, value_name = "NAME", requires = "catalogue")]
    environment: Option<String>,
    /// Listen here. The default is this machine only, and a port that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Only show. This is the default.
    #[arg(long, conflicts_with = "allow_acts")]
    read_only: bool,
    /// Open the acts too: retry, revoke, delete and the like, for whoever has the printed address.
    #[arg(long)]
    allow_acts: bool,
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Found(error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Found(error.to_string())
    }
}

pub(super) fn run(args: &ConsoleArgs, out: &mut impl Write) -> Result<(), Failure> {
    let builder = builder(args)?;
    let may_act = args.allow_acts && !args.read_only;
    let server = ConsoleServer::bind(args.bind).map_err(|error| {
        Failure::Found(format!("cannot listen on {}: {error}; choose another one with --bind", args.bind))
    })?;
    let start = async { Ok::<Celeriac, Failure>(builder.start().await?) };
    server.run(may_act, start, |url| {
        writeln!(out, "{url}")?;
        out.flush()?;
        if std::io::stderr().is_terminal() {
            let may = if may_act { "look and act" } else { "look" };
            writeln!(
                std::io::stderr(),
                "Who opens this address first may {may}; it works once. Ctrl-C ends the console."
            )?;
        }
        Ok(())
    })
}

/// A runtime that runs nothing, at the place that the options name.
fn builder(args: &ConsoleArgs) -> Result<Builder, Failure> {
    let place = args.source.chosen()?;
    let mut builder = Celeriac::builder();
    for row in rows(args)? {
        builder = builder.queue(row);
    }
    builder = match place {
        Place::Directory(directory) => {
            // It must exist, and no program may have it: this makes no store, and a program that has it shows itself.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                match open_or_ask(directory).await? {
                    StoreOrProgram::Store(store) => store.close().await.map_err(Failure::from),
                    StoreOrProgram::Program(program) => Err(shows_itself(&program, directory).await),
                }
            })?;
            builder.directory(directory).embedded_options(store_options())
        }
        Place::RabbitMq(url) => {
            let builder = over_rabbitmq(builder, url)?;
            match &args.result_backend {
                Some(store) => builder.result_backend(store.as_str()),
                None => builder,
            }
        }
    };
    Ok(builder.client_only())
}

/// What to do instead: the program of the store runs, so it shows itself.
async fn shows_itself(program: &LocalProgram, directory: &Path) -> Failure {
    // A program that does not know the question has no console that it could name.
    let told = program.answer("console", Value::Null).await.unwrap_or_default();
    let directory = directory.display();
    let has = match told.get("url").and_then(Value::as_str) {
        Some(url) => format!(
            "and has mounted its own console: open {}, or the address that a proxy before it has.",
            one_line(url)
        ),
        None => "and has mounted no console. Mount one in that program, by \
                 `App::new().service(celeriac::web::Console::new(&celeriac).authorize(..))`, \
                 or stop the program and run this command again."
            .to_owned(),
    };
    Failure::Found(format!(
        "The program of the store in `{directory}` runs, {has} `celeriac top --directory {directory}` and `celeriac report --directory {directory}` ask that program in a terminal."
    ))
}

/// The queues of the catalogue, with what the console shows of them.
fn rows(args: &ConsoleArgs) -> Result<Vec<QueueRow>, Failure> {
    let Some(file) = &args.catalogue else { return Ok(Vec::new()) };
    let mut catalogue = Catalogue::load(file)?;
    if let Some(environment) = &args.environment {
        catalogue = catalogue.for_environment(environment)?;
    }
    let shown = catalogue.queues.into_iter().map(|row| {
        let mut shown = QueueRow::new(row.name).with_served(false);
        (shown.target, shown.description) = (row.target, row.description);
        shown.typical_duration = row.typical_duration;
        shown
    });
    Ok(shown.collect())
}

#[cfg(feature = "amqp")]
#[allow(clippy::unnecessary_wraps)] // without RabbitMQ it fails
fn over_rabbitmq(builder: Builder, url: &str) -> Result<Builder, Failure> {
    // A name of its own: to the fleet it is no worker.
    let options = crate::broker::amqp::AmqpOptions::default().with_node("console@%h");
    Ok(builder.amqp(url).amqp_options(options))
}

#[cfg(not(feature = "amqp"))]
fn over_rabbitmq(_: Builder, _: &str) -> Result<Builder, Failure> {
    Err(Failure::Found("this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned()))
}

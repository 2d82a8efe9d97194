//! The broker or the store that a command works on.
//!
//! An address contains a password, and everybody on the machine can read command lines, so the address may come from
//! the environment. The command line wins over the environment, also where the former names a directory and the
//! latter a broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::Failure;
use crate::app::Backend;
use crate::app::variables::{BROKER, RESULT_BACKEND};
#[cfg(feature = "amqp")]
pub(super) use crate::broker::AmqpBroker as RabbitMq;
// Without RabbitMQ, there is never a value of this type.
#[cfg(not(feature = "amqp"))]
pub(super) use crate::broker::EmbeddedBroker as RabbitMq;
use crate::broker::embedded::EmbeddedOptions;
use crate::broker::{Broker, BrokerError, EmbeddedBroker};
use crate::store::Notes;
use crate::store::chord::LARGEST_CHORD;

/// The options that say where the tasks are.
#[derive(Debug, Args)]
pub(super) struct BrokerSource {
    /// RabbitMQ, as `amqp://user:password@host:5672/vhost`. The environment is safer: others can read a command line.
    #[arg(long, value_name = "URL", env = BROKER, hide_env_values = true)]
    broker: Option<String>,
    /// The directory of an embedded store, or of an outbox. While its program runs, only some commands ask that program.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// The options that say where the tasks and their results are.
#[derive(Debug, Args)]
pub(super) struct TaskSource {
    #[command(flatten)]
    source: BrokerSource,
    /// Where the results are, as `redis://host:6379/0`. The record of each task is removed, so that its next run can
    /// leave one.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
}

/// The option that says on which RabbitMQ a fleet is.
#[derive(Debug, Args)]
pub(super) struct FleetSource {
    /// RabbitMQ, as `amqp://user:password@host:5672/vhost`. The environment is safer: others can read a command line.
    #[arg(short, long, value_name = "URL", env = BROKER, hide_env_values = true)]
    broker: Option<String>,
}

/// The options that say where the notes of programs are: their history, and the runs that they have recorded.
#[derive(Debug, Args)]
pub(super) struct NotesSource {
    /// The directory of an embedded store. Its program must not run.
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Where the results of a fleet are, as `redis://host:6379/0`.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
}

/// The place that the options name.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// RabbitMQ, at this address.
    RabbitMq(&'a str),
    /// The directory of an embedded store.
    Directory(&'a Path),
}

/// The place that the options name, and where the results are.
pub(super) struct Chosen<'a> {
    pub(super) place: Place<'a>,
    pub(super) result_backend: Option<&'a str>,
}

/// Whether an option is written on the command line, and not taken from the environment.
fn is_written(name: &str, value: Option<&str>) -> bool {
    value.is_some() && std::env::var(name).ok().as_deref() != value
}

impl BrokerSource {
    pub(super) fn chosen(&self) -> Result<Place<'_>, Failure> {
        match (&self.directory, self.broker.as_deref()) {
            (Some(_), broker) if is_written(BROKER, broker) => Err(Failure::CommandLine(
                "--directory is for an embedded store, which has no --broker: leave one of the two out"
                    .to_owned(),
            )),
            (Some(directory), _) => Ok(Place::Directory(directory)),
            (None, Some(broker)) => Ok(Place::RabbitMq(broker)),
            (None, None) => Err(Failure::CommandLine(format!(
                "say where the tasks are: --directory DIR for an embedded store, or --broker URL (or {BROKER} in the environment) for RabbitMQ"
            ))),
        }
    }
}

impl TaskSource {
    pub(super) fn chosen(&self) -> Result<Chosen<'_>, Failure> {
        let (place, result_backend) = (self.source.chosen()?, self.result_backend.as_deref());
        Ok(match place {
            // The records of an outbox are elsewhere. Those of an embedded store are in it, whatever store the
            // environment names.
            Place::Directory(_) => Chosen {
                place,
                result_backend: result_backend.filter(|_| is_written(RESULT_BACKEND, result_backend)),
            },
            Place::RabbitMq(_) => Chosen { place, result_backend },
        })
    }
}

impl NotesSource {
    /// Whether the options name a place, or the environment does.
    pub(super) fn is_named(&self) -> bool {
        self.directory.is_some() || self.result_backend.is_some()
    }

    /// Opens the notes, and reads from them. `what` is what is looked for, in errors: `history`.
    pub(super) async fn read<T>(
        &self,
        what: &str,
        read: impl AsyncFnOnce(&dyn Notes) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match (&self.directory, self.result_backend.as_deref()) {
            (Some(directory), _) => {
                let store = open_store(directory)?;
                let notes: &dyn Notes = &store;
                let told = read(notes).await;
                let closed = store.close().await;
                let told = told?;
                closed?;
                Ok(told)
            }
            (None, Some(url)) => {
                let store = Backend::at(url.to_owned()).open(None, None, LARGEST_CHORD).await?.store;
                let notes = store.notes().ok_or_else(|| {
                    Failure::Found(format!(
                        "this result backend keeps no notes, and so no {what}: Redis does"
                    ))
                })?;
                read(notes).await
            }
            (None, None) => Err(Failure::CommandLine(format!(
                "say where the {what} is: --directory DIR for an embedded store, or --result-backend URL (or {RESULT_BACKEND} in the environment) for Redis"
            ))),
        }
    }
}

impl FleetSource {
    pub(super) fn url(&self) -> Result<&str, Failure> {
        self.broker.as_deref().ok_or_else(|| {
            Failure::CommandLine(format!(
                "say where the fleet is: --broker URL, or {BROKER} in the environment"
            ))
        })
    }
}

impl<'a> Place<'a> {
    /// The address of RabbitMQ, if the place is there.
    pub(super) fn rabbitmq(self) -> Option<&'a str> {
        match self {
            Place::RabbitMq(url) => Some(url),
            Place::Directory(_) => None,
        }
    }
}

/// Opens the broker or the store. It must exist; this creates nothing.
pub(super) async fn open(place: Place<'_>) -> Result<Arc<dyn Broker>, BrokerError> {
    Ok(match place {
        Place::RabbitMq(url) => connect(url).await?,
        Place::Directory(directory) => Arc::new(open_store(directory)?),
    })
}

/// Opens an embedded store, which must exist.
pub(super) fn open_store(directory: &Path) -> Result<EmbeddedBroker, BrokerError> {
    EmbeddedBroker::open_existing(directory, store_options())
}

/// The options of a store whose program does not run. Only the program knows how many crashes a task may have, and how many
/// failed tasks are kept, so no limit holds here.
pub(super) fn store_options() -> EmbeddedOptions {
    EmbeddedOptions {
        delivery_limit: u32::MAX,
        max_failed: u64::MAX,
        max_failed_bytes: u64::MAX,
        ..EmbeddedOptions::default()
    }
}

/// Connects to RabbitMQ, for what every broker can do.
pub(super) async fn connect(url: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    rabbitmq(url).await.map(|broker| broker as Arc<dyn Broker>)
}

/// Connects to RabbitMQ.
#[cfg(feature = "amqp")]
pub(super) async fn rabbitmq(url: &str) -> Result<Arc<RabbitMq>, BrokerError> {
    Ok(Arc::new(RabbitMq::connect(url, crate::broker::amqp::AmqpOptions::default()).await?))
}

#[cfg(not(feature = "amqp"))]
pub(super) async fn rabbitmq(_: &str) -> Result<Arc<RabbitMq>, BrokerError> {
    Err(BrokerError::io(
        "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
    ))
}

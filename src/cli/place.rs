//! The broker or the store that a command works on.
//!
//! An address contains a password, and everybody on the machine can read command lines, so the address may come from
//! the environment. The command line wins over the environment, also where the former names a directory and the
//! latter a broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::Failure;
use crate::app::variables::{BROKER, RESULT_BACKEND};
use crate::broker::embedded::EmbeddedOptions;
use crate::broker::{Broker, BrokerError, EmbeddedBroker};

/// The options that say where the tasks are.
#[derive(Debug, Args)]
pub(super) struct TaskSource {
    /// RabbitMQ, as `amqp://user:password@host:5672/vhost`. The environment is safer: others can read a command line.
    #[arg(long, value_name = "URL", env = BROKER, hide_env_values = true)]
    broker: Option<String>,
    /// Where the results are, as `redis://host:6379/0`. The record of each task is removed, so that its next run can
    /// leave one.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
    /// The directory of an embedded store, or of an outbox. Its program must not run.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// The place that the options name.
pub(super) struct Chosen<'a> {
    pub(super) broker: Option<&'a str>,
    pub(super) result_backend: Option<&'a str>,
    directory: Option<&'a Path>,
}

impl TaskSource {
    pub(super) fn chosen(&self) -> Result<Chosen<'_>, Failure> {
        let is_written = |name, value: &Option<String>| value.is_some() && std::env::var(name).ok() != *value;
        let (broker, result_backend) = (self.broker.as_deref(), self.result_backend.as_deref());
        match &self.directory {
            Some(_) if is_written(BROKER, &self.broker) => Err(Failure::CommandLine(
                "--directory is for an embedded store, which has no --broker: leave one of the two out"
                    .to_owned(),
            )),
            // The records of an outbox are elsewhere. Those of an embedded store are in it, whatever store the
            // environment names.
            Some(directory) => Ok(Chosen {
                broker: None,
                result_backend: result_backend.filter(|_| is_written(RESULT_BACKEND, &self.result_backend)),
                directory: Some(directory),
            }),
            None if broker.is_none() => Err(Failure::CommandLine(format!(
                "say where the tasks are: --directory DIR for an embedded store, or --broker URL (or {BROKER} in the environment) for RabbitMQ"
            ))),
            None => Ok(Chosen { broker, result_backend, directory: None }),
        }
    }
}

impl Chosen<'_> {
    /// Opens the broker or the store. It must exist; this creates nothing.
    pub(super) async fn open(&self) -> Result<Arc<dyn Broker>, BrokerError> {
        match (self.broker, self.directory) {
            (Some(url), _) => connect(url).await,
            (None, directory) => {
                // Only the program knows how many crashes a task may have, so no limit holds here.
                let options = EmbeddedOptions { delivery_limit: u32::MAX, ..EmbeddedOptions::default() };
                let directory = directory.unwrap_or(Path::new(""));
                Ok(Arc::new(EmbeddedBroker::open_existing(directory, options)?))
            }
        }
    }
}

#[cfg(feature = "amqp")]
pub(super) async fn connect(url: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    use crate::broker::amqp::{AmqpBroker, AmqpOptions};
    Ok(Arc::new(AmqpBroker::connect(url, AmqpOptions::default()).await?))
}

#[cfg(not(feature = "amqp"))]
pub(super) async fn connect(_: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    Err(BrokerError::io(
        "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
    ))
}

//! The program that has an embedded store open. It answers for the store by the socket in its directory.

use std::path::Path;

use serde_json::Value;

use super::Failure;
use super::figures::in_use;
use super::place::open_store;
use crate::app::NodeReplies;
use crate::broker::{BrokerError, EmbeddedBroker};

/// An embedded store, or the program that has it open.
pub(super) enum StoreOrProgram {
    Store(EmbeddedBroker),
    Program(LocalProgram),
}

/// A program that has a store open, and answers.
#[derive(Debug)]
pub(super) struct LocalProgram {
    #[cfg_attr(not(unix), allow(dead_code))] // there is never a value of this type
    socket: std::path::PathBuf,
}

/// Opens the store in this directory. If a program has it open and answers, that program is asked.
pub(super) async fn open_or_ask(directory: &Path) -> Result<StoreOrProgram, Failure> {
    match open_store(directory) {
        Ok(store) => Ok(StoreOrProgram::Store(store)),
        Err(error @ BrokerError::InUse { .. }) => match LocalProgram::of(directory).await {
            Some(program) => Ok(StoreOrProgram::Program(program)),
            None => Err(in_use(error)),
        },
        Err(error) => Err(error.into()),
    }
}

impl LocalProgram {
    /// The replies of this program, as those of a fleet are.
    pub(super) async fn replies(&self, method: &str, arguments: Value) -> Result<NodeReplies, Failure> {
        let mut told = self.ask(method, arguments).await?;
        if let Some(error) = told.get("error").and_then(Value::as_str) {
            return Err(Failure::Found(format!("The program of this store says: {error}.")));
        }
        let node = told.get("node").and_then(Value::as_str).unwrap_or("celeriac").to_owned();
        let answer = told.get_mut("answer").map(Value::take).unwrap_or_default();
        Ok([(node, answer)].into())
    }

    /// The answer of this program.
    ///
    /// # Errors
    /// It cannot be asked, or answers with an error.
    pub(super) async fn answer(&self, method: &str, arguments: Value) -> Result<Value, Failure> {
        let replies = self.replies(method, arguments).await?;
        let answer = replies.into_values().next().unwrap_or_default();
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(Failure::Found(format!("The program of this store says: {error}."))),
            None => Ok(answer),
        }
    }
}

#[cfg(unix)]
mod socket {
    use std::path::Path;
    use std::time::Duration;

    use futures_util::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tokio::net::UnixStream;
    use tokio::time::timeout;
    use tokio_util::codec::{Framed, LinesCodec};

    use super::{Failure, LocalProgram};
    use crate::app::SOCKET;

    /// The most bytes of an answer.
    const LONGEST: usize = 64 << 20;
    /// How long the program has for an answer.
    const PATIENCE: Duration = Duration::from_secs(20);

    impl LocalProgram {
        /// The program that has the store in this directory open; `None`: it does not listen.
        pub(in super::super) async fn of(directory: &Path) -> Option<Self> {
            let socket = directory.join(SOCKET);
            UnixStream::connect(&socket).await.ok()?;
            Some(Self { socket })
        }

        pub(super) async fn ask(&self, method: &str, arguments: Value) -> Result<Value, Failure> {
            let asked = timeout(PATIENCE, self.converse(method, arguments)).await;
            asked
                .unwrap_or_else(|_| Err(format!("has not answered within {} s", PATIENCE.as_secs())))
                .map_err(|why| Failure::Found(format!("The program of this store {why}.")))
        }

        async fn converse(&self, method: &str, arguments: Value) -> Result<Value, String> {
            let away = |error: &dyn std::fmt::Display| format!("cannot be asked: {error}");
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| away(&error))?;
            let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LONGEST));
            let question = json!({ "method": method, "arguments": arguments }).to_string();
            lines.send(question).await.map_err(|error| away(&error))?;
            let line = lines.next().await.ok_or("has ended the connection without an answer")?;
            let line = line.map_err(|error| away(&error))?;
            serde_json::from_str(&line).map_err(|error| format!("answers something else: {error}"))
        }
    }
}

#[cfg(not(unix))]
impl LocalProgram {
    async fn of(_: &Path) -> Option<Self> {
        None
    }

    async fn ask(&self, _: &str, _: Value) -> Result<Value, Failure> {
        Err(Failure::Found("Nobody answers here for a store that a program has open.".to_owned()))
    }
}

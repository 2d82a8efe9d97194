//! Flower from PyPI, started for a test, and asked as a browser and a script would ask it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::services::{Python, Script, Server, await_condition, free_port};

/// A running Flower.
pub struct Flower {
    port: u16,
    _server: Server,
}

/// What Flower has answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Flower {
    /// Starts Flower with the app in this script, and waits until it answers.
    pub fn start(script: &Script, broker_api: &str) -> Self {
        let port = free_port();
        let (port_option, api) = (format!("--port={port}"), format!("--broker_api={broker_api}"));
        let arguments = ["flower", "--address=127.0.0.1", &port_option, &api].map(str::to_owned);
        let script = script.clone().env("FLOWER_UNAUTHENTICATED_API", "true");
        let server = Python::with_flower().celery("Flower", &script, &arguments);
        let flower = Self { port, _server: server };
        await_condition("Flower answers", || match flower.try_ask("GET", "/healthcheck") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        flower
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.try_ask("GET", path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub fn post(&self, path: &str) -> Answer {
        self.try_ask("POST", path).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Asks until the answer is as it should be; events come when they come.
    pub fn until<T>(&self, path: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        await_condition(path, || {
            let answer = self.get(path);
            match answer.status {
                200 => wanted(&answer.json()).ok_or_else(|| answer.body.clone()),
                _ => Err(format!("{answer:?}")),
            }
        })
    }

    fn try_ask(&self, method: &str, path: &str) -> std::io::Result<Answer> {
        ask(self.port, method, path)
    }
}

/// Asks a server on this port.
pub fn ask(port: u16, method: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // HTTP/1.0: the answer ends where the connection does.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, body: body.to_owned() })
}

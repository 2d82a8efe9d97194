//! Prometheus and its `promtool`, both from Debian's package `prometheus`.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use super::home::Home;
use super::process::{Output, Process, program, run};
use super::{await_condition, ports};

const PACKAGE: &str = "prometheus";

/// A server; dropped, it is killed.
pub struct Prometheus {
    port: u16,
    _process: Process,
    _home: Home,
}

impl Prometheus {
    /// Starts a server that scrapes `/metrics` at this local port each second, under the job `celery-tests`, and evaluates
    /// these rules as often.
    pub fn scraping(port: u16, rules: &Path) -> Self {
        let home = Home::new("prometheus");
        let own = ports::free();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: celery-tests, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n",
            rules.display()
        );
        let file = home.join("prometheus.yml");
        std::fs::write(&file, config).expect("a file in its home");
        let executable = program(&["prometheus"], PACKAGE);
        let mut process = Process::start("Prometheus", executable, home.join("log"), |command| {
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{own}"));
        });
        process.await_condition("it listens", || match TcpStream::connect(("127.0.0.1", own)) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        Self { port: own, _process: process, _home: home }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks an expression again and again until it is one series with this value.
    pub fn until(&self, expression: &str, wanted: f64) {
        let server = format!("http://127.0.0.1:{}", self.port);
        await_condition(expression, || {
            let answer = promtool(&["query", "instant", &server, expression], None);
            // `{labels} => 3 @[1700000000.123]`
            let told = answer.stdout.trim();
            let value = told.split_once("=> ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            if value == Some(wanted) && told.lines().count() == 1 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        });
    }
}

/// Runs `promtool`. With `input`, it reads this file.
pub fn promtool(arguments: &[&str], input: Option<&Path>) -> Output {
    run("promtool", program(&["promtool"], PACKAGE), |command| {
        command.args(arguments);
        if let Some(input) = input {
            command.stdin(Stdio::from(File::open(input).expect("a file to read")));
        }
    })
}

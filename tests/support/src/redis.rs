//! A Redis server of the test's own, and a sentinel that watches one.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::home::Home;
use super::ports;
use super::process::{Process, program, run};

/// A server; clones are handles of the same one, which ends with the last.
#[derive(Clone)]
pub struct Redis(Arc<Server>);

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    append_only: bool,
    arguments: Vec<String>,
}

impl RedisOptions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes survive `kill -9`: each is synced to disk before it is answered. Otherwise all is lost with the server.
    pub fn append_only(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// One more setting, such as `("maxmemory", "10mb")`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// The server begins as a replica of this one.
    pub fn replica_of(mut self, master: &Redis) -> Self {
        self.arguments.extend(["--replicaof", "127.0.0.1"].map(str::to_owned));
        self.arguments.push(master.0.port.to_string());
        self
    }

    pub fn start(self) -> Redis {
        let server = Server {
            process: Mutex::new(None),
            port: ports::free(),
            home: Home::new("redis"),
            options: self,
        };
        let redis = Redis(Arc::new(server));
        redis.start_again();
        redis
    }
}

impl Redis {
    /// A server that forgets everything at its end.
    pub fn start() -> Self {
        RedisOptions::new().start()
    }

    /// The server that all tests of this process share. Celery's ids are unique, and [`url_of`](Self::url_of) has
    /// 16 databases. Who stops or flushes it starts one of his own.
    pub fn shared() -> Self {
        static SHARED: LazyLock<Redis> = LazyLock::new(Redis::start);
        SHARED.clone()
    }

    /// Database 0.
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// One of the 16 databases.
    pub fn url_of(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.0.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.0.port))
    }

    /// What `redis-cli` answers, on database 0. Panics if it fails.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        cli(self.0.port, arguments)
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            process.kill();
        }
    }

    /// An orderly end, by SIGTERM.
    pub fn stop(&self) {
        if let Some(mut process) = self.process().take() {
            process.terminate();
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same port and directory.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "this Redis runs already");
        *process = Some(self.0.run());
    }

    /// [`stop`](Self::stop), [`start_again`](Self::start_again).
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    pub fn log(&self) -> String {
        self.process().as_ref().map(Process::log).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Server {
    process: Mutex<Option<Process>>,
    port: u16,
    home: Home,
    options: RedisOptions,
}

impl Server {
    fn run(&self) -> Process {
        let path = program(&["redis-server"], "redis-server");
        let mut process = Process::start("redis-server", path, self.home.join("log"), |command| {
            command
                .args([
                    "--port",
                    &self.port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--daemonize",
                    "no",
                ])
                .arg("--dir")
                .arg(self.home.path())
                .args(["--appendonly", if self.options.append_only { "yes" } else { "no" }])
                .args(["--appendfsync", "always"])
                .args(&self.options.arguments);
        });
        process.await_condition("it answers", || answers(self.port));
        process
    }
}

/// A sentinel that watches one master, which it takes for dead two seconds after it has fallen silent.
pub struct Sentinel {
    process: Process,
    port: u16,
    _home: Home,
    master_name: String,
}

impl Sentinel {
    /// Comes back when the sentinel knows a replica of `master` that is in step with it.
    pub fn start(master_name: &str, master: &Redis) -> Self {
        let (port, home) = (ports::free(), Home::new("sentinel"));
        let file = home.join("sentinel.conf");
        // It writes what it learns into this file.
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {master_name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {master_name} 2000\nsentinel failover-timeout {master_name} 5000\n",
            home.path().display(),
            master.0.port,
        );
        std::fs::write(&file, text).expect("the settings of a sentinel");
        let path = program(&["redis-server"], "redis-server");
        let mut process = Process::start("redis-sentinel", path, home.join("log"), |command| {
            command.arg(&file).arg("--sentinel");
        });
        process.await_condition("it answers", || answers(port));
        process.await_condition("it knows a replica", || {
            let replicas = cli(port, &["SENTINEL", "REPLICAS", master_name]);
            let fields: Vec<&str> = replicas.lines().collect();
            let is_in_step = fields.windows(2).any(|pair| pair == ["master-link-status", "ok"]);
            if is_in_step { Ok(()) } else { Err(replicas) }
        });
        Self { process, port, _home: home, master_name: master_name.to_owned() }
    }

    /// One of the 16 databases of the master, as Celery writes it, with the master's name in it.
    pub fn url_of(&self, database: u8) -> String {
        format!("sentinel://127.0.0.1:{}/{database}?master_name={}", self.port, self.master_name)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn cli<A: AsRef<OsStr>>(port: u16, arguments: &[A]) -> String {
    let output = run("redis-cli", program(&["redis-cli"], "redis-tools"), |command| {
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-e"]).args(arguments);
    });
    output.expect_success("redis-cli").trim_end().to_owned()
}

fn answers(port: u16) -> Result<(), String> {
    match pings(port) {
        Ok(answer) if answer == *b"+PONG\r\n" => Ok(()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn pings(port: u16) -> std::io::Result<[u8; 7]> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

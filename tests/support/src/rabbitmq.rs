//! RabbitMQ nodes: Debian's `rabbitmq-server`, run by the test's user with ports, data, cookie and port mapper of its own.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::home::Home;
use super::process::{Process, program, run, run_with_input};
use super::{await_condition, ports};

/// A node; clones are handles of the same one, which ends with the last.
#[derive(Clone)]
pub struct RabbitMq(Arc<Node>);

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct RabbitMqOptions {
    consumer_timeout: Option<Duration>,
    config: Vec<String>,
    management: bool,
}

impl RabbitMqOptions {
    pub fn new() -> Self {
        Self::default()
    }

    /// After how long a delivery that is not acknowledged costs its channel; 30 minutes if nothing is said. The node looks
    /// for such deliveries ten times in that span.
    pub fn consumer_timeout(mut self, timeout: Duration) -> Self {
        self.consumer_timeout = Some(timeout);
        self
    }

    /// One more line of `rabbitmq.conf`.
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// With the management plugin, whose HTTP API tools such as Flower ask for the sizes of queues.
    pub fn management(mut self) -> Self {
        self.management = true;
        self
    }

    pub fn start(self) -> RabbitMq {
        let mut nodes = self.start_cluster(1);
        nodes.pop().expect("one was asked for")
    }

    /// A cluster of so many nodes, all running and knowing one another.
    pub fn start_cluster(self, count: usize) -> Vec<RabbitMq> {
        let mapper = Arc::new(PortMapper::start());
        let names: Vec<_> = (1..=count).map(|n| format!("celeriac{n}@localhost")).collect();
        let nodes: Vec<_> = names
            .iter()
            .map(|name| RabbitMq(Arc::new(Node::new(name.clone(), &names, Arc::clone(&mapper), &self))))
            .collect();
        // The first one founds the cluster; those that start later find it and join.
        nodes[0].start_node();
        std::thread::scope(|scope| {
            for node in &nodes[1..] {
                scope.spawn(|| node.start_node());
            }
        });
        if count > 1 {
            nodes[0].await_members(count);
        }
        nodes
    }
}

impl RabbitMq {
    /// A node of the test's own.
    pub fn start() -> Self {
        RabbitMqOptions::new().start()
    }

    /// The node that all tests of this process share; they keep out of each other's way with queue names of their own,
    /// or a [`vhost`](Self::vhost). Who stops it, fills it or raises an alarm starts one of his own.
    pub fn shared() -> Self {
        static SHARED: LazyLock<RabbitMq> = LazyLock::new(RabbitMq::start);
        SHARED.clone()
    }

    pub fn cluster(count: usize) -> Vec<Self> {
        RabbitMqOptions::new().start_cluster(count)
    }

    /// `amqp://` with user, password and the vhost `/`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.0.port)
    }

    /// As [`url`](Self::url), of a vhost whose name needs no escaping.
    pub fn url_of(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.0.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.0.port))
    }

    /// The address of the management API, of a node that was started with it.
    pub fn management_api(&self) -> String {
        let port = self.0.management_port.expect("the node was started with the management plugin");
        format!("http://guest:guest@127.0.0.1:{port}/api/")
    }

    /// The name of the node in its cluster.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Makes a vhost, and returns its URL.
    pub fn vhost(&self, name: &str) -> String {
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, <<\"test\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, \
             <<\"test\">>)."
        ));
        self.url_of(name)
    }

    /// Runs `rabbitmqctl` on the node and returns what it says; it takes a second. Panics if it fails.
    pub fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        self.tool("rabbitmqctl", arguments)
    }

    /// As [`ctl`](Self::ctl), for another tool: `rabbitmq-diagnostics`, `rabbitmq-queues`.
    pub fn tool<A: AsRef<OsStr>>(&self, tool: &str, arguments: &[A]) -> String {
        let path = program(&[&format!("/usr/lib/rabbitmq/bin/{tool}"), tool], "rabbitmq-server");
        let output = run(tool, path, |command| {
            self.0.environment(command);
            command.args(["-n", &self.0.name, "-q"]).args(arguments);
        });
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        output.expect_success(&format!("{tool} {}", words.join(" ")))
    }

    /// Evaluates Erlang expressions on the node. Returns the value of the last one as Erlang writes it.
    pub fn eval(&self, expressions: &str) -> String {
        self.call(expressions).unwrap_or_else(|| self.ctl(&["eval", expressions]))
    }

    /// As [`eval`](Self::eval), by a small program in C: `rabbitmqctl` starts an Erlang machine of its own each time,
    /// which takes half a second of a processor. `None` if that program is missing or cannot reach the node, for it needs
    /// a host name that resolves.
    fn call(&self, expressions: &str) -> Option<String> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let tool = Path::new("/usr/lib/erlang/bin/erl_call");
        if !tool.exists() {
            return None;
        }
        let caller = format!("call-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
        let expressions = expressions.trim_end().trim_end_matches('.');
        let told = format!("io:format(\"~p~n\", [begin {expressions} end]).\n");
        let output = run_with_input("erl_call", tool, &told, |command| {
            self.0.environment(command);
            command.args(["-sname", &self.0.name, "-h", &caller, "-e", "-fetch_stdout"]);
        });
        if !output.status.success() {
            return None;
        }
        // What was printed, then the value of the call that printed it, or an error.
        let value = output.stdout.strip_suffix("{ok, ok}");
        Some(value.unwrap_or_else(|| panic!("{expressions}: {}", output.stdout)).to_owned())
    }

    /// Closes all client connections, as an operator does it.
    pub fn close_connections(&self) {
        self.ctl(&["close_all_connections", "a test closes them"]);
    }

    /// Raises the memory alarm: whoever publishes is blocked until [`clear_alarm`](Self::clear_alarm).
    pub fn raise_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    }

    pub fn clear_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    }

    /// Names of queues and how many messages each has (ready and unacknowledged), in the vhost `/`.
    pub fn queues(&self) -> Vec<(String, u64)> {
        let table = self.ctl(&["list_queues", "name", "messages", "--no-table-headers"]);
        let row = |line: &str| {
            let (name, messages) = line.rsplit_once('\t')?;
            Some((name.to_owned(), messages.trim().parse().ok()?))
        };
        table.lines().filter_map(row).collect()
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

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same data and port, and waits until it serves.
    pub fn start_again(&self) {
        self.start_node();
    }

    /// [`stop`](Self::stop), [`start_again`](Self::start_again).
    pub fn restart(&self) {
        self.stop();
        self.start_node();
    }

    /// Waits until so many nodes of the cluster run, as this one sees it.
    pub fn await_members(&self, count: usize) {
        await_condition(&format!("a cluster of {count}"), || {
            let seen = self.eval("length(rabbit_nodes:all_running()).");
            if seen.trim() == count.to_string() { Ok(()) } else { Err(format!("{} run", seen.trim())) }
        });
    }

    /// The node's log since its last start.
    pub fn log(&self) -> String {
        self.process().as_ref().map(Process::log).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_node(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "{} runs already", self.0.name);
        *process = Some(self.0.run());
    }
}

struct Node {
    process: Mutex<Option<Process>>,
    name: String,
    port: u16,
    distribution_port: u16,
    management_port: Option<u16>,
    home: Home,
    mapper: Arc<PortMapper>,
}

impl Node {
    fn new(name: String, cluster: &[String], mapper: Arc<PortMapper>, options: &RabbitMqOptions) -> Self {
        let home = Home::new(name.split('@').next().expect("a name has a first part"));
        let (port, distribution_port) = (ports::free(), ports::free());
        // All nodes and their tools have one cookie, each in its own home.
        write_secret(&home.join(".erlang.cookie"), "CELERIACTESTCOOKIE");
        let management_port = options.management.then(ports::free);
        let plugins = if options.management { "[rabbitmq_management].\n" } else { "[].\n" };
        std::fs::write(home.join("plugins"), plugins).expect("a file");
        std::fs::write(home.join("environment"), "").expect("a file");
        let mut config = vec![
            format!("listeners.tcp.1 = 127.0.0.1:{port}"),
            "log.console = true".to_owned(),
            "log.console.level = info".to_owned(),
            "log.file = false".to_owned(),
            // The management plugin shows what was collected last.
            format!("collect_statistics_interval = {}", if options.management { 1000 } else { 60000 }),
        ];
        if let Some(port) = management_port {
            config.push("management.tcp.ip = 127.0.0.1".to_owned());
            config.push(format!("management.tcp.port = {port}"));
        }
        if cluster.len() > 1 {
            config.push("cluster_formation.peer_discovery_backend = classic_config".to_owned());
            config.push("cluster_formation.randomized_startup_delay_range.min = 0".to_owned());
            config.push("cluster_formation.randomized_startup_delay_range.max = 0".to_owned());
            for (n, member) in cluster.iter().enumerate() {
                config.push(format!("cluster_formation.classic_config.nodes.{} = {member}", n + 1));
            }
        }
        // Looked for once a minute otherwise; this has no name in rabbitmq.conf.
        let mut advanced = "[].".to_owned();
        if let Some(timeout) = options.consumer_timeout {
            config.push(format!("consumer_timeout = {}", timeout.as_millis()));
            let look = (timeout / 10).as_millis().max(100);
            advanced = format!("[{{rabbit, [{{channel_tick_interval, {look}}}]}}].");
        }
        std::fs::write(home.join("advanced.config"), advanced).expect("a file");
        config.extend(options.config.iter().cloned());
        std::fs::write(home.join("rabbitmq.conf"), config.join("\n") + "\n").expect("a file");
        Self { process: Mutex::new(None), name, port, distribution_port, management_port, home, mapper }
    }

    /// What the server and its tools need to find each other, and nothing of the system's.
    fn environment(&self, command: &mut Command) {
        let stray = std::env::vars_os().filter(|(name, _)| {
            name.to_str().is_some_and(|name| name.starts_with("RABBITMQ_") || name.starts_with("ERL_"))
        });
        for (name, _) in stray {
            command.env_remove(name);
        }
        let interface = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false";
        command
            .env("HOME", self.home.path())
            .env("ERL_EPMD_PORT", self.mapper.port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_CONF_ENV_FILE", self.home.join("environment"))
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_CTL_ERL_ARGS", format!("+S 1:1 +sbwt none {interface}"))
            // Any port: the usual range would be shared with everybody else's tools.
            .env("RABBITMQ_CTL_DIST_PORT_MIN", "0")
            .env("RABBITMQ_CTL_DIST_PORT_MAX", "0")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.home.path());
    }

    fn run(&self) -> Process {
        let path = program(&["/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"], "rabbitmq-server");
        let mut process = Process::start(&self.name, path, self.home.join("log"), |command| {
            self.environment(command);
            command
                .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODE_PORT", self.port.to_string())
                .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
                .env("RABBITMQ_CONFIG_FILE", self.home.join("rabbitmq.conf"))
                .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.home.join("advanced.config"))
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.home.join("plugins"))
                .env("RABBITMQ_MNESIA_BASE", self.home.join("data"))
                .env("RABBITMQ_LOG_BASE", self.home.join("logs"))
                .env("RABBITMQ_LOGS", "-")
                .env("RABBITMQ_GENERATED_CONFIG_DIR", self.home.join("generated"))
                .env(
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                    "+S 1:1 +A 4 -kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
                )
                // The script then becomes the server instead of waiting for it: our child is the node itself.
                .env("RUNNING_UNDER_SYSTEMD", "true");
        });
        let log = self.home.join("log");
        process.await_condition("it serves AMQP", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if !text.contains("Server startup complete") {
                return Err("it still starts".to_owned());
            }
            greets(self.port).map_err(|error| format!("no greeting: {error}"))
        });
        process
    }
}

/// Whether RabbitMQ answers the first bytes of an AMQP connection.
fn greets(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    stream.read_exact(&mut [0; 1])
}

/// `epmd`, by which Erlang nodes find each other's ports; one for a cluster.
struct PortMapper {
    port: u16,
    process: Process,
    home: Home,
}

impl PortMapper {
    fn start() -> Self {
        let (home, port) = (Home::new("epmd"), ports::free());
        let path = program(&["epmd", "/usr/lib/erlang/bin/epmd"], "erlang-base");
        let mut process = Process::start("epmd", path, home.join("log"), |command| {
            command.args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
        });
        process.await_condition("it listens", || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Self { port, process, home }
    }
}

/// Erlang refuses a cookie that others may read.
fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .expect("a file in the node's home");
    file.write_all(text.as_bytes()).expect("a file in the node's home");
}

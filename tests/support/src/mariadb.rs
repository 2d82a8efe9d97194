//! A MariaDB server of the test's own, from Debian's package `mariadb-server`.

use std::net::TcpStream;

use super::home::Home;
use super::ports;
use super::process::{Process, program, run};

const PACKAGE: &str = "mariadb-server";
/// What the server does at its start. Its user has no password.
const INIT: &str = "CREATE DATABASE IF NOT EXISTS shop;\n\
     CREATE USER IF NOT EXISTS 'shop'@'127.0.0.1';\n\
     GRANT ALL ON *.* TO 'shop'@'127.0.0.1';\n";

/// A server; dropped, it is killed.
pub struct MariaDb {
    process: Process,
    port: u16,
    _home: Home,
}

impl MariaDb {
    /// A server with one database, `shop`, and a user of that name. It does not wait for its disk.
    pub fn start() -> Self {
        let (home, port) = (Home::new("mariadb"), ports::free());
        let data = format!("--datadir={}", home.join("data").display());
        // Where the test is root, so is the server.
        let common = ["--no-defaults", &data, "--user=root", "--innodb-log-file-size=8M"];
        let install = program(&["mariadb-install-db"], PACKAGE);
        let made = run("mariadb-install-db", install, |command| {
            command.args(common).args([
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--force",
            ]);
            command.arg("--innodb-flush-log-at-trx-commit=0");
        });
        made.expect_success("mariadb-install-db");
        let init = home.join("init.sql");
        std::fs::write(&init, INIT).expect("a file in its home");
        let server = program(&["mariadbd", "/usr/sbin/mariadbd"], PACKAGE);
        let mut process = Process::start("MariaDB", server, home.join("log"), |command| {
            command.args(common).arg(format!("--port={port}")).arg(format!("--init-file={}", init.display()));
            command.args(["--bind-address=127.0.0.1", "--socket=", "--skip-name-resolve"]);
            command.args(["--innodb-flush-log-at-trx-commit=0", "--max-connections=200"]);
        });
        let log = home.join("log");
        process.await_condition("it serves", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if !text.contains("ready for connections") {
                return Err("it still starts".to_owned());
            }
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Self { process, port, _home: home }
    }

    /// `mysql://` with user and database.
    pub fn url(&self) -> String {
        format!("mysql://shop@127.0.0.1:{}/shop", self.port)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

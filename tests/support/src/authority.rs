//! A certificate authority of the test's own, and the certificate that it gives to servers on this machine.

use std::path::PathBuf;

use super::home::Home;
use super::process::{program, run};

/// The authority; its files go with it.
pub struct Authority(Home);

impl Authority {
    pub fn new() -> Self {
        let authority = Self(Home::new("authority"));
        let at = |name: &str| authority.0.join(name).display().to_string();
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        std::fs::write(authority.0.join("names"), names).expect("a file");
        let (key, file) = (at("ca.key"), at("ca.pem"));
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let of_authority =
            ["-x509", "-days", "2", "-subj", "/CN=Celeriac's tests", "-keyout", &key, "-out", &file];
        openssl(&[&["req"][..], &new_key, &of_authority].concat());
        let (server_key, request, certificate) = (at("server.key"), at("request"), at("server.pem"));
        let of_server = ["-subj", "/CN=localhost", "-keyout", &server_key, "-out", &request];
        openssl(&[&["req", "-new"][..], &new_key, &of_server].concat());
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            &file,
            "-CAkey",
            &key,
            "-CAcreateserial",
            "-extfile",
            &at("names"),
            "-out",
            &certificate,
        ]);
        authority
    }

    /// What clients check servers against.
    pub fn file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// A server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// And its key.
    pub fn key(&self) -> PathBuf {
        self.0.join("server.key")
    }
}

fn openssl(arguments: &[&str]) {
    let output = run("openssl", program(&["openssl"], "openssl"), |command| {
        command.args(arguments);
    });
    output.expect_success(&format!("openssl {}", arguments.join(" ")));
}

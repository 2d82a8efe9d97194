//! A real Chromium without a screen, driven through ChromeDriver by the W3C's WebDriver protocol. Of that protocol we need
//! eight requests; both programs come from Debian.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Notes each value that the bar on a page has, through reloads; -1 is a bar without a value.
const WITNESS: &str = r"
    const note = () => {
        const bar = document.querySelector('.soil-display progress');
        if (!bar) return;
        const value = bar.hasAttribute('value') ? bar.value : -1;
        const seen = JSON.parse(sessionStorage.seen || '[]');
        if (seen.at(-1) !== value) sessionStorage.seen = JSON.stringify([...seen, value]);
    };
    new MutationObserver(note).observe(document, { childList: true, subtree: true, attributes: true });
";

/// One browser with a profile of its own.
pub struct Chromium {
    driver: Child,
    port: u16,
    session: String,
    pub directory: tempfile::TempDir,
}

impl Chromium {
    pub fn start(with_scripts: bool) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // Whatever becomes of the test: the driver dies with it, and the browser with the driver.
        let mut driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv and chromedriver are installed (test.sh does it)");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let started = lines.find(|line| line.contains("started successfully on port"));
        let started = started.expect("chromedriver starts");
        let port = started.trim_end_matches('.').rsplit(' ').next().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop)); // read on, or it would stop at a full pipe
        let binary = directory.path().join("chromium");
        fs::write(&binary, "#!/bin/sh\nexec setpriv --pdeathsig KILL chromium \"$@\"\n").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let downloads = directory.path().join("downloads");
        fs::create_dir(&downloads).unwrap();
        let scripts = if with_scripts { 1 } else { 2 };
        let options = json!({
            "binary": binary,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--window-size=900,700", format!("--user-data-dir={}", directory.path().join("profile").display()),
            ],
            "prefs": {
                "download.default_directory": downloads,
                "profile.managed_default_content_settings.javascript": scripts,
            },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let mut chromium = Self { driver, port, session: String::new(), directory };
        let session = chromium.ask("POST", "/session", &wanted).expect("a session");
        chromium.session = session["sessionId"].as_str().unwrap().to_owned();
        if with_scripts {
            chromium.command("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": WITNESS }));
        }
        chromium
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| json!(error.to_string()))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}",
            self.port
        );
        stream.write_all(request.as_bytes()).map_err(|error| json!(error.to_string()))?;
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).map_err(|error| json!(error.to_string()))?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap();
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).map_err(|error| json!(error.to_string()))?;
        let value = serde_json::from_slice::<Value>(&answer).unwrap()["value"].take();
        if value.get("error").is_some() { Err(value) } else { Ok(value) }
    }

    fn tell(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        self.ask("POST", &path, body).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// A command of Chromium's own.
    pub fn command(&self, name: &str, params: &Value) -> Value {
        self.tell("/goog/cdp/execute", &json!({ "cmd": name, "params": params }))
    }

    pub fn go(&self, url: &str) {
        self.tell("/url", &json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.tell("/refresh", &json!({}));
    }

    /// What a piece of script returns on the page.
    pub fn eval(&self, script: &str) -> Value {
        self.tell("/execute/sync", &json!({ "script": format!("return ({script})"), "args": [] }))
    }

    /// Waits until a piece of script says yes: the browser gives no signal.
    pub fn until(&self, script: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/session/{}/execute/sync", self.session);
            // In the middle of a navigation there is no page to ask.
            let answer =
                self.ask("POST", &path, &json!({ "script": format!("return !!({script})"), "args": [] }));
            if answer == Ok(Value::Bool(true)) {
                return;
            }
            assert!(Instant::now() < deadline, "`{script}` did not come true; the page is {}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a reader sees.
    pub fn text(&self) -> String {
        let path = format!("/session/{}/execute/sync", self.session);
        let script = json!({ "script": "return document.body.innerText", "args": [] });
        self.ask("POST", &path, &script)
            .map_or_else(|error| error.to_string(), |text| text.as_str().unwrap_or("").to_owned())
    }

    pub fn url(&self) -> String {
        self.eval("location.href").as_str().unwrap().to_owned()
    }

    pub fn click(&self, selector: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.find_and_click(selector) {
            // A page that shows how far something is may have been written anew between the two requests.
            let is_gone =
                ["stale element reference", "no such element"].iter().any(|gone| error["error"] == *gone);
            assert!(is_gone && Instant::now() < deadline, "{selector}: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn find_and_click(&self, selector: &str) -> Result<Value, Value> {
        let path = format!("/session/{}/element", self.session);
        let element = self.ask("POST", &path, &json!({ "using": "css selector", "value": selector }))?;
        let id =
            element.as_object().and_then(|fields| fields.values().next()).and_then(Value::as_str).unwrap();
        self.ask("POST", &format!("{path}/{id}/click"), &json!({}))
    }

    /// Opens another tab and goes there; answers with the ways to this one and that.
    pub fn new_tab(&self) -> (Value, Value) {
        let path = format!("/session/{}/window", self.session);
        let here = self.ask("GET", &path, &Value::Null).unwrap();
        let there = self.tell("/window/new", &json!({ "type": "tab" }))["handle"].take();
        self.switch(&there);
        (here, there)
    }

    pub fn switch(&self, tab: &Value) {
        self.tell("/window", &json!({ "handle": tab }));
    }

    /// The values that the bar has had in this tab, in order.
    pub fn seen(&self) -> Vec<i64> {
        let seen = self.eval("sessionStorage.seen || '[]'");
        serde_json::from_str(seen.as_str().unwrap()).unwrap()
    }

    /// Pictures of the page, light and dark, wide and narrow; it fits into each width.
    pub fn pictures(&self, name: &str) {
        for (size, width) in [("", 900), ("-narrow", 420)] {
            self.size(width, 700);
            for (mode, dark) in [("light", false), ("dark", true)] {
                self.dark(dark);
                self.picture(&format!("{name}-{mode}{size}"));
                let too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
                assert_eq!(self.eval(too_wide), false, "{name} is wider than {width}");
            }
        }
        self.dark(false);
        self.size(900, 700);
    }

    /// A picture, for people to look at: in the directory that `CELERIAC_SCREENSHOTS` names.
    pub fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("CELERIAC_SCREENSHOTS").map(PathBuf::from) else { return };
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.ask("GET", &path, &Value::Null).unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name}.png")), bytes).unwrap();
    }

    pub fn size(&self, width: u32, height: u32) {
        self.tell("/window/rect", &json!({ "width": width, "height": height }));
    }

    pub fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Waits for a download of this name to be whole.
    pub fn downloaded(&self, name: &str) -> String {
        let file: &Path = &self.directory.path().join("downloads").join(name);
        let deadline = Instant::now() + PATIENCE;
        while !file.is_file() {
            let there: Vec<_> =
                fs::read_dir(file.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(Instant::now() < deadline, "{name} did not come; there are {there:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::read_to_string(file).unwrap()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

//! What the macros say to those who get them wrong: each program in `compile_fail/` is compiled, and what the compiler
//! says of it is compared with the text beside it. After a change of a text: `COMPILE_FAIL=overwrite cargo test
//! --workspace --all-features --test compile_fail`, then read the difference.
//!
//! The programs are compiled with the library that this test was built with, so nothing else is built for them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A program that compiles with the `serde` of the library only. Cargo may build another one, for macros.
const PROBE: &str =
    "fn is_serialized<T: serde::Serialize>() {} fn main() { is_serialized::<celeriac::TaskId>() }";

/// What the programs are compiled with.
struct Libraries {
    celeriac: PathBuf,
    serde: PathBuf,
}

impl Libraries {
    /// Those of this test, as cargo tells of them: it would build the test, and finds that all is there.
    fn of_this_test() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let told = Command::new(cargo)
            .args(["test", "--workspace", "--all-features", "--test", "compile_fail", "--no-run", "--quiet"])
            .arg("--message-format=json")
            .current_dir(ROOT)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(told.status.success(), "cargo cannot build this test");
        let text = String::from_utf8(told.stdout).expect("cargo speaks UTF-8");
        let artifacts: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let of = |name: &str| -> Vec<PathBuf> {
            let named = artifacts.iter().filter(|artifact| {
                artifact["target"]["name"] == name && artifact["target"]["kind"][0] == "lib"
            });
            let files = named.filter_map(|artifact| artifact["filenames"].as_array()).flatten();
            let libraries = files.filter_map(Value::as_str).filter(|file| file.ends_with(".rlib"));
            libraries.map(PathBuf::from).collect()
        };
        let ours = of("celeriac");
        assert_eq!(ours.len(), 1, "cargo builds one library: {ours:?}");
        let dir = tempfile::tempdir().expect("a directory");
        let probe = dir.path().join("probe.rs");
        fs::write(&probe, PROBE).expect("a program is written");
        let candidates = of("serde").into_iter().map(|serde| Self { celeriac: ours[0].clone(), serde });
        let mut said = String::new();
        for candidate in candidates {
            let output = candidate.compile(&probe);
            if output.status.success() {
                return candidate;
            }
            said += &String::from_utf8_lossy(&output.stderr);
        }
        panic!("the library has none of the `serde` that cargo builds: {said}");
    }

    fn compile(&self, program: &Path) -> Output {
        let dir = tempfile::tempdir().expect("a directory");
        let libraries = self.celeriac.parent().expect("it lies in a directory");
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2024", "--crate-type=bin", "--crate-name=program", "--emit=metadata"])
            .args(["-A", "dead_code", "--verbose", "--color=never", "--error-format=human"])
            .arg("-L")
            .arg(format!("dependency={}", libraries.display()))
            .arg("--extern")
            .arg(format!("celeriac={}", self.celeriac.display()))
            .arg("--extern")
            .arg(format!("serde={}", self.serde.display()))
            .arg("--out-dir")
            .arg(dir.path())
            .arg(program.strip_prefix(ROOT).unwrap_or(program))
            .current_dir(ROOT)
            .output()
            .expect("rustc runs")
    }

    /// What the compiler says of a program, which must not compile.
    fn refusal(&self, program: &Path) -> String {
        let compiled = self.compile(program);
        let said = String::from_utf8(compiled.stderr).expect("rustc speaks UTF-8");
        assert!(!compiled.status.success(), "{} compiles: {said}", program.display());
        said
    }
}

/// Without what rustc says of all messages together, and with paths from the root of the repository.
fn told(said: &str) -> String {
    let sums = [
        "error: aborting due to ",
        "For more information about ",
        "Some errors have detailed explanations",
        "More information about",
    ];
    let is_sum = |line: &str| {
        sums.iter().any(|sum| line.starts_with(sum))
            || line.starts_with("warning: ") && line.ends_with(" emitted")
    };
    let lines = said.lines().filter(|line| !is_sum(line)).map(str::trim_end);
    let text = lines.collect::<Vec<_>>().join("\n").replace(&format!("{ROOT}/"), "");
    format!("{}\n", text.trim_end())
}

/// The lines without what depends on where something is in another file: the numbers of its lines, which stand before a
/// `|`, and how wide they are.
fn comparable(told: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line.trim_start();
        let code = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let line = if code.starts_with('|') { code } else { line };
        match line.strip_prefix("--> src/") {
            Some(place) => format!("--> src/{}", place.split(':').next().unwrap_or_default()),
            None => line.to_owned(),
        }
    };
    told.lines().map(line).collect()
}

#[test]
fn errors_are_clear_and_in_place() {
    let libraries = Libraries::of_this_test();
    let entries = fs::read_dir(Path::new(ROOT).join("tests/compile_fail")).expect("a directory");
    let mut programs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    programs.retain(|path| path.extension() == Some(OsStr::new("rs")));
    programs.sort();
    assert!(programs.len() >= 13, "{programs:?}");
    let mut wrong = Vec::new();
    for program in &programs {
        let file = program.with_extension("stderr");
        let found = told(&libraries.refusal(program));
        if std::env::var("COMPILE_FAIL").is_ok_and(|what| what == "overwrite") {
            fs::write(&file, &found).expect("a text is written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if comparable(&found) != comparable(&expected) {
            wrong.push(format!("{} should have:\n{expected}\nand has:\n{found}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

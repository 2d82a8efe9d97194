//! The example does what it says.

use std::process::Command;

#[test]
fn the_example_prints_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    // Examples are built along with tests.
    let example = std::env::current_exe().unwrap();
    let example = example.parent().and_then(|deps| deps.parent()).unwrap().join("examples/canvas");
    assert!(
        example.is_file(),
        "{} is not built: run `cargo test`, or `cargo build --example canvas` before this test alone",
        example.display()
    );
    let run = Command::new(example).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with("errback")).collect();
    assert_eq!(lines[..3], ["chain: 3 words in a line", "group: [3, 6, 9]", "chord: 18 words in a book"]);
    assert!(lines[3].starts_with("broken chord: FAILURE: Dependency "), "{said}");
    assert!(lines[3].contains("there is no page 4"), "{said}");
}

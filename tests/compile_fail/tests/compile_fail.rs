//! What `#[task]` says to those who get it wrong. After a change of a text: `TRYBUILD=overwrite cargo test -p
//! celeriac-compile-fail`, then read the difference.
//!
//! The test has a package of its own, because it compiles all that its package is tested with anew. It is not in the
//! crate of the macros: cargo builds that crate, and all that it is tested with, apart from the rest.

#[test]
fn errors_are_clear_and_in_place() {
    // A build that lints gives cargo another compiler by this variable, whose lints would be among the messages. So the
    // cases are compiled by a process that does not have it.
    const LINTER: &str = "RUSTC_WORKSPACE_WRAPPER";
    if std::env::var_os(LINTER).is_some() {
        let mut plain = std::process::Command::new(std::env::current_exe().unwrap());
        plain.args(["--exact", "errors_are_clear_and_in_place", "--nocapture"]).env_remove(LINTER);
        assert!(plain.status().unwrap().success(), "the process without the linter has failed");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

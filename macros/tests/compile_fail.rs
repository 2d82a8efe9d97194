//! What `#[task]` says to those who get it wrong. After a change of a text: `TRYBUILD=overwrite cargo test -p
//! celeriac-macros --test compile_fail`, then read the difference.
//!
//! This test is here and not with the others because it compiles the crate's test dependencies anew: here they are few.

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

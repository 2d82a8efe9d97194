//! What `#[task]` says to those who get it wrong. After a change of a text: `TRYBUILD=overwrite cargo test --test
//! compile_fail`, then read the difference.

#[test]
fn errors_are_clear_and_in_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

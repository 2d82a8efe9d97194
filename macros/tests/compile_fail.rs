//! What `#[task]` says to those who get it wrong. After a change of a text: `TRYBUILD=overwrite cargo test -p
//! celeriac-macros --test compile_fail`, then read the difference.
//!
//! This test is here and not with the others because it compiles the crate's test dependencies anew: here they are few.

#[test]
fn errors_are_clear_and_in_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

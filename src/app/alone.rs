//! Tests of this binary that run in a process of their own.

/// Whether this is the process of the test alone. If not, that process runs now, and fails the test if it fails.
///
/// A runtime that a test starts is the one that every `delay` of its process uses from then on, and other tests of this
/// binary rely on there being none.
pub(crate) fn is_alone(test: &str) -> bool {
    const ALONE: &str = "CELERIAC_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let ran = alone.args(["--exact", test]).env(ALONE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && told.contains("1 passed"),
        "{told}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}

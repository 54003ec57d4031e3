//! Running near-workspaces against the local chain, or against a real sandbox node.

use std::path::PathBuf;
use std::process::Command;

/// The variable by which near-workspaces finds its node.
pub const BINARY_VARIABLE: &str = "NEAR_SANDBOX_BIN_PATH";

/// The node that near-workspaces is to start: the one that `NEAR_SANDBOX_BIN_PATH`
/// names, or else the local chain, which cargo builds with this package's tests.
///
/// # Panics
/// When there is no such program: then cargo was told to build only a part.
pub fn sandbox_binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let name = format!("por-interop-localnet{}", std::env::consts::EXE_SUFFIX);
    // Tests lie in `deps`, programs beside it.
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(&name)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo build -p por-interop`"))
}

/// Runs a test that uses near-workspaces.
///
/// near-workspaces finds its node only through the environment, which a process cannot
/// safely change once it has threads. So the test runs again, alone, in a process of
/// its own with that environment; its output is passed on.
///
/// `name` is the test's full name, as `cargo test -- --exact` takes it.
///
/// # Panics
/// When the test fails.
pub fn with_sandbox<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    const INNER: &str = "POR_INTEROP_IN_SANDBOX";
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        return runtime.expect("a runtime starts").block_on(test());
    }
    let status = Command::new(std::env::current_exe().expect("a test knows its own path"))
        .args([name, "--exact", "--nocapture", "--include-ignored"])
        .env(INNER, "1")
        .env(BINARY_VARIABLE, sandbox_binary())
        .status()
        .expect("a test can run itself");
    assert!(status.success(), "{name} failed, see above");
}

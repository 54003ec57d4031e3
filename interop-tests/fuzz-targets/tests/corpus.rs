//! The committed corpus, replayed: everything that fuzzing has found stays found.

use std::path::{Path, PathBuf};

fn files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    assert!(files.len() >= 12, "the corpus of {target} is gone");
    files
}

fn replay(target: &str) {
    let (_, run) = por_fuzz_targets::TARGETS
        .into_iter()
        .find(|(name, _)| *name == target)
        .unwrap_or_else(|| panic!("no target {target}"));
    for file in files(target) {
        let bytes = std::fs::read(&file).expect("corpus file");
        let outcome = std::panic::catch_unwind(|| run(&bytes));
        assert!(outcome.is_ok(), "{} fails: run the target on it", file.display());
    }
}

#[test]
fn frames_of_the_corpus() {
    replay("frame");
}

#[test]
fn actions_of_the_corpus() {
    replay("core");
}

#[test]
fn records_of_the_corpus() {
    replay("records");
}

#[test]
fn contract_arguments_of_the_corpus() {
    replay("contract_args");
}

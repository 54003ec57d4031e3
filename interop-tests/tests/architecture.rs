//! Dependencies between the crates point one way (docs/architecture.md). Checked over
//! `cargo metadata`, so that a new edge is a decision and not an accident. And what
//! docs/threats.md promises is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on in a normal or build dependency. Development dependencies are
/// free, except that nothing depends on the interop packages.
const ALLOWED: &[(&str, &[&str])] = &[
    ("por-types", &[]),
    ("por-core", &["por-types"]),
    ("libp2p-por", &["por-core", "por-types"]),
    ("por-contract", &["por-types"]),
    ("por-bounty", &["por-types"]),
    ("por-localnet", &[]),
    ("por-node", &["libp2p-por", "por-core", "por-types", "por-localnet"]),
    ("por-fileshare", &["por-node", "por-types", "por-core", "por-localnet"]),
];

const INTEROP: &[&str] =
    &["por-interop", "por-contract-model", "por-sim", "por-bench", "por-fuzz-targets", "por-worlds"];

/// The behaviour's only links to the outside world.
const BEHAVIOUR_MAY_USE: &[&str] = &[
    "bytes",
    "either",
    "futures",
    "futures-timer",
    "libp2p-core",
    "libp2p-identity",
    "libp2p-swarm",
    "thiserror",
    "tokio",
    "tracing",
];

struct Dependency {
    name: String,
    development: bool,
    optional: bool,
    features: Vec<String>,
}

struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    array(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            dependencies: array(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    development: dependency["kind"] == "dev",
                    optional: dependency["optional"] == true,
                    features: array(&dependency["features"]).iter().map(text).collect(),
                })
                .collect(),
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    for name in allowed.keys().chain(INTEROP) {
        assert!(ours.contains(name), "{name} is listed here but is not in the workspace");
    }
    for package in &packages {
        let interop = INTEROP.contains(&package.name.as_str());
        for dependency in package.dependencies.iter().filter(|d| ours.contains(d.name.as_str())) {
            let to = dependency.name.as_str();
            assert!(
                interop || !INTEROP.contains(&to),
                "{} depends on {to}, but nothing may depend on the interop packages",
                package.name
            );
            if dependency.development || interop {
                continue;
            }
            let Some(may) = allowed.get(package.name.as_str()) else {
                panic!("{} is new: say here and in docs/architecture.md where it stands", package.name);
            };
            assert!(may.contains(&to), "{} must not depend on {to}", package.name);
        }
    }
}

#[test]
fn node_and_fileshare_reach_the_local_chain_behind_a_feature_only() {
    for package in packages().iter().filter(|p| p.name == "por-node" || p.name == "por-fileshare") {
        for dependency in package.dependencies.iter().filter(|d| !d.development) {
            assert!(dependency.name != "near-vm-runner", "{} must not build the VM", package.name);
            assert!(
                dependency.name != "por-localnet" || dependency.optional,
                "{} must reach por-localnet behind a feature",
                package.name
            );
        }
    }
}

#[test]
fn behaviour_depends_on_libp2p_and_the_core_only() {
    let packages = packages();
    let find = |name: &str| packages.iter().find(|p| p.name == name).expect("is a member");
    for dependency in find("libp2p-por").dependencies.iter().filter(|d| !d.development) {
        let name = dependency.name.as_str();
        assert!(
            name.starts_with("por-") || BEHAVIOUR_MAY_USE.contains(&name),
            "libp2p-por must not depend on {name}"
        );
        // Its channels run under any executor; its runtime is the user's choice.
        assert!(name != "tokio" || dependency.features == ["sync"], "libp2p-por needs no runtime");
    }
    let io = ["tokio", "futures", "libp2p", "libp2p-swarm", "rand", "async-std", "redb"];
    for dependency in find("por-core").dependencies.iter().filter(|d| !d.development) {
        assert!(!io.contains(&dependency.name.as_str()), "por-core stays free of I/O: {}", dependency.name);
    }
}

/// The first words of each attack that the protocol lists, in its order.
const ATTACKS: [&str; 18] = [
    "settle with an old state",
    "replay a payment, order, draw or response",
    "two requests under one id",
    "forge, swap or truncate a response",
    "take payment and never forward",
    "send an order but withhold it",
    "refuse to sign a cooperative close",
    "author traps relays",
    "flood one edge to farm late fees",
    "sock puppets around an offline node",
    "stake up to become the larger side",
    "sever for profit",
    "frame a server",
    "many checks, big graphs, storage litter",
    "flood: streams",
    "lie about lateness",
    "crash at any instant",
    "an RPC endpoint lies",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// `file::test` in backticks.
fn named_tests(row: &str) -> Vec<(&str, &str)> {
    let spans = row.split('`').skip(1).step_by(2);
    spans.filter(|span| span.contains(".rs::")).filter_map(|span| span.split_once("::")).collect()
}

/// There is a function of this name right after a test attribute.
fn has_test(file: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.strip_prefix("async ").unwrap_or(line).starts_with(&head));
    at.is_some_and(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        above.clone().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_attack_has_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("docs/threats.md")).expect("docs/threats.md");
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack ")).collect();
    for (attack, row) in ATTACKS.iter().zip(&rows) {
        assert!(row.starts_with(&format!("| {attack}")), "{attack} is missing before: {row}");
    }
    assert!(rows.len() >= ATTACKS.len());
    for row in rows {
        let tests = named_tests(row);
        assert!(!tests.is_empty() || row.contains("**Planned**"), "nothing shows: {row}");
        for (path, name) in tests {
            let file =
                std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(has_test(&file, name), "{path} has no test {name}");
        }
    }
}

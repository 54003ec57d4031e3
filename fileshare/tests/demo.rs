//! `fileshare demo` from its beginning to its end, as the README names it.
#![cfg(feature = "demo")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Both acts take a minute on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(280);

fn run(file: &std::path::Path, dir: &std::path::Path) -> Vec<Value> {
    let (out, errors) = (dir.join("out"), dir.join("errors"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_fileshare"))
        .args(["demo", "--json"])
        .arg(file)
        .arg("--keep")
        .arg(dir.join("nodes"))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).expect("a file"))
        .stderr(std::fs::File::create(&errors).expect("a file"))
        .spawn()
        .expect("the demo starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the demo") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("the demo is not over after {PATIENCE:?}: {:?}", std::fs::read_to_string(&out));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(&out).expect("output");
    let errors = std::fs::read_to_string(&errors).expect("output");
    assert!(status.success(), "{status}\n{errors}\n{said}");
    said.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn yocto(value: &Value) -> u128 {
    value.as_str().expect("an amount").parse().expect("digits")
}

#[test]
fn both_acts_end_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    let bytes: Vec<u8> = (0..24u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    std::fs::write(&file, bytes).expect("written");
    let events = run(&file, dir.path());

    let books: Vec<&Value> = events.iter().filter(|event| event["event"] == "books").collect();
    assert_eq!(books.len(), 2, "one for each act");
    for book in &books {
        assert_eq!(book["balanced"], true, "{book}");
        let checks = book["checks"].as_array().expect("checks");
        assert!(checks.len() >= 13, "{checks:?}");
        assert!(checks.iter().all(|check| check["left"] == check["right"]), "{checks:?}");
    }
    assert!(events.iter().any(|event| event["verified"] == true && event["spent"].is_string()), "first act");

    let happened: Vec<&Value> = events.iter().filter(|event| event["event"] == "happened").collect();
    let of = |kind: &str, node: &str| -> Vec<&Value> {
        happened.iter().copied().filter(|event| event["kind"] == kind && event["node"] == node).collect()
    };
    let late: u128 = of("late", "alice").iter().map(|event| yocto(&event["yocto"])).sum();
    assert!(late > 0, "Alice was paid for lateness");
    assert!(of("late", "alice").len() >= 2, "more than once");
    let proof = of("proof", "alice");
    assert!(proof.iter().any(|event| event["signer"] == "carol" && yocto(&event["refund"]) > 0), "{proof:?}");
    assert_eq!((of("severed", "carol").len(), of("severed", "erin").len()), (1, 1));
    assert_eq!(happened.iter().filter(|event| event["kind"] == "edge_gone").count(), 2);
    for reader in ["alice", "erin"] {
        let complete = of("complete", reader);
        assert_eq!(complete.len(), 1);
        assert_eq!(complete[0]["verified"], true);
        let from = complete[0]["from"].as_array().expect("providers");
        assert!(from.iter().any(|tally| tally["node"] == "carol" && tally["bytes"].as_u64() > Some(0)));
    }
    let cut_off = of("cut_off", "dave");
    assert_eq!(cut_off.len(), 1);
    assert!(yocto(&cut_off[0]["stake"]) < yocto(&cut_off[0]["stake_before"]));
    for neighbour in ["carol", "erin"] {
        let due = yocto(&of("reimbursed", neighbour)[0]["withdrawable"]);
        assert!(due >= 10u128.pow(24), "{neighbour} has its bond back: {due}");
    }
}

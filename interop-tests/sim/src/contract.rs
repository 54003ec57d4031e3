//! Random sequences of calls on the contract and on an independent model of it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use por_contract_model::report::{Finding, Tally, run_one};
use serde::Serialize;

#[derive(clap::Args)]
pub struct Contract {
    /// Number of sequences, each of at least 50 calls over at least 3 components.
    #[arg(long, default_value_t = 1_000)]
    sequences: u64,
    /// First seed; each sequence has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary {
    sequences: u64,
    calls: u64,
    differences: u64,
    unconserved: u64,
    seed: u64,
}

/// Most differences that are printed in full.
const SHOWN: usize = 3;

pub fn run(args: &Contract) -> anyhow::Result<bool> {
    let next = AtomicU64::new(0);
    let (total, findings) = (Mutex::new(Tally::default()), Mutex::new(Vec::<Finding>::new()));
    let lock = |error: std::sync::PoisonError<_>| error.into_inner();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.sequences {
                        break;
                    }
                    if let Some(finding) = run_one(args.seed.wrapping_add(index), &mut tally) {
                        findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
                    }
                }
                total.lock().unwrap_or_else(lock).add(&tally);
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut findings = findings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    findings.sort_by_key(|finding| finding.seed);
    for finding in findings.iter().take(SHOWN) {
        eprintln!("{finding}");
    }
    if !args.json {
        show(&total, &findings);
    }
    let summary = Summary {
        sequences: args.sequences,
        calls: total.calls(),
        differences: findings.len() as u64,
        unconserved: findings.iter().filter(|finding| finding.unconserved).count() as u64,
        seed: args.seed,
    };
    println!("{}", serde_json::to_string(&summary)?);
    Ok(findings.is_empty())
}

fn show(total: &Tally, findings: &[Finding]) {
    println!("{:<20} {:>10} {:>9}", "method", "calls", "accepted");
    for (method, (calls, accepted)) in &total.counts {
        println!("{method:<20} {calls:>10} {:>8.1}%", 100.0 * *accepted as f64 / (*calls).max(1) as f64);
    }
    println!("{:<20} {:>10}", "state", "reached");
    for (state, times) in &total.reached {
        println!("{:<20} {times:>10}", format!("{state:?}"));
    }
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for finding in findings {
        let kind = finding.what.lines().next().unwrap_or_default();
        kinds.entry(kind).or_insert((0, finding.seed)).0 += 1;
    }
    for (kind, (times, seed)) in kinds {
        println!("difference, {times} times, first with seed {seed}: {kind}");
    }
}

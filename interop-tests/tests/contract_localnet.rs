//! Sequences of the model's generator as signed transactions on a local chain: what views answer at
//! the block of each call must be what the model says. The chain's time goes on by itself and the
//! generator reads it, so a seed gives other calls in each run; what a run did is printed with a
//! difference.

#[path = "contract_localnet/chain.rs"]
mod chain;

use std::time::{Duration, Instant};

use por_contract_model::report::{Tally, run_on};
use por_types::interface::method;

use chain::Chain;

const SEQUENCES: u64 = 6;
/// No sequence begins after this.
const LONGEST: Duration = Duration::from_secs(20);
/// First of the seeds, unless `POR_SEED` names another.
const FIRST: u64 = 1;

#[test]
fn contract_and_model_agree_on_a_chain() {
    let base: u64 = match std::env::var("POR_SEED") {
        Ok(seed) => seed.parse().expect("POR_SEED is a number"),
        Err(_) => FIRST,
    };
    let sequences =
        std::env::var("POR_SEQUENCES").map_or(SEQUENCES, |n| n.parse().expect("POR_SEQUENCES is a number"));
    println!("seed {base}");
    let (mut tally, mut run, started) = (Tally::default(), 0, Instant::now());
    while run < sequences && started.elapsed() < LONGEST {
        let seed = base.wrapping_add(run);
        if let Some(finding) = run_on(Chain::start(), seed, &mut tally) {
            panic!("{finding}");
        }
        run += 1;
        println!("{run} sequences, {} calls, {:?}", tally.calls(), started.elapsed());
    }
    for (method, (calls, accepted)) in &tally.counts {
        println!("{method:<16} {accepted:>4} of {calls:>4}");
    }
    // Or it would prove nothing.
    let accepted: u64 = tally.counts.values().map(|(_, accepted)| accepted).sum();
    assert!(accepted >= 20 && tally.calls() - accepted >= 20, "{accepted} of {} calls", tally.calls());
    for needed in [method::REGISTER, method::CONFIRM_CHANNEL, method::FINALIZE] {
        let (_, accepted) = tally.counts.get(needed).copied().unwrap_or_default();
        assert!(accepted > 0, "no call of {needed} was accepted");
    }
}

//! What a sequence came to.

use std::collections::BTreeMap;
use std::fmt;

use crate::compare::Counts;
use crate::generate::Sequence;
use crate::host::Host;
use crate::model::State;
use crate::vm::Vm;

/// Counts over many sequences.
#[derive(Default)]
pub struct Tally {
    pub counts: Counts,
    pub reached: BTreeMap<State, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        for (method, (calls, accepted)) in &other.counts {
            let sum = self.counts.entry(method).or_default();
            *sum = (sum.0 + calls, sum.1 + accepted);
        }
        for (state, times) in &other.reached {
            *self.reached.entry(*state).or_default() += times;
        }
    }

    pub fn calls(&self) -> u64 {
        self.counts.values().map(|(calls, _)| calls).sum()
    }
}

/// A difference between contract and model.
pub struct Finding {
    pub seed: u64,
    pub what: String,
    /// Money appeared or vanished.
    pub unconserved: bool,
    /// The calls up to the difference.
    pub trace: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} (replay with --seed {} --sequences 1):", self.seed, self.seed)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(f, "{}", self.what)
    }
}

/// Runs the sequence of a seed.
pub fn run_one(seed: u64, tally: &mut Tally) -> Option<Finding> {
    run_on(Vm::deployed(), seed, tally)
}

/// Runs it where the contract is deployed and not initialised.
pub fn run_on(host: impl Host, seed: u64, tally: &mut Tally) -> Option<Finding> {
    let mut sequence = Sequence::new(host, seed);
    let outcome = sequence.run();
    let pair = sequence.pair;
    tally.add(&Tally { counts: pair.counts, reached: pair.model.reached });
    let what = outcome.err()?;
    Some(Finding { seed, what, unconserved: pair.unconserved, trace: pair.trace })
}

//! Medians, spread and ratios.

use serde_json::json;

use crate::requests::Which;

/// What one round took.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Requests per second.
    pub rps: f64,
    /// Median time of a request, microseconds.
    pub p50_us: f64,
    /// CPU time per request of all nodes together, microseconds.
    pub cpu_us: f64,
    /// Most memory of the process, in which all nodes are.
    pub peak_mib: f64,
}

/// The rounds of each.
#[derive(Debug, Default)]
pub struct Figures {
    theirs: Vec<Round>,
    direct: Vec<Round>,
    relayed: Vec<Round>,
    theirs_relayed: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    of: fn(&Round) -> f64,
    /// More is better.
    more: bool,
}

const RPS: Metric = Metric { name: "rps", of: |round| round.rps, more: true };
const P50: Metric = Metric { name: "p50_us", of: |round| round.p50_us, more: false };
const CPU: Metric = Metric { name: "cpu_us", of: |round| round.cpu_us, more: false };
const PEAK: Metric = Metric { name: "peak_mib", of: |round| round.peak_mib, more: false };

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Distance of the extremes, as a share of the median.
fn spread(figures: &[f64]) -> f64 {
    let largest = figures.iter().copied().fold(f64::MIN, f64::max);
    let smallest = figures.iter().copied().fold(f64::MAX, f64::min);
    (largest - smallest) / median(figures).max(f64::MIN_POSITIVE)
}

impl Figures {
    pub fn push(&mut self, which: Which, round: Round) {
        match which {
            Which::Theirs => self.theirs.push(round),
            Which::Direct => self.direct.push(round),
            Which::Relay2 => self.relayed.push(round),
            Which::TheirsRelay2 => self.theirs_relayed.push(round),
        }
    }

    /// Ratios above 1: ours is the better one.
    pub fn print(&self, inflight: usize, json: bool) {
        let metrics: &[Metric] = if inflight == 1 { &[RPS, P50, CPU, PEAK] } else { &[RPS, CPU, PEAK] };
        for &metric in metrics {
            self.row(metric, ("direct", &self.direct), ("direct", &self.theirs), inflight, json);
            self.row(metric, ("relay2", &self.relayed), ("direct", &self.theirs), inflight, json);
            self.row(metric, ("relay2", &self.relayed), ("relay2", &self.theirs_relayed), inflight, json);
        }
    }

    fn row(
        &self,
        metric: Metric,
        (variant, ours): (&str, &[Round]),
        (comparator_variant, theirs): (&str, &[Round]),
        inflight: usize,
        json: bool,
    ) {
        if ours.is_empty() && theirs.is_empty() {
            return;
        }
        let of = |rounds: &[Round]| rounds.iter().map(metric.of).collect::<Vec<f64>>();
        let (mine, others) = (of(ours), of(theirs));
        let (our, their) = (median(&mine), median(&others));
        let (over, under) = if metric.more { (our, their) } else { (their, our) };
        let ratio = over / under.max(f64::MIN_POSITIVE);
        let spread = spread(&mine).max(spread(&others));
        let (name, rounds) = (metric.name, mine.len());
        if json {
            let line = json!({
                "bench": "requests", "variant": variant, "inflight": inflight, "metric": name,
                "ours": rounded(our), "comparator": rounded(their),
                "comparator_name": "request_response", "comparator_variant": comparator_variant,
                "ratio": ratio, "spread": spread, "rounds": rounds,
            });
            println!("{line}");
        } else {
            println!(
                "{name:<8} {variant:<6} {inflight:>5} in flight: {our:>10.1} ours, paid; {their:>10.1} theirs, unpaid, \
                 {comparator_variant:<6}; ratio {ratio:.2} (spread {:.0} %)",
                spread * 100.0
            );
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

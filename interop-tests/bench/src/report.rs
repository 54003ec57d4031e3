//! Medians, spread and ratios.

use serde_json::json;

/// Requests per second of each round.
#[derive(Debug, Default)]
pub struct Figures {
    pub theirs: Vec<f64>,
    pub direct: Vec<f64>,
    pub relayed: Vec<f64>,
}

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
    pub fn print(&self, inflight: usize, json: bool) {
        let theirs = median(&self.theirs);
        for (variant, figures) in [("direct", &self.direct), ("relay2", &self.relayed)] {
            let ours = median(figures);
            let ratio = ours / theirs.max(f64::MIN_POSITIVE);
            let spread = spread(figures).max(spread(&self.theirs));
            if json {
                let line = json!({
                    "bench": "requests", "variant": variant, "inflight": inflight, "metric": "rps",
                    "ours": ours.round(), "comparator": theirs.round(),
                    "comparator_name": "request_response", "comparator_variant": "direct",
                    "ratio": ratio, "spread": spread, "rounds": figures.len(),
                });
                println!("{line}");
            } else {
                println!(
                    "{variant:<7} {inflight:>5} in flight: {ours:>9.0} requests/s paid, {theirs:>9.0} unpaid \
                     direct, ratio {ratio:.2} (spread {:.0} %)",
                    spread * 100.0
                );
            }
        }
    }
}

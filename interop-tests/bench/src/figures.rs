//! Rounds of two things measured in turn, and their ratio, printed as a line.

use serde_json::{Value, json};

/// A metric of ours and of a comparator, one figure a round.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    pub bench: &'static str,
    /// What of ours was measured.
    pub variant: String,
    pub comparator_name: &'static str,
    /// What of the comparator was measured.
    pub comparator_variant: String,
    pub inflight: Option<usize>,
    /// With its unit, as `rps`, `mb_per_s` or `median_us`.
    pub metric: &'static str,
    /// Seconds, bytes and so on: less is better.
    pub less_is_better: bool,
    pub ours: Vec<f64>,
    /// Empty if there is nothing to compare with.
    pub comparator: Vec<f64>,
    /// Further figures of the same rounds, as CPU seconds or peak memory.
    pub also: Vec<(&'static str, Value)>,
}

/// Middle of the figures; 0 without any.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure below which a share of `share` of the figures lies; 0 without any.
pub fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Distance of the extremes, as a share of the median.
pub fn spread(figures: &[f64]) -> f64 {
    let largest = figures.iter().copied().fold(f64::MIN, f64::max);
    let smallest = figures.iter().copied().fold(f64::MAX, f64::min);
    match median(figures) {
        middle if middle > 0.0 => (largest - smallest) / middle,
        _ => 0.0,
    }
}

fn rounded(figure: f64) -> f64 {
    let scale = if figure.abs() >= 100.0 { 1.0 } else { 1000.0 };
    (figure * scale).round() / scale
}

impl Compared {
    /// Above 1 = ours is faster, or needs less; `None` without a comparator.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (median(&self.ours), median(&self.comparator));
        let known = !self.comparator.is_empty() && ours > 0.0 && theirs > 0.0;
        known.then(|| if self.less_is_better { theirs / ours } else { ours / theirs })
    }

    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.line());
        } else {
            println!("{}", self.sentence());
        }
    }

    fn line(&self) -> Value {
        let theirs = (!self.comparator.is_empty()).then(|| rounded(median(&self.comparator)));
        let named = theirs.is_some();
        let mut line = json!({
            "bench": self.bench, "variant": self.variant, "inflight": self.inflight,
            "metric": self.metric, "ours": rounded(median(&self.ours)), "comparator": theirs,
            "comparator_name": named.then_some(self.comparator_name),
            "comparator_variant": named.then_some(&self.comparator_variant),
            "ratio": self.ratio().map(rounded),
            "spread": rounded(spread(&self.ours).max(spread(&self.comparator))),
            "rounds": self.ours.len(),
        });
        if let Some(object) = line.as_object_mut() {
            object.extend(self.also.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        line
    }

    fn sentence(&self) -> String {
        let spread = 100.0 * spread(&self.ours).max(spread(&self.comparator));
        let inflight = self.inflight.map(|count| format!(" x{count}")).unwrap_or_default();
        let ours = format!(
            "{:<28} {:<14} {:>12}",
            self.variant.clone() + &inflight,
            self.metric,
            rounded(median(&self.ours))
        );
        let theirs = match self.ratio() {
            Some(ratio) => format!(
                "  {} {}: {}, ratio {ratio:.2}",
                self.comparator_name,
                self.comparator_variant,
                rounded(median(&self.comparator))
            ),
            None => String::new(),
        };
        let also: String = self.also.iter().map(|(name, value)| format!(", {name} {value}")).collect();
        format!("{ours}{theirs} (spread {spread:.0} %, {} rounds{also})", self.ours.len())
    }
}

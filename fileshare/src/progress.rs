//! Showing how far a command is: a line on stderr when it is a terminal, JSON lines with
//! `--json`, nothing otherwise. Never on stdout.

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use por_types::Yocto;
use serde::Serialize;

use crate::{fetch::Session, net::Network};

/// How often a download is looked at, and the line redrawn.
const LOOK: Duration = Duration::from_millis(100);
/// JSON lines are this far apart at most, and a hundredth of the download.
const JSON_EVERY: Duration = Duration::from_secs(1);
const JSON_STEPS: u64 = 100;
/// Speed is that of the last moments, not of the whole.
const SMOOTHING: f64 = 0.15;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Line,
    Json,
    Silent,
}

impl Style {
    /// What the flags and the terminal call for.
    pub fn choose(json: bool, quiet: bool) -> Self {
        match (json, quiet) {
            (true, _) => Style::Json,
            (false, true) => Style::Silent,
            (false, false) if std::io::stderr().is_terminal() => Style::Line,
            (false, false) => Style::Silent,
        }
    }
}

/// One look at a download.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub event: &'static str,
    pub name: String,
    pub done: u64,
    pub total: u64,
    /// Bytes per second, lately.
    pub speed: u64,
    pub peers: usize,
    pub spent: Yocto,
    /// Most that may be spent.
    pub budget: Option<Yocto>,
}

impl Snapshot {
    /// `file 42% 4.2/10.0 GiB 310 MiB/s ETA 19s 3 peers 0.0021/0.0050 NEAR`.
    pub fn line(&self) -> String {
        let percent =
            if self.total == 0 { 100 } else { u128::from(self.done) * 100 / u128::from(self.total) };
        let eta = match self.speed {
            0 => "-".to_owned(),
            speed => seconds(self.total.saturating_sub(self.done) / speed),
        };
        let peers = if self.peers == 1 { "peer" } else { "peers" };
        let budget = self.budget.map(|budget| format!("/{}", short_near(budget))).unwrap_or_default();
        format!(
            "{} {percent}% {} {}/s ETA {eta} {} {peers} {}{budget} NEAR",
            self.name,
            ratio(self.done, self.total),
            bytes(self.speed),
            self.peers,
            short_near(self.spent),
        )
    }
}

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

fn unit_of(count: u64) -> usize {
    (0..UNITS.len() - 1).find(|unit| count < 1 << (10 * (unit + 1))).unwrap_or(UNITS.len() - 1)
}

fn in_unit(count: u64, unit: usize) -> String {
    let value = count as f64 / (1u64 << (10 * unit)) as f64;
    match unit {
        0 => count.to_string(),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// A count of bytes for people.
pub fn bytes(count: u64) -> String {
    let unit = unit_of(count);
    format!("{} {}", in_unit(count, unit), UNITS[unit])
}

fn ratio(done: u64, total: u64) -> String {
    let unit = unit_of(total);
    format!("{}/{} {}", in_unit(done, unit), in_unit(total, unit), UNITS[unit])
}

fn seconds(total: u64) -> String {
    match total {
        0..60 => format!("{total}s"),
        60..3600 => format!("{}m{:02}s", total / 60, total % 60),
        _ => format!("{}h{:02}m", total / 3600, total / 60 % 60),
    }
}

/// NEAR with four decimals, or as many as four significant digits take: for a line that
/// is looked at and gone.
fn short_near(amount: Yocto) -> String {
    let near = amount.0 as f64 / Yocto::ONE_NEAR.0 as f64;
    let wanted = if near == 0.0 { 4 } else { 3 - near.log10().floor() as i32 };
    let mut text = format!("{near:.*}", wanted.clamp(4, 24) as usize);
    while text.ends_with('0') && text.len() > text.find('.').map_or(0, |dot| dot + 5) {
        text.pop();
    }
    text
}

/// Shows a download until it is dropped.
#[derive(Debug)]
pub struct Watch {
    task: tokio::task::JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Watch {
    pub fn start<N: Network>(session: Arc<Session<N>>, name: String, style: Style) -> Self {
        let bar = (style == Style::Line).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = ProgressStyle::with_template("{msg}");
            if let Ok(template) = template {
                bar.set_style(template);
            }
            bar
        });
        let task = tokio::spawn(run(session, name, style, bar.clone()));
        Watch { task, bar }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn run<N: Network>(session: Arc<Session<N>>, name: String, style: Style, bar: Option<ProgressBar>) {
    let mut speed = Speed::default();
    let mut told = Told::default();
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let (done, total) = session.meter.get();
        let snapshot = Snapshot {
            event: "progress",
            name: name.clone(),
            done,
            total,
            speed: speed.update(Instant::now(), done),
            peers: session.pool.active(),
            spent: session.budget.spent(),
            budget: session.budget.max(),
        };
        match (style, &bar) {
            (Style::Line, Some(bar)) => bar.set_message(snapshot.line()),
            (Style::Json, _) if told.is_due(Instant::now(), done, total) => event(&snapshot),
            _ => (),
        }
    }
}

/// The last JSON line of a download.
#[derive(Debug, Default)]
struct Told(Option<(Instant, u64)>);

impl Told {
    /// Whether the next one is due; then it is the last one.
    fn is_due(&mut self, now: Instant, done: u64, total: u64) -> bool {
        let due = self.0.is_none_or(|(then, before)| {
            let further = done.saturating_sub(before);
            now.duration_since(then) >= JSON_EVERY || (further > 0 && further >= total / JSON_STEPS)
        });
        if due {
            self.0 = Some((now, done));
        }
        due
    }
}

#[derive(Debug, Default)]
struct Speed {
    last: Option<(Instant, u64)>,
    smoothed: f64,
}

impl Speed {
    fn update(&mut self, now: Instant, done: u64) -> u64 {
        if let Some((then, before)) = self.last {
            let elapsed = now.duration_since(then).as_secs_f64().max(1e-6);
            let current = done.saturating_sub(before) as f64 / elapsed;
            self.smoothed += (current - self.smoothed) * SMOOTHING;
        }
        self.last = Some((now, done));
        self.smoothed as u64
    }
}

/// Writes one JSON line to stderr.
pub fn event(event: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        // Whoever closed stderr does not want to know.
        let _ = std::io::stderr().lock().write_all(&line);
    }
}

/// Shows bytes being hashed, for `put`.
#[derive(Debug)]
pub struct Hashing {
    bar: Option<ProgressBar>,
}

impl Hashing {
    /// `total` in bytes, if known.
    pub fn start(name: &str, total: Option<u64>, style: Style) -> Self {
        let bar = (style == Style::Line).then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let text =
                "{prefix} {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta}";
            let template =
                if total.is_some() { text } else { "{prefix} {binary_bytes} {binary_bytes_per_sec}" };
            if let Ok(template) = ProgressStyle::with_template(template) {
                bar.set_style(template);
            }
            bar.set_prefix(name.to_owned());
            bar
        });
        Hashing { bar }
    }

    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_documented_one() {
        let gib = 1u64 << 30;
        let mut snapshot = Snapshot {
            event: "progress",
            name: "file".into(),
            done: gib * 42 / 10 + 1,
            total: gib * 10,
            speed: 310 << 20,
            peers: 3,
            spent: Yocto(2_100_000_000_000_000_000_000),
            budget: Some(Yocto::millinear(5)),
        };
        assert_eq!(snapshot.line(), "file 42% 4.2/10.0 GiB 310 MiB/s ETA 19s 3 peers 0.0021/0.0050 NEAR");
        snapshot.total = 0;
        snapshot.done = 0;
        snapshot.speed = 0;
        snapshot.peers = 1;
        snapshot.budget = None;
        snapshot.spent = Yocto::ZERO;
        assert_eq!(snapshot.line(), "file 100% 0/0 B 0 B/s ETA - 1 peer 0.0000 NEAR");
    }

    #[test]
    fn json_lines_come_each_second_and_each_hundredth() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut told = Told::default();
        assert!(told.is_due(start, 0, 1000));
        assert!(!told.is_due(after(900), 9, 1000));
        assert!(told.is_due(after(901), 10, 1000));
        assert!(!told.is_due(after(1900), 19, 1000));
        assert!(told.is_due(after(1901), 19, 1000), "a second later");
        assert!(!told.is_due(after(1902), 19, 10), "nothing is new");
    }

    #[test]
    fn amounts_and_times_stay_short() {
        assert_eq!(short_near(Yocto(1)), "0.000000000000000000000001");
        assert_eq!(short_near(Yocto::near(12)), "12.0000");
        assert_eq!(short_near(Yocto(1_234_567_000_000_000_000_000_000)), "1.2346");
        assert_eq!(short_near(Yocto::near(100_000)), "100000.0000");
        assert_eq!(seconds(3725), "1h02m");
        assert_eq!(seconds(125), "2m05s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
    }
}

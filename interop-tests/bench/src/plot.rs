//! Plots of the JSON lines that the benchmarks print: curves for `requests`, bars for the rest.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Deserialize;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files of JSON lines as `--json` prints them; of lines about the same, the last counts.
    #[arg(required = true, value_name = "FILE")]
    lines: Vec<PathBuf>,
    /// Folder for the SVGs, one for each benchmark and metric.
    #[arg(long, default_value = "docs/plots")]
    out: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    bench: String,
    variant: String,
    inflight: Option<u32>,
    metric: String,
    ours: f64,
    comparator: Option<f64>,
    comparator_name: Option<String>,
    comparator_variant: Option<String>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const RELAYED: RGBColor = RGBColor(0x2c, 0x9c, 0x69);
const THEIRS: RGBColor = RGBColor(0xb8, 0xb8, 0xb8);
const INK: RGBColor = RGBColor(0x30, 0x30, 0x30);
const WIDTH: u32 = 860;
/// Pixels left of the bars, for their names.
const NAMES: i32 = 330;
const ROW: i32 = 44;

pub fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)?;
    let mut plots: BTreeMap<(String, String), BTreeMap<String, Line>> = BTreeMap::new();
    for path in &args.lines {
        for line in read(path)? {
            let key = format!(
                "{} {:>9} {} {}",
                line.variant,
                line.inflight.unwrap_or(0),
                line.comparator_name.as_deref().unwrap_or(""),
                line.comparator_variant.as_deref().unwrap_or("")
            );
            plots.entry((line.bench.clone(), line.metric.clone())).or_default().insert(key, line);
        }
    }
    ensure!(!plots.is_empty(), "no lines of a benchmark in these files");
    for ((bench, metric), lines) in plots {
        let path = args.out.join(format!("{bench}-{}.svg", metric.replace('_', "-")));
        let lines: Vec<Line> = lines.into_values().collect();
        let drawn = match bench.as_str() {
            "requests" => curves(&path, &metric, &lines),
            _ => bars(&path, &bench, &metric, &lines),
        };
        drawn.map_err(|error| anyhow!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Lines of other kinds (as those of `gas`) are passed over.
fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut lines = Vec::new();
    for line in std::io::BufReader::new(file).lines() {
        if let Ok(line) = serde_json::from_str::<Line>(&line?) {
            lines.push(line);
        }
    }
    Ok(lines)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Requests a second by requests in flight, both logarithmic.
fn curves(path: &Path, metric: &str, lines: &[Line]) -> Drawn {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines {
        let x = f64::from(line.inflight.unwrap_or(1));
        series.entry(format!("paid, {}", line.variant)).or_default().push((x, line.ours));
        if let (Some(theirs), Some(name)) = (line.comparator, &line.comparator_name) {
            let variant = line.comparator_variant.as_deref().unwrap_or("direct");
            series.entry(format!("{name}, {variant}")).or_default().push((x, theirs));
        }
    }
    let all = || series.values().flatten();
    let (left, right) = extremes(all().map(|(x, _)| *x));
    let (low, high) = extremes(all().map(|(_, y)| *y));
    let area = SVGBackend::new(path, (WIDTH, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("requests: {metric}"), ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d((left..right * 1.1).log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    chart.configure_mesh().x_desc("requests in flight").y_desc(metric).light_line_style(WHITE).draw()?;
    for (name, mut points) in series {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|a, b| a.0 == b.0);
        let colour = match name.as_str() {
            "paid, direct" => OURS,
            ours if ours.starts_with("paid") => RELAYED,
            _ => THEIRS,
        };
        let line = PathElement::new(points.clone(), colour.stroke_width(3));
        chart
            .draw_series(std::iter::once(line))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}

fn extremes(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = figures.filter(|figure| *figure > 0.0);
    let (low, high) = positive.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
    if low > high { (1.0, 10.0) } else { (low, high) }
}

/// Ours above the comparator, for each line; lengths are logarithmic.
fn bars(path: &Path, bench: &str, metric: &str, lines: &[Line]) -> Drawn {
    let height = 60 + ROW * lines.len() as i32;
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("{bench}: {metric} (logarithmic)");
    area.draw(&Text::new(title, (16, 16), ("sans-serif", 18).into_font().color(&INK)))?;
    let figures = lines.iter().flat_map(|line| [Some(line.ours), line.comparator]).flatten();
    let (low, high) = extremes(figures);
    let room = f64::from(WIDTH as i32 - NAMES - 110);
    let scale = move |figure: f64| {
        // The smallest figure still shows as a tenth of the width.
        let share = (figure.max(low) / low).ln() / (high / low).ln().max(f64::MIN_POSITIVE);
        (room * (0.1 + 0.9 * share.clamp(0.0, 1.0))) as i32
    };
    for (line, row) in lines.iter().zip(0..) {
        let top = 48 + row * ROW;
        let inflight = line.inflight.map(|count| format!(", {count} in flight")).unwrap_or_default();
        bar(&area, top, &format!("{}{inflight}", line.variant), line.ours, scale(line.ours), OURS)?;
        if let Some(theirs) = line.comparator {
            let named = line.comparator_name.as_deref().unwrap_or("");
            let name = format!("{named} {}", line.comparator_variant.as_deref().unwrap_or(""));
            bar(&area, top + ROW / 2 - 4, &name, theirs, scale(theirs), THEIRS)?;
        }
    }
    area.present()?;
    Ok(())
}

fn bar(area: &Area<'_>, top: i32, name: &str, figure: f64, length: i32, colour: RGBColor) -> Drawn {
    let small = ("sans-serif", 12).into_font().color(&INK);
    area.draw(&Text::new(name.to_owned(), (16, top + 2), small.clone()))?;
    area.draw(&Rectangle::new([(NAMES, top), (NAMES + length, top + 14)], colour.filled()))?;
    let shown = if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.2}") };
    area.draw(&Text::new(shown, (NAMES + length + 6, top + 2), small))?;
    Ok(())
}

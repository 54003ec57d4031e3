//! What this process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time of all threads, user and system; a hundredth of a second is the finest that Linux tells.
pub fn cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("CPU time is read from /proc")?;
    // The name in parentheses may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("an unknown form of /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Begins a new peak. Where the kernel does not allow it the peak stays that of the whole run.
pub fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Most memory since then, MiB.
pub fn peak_mib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak is told")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

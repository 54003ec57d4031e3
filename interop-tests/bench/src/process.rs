//! What a process has used so far, from `/proc`.

use anyhow::Context as _;

/// Clock ticks a second of `/proc/PID/stat`; fixed on Linux for programs.
const TICKS: f64 = 100.0;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and kernel time of all its threads, seconds, to 10 ms.
    pub cpu_s: f64,
    /// Memory that is resident now, MiB.
    pub rss_mib: f64,
    /// The most that ever was, MiB.
    pub peak_mib: f64,
}

impl Usage {
    /// Of this process.
    pub fn own() -> anyhow::Result<Usage> {
        Usage::of("self")
    }

    /// Of the process `pid`, while it runs.
    pub fn of(pid: &str) -> anyhow::Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        // The name may hold spaces; what follows it does not.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
        let (user, kernel) = ticks(11).zip(ticks(12)).context("/proc/PID/stat has no times")?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (rss, peak) = kib("VmRSS:").zip(kib("VmHWM:")).context("/proc/PID/status has no memory")?;
        Ok(Usage { cpu_s: (user + kernel) / TICKS, rss_mib: rss / 1024.0, peak_mib: peak / 1024.0 })
    }
}

/// CPU time of this process's children that have ended and were waited for, seconds.
pub fn ended_children_s() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    let (user, kernel) = ticks(13).zip(ticks(14)).context("/proc/self/stat has no times")?;
    Ok((user + kernel) / TICKS)
}

/// Lets a process's peak of memory begin anew. Where the kernel refuses, the peak stays that of
/// its life.
pub fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

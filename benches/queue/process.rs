//! What the kernel knows of a process: the time it used and the memory it needed. Linux only, from `/proc`.

use std::time::Duration;

use anyhow::Context;

/// What `/proc/PID/stat` counts in, the same on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// The fields of `/proc/PID/stat` behind the name, which may hold blanks.
struct Stat(Vec<String>);

impl Stat {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&path).context(path)?;
        let fields = text.rsplit(')').next().unwrap_or_default();
        Ok(Self(fields.split_whitespace().map(str::to_owned).collect()))
    }

    fn field(&self, index: usize) -> u32 {
        self.0.get(index).and_then(|field| field.parse().ok()).unwrap_or(0)
    }

    fn parent(&self) -> u32 {
        self.field(1)
    }

    fn own(&self) -> Duration {
        TICK * (self.field(11) + self.field(12))
    }

    fn ended_children(&self) -> Duration {
        TICK * (self.field(13) + self.field(14))
    }
}

/// The time a process has used so far. The scheduler counts in nanoseconds, but forgets threads that have ended; the
/// ticks forget none. Neither says too much, so the larger is right.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let ticks = Stat::of(pid)?.own();
    let mut threads = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two looks.
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
        threads += Duration::from_nanos(nanoseconds.unwrap_or(0));
    }
    Ok(ticks.max(threads))
}

/// The time that children of this process which have ended took: pgbench, for one.
pub(crate) fn cpu_of_ended_children() -> anyhow::Result<Duration> {
    Ok(Stat::of(std::process::id())?.ended_children())
}

/// The time of a process, of the children it had and of those it has.
pub(crate) fn cpu_of_family(parent: u32) -> anyhow::Result<Duration> {
    let stat = Stat::of(parent)?;
    let mut total = stat.own() + stat.ended_children();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Ok(child) = Stat::of(pid)
            && child.parent() == parent
        {
            total += cpu(pid).unwrap_or_else(|_| child.own());
        }
    }
    Ok(total)
}

/// The most memory a process has ever had, in MB.
pub(crate) fn peak_megabytes(pid: u32) -> anyhow::Result<f64> {
    megabytes_of(pid, "VmHWM:")
}

/// The memory a process has now, in MB.
pub(crate) fn megabytes(pid: u32) -> anyhow::Result<f64> {
    megabytes_of(pid, "VmRSS:")
}

fn megabytes_of(pid: u32, field: &'static str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    let kilobytes: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}

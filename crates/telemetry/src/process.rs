//! What the kernel says of this process, by the names that every Prometheus client has for it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second in `/proc`: the kernel's own constant for user space on all that we run on.
const TICKS: f64 = 100.0;

/// Reads `/proc/self` at each scrape. What cannot be read is left out.
#[derive(Debug)]
pub(crate) struct Process;

/// Name, help, value.
type Reading = (&'static str, &'static str, f64);

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in readings() {
            // As a gauge also what grows: the format would name a counter anew.
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

fn readings() -> Vec<Reading> {
    let mut found = Vec::new();
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(Stat::read)
    {
        found.push((
            "process_cpu_seconds_total",
            "Processor time spent, in seconds",
            stat.cpu,
        ));
        found.push(("process_threads", "Threads", stat.threads));
        if let Some(booted) = booted() {
            found.push((
                "process_start_time_seconds",
                "When it was started, in seconds since 1970",
                booted + stat.started,
            ));
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = [
        (
            "VmSize:",
            "process_virtual_memory_bytes",
            "Virtual memory, in bytes",
        ),
        (
            "VmRSS:",
            "process_resident_memory_bytes",
            "Resident memory, in bytes",
        ),
    ];
    for (line, name, help) in memory {
        let value = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<f64>().ok());
        found.extend(kib.map(|kib| (name, help, kib * 1024.0)));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is counted.
        let open = open.count().saturating_sub(1);
        let open = u32::try_from(open).map_or(f64::MAX, f64::from);
        found.push(("process_open_fds", "Open file descriptors", open));
    }
    if let Some(most) = most_fds() {
        found.push(("process_max_fds", "Most file descriptors", most));
    }
    found
}

/// What is used of `/proc/self/stat`.
#[derive(PartialEq, Debug)]
struct Stat {
    cpu: f64,
    threads: f64,
    /// Seconds after the machine.
    started: f64,
}

impl Stat {
    /// Reads the line; the name, which may hold anything, ends at the last parenthesis.
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        // The first is field 3 (proc(5)).
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<f64>().ok();
        Some(Self {
            cpu: (number(14)? + number(15)?) / TICKS,
            threads: number(20)?,
            started: number(22)? / TICKS,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn booted() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn most_fds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_moves_no_field() {
        let line = "7 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1000 8192 3 0";
        let stat = Stat::read(line).unwrap();
        let wanted = Stat {
            cpu: 3.0,
            threads: 9.0,
            started: 10.0,
        };
        assert_eq!(stat, wanted);
        assert!(Stat::read("7 (a S 1").is_none());
    }

    #[test]
    fn this_process_says_what_it_uses() {
        let found = readings();
        let of = |name: &str| found.iter().find(|(n, ..)| *n == name).unwrap().2;
        assert!(of("process_resident_memory_bytes") > 100_000.0);
        assert!(of("process_open_fds") >= 3.0);
        assert!(of("process_start_time_seconds") > 1_600_000_000.0);
        assert!(of("process_cpu_seconds_total") >= 0.0);
    }
}

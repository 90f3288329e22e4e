//! What every process tells of itself, under the names that all dashboards know. Linux only; elsewhere nothing is told.

use super::Metrics;
use std::fs;

/// Ticks of a second in `/proc`: Linux fixes this number for everything that it shows to processes.
const TICKS: f64 = 100.0;

/// Has CPU, memory and open files of this process told.
pub fn tell(metrics: &Metrics) {
    metrics.before_render(|metrics| {
        let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
        // The name of the program comes in parentheses and may hold anything; numbers follow.
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or(0.0);
        let cpu = (field(11) + field(12)) / TICKS;
        metrics.total("process_cpu_seconds_total", "Seconds of CPU used.", &[], cpu);
        metrics.set("process_virtual_memory_bytes", "Bytes of address space.", &[], field(20));
        if let Some(resident) = resident_bytes() {
            metrics.set("process_resident_memory_bytes", "Bytes of memory in use.", &[], resident);
        }
        if let Some(booted) = boot_time() {
            let started = booted + field(19) / TICKS;
            metrics.set("process_start_time_seconds", "When the process started, in Unix time.", &[], started);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            metrics.set("process_open_fds", "Open files and connections.", &[], open.count() as f64);
        }
        if let Some(most) = most_files() {
            metrics.set("process_max_fds", "How many files may be open.", &[], most);
        }
    });
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|l| l.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_this_process_uses() {
        let metrics = Metrics::default();
        tell(&metrics);
        let text = metrics.render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}

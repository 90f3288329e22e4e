//! What phases of a benchmark cost, and the table of it.

use serde_json::{Value, json};

/// What one phase cost.
#[derive(Default)]
pub struct Phase {
    pub name: String,
    /// Seconds.
    pub wall: f64,
    /// Seconds of CPU of the controller and its children.
    pub cpu: f64,
    /// Of these, the controller's own.
    pub own: f64,
    /// MiB at the end.
    pub memory: f64,
    /// MiB at the most.
    pub peak: f64,
    /// Requests to the API server; what is watched is not counted.
    pub requests: u64,
    /// Those that change something.
    pub writes: u64,
}

/// Prints a table; requests and writes are those of each of `count` objects, which `title` names.
pub fn print(title: &str, count: usize, phases: &[Phase], as_json: bool) {
    let each = count as f64;
    println!("\n| {title} | wall s | CPU s | of it own | memory MiB | peak MiB | requests each | writes each |");
    println!("|---|---|---|---|---|---|---|---|");
    let number = |value: f64, digits: usize| if value == 0.0 { String::new() } else { format!("{value:.digits$}") };
    for phase in phases {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            phase.name,
            number(phase.wall, 1),
            number(phase.cpu, 2),
            number(phase.own, 2),
            number(phase.memory, 1),
            number(phase.peak, 1),
            number(phase.requests as f64 / each, 1),
            number(phase.writes as f64 / each, 1),
        );
    }
    if as_json {
        let rows: Vec<Value> = phases
            .iter()
            .map(|p| {
                json!({
                    "phase": p.name, "wall": p.wall, "cpu": p.cpu, "own": p.own, "memory": p.memory, "peak": p.peak,
                    "requests": p.requests, "writes": p.writes,
                })
            })
            .collect();
        println!("{}", Value::Array(rows));
    }
}

//! The fault simulator: `decide`, `act` and `observe` against a simulated cluster with a virtual clock, faults at every
//! call, and people who act at any moment. See `docs/fault-simulation.md`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod api;
mod aws;
mod cluster;
mod endpoints;
mod invariants;
mod meshes;
mod platform;
mod process;
mod progress;
mod random;
mod scenarios;
mod shares;
mod simulation;
mod spec;
mod users;

use simulation::{Tally, run};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds that found something once, and what; without what is drawn beside the Rollout.
const REGRESSIONS: &[(u64, &str)] = &[
    (1010, "the stable ReplicaSet was deleted by the pass that replaced it, before the status said so"),
    (1014, "a full promotion after an abort did nothing"),
    (1050, "a completed Rollout went back to Progressing while the old version's pods went"),
    (1062, "a lowered weight took pods away under the traffic that they still had"),
    (1090, "a shrinking stable version took the canary's weight back to itself"),
    (1125, "an open verdict's pause held a full promotion up"),
    (1145, "pods were evicted in the pass that found others missing"),
    (1240, "an update right after a promotion gave everything to a stable Service without endpoints"),
    (1207, "a scale-down deadline was set and taken away in turns while status writes met conflicts"),
    (1810, "ping and pong changed roles before the new stable Service had endpoints"),
    (3125, "an update waited for ever beside a first version that never came up"),
    (5144, "a canary shrank before the Gateway had taken its lower weight"),
    (5405, "the stable version shrank before the Gateway had taken the canary's weight"),
    (10070, "a Service was taken over with fewer pods than the same pass asked for"),
    (30364, "an abort between a switch and the status that notes it scaled the stable version to nothing"),
    (30397, "going back to an old blue-green version skipped pause and analyses though its pods were long gone"),
    (30590, "an update right after a promotion with dynamicStableScale scaled the new stable version to nothing"),
    (40888, "a pod that had just become available was taken away as unhealthy"),
    (40997, "a Service was switched to pods on their way out"),
    (3527, "a lowered weight went to a stable Service without endpoints"),
    (200852, "an Experiment went on after a move to blue-green"),
    (206224, "going back right after a promotion scaled a version down under the traffic that its Service still had"),
];

/// The same, with what is drawn beside the Rollout.
const WHOLE_REGRESSIONS: &[(u64, &str)] = &[
    (1158, "App Mesh's canary node was emptied at a promotion while it had all the traffic"),
    (1423, "a switch counted in its own pass, because of the endpoints from before it"),
    (1709, "an answer of AWS about a Service's former endpoints counted for the new ones"),
    (200817, "a version that was resized after the switch became stable before it was whole"),
    (203418, "a Rollout without pods waited for targets that nothing can have"),
];

/// Runs without `TIDEGATE_SIM_RUNS`, unless the time is over before.
const RUNS: u64 = 4000;
/// How long they may take on a machine that is busy with other things, as far as that is more than [`LEAST`] runs.
const TIME: Duration = Duration::from_secs(150);

/// So many are run on the slowest machine.
const LEAST: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs a seed again with every line, and gives the report.
fn report(seed: u64, whole: bool, lines: usize) -> String {
    match run(seed, whole, true) {
        Ok(_) => format!("seed {seed} does not fail when it is run again: the simulator is not deterministic"),
        Err(simulation) => {
            let world = simulation.world();
            let first = world.trace.lines.first().cloned().unwrap_or_default();
            let from = world.trace.lines.len().saturating_sub(lines);
            format!(
                "seed {seed} violates invariant {}\n{first}\n...\n{}\nReplay: TIDEGATE_SIM_SEED={seed} TIDEGATE_SIM_WHOLE={} cargo test -p \
                 tidegate-controller --test simulation replays -- --nocapture",
                world.violation.clone().unwrap_or_default(),
                world.trace.lines[from..].join("\n"),
                u8::from(whole),
            )
        }
    }
}

#[test]
fn seeds_that_found_something_hold() {
    for (whole, seeds) in [(false, REGRESSIONS), (true, WHOLE_REGRESSIONS)] {
        for (seed, found) in seeds {
            if run(*seed, whole, false).is_err() {
                panic!("Seed {seed} once found: {found}\n{}", report(*seed, whole, 40));
            }
        }
    }
}

/// `TIDEGATE_SIM_SEED=n` runs one seed and prints all that happens.
#[test]
fn replays_a_seed() {
    let seed = number("TIDEGATE_SIM_SEED").unwrap_or(1);
    match run(seed, number("TIDEGATE_SIM_WHOLE") != Some(0), true) {
        Ok(_) if number("TIDEGATE_SIM_SEED").is_none() => {}
        Ok(tally) => println!("seed {seed} holds: {tally:?}"),
        Err(simulation) => {
            println!("{}", simulation.world().trace.lines.join("\n"));
            panic!("seed {seed} violates invariant {}", simulation.world().violation.clone().unwrap_or_default());
        }
    }
}

/// A seed gives the same run every time.
#[test]
fn runs_are_deterministic() {
    for seed in 0..10 {
        let lines = || match run(seed, true, true) {
            Ok(tally) => vec![format!("{tally:?}")],
            Err(simulation) => simulation.world().trace.lines.clone(),
        };
        assert_eq!(lines(), lines(), "seed {seed}");
    }
}

/// `TIDEGATE_SIM_RUNS=n` sets the number of seeds, `TIDEGATE_SIM_FIRST=n` the first of them.
#[test]
fn invariants_hold_over_thousands_of_seeds() {
    let wanted = number("TIDEGATE_SIM_RUNS");
    let first = number("TIDEGATE_SIM_FIRST").unwrap_or(1000);
    let (runs, begun) = (wanted.unwrap_or(RUNS), Instant::now());
    let (next, passes, writes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    let most = number("TIDEGATE_SIM_FAILURES").unwrap_or(1) as usize;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let over = wanted.is_none() && n >= LEAST && begun.elapsed() > TIME;
                    if n >= runs || over || failed.lock().unwrap().len() >= most {
                        break;
                    }
                    match run(first + n, true, false) {
                        Ok(Tally { passes: p, writes: w }) => {
                            passes.fetch_add(p, Ordering::Relaxed);
                            writes.fetch_add(w, Ordering::Relaxed);
                        }
                        Err(simulation) => {
                            let violation = simulation.world().violation.clone().unwrap_or_default();
                            println!("seed {}: {violation}", first + n);
                            failed.lock().unwrap().push((first + n, violation));
                        }
                    }
                }
            });
        }
    });
    let done = next.load(Ordering::Relaxed).min(runs);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{done} runs in {seconds:.1} s ({:.0} a minute), {} passes, {} writes",
        done as f64 * 60.0 / seconds,
        passes.load(Ordering::Relaxed),
        writes.load(Ordering::Relaxed),
    );
    let failed = failed.into_inner().unwrap();
    if let Some((seed, _)) = failed.first() {
        panic!("{}", report(*seed, true, 40));
    }
}

//! One run: a cluster, a controller, people, faults, and then the calm in which everything has to come to rest.

use crate::cluster::{FaultRates, Happening, Kind, Millis, World, int, text};
use crate::platform::{available, is_bad};
use crate::process::{Outcome, Process};
use crate::random::Random;
use crate::shares::{selected, shares};
use crate::{spec, users};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard};

/// A cluster with a controller at work.
pub struct Simulation {
    pub world: Arc<Mutex<World>>,
    pub process: Process,
    runtime: tokio::runtime::Runtime,
    /// Passes of processes that were killed.
    former_passes: u64,
    pub events: Vec<String>,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub passes: u64,
    pub writes: u64,
}

impl Simulation {
    /// A Rollout and all it needs, in a cluster where nothing goes wrong.
    pub fn new(seed: u64, rollout: &Value, trace: bool) -> Self {
        Self::found(seed, rollout, trace, false, |_| {})
    }

    /// The same, with what `before` puts in place before the controller comes. `aws`: AWS is asked.
    pub fn found(seed: u64, rollout: &Value, trace: bool, aws: bool, before: impl FnOnce(&mut World)) -> Self {
        let mut world = World::new(seed);
        world.aws = aws;
        world.trace.on = trace;
        spec::furnish(&mut world, rollout);
        before(&mut world);
        let world = Arc::new(Mutex::new(world));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let process = Process::start(&world, &runtime);
        Self { world, process, runtime, former_passes: 0, events: Vec::new() }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn passes(&self) -> u64 {
        self.former_passes + self.process.passes
    }

    /// Another process takes over.
    pub fn restart(&mut self) {
        {
            let mut world = self.world();
            let away = if world.random.percent(30) { 20_000 } else { 500 };
            let (now, gone) = (world.now, world.random.range(1, away));
            // While nobody is there, life goes on.
            world.disconnect();
            world.advance(now + gone);
        }
        self.former_passes += self.process.passes;
        self.process = Process::start(&self.world, &self.runtime);
    }

    /// Lets time pass until `end`, or until something that must not be.
    pub fn run_until(&mut self, end: Millis) {
        loop {
            let due = self.process.due;
            let killed = {
                let mut world = self.world.lock().unwrap();
                if world.violation.is_some() {
                    return;
                }
                let next = [world.next_happening(), world.next_delivery(), due];
                let next = next.into_iter().flatten().min().unwrap_or(end);
                if next > end {
                    if world.now < end {
                        world.now = end;
                    }
                    return;
                }
                let next = next.max(world.now);
                world.advance(next);
                self.process.receive(&mut world);
                world.killed
            };
            if killed {
                self.world().say(|| "fault      the process is killed".to_owned());
                self.restart();
                continue;
            }
            let now = self.world().now;
            if self.process.due.is_some_and(|due| due <= now) && self.process.pass(&self.world) == Outcome::Killed {
                self.restart();
            }
            let events: Vec<String> = self.process.events.drain(..).map(|e| e.reason).collect();
            self.events.extend(events);
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, millis: Millis) {
        let end = self.world().now + millis;
        self.run_until(end);
    }

    /// Everything works from now on, and nobody acts. Checks that the Rollout comes to rest, and where.
    fn comes_to_rest(&mut self) {
        let (passes, writes, begun) = {
            let mut world = self.world();
            world.heal();
            world.calm = true;
            world.user.actions = 0;
            world.agenda.retain(|_, h| *h != Happening::User);
            world.say(|| "calm       faults and users cease".to_owned());
            let broken: Vec<Kind> = world.broken_watches.clone();
            for kind in broken {
                world.relist(kind);
            }
            (self.passes(), world.writes, world.now)
        };
        self.run_until(begun + 3_600_000);
        let (passes, writes) = (self.passes() - passes, self.world().writes - writes);
        if self.world().violation.is_some() {
            return;
        }
        let limits = self.limits();
        if passes > limits.passes || writes > limits.writes {
            self.world().violated(format!("5: {passes} passes and {writes} writes in an hour of calm"));
        }
        let before = self.world().writes;
        self.run_until(begun + 2 * 3_600_000);
        let after = self.world().writes;
        if after > before {
            self.world().violated(format!("5: still writes after an hour of calm: {} times", after - before));
        }
        self.at_rest();
    }

    fn limits(&self) -> Tally {
        let world = self.world();
        let size = int(world.rollout(), "/spec/replicas").unsigned_abs();
        let steps = world.rollout().pointer("/spec/strategy/canary/steps").and_then(Value::as_array);
        let steps = steps.map_or(0, Vec::len) as u64;
        if text(world.rollout(), "/status/message").starts_with("InvalidSpec") {
            // It is looked at again every 20 seconds: a Service that it names may have come.
            return Tally { passes: 400, writes: 60 };
        }
        Tally { passes: 150 + 25 * size + 25 * steps, writes: 100 + 15 * size + 20 * steps }
    }

    /// What has to be true when nothing happens any more.
    fn at_rest(&self) {
        let mut world = self.world();
        let rollout = world.rollout().clone();
        let phase = text(&rollout, "/status/phase").to_owned();
        let message = text(&rollout, "/status/message").to_owned();
        let stable = text(&rollout, "/status/stableRS").to_owned();
        let current = text(&rollout, "/status/currentPodHash").to_owned();
        world.say(|| format!("rest       {phase} {message}"));
        let aborted = rollout.pointer("/status/abort") == Some(&Value::Bool(true));
        let paused = rollout["spec"]["paused"] == true
            || rollout["status"]["pauseConditions"].as_array().is_some_and(|p| !p.is_empty());
        let generation = int(&rollout, "/metadata/generation").to_string();
        if text(&rollout, "/status/observedGeneration") != generation {
            world.violated(format!("5: generation {generation} was never observed"));
        }
        let stated = match phase.as_str() {
            "Healthy" => stable == current,
            "Paused" => paused,
            "Degraded" if rollout["spec"]["progressDeadlineSeconds"] == 0 => message.starts_with("InvalidSpec"),
            "Degraded" => {
                aborted || message.starts_with("ProgressDeadlineExceeded") || message.starts_with("RolloutAborted")
            }
            _ => false,
        };
        if !stated {
            world.violated(format!("5: at rest as {phase:?} ({message}), abort {aborted}, paused {paused}"));
        }
        nothing_goes_on(&mut world, &rollout);
        // A first version that never came up takes nothing back.
        let back = crate::platform::available(&world, &stable) > 0 || int(&rollout, "/spec/replicas") == 0;
        if aborted && back && !message.starts_with("InvalidSpec") && stable != current && !stable.is_empty() {
            all_on_stable(&mut world, &stable, "4: aborted");
        }
        if phase == "Healthy" {
            all_on_stable(&mut world, &stable, "5: healthy");
            let size = int(&rollout, "/spec/replicas");
            let there = available(&world, &stable);
            if there < size {
                world.violated(format!("5: healthy with {there} of {size} pods"));
            }
            let reference = &rollout["spec"]["workloadRef"];
            let pods = world.get(Kind::Deployment, text(reference, "/name")).map_or(0, |d| int(d, "/spec/replicas"));
            if pods > 0 && reference["scaleDown"].as_str().is_some_and(|mode| mode != "never") {
                world.violated(format!("5: healthy, and the referenced Deployment still has {pods} pods"));
            }
        }
        if let Some((at, hash, index)) = world.user.promoted.clone()
            && phase == "Paused"
            && rollout["spec"]["paused"] != true
            && hash == current
            && index == int(&rollout, "/status/currentStepIndex")
            && !message.starts_with("Inconclusive")
        {
            world.violated(format!("6: lost the promotion of step {index} at {} s", at / 1000));
        }
    }

    /// A person wants a good version out, whatever state the Rollout is in.
    fn can_be_finished(&mut self) {
        {
            let mut world = self.world();
            world.say(|| "finish     somebody wants a good version out now".to_owned());
            users::finish(&mut world);
        }
        self.run_for(60_000);
        users::promote_full(&mut self.world());
        self.run_for(2 * 3_600_000);
        let mut world = self.world();
        let phase = text(world.rollout(), "/status/phase").to_owned();
        let good = !is_bad(world.template());
        if phase != "Healthy" && good && world.violation.is_none() {
            let message = text(world.rollout(), "/status/message").to_owned();
            world.violated(format!("5: a full promotion of a good version ends as {phase} ({message})"));
        }
        drop(world);
        if self.world().violation.is_none() {
            self.at_rest();
        }
    }
}

/// A run that the status does not name any more has been ended, and so has an Experiment.
fn nothing_goes_on(world: &mut World, rollout: &Value) {
    if text(rollout, "/status/message").starts_with("InvalidSpec") {
        // Nothing is decided before the spec is mended.
        return;
    }
    let named = rollout["status"].to_string();
    let running = |o: &Value| text(o, "/status/phase") == "Running" && o["spec"]["terminate"] != true;
    let forgotten = |(name, o): &(&String, &Value)| running(o) && !named.contains(&format!("\"{name}\""));
    let all = world.of_kind(Kind::AnalysisRun).chain(world.of_kind(Kind::Experiment));
    let found = all.filter(|one| forgotten(one)).map(|(name, _)| name.clone()).next();
    if let Some(name) = found {
        world.violated(format!("5: {name} goes on, and nobody waits for it"));
    }
}

fn all_on_stable(world: &mut World, stable: &str, what: &str) {
    for (hash, share) in shares(world) {
        if hash != stable && share > 0 {
            world.violated(format!("{what}, but {hash} has {share} % of the traffic, not {stable}"));
        }
    }
    let rollout = world.rollout().clone();
    if let Some(canary) = rollout.pointer("/spec/strategy/canary") {
        for field in ["canaryService", "stableService"] {
            let Some(service) = canary[field].as_str() else { continue };
            let hash = selected(world, service);
            let empty = int(&rollout, "/spec/replicas") == 0;
            if hash != stable && !empty {
                world.violated(format!("{what}, but Service {service} selects {hash:?}, not {stable}"));
            }
        }
        if canary.get("trafficRouting").is_none() {
            let sizes: Vec<(String, i64)> = world
                .of_kind(Kind::ReplicaSet)
                .filter(|(name, _)| name.starts_with("web-"))
                .map(|(name, o)| (name.clone(), int(o, "/spec/replicas")))
                .collect();
            for (name, size) in sizes {
                if size > 0 && !name.ends_with(stable) {
                    world.violated(format!("{what}, but {name} still has {size} pods"));
                }
            }
        }
    }
}

/// The faults of a run: often none, often some, sometimes a storm.
fn weather(world: &mut World) {
    let level = match world.random.range(0, 9) {
        0..=1 => 0,
        2..=5 => 4,
        6..=8 => 12,
        _ => 40,
    };
    let random = &mut world.random;
    let mut rate = |most: i64| random.range(0, most.max(0)).unsigned_abs();
    world.faults = FaultRates {
        conflict: rate(level * 2),
        throttled: rate(level),
        broken_before: rate(level),
        broken_after: rate(level),
        timeout_before: rate(level / 4),
        timeout_after: rate(level / 4),
        kill_before: rate(level),
        kill_after: rate(level),
        late: rate(level * 4),
        doubled: rate(level * 4),
    };
    let length = 600_000;
    let counts = [(1, Happening::NodeFails), (1, Happening::Kill)];
    for (most, happening) in counts {
        let times = if level == 0 { 0 } else { world.random.range(0, most * 2) };
        for _ in 0..times {
            let at = world.random.range(1_000, length);
            world.plan(at, happening.clone());
        }
    }
    if world.random.percent(10) {
        world.plan(30_000, Happening::Autoscaler);
    }
    let breaks = if level == 0 { 0 } else { world.random.range(0, 4) };
    for _ in 0..breaks {
        let kinds =
            [Kind::Rollout, Kind::ReplicaSet, Kind::Service, Kind::AnalysisRun, Kind::Experiment, Kind::HttpRoute];
        let (kind, at) = (world.random.pick(&kinds), world.random.range(1_000, length));
        world.plan(at, Happening::WatchBreaks(kind));
    }
}

/// One run of a seed. Gives what it did, or the simulation in which something happened that must not. `whole`: with what
/// [`spec::draw_more`] draws.
pub fn run(seed: u64, whole: bool, trace: bool) -> Result<Tally, Box<Simulation>> {
    let mut random = Random::new(seed.wrapping_mul(31) + 7);
    let mut rollout = spec::random_rollout(&mut random);
    let more = whole.then(|| Random::new(seed.wrapping_mul(131) + 17));
    let aws = more.is_some_and(|mut more| spec::draw_more(&mut more, &mut rollout));
    let mut simulation = Simulation::found(seed, &rollout, trace, aws, |_| {});
    {
        let mut world = simulation.world();
        world.say(|| format!("spec       {}", rollout["spec"]));
        weather(&mut world);
        world.user.actions = world.random.range(1, 14);
        world.user.pace = world.random.pick(&[3_000, 20_000, 60_000, 120_000]);
        // Often the first version is out before anybody acts.
        let first = if world.random.percent(75) { 60_000 } else { world.random.range(10, 20_000) };
        world.plan(first, Happening::User);
    }
    let length = simulation.world().random.range(60_000, 700_000);
    simulation.run_until(length);
    // An abort has to end well from any point: one run in five ends with it.
    if seed.is_multiple_of(5) {
        users::abort(&mut simulation.world());
    }
    if simulation.world().violation.is_none() {
        simulation.comes_to_rest();
    }
    if simulation.world().violation.is_none() {
        simulation.can_be_finished();
    }
    let tally = Tally { passes: simulation.passes(), writes: simulation.world().writes };
    if simulation.world().violation.is_some() { Err(Box::new(simulation)) } else { Ok(tally) }
}

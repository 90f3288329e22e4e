//! What an update has to wait for: pods and the Gateway before the next step, people before the end of a pause, verdicts
//! before anybody relies on them, and the time for which the old version stays.

use crate::cluster::{Kind, Millis, World, int, label, text};
use crate::invariants::{BLIND, is_first, is_own};
use crate::platform::available;
use crate::shares::{is_routed, max_weight, selected, tells};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_controller::rollout::{Action, Decision, Snapshot};
use tidegate_crds::{IntOrString, keys};

/// What the checks remember.
#[derive(Debug, Default)]
pub struct Progress {
    /// When a user last wrote the status: a promotion, a retry, an abort.
    touched: Option<Millis>,
    /// Versions that were the newest when a user wrote the status.
    promoted: Vec<String>,
    /// Since when the user has paused the Rollout.
    paused: Option<Millis>,
    /// The Rollout was Healthy once: from then on there is a version to go back to.
    pub been_healthy: bool,
    /// When the pass began that is under way.
    pub pass_begun: Millis,
    /// When a ReplicaSet got its time limit.
    limited: BTreeMap<String, Millis>,
    /// Until when the pods of a version that was replaced stay.
    stays: BTreeMap<String, Millis>,
}

fn on(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer) == Some(&Value::Bool(true))
}

fn steps(rollout: &Value) -> &[Value] {
    let steps = rollout.pointer("/spec/strategy/canary/steps").and_then(Value::as_array);
    steps.map(Vec::as_slice).unwrap_or_default()
}

/// Notes what a user wrote.
pub fn remember(world: &mut World, before: Option<&Value>, after: &Value) {
    let now = world.now;
    let progress = &mut world.invariants.progress;
    if before.is_some_and(|b| b.get("status") != after.get("status")) {
        progress.touched = Some(now);
        progress.promoted.push(text(after, "/status/currentPodHash").to_owned());
    }
    progress.paused = if on(after, "/spec/paused") { progress.paused.or(Some(now)) } else { None };
}

/// Somebody, or the user's own rules, lets the update skip what it would have to wait for.
fn overruled(world: &World) -> bool {
    let lately = |at: Option<Millis>| at.is_some_and(|at| world.now - at <= BLIND);
    let rollout = world.rollout();
    is_first(world)
        || on(rollout, "/status/promoteFull")
        || rollout.pointer("/spec/rollbackWindow").is_some()
        || lately(world.invariants.promoted_full)
        || lately(world.invariants.progress.touched)
        || world.invariants.lately_changed(world.now)
        || world.invariants.steps_lately_changed(world.now)
}

/// The user had paused before the pass began, and the controller could know it.
fn is_paused(world: &World) -> bool {
    let (progress, known) = (&world.invariants.progress, world.invariants.blind_until);
    progress.paused.is_some_and(|since| progress.pass_begun > known.max(since + 2_000)) && !is_first(world)
}

/// The controller wrote the Rollout's status.
pub fn moved(world: &mut World, before: &Value, after: &Value) {
    // The write that says so first may still be the one that makes the first working version stable.
    if text(before, "/status/phase") == "Healthy" {
        world.invariants.progress.been_healthy = true;
    }
    let hash = text(after, "/status/currentPodHash");
    world.invariants.progress.stays.remove(hash);
    let before_it = text(before, "/status/currentPodHash");
    if hash != before_it && !before_it.is_empty() && on(after, "/status/promoteFull") {
        world.violated(format!("8: the full promotion of {before_it} passed over to {hash}"));
    }
    let (old, new) = (text(before, "/status/stableRS"), text(after, "/status/stableRS"));
    if old != new {
        replaced(world, before, after, old, new);
        return;
    }
    let (from, to) = (int(before, "/status/currentStepIndex"), int(after, "/status/currentStepIndex"));
    let other = hash != text(before, "/status/currentPodHash") || hash == new;
    if to <= from || other || after.pointer("/spec/strategy/canary").is_none() {
        return;
    }
    if is_paused(world) {
        world.violated(format!("8: went on to step {to} while the user paused"));
    }
    if overruled(world) {
        return;
    }
    passed(world, before, after, from..to);
}

/// The current version left these steps behind.
fn passed(world: &mut World, before: &Value, after: &Value, indices: std::ops::Range<i64>) {
    let hash = text(after, "/status/currentPodHash");
    for index in indices {
        let Some(step) = usize::try_from(index).ok().and_then(|i| steps(after).get(i)) else { continue };
        if let Some(missing) = missing(world, before, step, index, hash) {
            world.violated(format!("8: passed step {index} of {hash} {missing}"));
        }
    }
}

/// What a step still waits for.
fn missing(world: &World, before: &Value, step: &Value, index: i64, hash: &str) -> Option<String> {
    let verdict = |kind: Kind| {
        world.of_kind(kind).any(|(_, o)| {
            label(o, keys::STEP_INDEX) == index.to_string()
                && label(o, keys::POD_TEMPLATE_HASH) == hash
                && text(o, "/status/phase") == "Successful"
        })
    };
    if let Some(pause) = step.get("pause") {
        // However long ago: the controller paused, and somebody took the reason away.
        let resumed = on(before, "/status/controllerPause")
            && before.pointer("/status/pauseConditions").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if resumed {
            return None;
        }
        let Some(seconds) = seconds(&pause["duration"]) else { return Some("that nobody promoted".to_owned()) };
        let begun = before["status"]["pauseConditions"].as_array().into_iter().flatten();
        let begun = begun.into_iter().find(|p| p["reason"] == "CanaryPauseStep").map(|p| time(&p["startTime"]));
        let over = seconds == 0 || begun.flatten().is_some_and(|at| at + seconds <= world.timestamp().as_second());
        return (!over).then(|| format!("before its {seconds} s were over"));
    }
    if step.get("plugin").is_some() {
        return Some("that no plugin ran, and nobody promoted".to_owned());
    }
    if step.get("analysis").is_some() && !verdict(Kind::AnalysisRun) {
        return Some("without a successful analysis".to_owned());
    }
    if step.get("experiment").is_some() && !verdict(Kind::Experiment) {
        return Some("without a successful experiment".to_owned());
    }
    if let Some(weight) = step["setWeight"].as_i64()
        && tells(world)
    {
        let taken = world.invariants.taken.iter().filter(|(service, _)| selected(world, service) == hash);
        let taken: i64 = taken.map(|(_, weight)| weight).sum();
        return (taken != weight).then(|| format!("although the data plane gives it {taken}, not {weight}"));
    }
    None
}

/// A duration as steps have it; `None` without one.
fn seconds(duration: &Value) -> Option<i64> {
    let duration: IntOrString = serde_json::from_value(duration.clone()).ok()?;
    let pause = tidegate_crds::rollout::Pause { duration: Some(duration) };
    pause.parse().ok().flatten().and_then(|d| i64::try_from(d.as_secs()).ok())
}

fn time(text: &Value) -> Option<i64> {
    text.as_str()?.parse::<k8s_openapi::jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// Another version is the stable one.
fn replaced(world: &mut World, before: &Value, after: &Value, old: &str, new: &str) {
    if old.is_empty() {
        return;
    }
    let rollout = world.rollout().clone();
    let (index, count) = (int(before, "/status/currentStepIndex"), steps(&rollout).len() as i64);
    if rollout.pointer("/spec/strategy/canary").is_some() && index < count && !overruled(world) {
        if is_routed(world) {
            world.violated(format!("8: made {new} stable at step {index} of {count}"));
        } else {
            // The pass that completes the last step may do so, where no route has to be taken back first.
            passed(world, before, after, index..count);
        }
    }
    if is_paused(world) {
        world.violated(format!("8: made {new} stable while the user paused"));
    }
    let strategy = rollout.pointer("/spec/strategy/blueGreen").or_else(|| rollout.pointer("/spec/strategy/canary"));
    let strategy = strategy.unwrap_or(&Value::Null);
    let at_once = strategy["dynamicStableScale"] == true
        || rollout.pointer("/spec/strategy/blueGreen").is_none() && !is_routed(world)
        || strategy.get("scaleDownDelayRevisionLimit").is_some();
    if at_once {
        return;
    }
    let delay = strategy["scaleDownDelaySeconds"].as_i64().unwrap_or(30) * 1000;
    let since = world.invariants.progress.limited.get(old).copied();
    // Seconds are whole.
    world.invariants.progress.stays.insert(old.to_owned(), since.unwrap_or(world.now) + delay - 1000);
}

/// A ReplicaSet was written by the controller.
pub fn limited(world: &mut World, before: &Value, after: &Value) {
    let limit = |o: &Value| o["metadata"]["annotations"].get(keys::SCALE_DOWN_DEADLINE).cloned();
    let hash = label(after, keys::POD_TEMPLATE_HASH);
    let begun = world.invariants.progress.pass_begun;
    let limits = &mut world.invariants.progress.limited;
    match (limit(before), limit(after)) {
        (_, None) => {
            limits.remove(hash);
        }
        (Some(old), Some(new)) if old == new => {}
        // A time that is over says nothing about the next one.
        _ => {
            limits.insert(hash.to_owned(), begun);
        }
    }
    let (from, to) = (int(before, "/spec/replicas"), int(after, "/spec/replicas"));
    let until = world.invariants.progress.stays.get(hash).copied().unwrap_or(0);
    let size = world.invariants.least_size(world.now);
    // Somebody goes back to it: now the steps say how many pods it has.
    let image = |template: Option<&Value>| template.map(|t| text(t, "/spec/containers/0/image").to_owned());
    let current = image(after.pointer("/spec/template")) == image(Some(world.template()));
    if to < from && to < size && !current && world.now < until && !world.invariants.lately_changed(world.now) {
        let left = (until - world.now) / 1000;
        world.violated(format!("2: scaled {hash} from {from} to {to} {left} s before its time"));
    }
}

/// The weight of a version was raised: it has the pods for that.
pub fn raised(world: &mut World, hash: &str, weight: i64) {
    let (now, rollout) = (world.now, world.rollout());
    let canary = &rollout["spec"]["strategy"]["canary"];
    let own_sizes = steps(rollout).iter().any(|s| s.get("setCanaryScale").is_some());
    let lost = world.invariants.lost_anything_lately(now);
    // Without dynamicStableScale the stable version is always asked to be whole; what it lacks is not given away.
    let whole = canary["dynamicStableScale"] != true && text(rollout, "/status/stableRS") == hash;
    // App Mesh refuses two nodes for the same pods: at a promotion everything passes by the old version, for the time of
    // two writes, before the stable node selects the new one.
    let status = &rollout["status"];
    let passes_by =
        canary.pointer("/trafficRouting/appMesh").is_some() && status["stableRS"] == status["currentPodHash"];
    if hash.is_empty()
        || whole
        || passes_by
        || hash.starts_with("exp-")
        || own_sizes
        || canary.get("replicaProgressThreshold").is_some()
        || lost
        || world.invariants.lately_changed(now)
        || world.invariants.steps_lately_changed(now)
    {
        return;
    }
    let least = world.invariants.least_size(now);
    let needed = (weight * least + max_weight(world) - 1) / max_weight(world);
    let there = available(world, hash);
    if there < needed {
        world
            .violated(format!("2: gave {hash} a weight of {weight}, for which it needs {needed} pods and has {there}"));
    }
}

/// The active Service of blue-green leaves the stable version for another: somebody, or the time, allowed it.
pub fn released(world: &mut World, to: &str) {
    let known = world.invariants.was_stable(to);
    if known || overruled(world) {
        return;
    }
    if is_paused(world) {
        world.violated(format!("8: switched the active Service to {to} while the user paused"));
    }
    let promoted = world.invariants.progress.promoted.iter().any(|hash| hash == to);
    let rollout = world.rollout();
    let blue_green = &rollout["spec"]["strategy"]["blueGreen"];
    let automatic = blue_green["autoPromotionEnabled"].as_bool().unwrap_or(true);
    let seconds = blue_green["autoPromotionSeconds"].as_i64().unwrap_or(0);
    let begun = rollout["status"]["pauseConditions"].as_array().into_iter().flatten();
    let begun = begun.into_iter().find(|p| p["reason"] == "BlueGreenPause").and_then(|p| time(&p["startTime"]));
    let over = begun.is_some_and(|at| at + seconds <= world.timestamp().as_second())
        || on(rollout, "/status/blueGreen/scaleUpPreviewCheckPoint");
    if promoted || automatic && (seconds == 0 || over) {
        return;
    }
    world.violated(format!("8: switched the active Service to {to}, which nobody promoted"));
}

/// A Service that nobody managed so far may carry another workload's traffic: it is switched to a whole version only.
pub fn taken_over(world: &mut World, name: &str, before: &Value, to: &str) {
    if before["metadata"]["annotations"].get(keys::MANAGED_BY).is_some() {
        return;
    }
    let now = world.now;
    // One that grows in this very pass counts as it was.
    let seen = |o: &Value| o["status"]["observedGeneration"] == o["metadata"]["generation"];
    let size = world.of_kind(Kind::ReplicaSet).find(|(_, o)| label(o, keys::POD_TEMPLATE_HASH) == to && seen(o));
    let size = size.map_or(0, |(_, o)| int(o, "/spec/replicas"));
    let there = available(world, to);
    if there < size && there < world.invariants.least_size(now) && !world.invariants.lost_anything_lately(now) {
        world.violated(format!("1: took Service {name} over for {to} with {there} of {size} pods"));
    }
}

/// A decision adds pods, then moves traffic, then takes pods away, so that a process may die between any two writes.
pub fn in_order(world: &mut World, snapshot: &Snapshot, decision: &Decision) {
    let size = |name: &str| snapshot.replica_sets.iter().find(|rs| rs.name == name).map_or(0, |rs| rs.replicas);
    let (mut traffic, mut fewer) = (false, false);
    for action in &decision.actions {
        match action {
            Action::PatchReplicaSet { name, change } => match change.replicas {
                Some(pods) if pods > size(name) && traffic => {
                    world.violated(format!("2: {name} grows only after the traffic moves"));
                }
                Some(pods) if pods < size(name) => fewer = true,
                _ => {}
            },
            Action::Route(_) | Action::SelectService { .. } => {
                traffic = true;
                if fewer {
                    world.violated("2: pods go before the traffic moves".to_owned());
                }
            }
            Action::EvictPod { .. } | Action::ScaleWorkload { .. } => fewer = true,
            _ => {}
        }
    }
}

/// The Deployment to which the Rollout refers gives its pods up as those of the Rollout come, and gets none back.
pub fn taken_from(world: &mut World, before: &Value, after: &Value) {
    let (from, to) = (int(before, "/spec/replicas"), int(after, "/spec/replicas"));
    let without = |o: &Value| {
        let mut o = o.clone();
        o["spec"]["replicas"] = Value::Null;
        o["metadata"] = Value::Null;
        o
    };
    if to > from || without(before) != without(after) {
        world.violated(format!("7: changed the referenced Deployment, its pods from {from} to {to}"));
    }
    let (now, mode) = (world.now, text(world.rollout(), "/spec/workloadRef/scaleDown").to_owned());
    let own: i64 = world
        .of_kind(Kind::ReplicaSet)
        .filter(|(_, o)| is_own(o))
        .map(|(_, o)| available(world, label(o, keys::POD_TEMPLATE_HASH)))
        .sum();
    let least = world.invariants.least_size(now);
    let left = if mode == "progressively" { own + to } else { own };
    let forgiven = world.invariants.lost_anything_lately(now) || world.invariants.progress.been_healthy;
    if !["progressively", "onsuccess"].contains(&mode.as_str()) {
        world.violated(format!("7: scaled the referenced Deployment to {to}, which nobody asked for"));
    } else if left < least && !forgiven {
        world.violated(format!("2: scaled the referenced Deployment to {to}: {left} pods serve of {least}"));
    }
}

//! The canary strategy: step by step, with and without traffic routing.

use super::decision::{Action, Stage};
use super::pass::{Pass, later};
use super::replicas::{self, Count};
use super::snapshot::ReplicaSet;
use super::{analyses, endpoints, experiments, traffic};
use crate::events::Event;
use tidegate_crds::keys;
use tidegate_crds::rollout::{Canary, CanaryStep, TrafficWeights};

/// Seconds for which an old stable version, or an aborted canary, stays when nothing else is said.
const DEFAULT_DELAY_SECONDS: i64 = 30;

/// Reason of a pause that a step asks for.
const PAUSE_STEP: &str = "CanaryPauseStep";

/// Where the steps stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// Index of the current step; the number of steps when all are done.
    pub index: usize,
    /// Number of steps.
    pub count: usize,
}

pub(crate) fn run(pass: &mut Pass<'_>, canary: &Canary) {
    let mut at = position(pass, canary);
    pass.status.current_step_index = (at.count > 0).then_some(at.index as i32);
    let routed = canary.traffic_routing.is_some();

    let targets = targets(pass, canary, at, routed);
    let halted = pass.halted();
    if !halted || pass.resized() || pass.status.abort {
        if routed {
            scale_routed(pass, canary, targets, halted);
        } else {
            scale_basic(pass, canary, targets);
        }
    }
    first_version(pass, canary);
    for rs in [pass.new_rs(), pass.stable_rs()].into_iter().flatten() {
        if !halted || pass.resized() {
            pass.remember_replicas(rs);
        }
    }
    let counts_reached = at_counts(pass, canary, at, targets, routed);
    switch_services(pass, canary, halted);
    let routing = traffic::run(pass, canary, at, counts_reached);
    experiments::run(pass, canary, at);
    analyses::canary(pass, canary, at);
    let mut done = at;
    if !halted && !pass.status.abort {
        done.index = advance(pass, canary, at, counts_reached, &routing);
    } else if !pass.rollout().spec.paused && !pass.status.abort {
        end_pause(pass, canary, at);
    }
    if pass.status.abort && !pass.promoted() {
        pass.status.current_step_index = (at.count > 0).then_some(0);
        pass.clear_pauses();
    }
    // Pods stand as all steps want them if the last one wanted no less. With routes a pass of their own takes back what
    // the steps set.
    let all = counts_reached && replicas::weight_at(canary, at.index) == replicas::weight_at(canary, at.count);
    if !routed && all {
        at = done;
    }
    promote_when_done(pass, canary, at, counts_reached, &routing);
}

/// The first version is the stable one from its beginning: there is none to go back to. Services and routes follow it as
/// soon as it has pods.
fn first_version(pass: &mut Pass<'_>, canary: &Canary) {
    if !pass.stable_hash().is_empty() {
        return;
    }
    if canary.ping_pong.is_some() {
        traffic::swap_ping_pong(pass);
    }
    super::conditions::promoted(pass, "Initial deploy");
}

/// The current step, within the bounds of the steps. The first deployment, what replaces one that never came up, and a
/// full promotion are past all of them.
fn position(pass: &mut Pass<'_>, canary: &Canary) -> Position {
    let count = replicas::steps(canary).len();
    let mut index = usize::try_from(pass.status.current_step_index.unwrap_or(0)).unwrap_or(0).min(count);
    if pass.stable_hash().is_empty() || pass.promoted() {
        index = count;
        pass.status.promote_full &= !pass.promoted();
    } else if pass.status.abort {
        index = 0;
    } else if pass.status.promote_full {
        index = count;
        pass.clear_pauses();
    } else if pass.unproven() {
        index = count;
    }
    Position { index, count }
}

/// How many pods canary and stable are to have.
fn targets(pass: &Pass<'_>, canary: &Canary, at: Position, routed: bool) -> (i32, i32) {
    let total = pass.replicas();
    if pass.stable_hash().is_empty() || pass.promoted() {
        return (total, 0);
    }
    let max = replicas::max_weight(canary);
    let weight = if pass.status.abort { 0 } else { replicas::weight_at(canary, at.index) };
    if !routed {
        let (surge, _) = replicas::bounds(canary.max_surge.as_ref(), canary.max_unavailable.as_ref(), total);
        return replicas::split(total, weight, max, surge);
    }
    let floor = canary.min_pods_per_replica_set.unwrap_or(0).min(total);
    let at_least = |pods: i32| if pods > 0 { pods.max(floor) } else { 0 };
    let scale = replicas::scale_at(canary, at.index).filter(|_| !pass.status.abort);
    let new = match scale {
        Some(scale) => match (scale.replicas, scale.weight) {
            (Some(pods), _) => pods,
            (None, Some(weight)) => replicas::share(weight, total, 100),
            (None, None) => replicas::share(weight, total, max),
        },
        // Pods that still serve stay until their traffic is gone.
        None => replicas::share(weight.max(serves(pass)), total, max),
    };
    let stable = if canary.dynamic_stable_scale {
        // Never fewer than what it really serves.
        let weights = pass.status.canary.weights.as_ref();
        // A weight of another version than the current one comes back to the stable one in this very pass.
        let current = |w: &&TrafficWeights| w.canary.pod_template_hash.as_deref() == Some(pass.hash.as_str());
        let served = weights.filter(current).map_or(max, |w| (max - w.canary.weight).max(w.stable.weight));
        // After an abort it grows step by step, as the traffic comes back.
        let weight = if pass.status.abort { traffic::next_lower(canary, max - served) } else { weight };
        replicas::share(max - weight, total, max).max(replicas::share(served, total, max))
    } else {
        total
    };
    let (mut new, mut stable) = (at_least(new), at_least(stable));
    if traffic::held(pass, canary).is_some() {
        stable = total;
    }
    let overtakes = pass.status.canary.weights.as_ref().is_some_and(|w| w.canary.weight > 0) && serves(pass) == 0;
    if unverified(pass) || overtakes {
        // The data plane still goes by earlier weights: nothing shrinks under traffic that may be there, nor under that
        // of a version whose Service the current one takes over in this pass.
        new = new.max(pass.new_rs().map_or(0, |rs| rs.replicas.min(total)));
        stable = stable.max(pass.stable_rs().map_or(0, |rs| rs.replicas.min(total)));
    }
    (new, stable)
}

/// The data plane has not taken the recorded weights, as far as it tells.
fn unverified(pass: &Pass<'_>) -> bool {
    pass.status.canary.weights.as_ref().is_some_and(|w| w.verified == Some(false))
}

/// The weight that the current template's pods have now, as far as it is known.
fn serves(pass: &Pass<'_>) -> i32 {
    let canary = pass.status.canary.weights.as_ref().map(|w| &w.canary);
    canary.filter(|c| c.pod_template_hash.as_deref() == Some(pass.hash.as_str())).map_or(0, |c| c.weight)
}

fn count(rs: Option<&ReplicaSet>) -> Count {
    rs.map_or_else(Count::default, |rs| Count { spec: rs.replicas, available: rs.available.min(rs.replicas) })
}

/// Without routing the ratio of pods is the weight, and every pod carries traffic.
fn scale_basic(pass: &mut Pass<'_>, canary: &Canary, targets: (i32, i32)) {
    let total = pass.replicas();
    let bounds = replicas::bounds(canary.max_surge.as_ref(), canary.max_unavailable.as_ref(), total);
    let (new, stable) = (pass.new_rs(), pass.stable_rs().filter(|_| !pass.promoted()));
    let others: Vec<_> = pass.others().into_iter().filter(|rs| rs.replicas > 0).collect();
    let old: Vec<_> = others.iter().map(|rs| count(Some(rs))).collect();
    let to = replicas::advance(total, bounds, targets, count(new), count(stable), &old);
    if let Some(rs) = stable {
        pass.scale(rs, to.stable);
        pass.keep(rs);
    }
    scale_new(pass, to.canary);
    for (rs, size) in others.into_iter().zip(to.old) {
        pass.scale(rs, size);
    }
}

/// Scales the ReplicaSet of the current template, also when it is only being created.
fn scale_new(pass: &mut Pass<'_>, to: i32) {
    match pass.new_rs() {
        Some(rs) => {
            pass.scale(rs, to);
            if !pass.status.abort {
                pass.keep(rs);
            }
        }
        None if to > 0 => {
            let rs =
                ReplicaSet { name: pass.new_name.clone(), labels: hash_label(&pass.hash), ..ReplicaSet::default() };
            pass.scale(&rs, to);
        }
        None => {}
    }
}

pub(crate) fn hash_label(hash: &str) -> std::collections::BTreeMap<String, String> {
    [(keys::POD_TEMPLATE_HASH.to_owned(), hash.to_owned())].into()
}

/// With routing the stable version stays whole, and capacity comes before traffic and goes after it.
fn scale_routed(pass: &mut Pass<'_>, canary: &Canary, (new, stable): (i32, i32), halted: bool) {
    if let Some(rs) = pass.stable_rs().filter(|_| !pass.promoted()) {
        pass.scale(rs, stable);
        pass.keep(rs);
    }
    if pass.status.abort && !pass.promoted() {
        shrink_aborted(pass, canary, new);
    } else {
        scale_new(pass, new);
    }
    if !halted {
        shrink_others(pass, canary);
    }
}

/// An aborted canary stays as it is until its traffic is gone and its time is over, and never grows again. With
/// dynamicStableScale and no time of its own it shrinks as its traffic does.
fn shrink_aborted(pass: &mut Pass<'_>, canary: &Canary, serving: i32) {
    let Some(rs) = pass.new_rs().filter(|rs| rs.replicas > 0) else { return };
    if unverified(pass) {
        return;
    }
    if canary.dynamic_stable_scale && canary.abort_scale_down_delay_seconds.is_none() {
        return pass.scale(rs, serving.min(rs.replicas));
    }
    let weight = pass.status.canary.weights.as_ref().map_or(0, |w| w.canary.weight);
    let whole = pass.stable_rs().is_some_and(|stable| stable.available >= pass.replicas());
    if weight > 0 || (rs.deadline().is_none() && !whole) {
        return;
    }
    let delay = i64::from(canary.abort_scale_down_delay_seconds.map_or(DEFAULT_DELAY_SECONDS as i32, |d| d));
    if delay == 0 {
        return;
    }
    match rs.deadline() {
        Some(deadline) if deadline <= pass.now => pass.scale(rs, 0),
        Some(deadline) => pass.wake_at(deadline),
        None => pass.delay_aborted(rs, delay),
    }
}

/// Old versions: one that was stable waits for its deadline, one that never was goes when nothing refers to it.
fn shrink_others(pass: &mut Pass<'_>, canary: &Canary) {
    let mut others: Vec<_> = pass.others().into_iter().filter(|rs| rs.replicas > 0).collect();
    // The newest first; what was replaced within the same second goes by its age.
    others.sort_by_key(|rs| std::cmp::Reverse((rs.deadline(), rs.revision())));
    let limit = canary.scale_down_delay_revision_limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap_or(0));
    let mut waiting = 0;
    for rs in others {
        if traffic::refers_to(pass, rs.hash()) || pass.promoted() && unverified(pass) {
            continue;
        }
        match rs.deadline().filter(|_| !canary.dynamic_stable_scale) {
            Some(deadline) if deadline > pass.now && waiting < limit => {
                waiting += 1;
                pass.wake_at(deadline);
            }
            _ => pass.scale(rs, 0),
        }
    }
}

/// Canary and stable have the pods that the current step asks for.
fn at_counts(pass: &Pass<'_>, canary: &Canary, at: Position, (new, stable): (i32, i32), routed: bool) -> bool {
    let Some(rs) = pass.new_rs() else { return false };
    // A threshold that no number of pods reaches holds steps up, but not the promotion of a whole version.
    let whole = at.index >= at.count && replicas::reached(None, rs.replicas, rs.available, new);
    if !whole && !replicas::reached(canary.replica_progress_threshold.as_ref(), rs.replicas, rs.available, new) {
        return false;
    }
    let old_available = pass.others().iter().any(|rs| rs.available > 0);
    if !routed && old_available {
        return false;
    }
    match pass.stable_rs().filter(|_| !pass.promoted()) {
        Some(rs) if routed => rs.replicas >= stable && rs.current >= stable,
        Some(rs) => rs.replicas == stable && rs.current == stable,
        None => true,
    }
}

/// Lets the Services select the pods of their version.
fn switch_services(pass: &mut Pass<'_>, canary: &Canary, halted: bool) {
    let pairs = traffic::pairs(pass, canary);
    let stable_hash = pass.stable_hash().to_owned();
    if !stable_hash.is_empty() {
        for pair in &pairs {
            switch(pass, &pair.stable, &stable_hash);
        }
    }
    if halted && !pass.status.abort || traffic::held(pass, canary).is_some() {
        return;
    }
    let weight = pass.status.canary.weights.as_ref().map_or(0, |w| w.canary.weight);
    let back_to_stable = pass.status.abort && (canary.traffic_routing.is_none() || weight == 0);
    let hash = if back_to_stable && !stable_hash.is_empty() { stable_hash } else { pass.hash.clone() };
    if pass.status.abort && !back_to_stable {
        return;
    }
    for pair in &pairs {
        switch(pass, &pair.canary, &hash);
    }
}

/// Lets a Service select the pods with `hash`, as soon as there are some. A Service that nobody managed so far waits for
/// all of them: it may be carrying another workload's traffic.
pub(crate) fn switch(pass: &mut Pass<'_>, name: &str, hash: &str) -> bool {
    let Some(service) = pass.snapshot.services.get(name) else { return false };
    if service.hash() == hash && service.managed_by.as_deref() == Some(pass.rollout().name()) {
        return true;
    }
    let Some(rs) = pass.rs_by_hash(hash) else { return false };
    let needed = if service.managed_by.is_none() { pass.size(rs).max(rs.replicas).max(1) } else { 1 };
    if rs.serving() < needed && pass.replicas() > 0 {
        return false;
    }
    let from = service.hash().to_owned();
    select(pass, name, &from, hash);
    if from != hash {
        pass.because(format!("switches Service {name} to {hash}"));
    }
    true
}

/// Lets a Service select the pods with the hash `to`.
pub(crate) fn select(pass: &mut Pass<'_>, name: &str, from: &str, to: &str) {
    let action = Action::SelectService { name: name.to_owned(), hash: to.to_owned() };
    if from == to {
        return pass.act(Stage::Traffic, action);
    }
    let message = format!("Switched selector for service '{name}' from '{from}' to '{to}'");
    pass.act_telling(Stage::Traffic, action, Event::normal("SwitchService", message));
}

/// Moves on from the current step, and over all that are done at once; gives the one that is current then.
fn advance(
    pass: &mut Pass<'_>,
    canary: &Canary,
    at: Position,
    counts_reached: bool,
    routing: &traffic::Outcome,
) -> usize {
    let mut index = at.index;
    while let Some(step) = replicas::steps(canary).get(index) {
        let first = index == at.index;
        if !first && starts_analysis(canary, index) {
            // The run begins with this step; a pause must not be told before it.
            pass.wake_at(pass.now);
            break;
        }
        // Counts and weights were looked at for the first step of the pass only.
        let ready = first && counts_reached && routing.settled;
        let route_taken = first && routing.taken;
        let done = step_done(pass, step, ready, route_taken, first);
        if !done {
            unknown_plugin(pass, step, index);
            if !first {
                pass.wake_at(pass.now);
            }
            break;
        }
        pass.tell(Event::normal(
            "RolloutStepCompleted",
            format!("Rollout step {}/{} completed ({})", index + 1, at.count, describe(step)),
        ));
        if step.pause.is_some() {
            pass.tell(Event::normal("RolloutResumed", "Rollout is resumed"));
        }
        index += 1;
    }
    if index != at.index {
        go_on(pass, at.count, index);
    }
    index
}

/// Another step is the current one.
fn go_on(pass: &mut Pass<'_>, count: usize, index: usize) {
    pass.because(format!("step {} of {count} is next", index + 1));
    pass.status.current_step_index = Some(index as i32);
    pass.status.canary.current_step_analysis_run_status = None;
    pass.status.canary.current_experiment = None;
    // What the next step needs (pods, runs) is made by the next pass, which the status write brings.
    pass.wake_at(pass.now);
}

/// While a verdict is open nothing moves, but the time of a pause passes: its step is done when it is over, and what is
/// waited for is the verdict alone.
fn end_pause(pass: &mut Pass<'_>, canary: &Canary, at: Position) {
    let Some(step) = replicas::steps(canary).get(at.index) else { return };
    let duration = step.pause.as_ref().and_then(|pause| pause.parse().ok().flatten());
    let start = pass.pause(PAUSE_STEP).map(|pause| pause.start_time.0);
    let (Some(duration), Some(start)) = (duration, start) else { return };
    let end = later(start, i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    if end > pass.now {
        pass.wake_at(end);
        return;
    }
    if let Some(pauses) = &mut pass.status.pause_conditions {
        pauses.retain(|pause| pause.reason != PAUSE_STEP);
    }
    let (number, what) = (at.index + 1, describe(step));
    pass.tell(Event::normal("RolloutStepCompleted", format!("Rollout step {number}/{} completed ({what})", at.count)));
    go_on(pass, at.count, at.index + 1);
}

/// The background analysis starts with the step at `index`.
fn starts_analysis(canary: &Canary, index: usize) -> bool {
    let start = canary.analysis.as_ref().and_then(|a| a.starting_step).and_then(|step| usize::try_from(step).ok());
    start == Some(index)
}

/// A step that only a plugin of the peer could run stands still, and says so once.
fn unknown_plugin(pass: &mut Pass<'_>, step: &CanaryStep, index: usize) {
    let Some(plugin) = &step.plugin else { return };
    let before = &pass.rollout().status;
    let known = !pass.reset
        && before.current_step_index == Some(index as i32)
        && before.current_pod_hash.as_deref() == Some(&pass.hash);
    if known {
        return;
    }
    let message = format!(
        "spec.strategy.canary.steps[{index}].plugin: {:?} is not built in; promote the Rollout to go on without it",
        plugin.name
    );
    pass.because(message.clone());
    pass.tell(Event::warning("ReconciliationError", message));
}

/// The step is complete. A pause begins here when it is due, whatever else the step asks for.
fn step_done(pass: &mut Pass<'_>, step: &CanaryStep, ready: bool, route_taken: bool, first: bool) -> bool {
    if let Some(pause) = &step.pause {
        return pause_done(pass, pause, first);
    }
    if step.set_weight.is_some() || step.set_canary_scale.is_some() {
        return ready;
    }
    if step.experiment.is_some() {
        return first && experiments::succeeded(pass);
    }
    if step.analysis.is_some() {
        return first && analyses::step_succeeded(pass);
    }
    // Routes are set by the traffic pass of this index, and the next step may count on them once they are in force.
    if step.set_header_route.is_some() || step.set_mirror_route.is_some() {
        return route_taken;
    }
    // A step without a kind has nothing to wait for.
    step.plugin.is_none()
}

fn pause_done(pass: &mut Pass<'_>, pause: &tidegate_crds::rollout::Pause, first: bool) -> bool {
    if first && pass.resumed() {
        pass.status.controller_pause = false;
        pass.status.pause_conditions = None;
        return true;
    }
    let duration = pause.parse().ok().flatten();
    if duration.is_some_and(|d| d.is_zero()) {
        return true;
    }
    match pass.pause(PAUSE_STEP).map(|p| p.start_time.0) {
        None => {
            pass.add_pause(PAUSE_STEP);
            if let Some(duration) = duration {
                pass.wake_after(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
            }
            false
        }
        Some(start) => {
            let Some(duration) = duration else { return false };
            let end = later(start, i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
            if end <= pass.now {
                pass.clear_pauses();
                return true;
            }
            pass.wake_at(end);
            false
        }
    }
}

/// A step in the words of its event.
pub(crate) fn describe(step: &CanaryStep) -> String {
    if let Some(weight) = step.set_weight {
        return format!("setWeight: {weight}");
    }
    if let Some(pause) = &step.pause {
        return match &pause.duration {
            None => "pause".to_owned(),
            Some(tidegate_crds::IntOrString::Int(seconds)) => format!("pause: {seconds}"),
            Some(tidegate_crds::IntOrString::String(text)) => format!("pause: {text}"),
        };
    }
    if let Some(scale) = &step.set_canary_scale {
        return match (scale.weight, scale.replicas) {
            (Some(weight), _) => format!("setCanaryScale{{weight: {weight}}}"),
            (None, Some(pods)) => format!("setCanaryScale{{replicas: {pods}}}"),
            (None, None) => format!("setCanaryScale{{matchTrafficWeight: {}}}", scale.match_traffic_weight),
        };
    }
    match step {
        CanaryStep { experiment: Some(_), .. } => "experiment".to_owned(),
        CanaryStep { analysis: Some(_), .. } => "analysis".to_owned(),
        CanaryStep { set_header_route: Some(route), .. } => format!("setHeaderRoute: {}", route.name),
        CanaryStep { set_mirror_route: Some(route), .. } => format!("setMirrorRoute: {}", route.name),
        CanaryStep { plugin: Some(plugin), .. } => format!("plugin: {}", plugin.name),
        _ => "invalid".to_owned(),
    }
}

/// Makes the canary the stable version when all steps are done and all its pods are there.
fn promote_when_done(pass: &mut Pass<'_>, canary: &Canary, at: Position, counts: bool, routing: &traffic::Outcome) {
    if pass.promoted() || at.index < at.count || pass.status.abort || pass.halted() {
        return;
    }
    let Some(new) = pass.new_rs() else { return };
    let total = pass.replicas();
    let whole = replicas::reached(None, new.replicas, new.serving(), total);
    if !whole && !replicas::reached(canary.replica_progress_threshold.as_ref(), new.replicas, new.serving(), total) {
        return;
    }
    let in_window = super::revisions::in_rollback_window(pass);
    let full = pass.status.promote_full;
    if !full && !in_window && (!counts || !routing.settled) {
        return;
    }
    for pair in traffic::pairs(pass, canary).iter().filter(|pair| pair.ping_pong) {
        // The Services change their roles at once: what is the canary's gets everything.
        if !endpoints::await_reach(pass, &pair.canary, Some(new)) {
            return;
        }
    }
    let reason = if full {
        "Full promotion requested".to_owned()
    } else if in_window {
        "Rollback within window".to_owned()
    } else {
        format!("Completed all {} canary steps", at.count)
    };
    if let Some(old) = pass.stable_rs()
        && canary.traffic_routing.is_some()
        && !canary.dynamic_stable_scale
    {
        let delay = canary.scale_down_delay_seconds.map_or(DEFAULT_DELAY_SECONDS, i64::from);
        pass.delay_scale_down(old, delay);
    }
    if canary.ping_pong.is_some() {
        traffic::swap_ping_pong(pass);
    }
    super::conditions::promoted(pass, &reason);
    pass.wake_at(pass.now);
}

//! What must hold after every write, whatever happens.
//!
//! The checks look at the truth of the simulated cluster (pods, Services, routes), not at what the controller believes.
//! What went away by itself a moment ago is forgiven: no cache can know it yet.

mod flips;

use crate::aws;
use crate::cluster::{Actor, Id, Kind, Millis, ROLLOUT, World, int, label, text};
use crate::meshes;
use crate::platform::available;
use crate::progress::{self, Progress};
use crate::shares::{
    ingress_weight, is_routed, max_weight, route_weights, rule_weights, selected, service_weights, shares, still_served,
};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::keys;

/// For how long a loss that nobody ordered, or a user's change, may not have reached the controller: a broken watch, its
/// list, and calls that time out in one pass.
pub const BLIND: Millis = 150_000;

/// What the checks remember.
#[derive(Debug, Default)]
pub struct Invariants {
    /// When pods of a hash went away by themselves.
    lost: BTreeMap<String, Millis>,
    /// Most pods of a hash that were available at one time.
    most: BTreeMap<String, i64>,
    /// `spec.replicas` of the Rollout as users set it.
    sizes: Vec<(Millis, i64)>,
    /// The smallest size that the controller may have believed in when the spec became invalid.
    least_before_mistake: i64,
    /// Images of the Rollout's template as users set them.
    images: Vec<(Millis, String)>,
    /// Values of fields that the controller writes, and how often one came back.
    fields: BTreeMap<String, flips::Flips>,
    /// When anything but the controller last acted.
    disturbed: Millis,
    /// Hashes that were stable at some time.
    been_stable: Vec<String>,
    /// When a user last asked for a full promotion.
    pub promoted_full: Option<Millis>,
    /// Until when a watch may be behind.
    pub blind_until: Millis,
    /// Fields that came back at most.
    allowed_flips: usize,
    /// The user changed the strategy otherwise than by its steps.
    spec_changed: Vec<Millis>,
    /// The user changed the steps.
    steps_changed: Vec<Millis>,
    /// When a Service last led to a ready pod of a hash.
    led: BTreeMap<(String, String), Millis>,
    /// When a Service's target groups last got a ready pod of a hash.
    registered: BTreeMap<(String, String), Millis>,
    /// Weights by Service that the Gateway, or the load balancer, has taken.
    pub taken: Vec<(String, i64)>,
    pub progress: Progress,
}

impl Invariants {
    pub fn lost(&mut self, hash: &str, now: Millis) {
        self.lost.insert(hash.to_owned(), now);
        self.disturbed = now;
    }

    pub fn saw_available(&mut self, hash: &str, pods: i64) {
        let most = self.most.entry(hash.to_owned()).or_default();
        *most = (*most).max(pods);
    }

    /// The Service leads to ready pods of these hashes now.
    pub fn lead(&mut self, service: &str, hashes: Vec<String>, now: Millis) {
        for hash in hashes {
            self.led.insert((service.to_owned(), hash), now);
        }
    }

    /// The target groups of the Service have ready pods of these hashes now.
    pub fn registered(&mut self, service: &str, hashes: Vec<String>, now: Millis) {
        for hash in hashes {
            self.registered.insert((service.to_owned(), hash), now);
        }
    }

    pub fn disturbed(&mut self, now: Millis) {
        self.disturbed = now;
    }

    fn lately_lost(&self, hash: &str, now: Millis) -> bool {
        self.lost.get(hash).is_some_and(|at| now - at <= BLIND)
    }

    /// The smallest size that the controller may still believe in.
    pub fn least_size(&self, now: Millis) -> i64 {
        let mut least = i64::MAX;
        for (i, (_, size)) in self.sizes.iter().enumerate() {
            let until = self.sizes.get(i + 1).map_or(Millis::MAX, |(at, _)| *at);
            if now - until.min(now) <= BLIND {
                least = least.min(*size);
            }
        }
        if least == i64::MAX { 1 } else { least }
    }

    pub fn lately_changed(&self, now: Millis) -> bool {
        self.spec_changed.iter().any(|at| now - at <= BLIND)
    }

    pub fn steps_lately_changed(&self, now: Millis) -> bool {
        self.steps_changed.iter().any(|at| now - at <= BLIND)
    }

    pub fn lost_anything_lately(&self, now: Millis) -> bool {
        self.lost.values().any(|at| now - at <= BLIND)
    }

    pub fn was_stable(&self, hash: &str) -> bool {
        self.been_stable.iter().any(|h| h == hash)
    }
}

/// Looks at a write.
pub fn written(world: &mut World, actor: Actor, id: &Id, before: Option<&Value>, after: Option<&Value>) {
    if actor != Actor::Controller {
        remember(world, actor, id, before, after);
        return;
    }
    if let Some(after) = after {
        only_its_own(world, id, before, after);
        flips::check(world, id, after);
    }
    match (id.0, before, after) {
        (Kind::ReplicaSet, Some(before), Some(after)) => {
            resized(world, before, after);
            progress::limited(world, before, after);
        }
        (Kind::ReplicaSet, Some(before), None) => deleted(world, before),
        (Kind::Service, Some(before), Some(after)) => switched(world, &id.1, before, after),
        (
            Kind::HttpRoute
            | Kind::Ingress
            | Kind::VirtualService
            | Kind::TrafficSplit
            | Kind::TraefikService
            | Kind::ApisixRoute
            | Kind::Mapping
            | Kind::VirtualRouter,
            before,
            Some(after),
        ) => routed(world, id, before, after),
        (Kind::DestinationRule | Kind::VirtualNode, Some(before), Some(after)) => selects_others(world, before, after),
        (Kind::Rollout, Some(before), Some(after)) => status(world, before, after),
        (Kind::Deployment, Some(before), Some(after)) => progress::taken_from(world, before, after),
        (Kind::Rollout | Kind::Service | Kind::HttpRoute | Kind::Deployment, _, None) => {
            world.violated(format!("7: deleted {} {}, which is the user's", id.0.as_str(), id.1));
        }
        _ => {}
    }
}

/// Notes what users and the platform did.
fn remember(world: &mut World, actor: Actor, id: &Id, before: Option<&Value>, after: Option<&Value>) {
    let now = world.now;
    let invariants = &mut world.invariants;
    if actor == Actor::User {
        invariants.disturbed = now;
    }
    if id.0 == Kind::Deployment {
        image(world);
    }
    let (Kind::Rollout, Some(after)) = (id.0, after) else { return };
    image(world);
    if actor == Actor::User {
        progress::remember(world, before, after);
    }
    let invariants = &mut world.invariants;
    if after.pointer("/status/promoteFull") == Some(&Value::Bool(true)) {
        invariants.promoted_full = Some(now);
    }
    // Steps may ask for the same weight again; beyond that nothing comes back.
    let steps = after.pointer("/spec/strategy/canary/steps").and_then(Value::as_array).map_or(0, Vec::len);
    invariants.allowed_flips = invariants.allowed_flips.max(steps + 3);
    let size = after.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    if invariants.sizes.last().is_none_or(|(_, last)| *last != size) {
        invariants.sizes.push((now, size));
    }
    let Some(before) = before else { return };
    let invalid = |o: &Value| o["spec"]["progressDeadlineSeconds"] == 0;
    match (invalid(before), invalid(after)) {
        (false, true) => invariants.least_before_mistake = invariants.least_size(now),
        // What was changed meanwhile, the controller acts on only now.
        (true, false) => invariants.sizes.extend([(now - 1, invariants.least_before_mistake), (now, size)]),
        _ => {}
    }
    let strategy = |o: &Value| o["spec"]["strategy"].clone();
    if without_steps(strategy(before)) != without_steps(strategy(after)) {
        invariants.spec_changed.push(now);
    }
    if strategy(before) != strategy(after) {
        invariants.steps_changed.push(now);
    }
}

/// Notes the image that the user wants.
fn image(world: &mut World) {
    let (now, image) = (world.now, text(world.template(), "/spec/containers/0/image").to_owned());
    if world.invariants.images.last().is_none_or(|(_, last)| *last != image) {
        world.invariants.images.push((now, image));
    }
}

fn without_steps(mut strategy: Value) -> Value {
    if let Some(canary) = strategy.get_mut("canary").and_then(Value::as_object_mut) {
        canary.remove("steps");
    }
    strategy
}

fn hash_of(object: &Value) -> String {
    label(object, keys::POD_TEMPLATE_HASH).to_owned()
}

/// The user's `maxUnavailable`, resolved as the reference says, or 1 when nothing could move otherwise.
fn unavailable(world: &World, total: i64) -> i64 {
    let canary = &world.rollout()["spec"]["strategy"]["canary"];
    let resolve = |field: &str, up: bool| match &canary[field] {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        Value::String(percent) => {
            let product = percent.trim_end_matches('%').parse::<i64>().unwrap_or(0) * total;
            if up { (product + 99) / 100 } else { product / 100 }
        }
        _ if up => (25 * total + 99) / 100,
        _ => 25 * total / 100,
    };
    match (resolve("maxSurge", true), resolve("maxUnavailable", false)) {
        (0, 0) => 1,
        (_, unavailable) => unavailable,
    }
}

/// Pods of a ReplicaSet that serve and will go on serving.
fn serving(world: &World, replica_set: &Value) -> i64 {
    available(world, &hash_of(replica_set)).min(int(replica_set, "/spec/replicas"))
}

/// A ReplicaSet got another size.
fn resized(world: &mut World, before: &Value, after: &Value) {
    let (from, to) = (int(before, "/spec/replicas"), int(after, "/spec/replicas"));
    if from == to {
        return;
    }
    let hash = hash_of(after);
    let name = text(after, "/metadata/name").to_owned();
    let stable = text(world.rollout(), "/status/stableRS").to_owned();
    if to > from {
        grown(world, after, &hash, &stable, &name);
        return;
    }
    let (now, least) = (world.now, world.invariants.least_size(world.now));
    let share = still_served(world, &hash);
    if world.invariants.lately_changed(now) {
        return;
    }
    let rollout = world.rollout();
    if rollout.pointer("/spec/strategy/blueGreen").is_some() {
        if share > 0 && to < least {
            world.violated(format!("2: scaled {name} to {to} of {least} although the active Service selects it"));
        }
        return;
    }
    let canary = rollout["spec"]["strategy"]["canary"].clone();
    if is_routed(world) {
        if share == 0 {
            return;
        }
        let floor = canary["minPodsPerReplicaSet"].as_i64().unwrap_or(0).min(least).max(1.min(least));
        let needed = (share * least + 99) / 100;
        let dynamic = canary["dynamicStableScale"] == true;
        let sized_by_steps =
            canary["steps"].as_array().into_iter().flatten().any(|s| s.get("setCanaryScale").is_some())
                || world.invariants.steps_lately_changed(now);
        let promise = if hash == stable && !dynamic {
            least
        } else if hash != stable && sized_by_steps {
            floor
        } else {
            needed.max(floor)
        };
        if to < promise {
            world.violated(format!(
                "2: scaled {name} to {to} although it has {share} % of the traffic (needs {promise})"
            ));
        }
        return;
    }
    // Without routing every pod carries traffic.
    let others: i64 =
        world.of_kind(Kind::ReplicaSet).filter(|(n, o)| **n != name && is_own(o)).map(|(_, o)| serving(world, o)).sum();
    // What the ReplicaSet controller has told: a pod that became available just now, the controller cannot know of.
    let told = available(world, &hash).min(from).min(int(before, "/status/availableReplicas"));
    let (there, left) = (others + told, others + serving(world, after));
    let promise = least - unavailable(world, least).max(unavailable(world, int(rollout, "/spec/replicas")));
    let forgiven = world.invariants.lost.values().any(|at| now - at <= BLIND) || now < world.invariants.blind_until;
    if left < there && left < promise && !forgiven {
        world.violated(format!(
            "2: scaled {name} from {from} to {to}: {left} pods serve of {promise} that were promised"
        ));
    }
}

/// Only the newest version and the stable one ever grow.
fn grown(world: &mut World, after: &Value, hash: &str, stable: &str, name: &str) {
    let now = world.now;
    let image = text(after, "/spec/template/spec/containers/0/image");
    let images = &world.invariants.images;
    let current = images.iter().enumerate().any(|(i, (_, wanted))| {
        let until = images.get(i + 1).map_or(Millis::MAX, |(at, _)| *at);
        wanted == image && now - until.min(now) <= BLIND
    });
    if hash != stable && !current {
        world.violated(format!("3: scaled {name} up, which is neither the newest nor the stable version"));
    }
}

fn serving_any(world: &World, hash: &str) -> bool {
    world.of_kind(Kind::ReplicaSet).any(|(_, o)| is_own(o) && hash_of(o) == hash && serving(world, o) > 0)
}

pub fn is_own(object: &Value) -> bool {
    text(object, "/metadata/ownerReferences/0/name") == ROLLOUT
}

fn deleted(world: &mut World, before: &Value) {
    let name = text(before, "/metadata/name").to_owned();
    if !is_own(before) {
        world.violated(format!("7: deleted ReplicaSet {name}, which is somebody else's"));
    }
    if int(before, "/spec/replicas") > 0 {
        world.violated(format!("2: deleted ReplicaSet {name}, which still has pods"));
    }
    if hash_of(before) == text(world.rollout(), "/status/stableRS") {
        world.violated(format!("2: deleted the stable ReplicaSet {name}"));
    }
}

/// A destination got traffic that it did not have: somebody has to be there.
fn must_serve(world: &mut World, hash: &str, what: &str) {
    let now = world.now;
    if let Some(variant) = hash.strip_prefix("exp-") {
        let empty = world.of_kind(Kind::Experiment).any(|(name, experiment)| {
            variant.starts_with(name.as_str())
                && text(experiment, "/status/phase") == "Running"
                && int(experiment, "/status/templateStatuses/0/availableReplicas") == 0
        });
        if empty {
            world.violated(format!("1: {what} {hash}, an experiment's variant without pods"));
        }
        return;
    }
    if hash.is_empty() || available(world, hash) > 0 {
        return;
    }
    let nobody = world.of_kind(Kind::ReplicaSet).filter(|(_, o)| is_own(o)).all(|(_, o)| serving(world, o) == 0);
    if nobody || world.invariants.lately_lost(hash, now) || world.invariants.least_size(now) == 0 {
        return;
    }
    world.violated(format!("1: {what} {hash}, which has no available pod"));
}

/// A Service got traffic, or counts as switched: it has to lead to the version that is meant.
fn must_lead(world: &mut World, service: &str, hash: &str, what: &str) {
    let now = world.now;
    let known = world.get(Kind::EndpointSlice, service).is_some() && now >= world.invariants.blind_until;
    let led = world.invariants.led.get(&(service.to_owned(), hash.to_owned()));
    // What has no pods, no endpoint can lead to; that is judged by itself.
    let variant = hash.starts_with("exp-");
    let first = is_first(world) || !variant && available(world, hash) == 0;
    if first || !known || led.is_some_and(|at| now - at <= BLIND) || world.invariants.lately_changed(now) {
        return;
    }
    // A slice is written when something changes: what it said last holds.
    let ready = |pod: &Value| {
        let name = text(pod, "/targetRef/name");
        pod.pointer("/conditions/ready") == Some(&Value::Bool(true))
            && (variant && name == hash || world.pods.get(name).is_some_and(|p| p.hash == hash))
    };
    let slice = world.get(Kind::EndpointSlice, service).and_then(|slice| slice["endpoints"].as_array());
    if slice.into_iter().flatten().any(ready) || world.invariants.lately_lost(hash, now) {
        return;
    }
    world.violated(format!("1: {what} {hash}, to which no endpoint of {service} leads"));
}

/// All traffic goes to a Service for good: where AWS is asked, its target groups have to have pods of the version.
fn must_be_registered(world: &mut World, service: &str, hash: &str, what: &str) {
    let now = world.now;
    let lately = world.invariants.registered.get(&(service.to_owned(), hash.to_owned()));
    let there = aws::is_target(world, service, hash) || lately.is_some_and(|at| now - at <= BLIND);
    let forgiven = now < world.invariants.blind_until
        || world.invariants.lately_changed(now)
        || world.invariants.lately_lost(hash, now)
        || is_first(world)
        || available(world, hash) == 0;
    if world.aws && !there && !forgiven {
        world.violated(format!("1: {what} {hash}, of which {service} has no target"));
    }
}

fn switched(world: &mut World, name: &str, before: &Value, after: &Value) {
    let key = format!("/spec/selector/{}", keys::POD_TEMPLATE_HASH);
    let (from, to) = (text(before, &key), text(after, &key).to_owned());
    if from == to {
        return;
    }
    let mut rest = (before["spec"]["selector"].clone(), after["spec"]["selector"].clone());
    for selector in [&mut rest.0, &mut rest.1] {
        if let Some(map) = selector.as_object_mut() {
            map.remove(keys::POD_TEMPLATE_HASH);
        }
    }
    if rest.0 != rest.1 {
        world.violated(format!("7: changed the user's part of the selector of Service {name}"));
    }
    // Nobody but testers reaches the preview, nor what was one for a controller that has not heard of a move.
    let preview = text(world.rollout(), "/spec/strategy/blueGreen/previewService") == name;
    let used = service_weights(world).iter().any(|(service, weight)| service == name && *weight > 0);
    if !preview && (used || !world.invariants.lately_changed(world.now)) {
        must_serve(world, &to, &format!("switched Service {name} to"));
        active_is_full(world, name, &to);
        progress::taken_over(world, name, before, &to);
    }
    two_at_most(world);
}

/// The active Service switches only to a version that is there in full, unless it switches back after an abort.
fn active_is_full(world: &mut World, name: &str, to: &str) {
    let rollout = world.rollout();
    if text(rollout, "/spec/strategy/blueGreen/activeService") != name || text(rollout, "/status/stableRS") == to {
        return;
    }
    let (now, least) = (world.now, world.invariants.least_size(world.now));
    let there = available(world, to);
    must_be_proven(world, to, "PrePromotion", "prePromotionAnalysis", "switched the active Service to");
    progress::released(world, to);
    if there < least && !world.invariants.lately_lost(to, now) && !world.invariants.lately_changed(now) {
        world.violated(format!("2: switched the active Service to {to}, which has {there} of {least} pods"));
    }
}

/// No version was out yet that somebody could go back to.
pub fn is_first(world: &World) -> bool {
    world.invariants.been_stable.is_empty() || !world.invariants.progress.been_healthy
}

/// A version that has to be proven got through its analysis, unless somebody overruled that.
fn must_be_proven(world: &mut World, hash: &str, purpose: &str, field: &str, what: &str) {
    let (now, rollout) = (world.now, world.rollout());
    let first = is_first(world);
    let asked = rollout.pointer("/spec/strategy/blueGreen").is_some_and(|b| b.get(field).is_some());
    let window = rollout.pointer("/spec/rollbackWindow").is_some();
    let full = rollout.pointer("/status/promoteFull") == Some(&Value::Bool(true))
        || world.invariants.promoted_full.is_some_and(|at| now - at <= BLIND);
    let known = world.invariants.been_stable.iter().any(|h| h == hash);
    if first || !asked || window || full || known || world.invariants.lately_changed(now) {
        return;
    }
    let proven = world.of_kind(Kind::AnalysisRun).any(|(_, run)| {
        label(run, keys::ROLLOUT_TYPE) == purpose
            && label(run, keys::POD_TEMPLATE_HASH) == hash
            && text(run, "/status/phase") == "Successful"
    });
    if !proven {
        world.violated(format!("8: {what} {hash} without a successful {purpose} analysis"));
    }
}

fn two_at_most(world: &mut World) {
    let shares = shares(world);
    let versions: Vec<&String> = shares.keys().filter(|h| !h.starts_with("exp-")).collect();
    if versions.len() > 2 {
        world.violated(format!("3: {} versions have traffic: {versions:?}", versions.len()));
    }
}

/// Subsets of a DestinationRule, or a VirtualNode, select other pods.
fn selects_others(world: &mut World, before: &Value, after: &Value) {
    if meshes::foreign(before) != meshes::foreign(after) || before["spec"]["host"] != after["spec"]["host"] {
        world.violated(format!("7: changed what is the user's in {}", text(after, "/kind")));
    }
    for place in meshes::moved(before, after) {
        if service_weights(world).iter().any(|(service, weight)| *service == place && *weight > 0) {
            must_serve(world, &selected(world, &place), &format!("let {place} select"));
        }
    }
    two_at_most(world);
}

fn routed(world: &mut World, id: &Id, before: Option<&Value>, after: &Value) {
    let weights = |object: &Value| match id.0 {
        Kind::HttpRoute => route_weights(object),
        Kind::Ingress if !meshes::is_ours(&id.1) => {
            let (weight, max) = ingress_weight(object);
            vec![("web-canary".to_owned(), weight), ("web-stable".to_owned(), max - weight)]
        }
        _ => meshes::weights(id.0, &id.1, object).unwrap_or_default(),
    };
    if id.0 != Kind::HttpRoute && before.is_some_and(|b| meshes::foreign(b) != meshes::foreign(after)) {
        world.violated(format!("7: changed what is the user's in {} {}", id.0.as_str(), id.1));
    }
    if weights(after).is_empty() || !is_routed(world) {
        // A header route in an object of its own; a route that counts no more.
        return;
    }
    // Of an Ingress the roles are known, of a route the names.
    let canary = &world.rollout()["spec"]["strategy"]["canary"];
    let name = |service: String| match service.as_str() {
        "canary" | "stable" => text(canary, &format!("/{service}Service")).to_owned(),
        _ => service,
    };
    let named = |weights: Vec<(String, i64)>| weights.into_iter().map(|(s, w)| (name(s), w)).collect::<Vec<_>>();
    // Without an object of the Rollout's making the stable Service has everything.
    let nothing = || vec![(text(canary, "/stableService").to_owned(), max_weight(world))];
    let (old, new) = (before.map_or_else(nothing, |b| named(weights(b))), named(weights(after)));
    let sum: i64 = new.iter().map(|(_, w)| w).sum();
    let max = max_weight(world);
    if sum != max || new.iter().any(|(_, w)| *w < 0) {
        world.violated(format!("1: the weights of {} add up to {sum}, not {max}: {new:?}", id.1));
    }
    for (service, weight) in &new {
        let had = old.iter().find(|(s, _)| s == service).map_or(0, |(_, w)| *w);
        if *weight > had {
            let hash = selected(world, service);
            let what = format!("raised the weight of {service} from {had} to {weight}:");
            must_serve(world, &hash, &what);
            must_lead(world, service, &hash, &what);
            let promoted = world.rollout()["status"]["stableRS"] == world.rollout()["status"]["currentPodHash"];
            if promoted
                && aws::weighs(world)
                && *service == text(world.rollout(), "/spec/strategy/canary/stableService")
            {
                must_be_registered(world, service, &hash, &what);
            }
            progress::raised(world, &hash, *weight);
        }
    }
    if id.0 == Kind::HttpRoute {
        for rule in after["spec"]["rules"].as_array().into_iter().flatten() {
            let weights = rule_weights(rule);
            let sum: i64 = weights.iter().map(|(_, w)| w).sum();
            if weights.len() > 1 && text(rule, "/name") != "foreign" && sum != max {
                world.violated(format!("1: the weights of rule {} add up to {sum}: {weights:?}", rule["name"]));
            }
        }
        let foreign = |route: Option<&Value>| {
            let rules = route.and_then(|r| r.pointer("/spec/rules")).and_then(Value::as_array);
            rules.into_iter().flatten().find(|r| text(r, "/name") == "foreign").cloned()
        };
        if foreign(before) != foreign(Some(after)) {
            world.violated("7: changed a rule of the route that is not the Rollout's".to_owned());
        }
    }
    two_at_most(world);
}

/// The Rollout's status.
fn status(world: &mut World, before: &Value, after: &Value) {
    let now = world.now;
    if before["spec"] != after["spec"] && !before["spec"]["replicas"].is_null() {
        world.violated("7: changed the user's spec of the Rollout".to_owned());
    }
    progress::moved(world, before, after);
    let (old, new) = (text(before, "/status/stableRS"), text(after, "/status/stableRS").to_owned());
    if old != new {
        let least = world.invariants.least_size(now);
        let threshold = after.pointer("/spec/strategy/canary/replicaProgressThreshold");
        let needed = match threshold.map(|t| (text(t, "/type").to_owned(), int(t, "/value"))) {
            Some((kind, value)) if kind == "Percent" => (least * value + 99) / 100,
            Some((_, value)) => value.min(least),
            None => least,
        };
        let most = world.invariants.most.get(&new).copied().unwrap_or(0);
        // The first version is the stable one from its beginning.
        if !old.is_empty() && most < needed && !world.invariants.lately_changed(now) {
            world.violated(format!("2: made {new} the stable version; it never had more than {most} of {needed} pods"));
        }
        must_be_proven(world, &new, "PostPromotion", "postPromotionAnalysis", "made stable");
        let active = text(world.rollout(), "/spec/strategy/blueGreen/activeService").to_owned();
        if !active.is_empty() && !old.is_empty() && serving_any(world, &new) {
            must_lead(world, &active, &new, "made stable");
            must_be_registered(world, &active, &new, "made stable");
        }
        world.invariants.been_stable.push(new.clone());
        if new.is_empty() {
            world.violated("2: forgot the stable version".to_owned());
        }
    }
    nobody_is_left(world);
    // As long as the spec is not valid, they stay what they were under the one before.
    let valid = !text(after, "/status/message").starts_with("InvalidSpec");
    if let Some(weights) = after.pointer("/status/canary/weights").filter(|_| valid) {
        let more = weights.get("additional").and_then(Value::as_array).into_iter().flatten();
        let sum = int(weights, "/canary/weight")
            + int(weights, "/stable/weight")
            + more.map(|d| int(d, "/weight")).sum::<i64>();
        let max = after.pointer("/spec/strategy/canary/trafficRouting/maxTrafficWeight").and_then(Value::as_i64);
        if sum != max.unwrap_or(100) && !world.invariants.lately_changed(now) {
            world.violated(format!("1: the recorded weights add up to {sum}"));
        }
    }
}

/// Traffic does not stay with a version whose pods are gone while the stable one has some.
fn nobody_is_left(world: &mut World) {
    let now = world.now;
    let stable = text(world.rollout(), "/status/stableRS").to_owned();
    if now < world.invariants.blind_until || available(world, &stable) == 0 || !is_routed(world) {
        return;
    }
    for hash in shares(world).into_keys() {
        let lost = world.invariants.lost.get(&hash).copied();
        let gone =
            available(world, &hash) == 0 && !hash.starts_with("exp-") && world.invariants.most.contains_key(&hash);
        if gone && lost.is_some_and(|at| now - at > 40_000) && !world.invariants.lately_changed(now) {
            world.violated(format!("1: {hash} still has traffic, and no pod since more than 40 s"));
        }
    }
}

/// Whether the object is one that the controller may write.
fn only_its_own(world: &mut World, id: &Id, before: Option<&Value>, after: &Value) {
    let own = match id.0 {
        Kind::Rollout => id.1 == ROLLOUT,
        Kind::ReplicaSet | Kind::AnalysisRun | Kind::Experiment => is_own(after),
        Kind::Service => ["web-canary", "web-stable", "web-active", "web-preview"].contains(&id.1.as_str()),
        Kind::HttpRoute => id.1 == "route",
        Kind::DestinationRule => meshes::is_ours(&id.1),
        Kind::Ingress
        | Kind::VirtualService
        | Kind::TrafficSplit
        | Kind::TraefikService
        | Kind::ApisixRoute
        | Kind::Mapping
        | Kind::VirtualRouter
        | Kind::VirtualNode => is_own(after) || meshes::is_ours(&id.1),
        Kind::Deployment => id.1 == text(world.rollout(), "/spec/workloadRef/name"),
        Kind::AnalysisTemplate | Kind::EndpointSlice | Kind::MeshService => false,
    };
    if !own {
        world.violated(format!("7: wrote {} {}, which is somebody else's", id.0.as_str(), id.1));
    }
    let Some(before) = before else { return };
    for part in ["labels", "annotations"] {
        let kept = |o: &Value| o["metadata"][part]["user"].clone();
        if kept(before) != kept(after) {
            world.violated(format!("7: changed the user's {part} of {} {}", id.0.as_str(), id.1));
        }
    }
}

/// A restart takes pods away a few at a time.
pub fn evicted(world: &mut World, pod: &str) {
    let now = world.now;
    let Some(victim) = world.pods.get(pod).cloned() else { return };
    if !victim.available(now) {
        return;
    }
    let own: Vec<&Value> = world.of_kind(Kind::ReplicaSet).map(|(_, o)| o).filter(|o| is_own(o)).collect();
    let missing: i64 = own.iter().map(|o| int(o, "/spec/replicas") - serving(world, o)).sum::<i64>() + 1;
    let total = int(world.rollout(), "/spec/replicas");
    let strategy = &world.rollout()["spec"]["strategy"];
    let allowed = match strategy["canary"].is_null() {
        true => 25 * total / 100,
        false => unavailable(world, total),
    };
    let forgiven = world.invariants.lost.values().any(|at| now - at <= BLIND)
        || world.invariants.sizes.last().is_some_and(|(at, _)| now - at <= BLIND);
    if missing > allowed.max(1) && !forgiven {
        world.violated(format!("2: evicted {pod} although {} pods are missing of {allowed} allowed", missing - 1));
    }
}

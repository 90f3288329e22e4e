//! What Kubernetes and the data plane do by themselves: ReplicaSets make pods, pods become ready or do not, nodes go
//! away, Gateways take routes, AnalysisRuns and Experiments end in a verdict.

use crate::aws;
use crate::cluster::{Actor, Happening, Id, KINDS, Kind, Millis, World, int, label, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::keys;

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    pub replica_set: String,
    pub hash: String,
    pub created: Millis,
    pub ready_since: Option<Millis>,
    pub min_ready: Millis,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    pub fn available(&self, now: Millis) -> bool {
        self.ready_since.is_some_and(|since| since + self.min_ready <= now)
    }
}

/// Pods with this hash that are available now.
pub fn available(world: &World, hash: &str) -> i64 {
    world.pods.values().filter(|p| p.hash == hash && p.available(world.now)).count() as i64
}

/// The image that never becomes ready.
pub fn is_bad(template: &Value) -> bool {
    text(template, "/spec/containers/0/image").ends_with("-bad")
}

pub fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::SyncReplicaSet(name) => sync(world, &name),
        Happening::SyncEndpoints(service) => endpoints(world, &service),
        Happening::PodReady(name) => {
            let now = world.now;
            let Some(pod) = world.pods.get_mut(&name) else { return };
            pod.ready_since = Some(now);
            let (owner, wait) = (pod.replica_set.clone(), pod.min_ready);
            soon(world, &owner);
            if wait > 0 {
                world.plan(wait, Happening::SyncReplicaSet(owner));
            }
        }
        Happening::NodeFails => node_fails(world),
        Happening::PodGone(name) => {
            if let Some(pod) = world.pods.remove(&name) {
                soon(world, &pod.replica_set);
            }
        }
        Happening::Gateway(name) => gateway(world, &name),
        Happening::Analysis(name) => analysis(world, &name),
        Happening::Experiment(name) => experiment(world, &name),
        Happening::Balancer => aws::balance(world),
        Happening::Targets(service) => aws::register(world, &service),
        // The process hears it.
        Happening::AwsAnswers => {}
        Happening::User => crate::users::act(world),
        Happening::Autoscaler => crate::users::autoscale(world),
        Happening::WatchBreaks(kind) => {
            world.say(|| format!("platform   the watch of {} breaks", kind.as_str()));
            world.break_watch(kind);
            let back = world.random.range(500, 30_000);
            world.plan(back, Happening::Relist(kind));
        }
        Happening::Relist(kind) => world.relist(kind),
        Happening::Kill => world.killed = true,
    }
}

fn soon(world: &mut World, replica_set: &str) {
    let delay = world.random.range(5, 800);
    world.plan_once(delay, Happening::SyncReplicaSet(replica_set.to_owned()));
    pods_changed(world);
}

/// The endpoints of every Service follow, each in its own time.
fn pods_changed(world: &mut World) {
    let services: Vec<String> = world.of_kind(Kind::Service).map(|(name, _)| name.clone()).collect();
    for service in services {
        endpoints_soon(world, service);
    }
}

fn endpoints_soon(world: &mut World, service: String) {
    let slowest = if world.random.percent(3) { 15_000 } else { 900 };
    let delay = world.random.range(5, slowest);
    world.plan_once(world.endpoints_after.unwrap_or(delay), Happening::SyncEndpoints(service));
}

/// One look of the EndpointSlice controller.
fn endpoints(world: &mut World, service: &str) {
    let Some(object) = world.get(Kind::Service, service) else { return };
    let selector = object["spec"]["selector"].as_object().cloned().unwrap_or_default();
    let selects = |pod: &Pod| {
        selector.iter().all(|(key, value)| match key.as_str() {
            keys::POD_TEMPLATE_HASH => *value == pod.hash,
            _ => pod.labels.get(key).is_some_and(|label| value == label),
        })
    };
    let selected = world.pods.iter().filter(|(_, pod)| selects(pod));
    let (mut ready, mut hashes) = (Vec::new(), Vec::new());
    for (name, pod) in selected {
        let serves = pod.ready_since.is_some();
        ready.push(json!({"conditions": {"ready": serves}, "targetRef": {"kind": "Pod", "name": name}}));
        if serves {
            hashes.push(pod.hash.clone());
        }
    }
    if let Some((hash, serves)) = variant(world, &selector) {
        ready.push(json!({"conditions": {"ready": serves}, "targetRef": {"kind": "Pod", "name": hash}}));
        if serves {
            hashes.push(hash);
        }
    }
    world.invariants.lead(service, hashes, world.now);
    let slice = json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}}, "endpoints": ready,
    });
    if world.create(Actor::Platform, Kind::EndpointSlice, &slice).is_err() {
        let _ = world.patch(Actor::Platform, Kind::EndpointSlice, service, "", &slice);
    }
    aws::endpoints_changed(world, service);
}

/// The variant of an Experiment that a Service with this selector leads to, and whether it serves. Variants have no pods
/// here, only a status.
fn variant(world: &World, selector: &serde_json::Map<String, Value>) -> Option<(String, bool)> {
    let hash = selector.get(keys::POD_TEMPLATE_HASH)?.as_str()?;
    let statuses =
        world.of_kind(Kind::Experiment).filter_map(|(_, e)| e.pointer("/status/templateStatuses")?.as_array());
    let status = statuses.flatten().find(|status| text(status, "/podTemplateHash") == hash)?;
    Some((hash.to_owned(), int(status, "/availableReplicas") > 0))
}

/// One look of the ReplicaSet controller.
fn sync(world: &mut World, name: &str) {
    let Some(object) = world.kept(Kind::ReplicaSet, name) else { return };
    let wanted = int(&object, "/spec/replicas");
    let min_ready = int(&object, "/spec/minReadySeconds") * 1000;
    let hash = label(&object, keys::POD_TEMPLATE_HASH).to_owned();
    let now = world.now;
    // Those that serve least go first.
    let mut mine: Vec<(bool, bool, Millis, String)> = world
        .pods
        .iter()
        .filter(|(_, p)| p.replica_set == name)
        .map(|(n, p)| (p.available(now), p.ready_since.is_some(), -p.created, n.clone()))
        .collect();
    mine.sort();
    let surplus = usize::try_from(mine.len() as i64 - wanted).unwrap_or(0);
    for (_, _, _, pod) in mine.iter().take(surplus) {
        world.pods.remove(pod);
    }
    for _ in mine.len() as i64..wanted {
        let pod = world.fresh_pod_name(name);
        let bad = is_bad(&object["spec"]["template"]);
        let map = |part: &str| {
            let entries = object.pointer(&format!("/spec/template/metadata/{part}")).and_then(Value::as_object);
            entries.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
        };
        let made = Pod {
            replica_set: name.to_owned(),
            hash: hash.clone(),
            created: now,
            ready_since: None,
            min_ready,
            labels: map("labels"),
            annotations: map("annotations"),
        };
        world.pods.insert(pod.clone(), made);
        if !bad {
            let slowest = if world.random.percent(10) { 40_000 } else { 8_000 };
            let delay = world.random.range(300, slowest);
            world.plan(delay, Happening::PodReady(pod));
        }
    }
    let mine = || world.pods.values().filter(|p| p.replica_set == name);
    let count = |n: usize| if n == 0 { Value::Null } else { n.into() };
    let status = json!({"status": {
        "replicas": mine().count(),
        "readyReplicas": count(mine().filter(|p| p.ready_since.is_some()).count()),
        "availableReplicas": count(mine().filter(|p| p.available(now)).count()),
        "observedGeneration": int(&object, "/metadata/generation"),
    }});
    if surplus > 0 {
        pods_changed(world);
    }
    let seen = available(world, &hash);
    world.invariants.saw_available(&hash, seen);
    let _ = world.patch(Actor::Platform, Kind::ReplicaSet, name, "status", &status);
}

/// A node goes away with a few pods on it.
fn node_fails(world: &mut World) {
    let names: Vec<String> = world.pods.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let count = world.random.range(1, 3);
    for _ in 0..count {
        let name = world.random.pick(&names);
        let now = world.now;
        let Some(pod) = world.pods.get_mut(&name) else { continue };
        if pod.ready_since.take().is_none() {
            continue;
        }
        let (hash, owner) = (pod.hash.clone(), pod.replica_set.clone());
        world.say(|| format!("platform   pod {name} loses its node"));
        world.invariants.lost(&hash, now);
        let gone = world.random.range(1_000, 30_000);
        world.plan(gone, Happening::PodGone(name));
        soon(world, &owner);
    }
}

/// Somebody deletes a pod.
pub fn delete_pod(world: &mut World, name: &str) {
    if let Some(pod) = world.pods.remove(name) {
        let now = world.now;
        world.invariants.lost(&pod.hash, now);
        soon(world, &pod.replica_set);
    }
}

/// The Gateway takes the route as it is now.
fn gateway(world: &mut World, name: &str) {
    let Some(route) = world.get(Kind::HttpRoute, name) else { return };
    let generation = int(route, "/metadata/generation");
    let taken = crate::shares::route_weights(route);
    world.invariants.taken = taken;
    let condition = |kind: &str, reason: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": "", "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({"status": {"parents": [{
        "parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway",
        "conditions": [condition("Accepted", "Accepted"), condition("ResolvedRefs", "ResolvedRefs")],
    }]}});
    let _ = world.patch(Actor::Platform, Kind::HttpRoute, name, "status", &status);
}

fn phase(object: &Value) -> String {
    text(object, "/status/phase").to_owned()
}

/// An AnalysisRun starts, and later gets its verdict.
fn analysis(world: &mut World, name: &str) {
    let Some(run) = world.kept(Kind::AnalysisRun, name) else { return };
    let set = |world: &mut World, phase: &str, message: &str| {
        world.invariants.disturbed(world.now);
        let body = json!({"status": {"phase": phase, "message": message}});
        let _ = world.patch(Actor::Platform, Kind::AnalysisRun, name, "", &body);
    };
    let terminated = run.pointer("/spec/terminate") == Some(&Value::Bool(true));
    match phase(&run).as_str() {
        "" | "Pending" if terminated => set(world, "Successful", "Run Terminated"),
        "" | "Pending" => {
            set(world, "Running", "");
            let wait = world.random.range(500, 40_000);
            world.plan(wait, Happening::Analysis(name.to_owned()));
        }
        "Running" if terminated => set(world, "Successful", "Run Terminated"),
        "Running" => {
            let background = label(&run, keys::ROLLOUT_TYPE) == "Background";
            if background && world.verdicts.is_empty() && (world.calm || world.random.percent(80)) {
                // Goes on until it is ended.
                return;
            }
            let verdict = if world.verdicts.is_empty() {
                let chance = world.random.range(0, 99);
                match chance {
                    0..=11 => "Failed",
                    12..=15 => "Error",
                    16..=27 => "Inconclusive",
                    _ => "Successful",
                }
            } else {
                world.verdicts.remove(0)
            };
            set(world, verdict, "the metric says so");
        }
        _ => {}
    }
}

/// An Experiment starts its variants, whose pods come a little later, and later gets its verdict.
fn experiment(world: &mut World, name: &str) {
    let Some(experiment) = world.kept(Kind::Experiment, name) else { return };
    let templates = experiment.pointer("/spec/templates").and_then(Value::as_array).cloned().unwrap_or_default();
    let statuses = |available: bool, state: &str| -> Vec<Value> {
        let one = |t: &Value| {
            let variant = text(t, "/name");
            let mut status = json!({
                "name": variant, "replicas": 1, "updatedReplicas": 1, "readyReplicas": i32::from(available),
                "availableReplicas": i32::from(available), "status": state,
                "podTemplateHash": format!("exp-{name}-{variant}"),
            });
            if t.get("service").is_some() {
                status["serviceName"] = format!("{name}-{variant}").into();
            }
            status
        };
        templates.iter().map(one).collect()
    };
    let terminated = experiment.pointer("/spec/terminate") == Some(&Value::Bool(true));
    let end = |world: &mut World, phase: &str| {
        world.invariants.disturbed(world.now);
        let body = json!({"status": {"phase": phase, "templateStatuses": statuses(false, "Successful")}});
        let _ = world.patch(Actor::Platform, Kind::Experiment, name, "", &body);
    };
    match phase(&experiment).as_str() {
        "" if terminated => end(world, "Successful"),
        "" => {
            for template in templates.iter().filter(|t| t.get("service").is_some()) {
                let variant = text(template, "/name");
                let service = json!({
                    "metadata": {"name": format!("{name}-{variant}")},
                    "spec": {"selector": {keys::POD_TEMPLATE_HASH: format!("exp-{name}-{variant}")}},
                });
                let _ = world.create(Actor::Platform, Kind::Service, &service);
            }
            let body = json!({"status": {"phase": "Running", "templateStatuses": statuses(false, "Progressing")}});
            let _ = world.patch(Actor::Platform, Kind::Experiment, name, "", &body);
            let wait = world.random.range(500, 10_000);
            world.plan(wait, Happening::Experiment(name.to_owned()));
        }
        "Running" if !terminated && int(&experiment, "/status/templateStatuses/0/availableReplicas") == 0 => {
            let body = json!({"status": {"templateStatuses": statuses(true, "Running")}});
            let _ = world.patch(Actor::Platform, Kind::Experiment, name, "", &body);
            pods_changed(world);
            let wait = world.random.range(1_000, 40_000);
            world.plan(wait, Happening::Experiment(name.to_owned()));
        }
        "Running" if terminated => end(world, "Successful"),
        // One that nobody waits for goes on until it is ended.
        "Running" if text(world.rollout(), "/status/canary/currentExperiment") != name => {
            world.plan(60_000, Happening::Experiment(name.to_owned()));
        }
        "Running" => {
            let verdict = match world.random.range(0, 9) {
                0 => "Failed",
                1 => "Error",
                2 => "Inconclusive",
                _ => "Successful",
            };
            end(world, verdict);
        }
        _ => {}
    }
}

/// The platform's answer to a write.
pub fn written(world: &mut World, id: &Id, before: Option<&Value>, after: &Value) {
    aws::written(world, id, before, after);
    let spec_changed = before.is_none_or(|b| b.get("spec") != after.get("spec"));
    if !spec_changed {
        return;
    }
    let name = id.1.clone();
    match id.0 {
        Kind::ReplicaSet => soon(world, &name),
        Kind::Service => endpoints_soon(world, name),
        Kind::HttpRoute => {
            let delay = world.random.range(20, 4_000);
            world.plan(delay, Happening::Gateway(name));
        }
        Kind::AnalysisRun => {
            let delay = world.random.range(20, 1_500);
            world.plan(delay, Happening::Analysis(name));
        }
        Kind::Experiment => {
            let delay = world.random.range(20, 3_000);
            world.plan(delay, Happening::Experiment(name));
        }
        _ => {}
    }
}

/// The platform's answer to a deletion.
pub fn deleted(world: &mut World, id: &Id, _before: &Value) {
    match id.0 {
        Kind::ReplicaSet => {
            world.pods.retain(|_, p| p.replica_set != id.1);
            pods_changed(world);
        }
        Kind::Rollout => {
            for kind in KINDS {
                let own = |o: &Value| text(o, "/metadata/ownerReferences/0/name") == id.1;
                let owned: Vec<String> =
                    world.of_kind(kind).filter(|(_, o)| own(o)).map(|(name, _)| name.clone()).collect();
                for name in owned {
                    let _ = world.delete(Actor::Platform, kind, &name, "");
                }
            }
        }
        _ => {}
    }
}

/// A pod as the API server gives it.
pub fn pod_object(world: &World, name: &str, pod: &Pod) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": crate::cluster::NAMESPACE, "labels": pod.labels,
            "annotations": pod.annotations, "creationTimestamp": world.time_text(pod.created),
        },
        "status": {"conditions": [match pod.ready_since {
            Some(since) => json!({"type": "Ready", "status": "True", "lastTransitionTime": world.time_text(since)}),
            None => json!({"type": "Ready", "status": "False"}),
        }]},
    })
}

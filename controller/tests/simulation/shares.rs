//! Which share of the traffic each version has, by the objects that say so.

use crate::aws;
use crate::cluster::{Kind, World, text};
use crate::meshes::{self, Mesh};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::keys;

/// Hash behind a Service, or behind a subset or VirtualNode that stands for one.
pub fn selected(world: &World, service: &str) -> String {
    if let Some(hash) = meshes::behind(world, service) {
        return hash.to_owned();
    }
    let service = world.get(Kind::Service, service).unwrap_or(&Value::Null);
    service["spec"]["selector"][keys::POD_TEMPLATE_HASH].as_str().unwrap_or_default().to_owned()
}

/// Weights by Service, as they stand in the route, the Ingress, or the blue-green strategy.
pub fn service_weights(world: &World) -> Vec<(String, i64)> {
    let rollout = world.rollout();
    if let Some(blue_green) = rollout.pointer("/spec/strategy/blueGreen") {
        return vec![(text(blue_green, "/activeService").to_owned(), 100)];
    }
    let Some(canary) = rollout.pointer("/spec/strategy/canary") else { return Vec::new() };
    let max = max_weight(world);
    if canary.pointer("/trafficRouting/plugins").is_some() {
        let weights = world.get(Kind::HttpRoute, "route").map(route_weights).unwrap_or_default();
        return weights.into_iter().map(|(service, weight)| (service, (weight * 100 + max - 1) / max)).collect();
    }
    if canary.pointer("/trafficRouting/nginx").is_some() {
        let (weight, max) = world.get(Kind::Ingress, "web-ingress-canary").map_or((0, 100), ingress_weight);
        return vec![
            (text(canary, "/canaryService").to_owned(), weight * 100 / max),
            (text(canary, "/stableService").to_owned(), (max - weight) * 100 / max),
        ];
    }
    let mesh = canary.get("trafficRouting").and_then(Mesh::of);
    mesh.map(|mesh| meshes::weights_now(world, mesh)).unwrap_or_default()
}

pub fn max_weight(world: &World) -> i64 {
    let max = world.rollout().pointer("/spec/strategy/canary/trafficRouting/maxTrafficWeight");
    max.and_then(Value::as_i64).unwrap_or(100)
}

pub fn route_weights(route: &Value) -> Vec<(String, i64)> {
    let rules = route.pointer("/spec/rules").and_then(Value::as_array);
    // The one that the user wrote; header and mirror rules have names.
    let ours = rules.into_iter().flatten().find(|rule| rule.get("name").is_none());
    ours.map(rule_weights).unwrap_or_default()
}

pub fn rule_weights(rule: &Value) -> Vec<(String, i64)> {
    let backends = rule["backendRefs"].as_array().into_iter().flatten();
    backends.map(|b| (text(b, "/name").to_owned(), b["weight"].as_i64().unwrap_or(1))).collect()
}

pub fn ingress_weight(ingress: &Value) -> (i64, i64) {
    let annotations = &ingress["metadata"]["annotations"];
    let number = |name: &str| annotations[format!("nginx.ingress.kubernetes.io/{name}")].as_str()?.parse().ok();
    (number("canary-weight").unwrap_or(0), number("canary-weight-total").unwrap_or(100))
}

/// Percent of the traffic by hash.
pub fn shares(world: &World) -> BTreeMap<String, i64> {
    let mut shares: BTreeMap<String, i64> = BTreeMap::new();
    for (service, weight) in service_weights(world) {
        let hash = selected(world, &service);
        if weight > 0 && !hash.is_empty() {
            *shares.entry(hash).or_default() += weight;
        }
    }
    shares
}

/// Percent of the traffic that the data plane still gives to a hash, also when the route says something else by now.
pub fn still_served(world: &World, hash: &str) -> i64 {
    let max = max_weight(world);
    let taken = world.invariants.taken.iter().filter(|(service, _)| selected(world, service) == hash);
    let taken: i64 = taken.map(|(_, weight)| (weight * 100 + max - 1) / max).sum();
    shares(world).get(hash).copied().unwrap_or(0).max(if tells(world) { taken } else { 0 })
}

/// Something tells which weights the data plane has taken.
pub fn tells(world: &World) -> bool {
    world.rollout().pointer("/spec/strategy/canary/trafficRouting/plugins").is_some() || aws::weighs(world)
}

pub fn is_routed(world: &World) -> bool {
    world.rollout().pointer("/spec/strategy/canary/trafficRouting").is_some()
}

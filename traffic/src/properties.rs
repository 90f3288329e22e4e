//! What holds for every router, whatever it is asked for and in whatever order.

use crate::fixture::{Wanted, cluster, exact, prefix, router, wanted};
use crate::{Objects, Router, Write};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_crds::rollout::RouteMatch;

/// One router with the objects that its users have made. Foreign parts carry the text `foreign` somewhere.
struct Case {
    name: &'static str,
    router: Box<dyn Router>,
    objects: Objects,
}

fn cases() -> Vec<Case> {
    let managed = json!([{ "name": "one" }, { "name": "two" }]);
    let object = |api: &str, kind: &str, name: &str, spec: Value| {
        json!({ "apiVersion": api, "kind": kind, "spec": spec,
                "metadata": { "name": name, "namespace": "shop", "annotations": { "foreign": "annotation" } } })
    };
    let gateway = |name: &str| json!({ "name": name, "port": 80, "weight": 1 });
    let istio = |name: &str| json!({ "destination": { "host": name }, "weight": 0 });
    let ingress = |name: &str| {
        let port = json!({ "name": "use-annotation" });
        json!({ "path": format!("/{name}"), "pathType": "Prefix", "backend": { "service": { "name": name, "port": port } } })
    };
    let mesh = |name: &str| json!({ "virtualNodeRef": { "name": name }, "weight": 1 });
    let rows: Vec<(&'static str, Value, Vec<Value>)> = vec![
        (
            "gatewayAPI",
            json!({ "plugins": { "argoproj-labs/gatewayAPI": { "httpRoute": "web" } } }),
            vec![object(
                "gateway.networking.k8s.io/v1",
                "HTTPRoute",
                "web",
                json!({ "rules": [
                { "name": "foreign", "backendRefs": [gateway("foreign")] },
                { "matches": [{ "path": { "type": "PathPrefix", "value": "/a" } }], "backendRefs": [gateway("stable"), gateway("canary")] },
                { "name": "b", "backendRefs": [gateway("canary"), gateway("foreign"), gateway("stable")] },
            ] }),
            )],
        ),
        (
            "istio",
            json!({ "istio": {
                "virtualService": { "name": "web", "routes": ["main"] },
                "destinationRule": { "name": "web", "canarySubsetName": "c", "stableSubsetName": "s", "additionalSubsetNames": ["foreign"] },
            } }),
            vec![
                object(
                    "networking.istio.io/v1alpha3",
                    "VirtualService",
                    "web",
                    json!({ "http": [
                    { "name": "foreign", "route": [istio("foreign")] },
                    { "name": "main", "route": [istio("stable"), istio("canary")] },
                ] }),
                ),
                object(
                    "networking.istio.io/v1alpha3",
                    "DestinationRule",
                    "web",
                    json!({ "host": "web", "subsets": [
                    { "name": "c" }, { "name": "s" }, { "name": "foreign", "labels": { "x": "foreign" } },
                ] }),
                ),
            ],
        ),
        (
            "nginx",
            json!({ "nginx": { "stableIngresses": ["web", "api"] } }),
            ["web", "api"]
                .map(|name| {
                    object(
                        "networking.k8s.io/v1",
                        "Ingress",
                        name,
                        json!({ "rules": [
                { "http": { "paths": [ingress("stable"), ingress("foreign")] } },
            ] }),
                    )
                })
                .to_vec(),
        ),
        (
            "alb",
            json!({ "alb": { "ingress": "web", "servicePort": 80 } }),
            vec![object(
                "networking.k8s.io/v1",
                "Ingress",
                "web",
                json!({ "rules": [
                { "http": { "paths": [ingress("foreign"), ingress("stable")] } },
                { "http": { "paths": [ingress("foreign")] } },
            ] }),
            )],
        ),
        ("smi", json!({ "smi": {} }), vec![object("split.smi-spec.io/v1alpha1", "TrafficSplit", "foreign", json!({}))]),
        (
            "ambassador",
            json!({ "ambassador": { "mappings": ["web"] } }),
            vec![object("getambassador.io/v2", "Mapping", "web", json!({ "service": "stable:80", "note": "foreign" }))],
        ),
        (
            "traefik",
            json!({ "traefik": { "weightedTraefikServiceName": "web" } }),
            vec![object(
                "traefik.io/v1alpha1",
                "TraefikService",
                "web",
                json!({ "weighted": { "services": [
                { "name": "foreign", "weight": 3 }, { "name": "canary" }, { "name": "stable" },
            ] } }),
            )],
        ),
        (
            "apisix",
            json!({ "apisix": { "route": { "name": "web" } } }),
            vec![object(
                "apisix.apache.org/v2",
                "ApisixRoute",
                "web",
                json!({ "http": [
                { "name": "foreign", "backends": [{ "serviceName": "foreign", "weight": 4 }] },
                { "name": "a", "backends": [{ "serviceName": "stable" }, { "serviceName": "canary" }] },
            ] }),
            )],
        ),
        (
            "appMesh",
            json!({ "appMesh": { "virtualService": { "name": "web" }, "virtualNodeGroup": {
                "canaryVirtualNodeRef": { "name": "canary" }, "stableVirtualNodeRef": { "name": "stable" },
            } } }),
            vec![
                object(
                    "appmesh.k8s.aws/v1beta2",
                    "VirtualService",
                    "web",
                    json!({
                        "provider": { "virtualRouter": { "virtualRouterRef": { "name": "web" } } },
                    }),
                ),
                object(
                    "appmesh.k8s.aws/v1beta2",
                    "VirtualRouter",
                    "web",
                    json!({ "routes": [
                    { "name": "a", "httpRoute": { "action": { "weightedTargets": [mesh("canary"), mesh("stable"), mesh("foreign")] } } },
                ] }),
                ),
                object(
                    "appmesh.k8s.aws/v1beta2",
                    "VirtualNode",
                    "canary",
                    json!({ "listeners": [{ "note": "foreign" }] }),
                ),
                object(
                    "appmesh.k8s.aws/v1beta2",
                    "VirtualNode",
                    "stable",
                    json!({ "listeners": [{ "note": "foreign" }] }),
                ),
            ],
        ),
    ];
    let case = |(name, mut routing, objects): (&'static str, Value, Vec<Value>)| {
        routing["managedRoutes"] = managed.clone();
        Case { name, router: router(routing), objects: cluster(objects) }
    };
    rows.into_iter().map(case).collect()
}

/// Everything in `value` that mentions `foreign`: the smallest maps and texts that do, with their content.
fn foreign(value: &Value, found: &mut Vec<String>) {
    let mentions = |value: &Value| value.to_string().contains("foreign");
    match value {
        Value::Object(map) => {
            let direct = |map: &Map<String, Value>| map.values().any(|v| v.as_str() == Some("foreign"));
            if direct(map) && !map.contains_key("apiVersion") {
                found.push(value.to_string());
            } else {
                map.values().filter(|v| mentions(v)).for_each(|v| foreign(v, found));
            }
        }
        Value::Array(list) => list.iter().filter(|v| mentions(v)).for_each(|v| foreign(v, found)),
        _ => {}
    }
}

fn foreign_parts(objects: &Objects, owned: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (target, object) in objects.0.iter().filter(|(target, _)| !owned.contains(&target.to_string())) {
        let mut parts = Vec::new();
        foreign(object, &mut parts);
        // A mirror rule copies the backends of the rule that it mirrors.
        parts.sort();
        parts.dedup();
        found.extend(parts.into_iter().map(|part| format!("{target}: {part}")));
    }
    found
}

/// Weights that name the canary, stable or an experiment, list by list.
fn weight_lists(value: &Value, lists: &mut Vec<Vec<(String, i64)>>) {
    let name = |entry: &Value| {
        let pointers =
            ["/name", "/service", "/serviceName", "/destination/host", "/virtualNodeRef/name", "/ServiceName"];
        pointers.iter().find_map(|pointer| entry.pointer(pointer)).and_then(Value::as_str).map(str::to_owned)
    };
    let weight = |entry: &Value| {
        let weight = entry.get("weight").or_else(|| entry.get("Weight"))?;
        weight.as_i64().or_else(|| weight.as_str()?.parse().ok())
    };
    match value {
        Value::Array(list) => {
            let weighed: Vec<_> = list.iter().filter_map(|entry| Some((name(entry)?, weight(entry)?))).collect();
            let ours: Vec<_> = weighed.into_iter().filter(|(name, _)| name != "foreign").collect();
            if !ours.is_empty() {
                lists.push(ours);
            }
            list.iter().for_each(|entry| weight_lists(entry, lists));
        }
        Value::Object(map) => map.values().for_each(|entry| weight_lists(entry, lists)),
        // An action of an AWS load balancer is JSON in a text.
        Value::String(text) if text.starts_with("{\"Type\"") => {
            weight_lists(&serde_json::from_str(text).unwrap_or_default(), lists);
        }
        _ => {}
    }
}

fn some_wanted() -> impl Strategy<Value = Wanted> {
    let value = prop_oneof![Just("1"), Just("a.b")];
    let headers = prop::collection::vec((prop_oneof![Just("one"), Just("two")], value), 0..3);
    let experiments = prop::collection::btree_map("exp-[abc]", 0..15i32, 0..3);
    let hash = || prop_oneof![Just("h1"), Just("h2"), Just("h3")];
    (0..=70i32, headers, any::<bool>(), experiments, hash(), hash(), any::<bool>()).prop_map(
        |(weight, headers, mirror, experiments, canary_hash, stable_hash, in_progress)| {
            let mut made = wanted(weight);
            made.in_progress |= in_progress;
            made.canary_hash = canary_hash.to_owned();
            made.stable_hash = stable_hash.to_owned();
            for (name, weight) in experiments {
                made = made.experiment(&name, "he", weight);
            }
            for (name, value) in headers {
                let taken = |made: &Wanted| made.headers.iter().any(|h| h.name == name);
                if !(taken(&made) || mirror && name == "two") {
                    made = made.header(name, "X-Test", exact(value));
                }
            }
            if mirror {
                let matched = RouteMatch { path: Some(prefix("/a")), ..Default::default() };
                made = made.mirror("two", matched, Some(weight));
            }
            made
        },
    )
}

/// Takes away what the router cannot do; validation refuses such Rollouts.
fn within_capabilities(router: &dyn Router, wanted: &mut Wanted) {
    let can = router.capabilities();
    if !can.headers {
        wanted.headers.clear();
    }
    if !can.mirrors {
        wanted.mirrors.clear();
    }
    if !can.experiments {
        wanted.additional.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_router_settles_adds_up_and_leaves_others_alone(sequence in prop::collection::vec(some_wanted(), 1..5)) {
        for mut case in cases() {
            let before = foreign_parts(&case.objects, &[]);
            prop_assert!(!before.is_empty(), "{}: the case has nothing foreign", case.name);
            let users: Vec<String> = case.objects.0.keys().map(ToString::to_string).collect();
            for wanted in &sequence {
                let mut wanted = wanted.clone();
                within_capabilities(&*case.router, &mut wanted);
                // Deleting a canary Mapping takes a second look.
                for round in 0..3 {
                    let plan = case.router.plan(&wanted.input(&case.objects)).unwrap();
                    if plan.writes.is_empty() {
                        break;
                    }
                    prop_assert!(round < 2, "{} does not settle: {:?}", case.name, plan.writes);
                    for write in &plan.writes {
                        case.objects.apply(write).unwrap();
                    }
                }
                let owned: Vec<String> =
                    case.objects.0.keys().map(ToString::to_string).filter(|t| !users.contains(t)).collect();
                prop_assert_eq!(&foreign_parts(&case.objects, &owned), &before, "{}", case.name);
                for (target, object) in &case.objects.0 {
                    let mut lists = Vec::new();
                    weight_lists(object, &mut lists);
                    for list in lists {
                        // A header route has the canary alone, a canary Mapping its weight alone.
                        if list.len() > 1 {
                            let sum: i64 = list.iter().map(|(_, weight)| weight).sum();
                            prop_assert_eq!(sum, 100, "{} {}: {:?}", case.name, target, list);
                        }
                    }
                }
            }
            // The end: nothing of ours is left but the weights.
            let end = wanted(0);
            for _ in 0..2 {
                for write in &case.router.plan(&end.input(&case.objects)).unwrap().writes {
                    case.objects.apply(write).unwrap();
                }
            }
            let left = serde_json::to_string(&case.objects.0.values().collect::<Vec<_>>()).unwrap();
            for trace in ["X-Test", "exp-a", "exp-b", "exp-c", "RequestMirror", "mirrorPercentage", "in-progress"] {
                prop_assert!(!left.contains(trace), "{} leaves {trace}: {left}", case.name);
            }
        }
    }

    /// Somebody else's change between the look and the write is never overwritten.
    #[test]
    fn every_patch_and_deletion_names_what_it_is_based_on(weight in 1..=100i32) {
        for mut case in cases() {
            for weight in [weight, 0, 0] {
                let plan = case.router.plan(&wanted(weight).input(&case.objects)).unwrap();
                for write in &plan.writes {
                    let based_on = match write {
                        Write::Create { .. } => true,
                        Write::Patch { patch, .. } => patch.pointer("/metadata/resourceVersion").is_some(),
                        Write::Delete { resource_version, .. } => resource_version.is_some(),
                    };
                    prop_assert!(based_on, "{}: {write:?}", case.name);
                    case.objects.apply(write).unwrap();
                }
            }
        }
    }
}

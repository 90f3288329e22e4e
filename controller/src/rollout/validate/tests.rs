mod pods;
mod references;

use super::{first, spec, written};
use crate::rollout::Snapshot;
use serde_json::{Value, json};
use tidegate_crds::patch::merge_apply;
use tidegate_crds::rollout::Rollout;

/// A canary Rollout with nothing wrong.
fn base() -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": "web:1", "ports": [{ "containerPort": 80 }] }] },
            },
            "strategy": { "canary": { "steps": [{ "setWeight": 20 }, { "pause": {} }] } },
        },
    })
}

fn rollout(patch: &Value) -> (Rollout, Vec<tidegate_crds::decode::Dropped>) {
    let mut value = base();
    merge_apply(&mut value, &json!({ "spec": patch }));
    Rollout::decode(value).unwrap()
}

fn canary(canary: Value) -> Value {
    json!({ "strategy": { "canary": canary } })
}

/// The canary with one step, both Services and a router.
fn step(step: Value, routing: Value) -> Value {
    canary(json!({ "canaryService": "c", "stableService": "s", "steps": [step], "trafficRouting": routing }))
}

fn blue_green(blue_green: Value) -> Value {
    json!({ "strategy": { "canary": null, "blueGreen": blue_green } })
}

/// The pod template's spec with other fields.
fn pod(pod: Value) -> Value {
    json!({ "template": { "spec": pod } })
}

/// The pod template with one container that has other fields.
fn container(fields: Value) -> Value {
    let mut container = json!({ "name": "web", "image": "web:1" });
    merge_apply(&mut container, &fields);
    pod(json!({ "containers": [container] }))
}

/// A change to the Rollout and the problem that it makes, or none.
fn check(rows: Vec<(Value, &str)>) {
    for (patch, expected) in rows {
        let (rollout, dropped) = rollout(&patch);
        assert_eq!(dropped, [], "{patch}");
        let found: Vec<String> = spec(&rollout, &dropped).iter().map(ToString::to_string).collect();
        let first = found.first().map_or("", String::as_str);
        assert_eq!(first, expected, "{patch} gives {found:?}");
    }
}

#[test]
fn a_sound_rollout_has_no_problem() {
    check(vec![
        (json!({}), ""),
        (json!({ "replicas": 0 }), ""),
        (blue_green(json!({ "activeService": "a", "previewService": "b", "scaleDownDelayRevisionLimit": 10 })), ""),
        (canary(json!({ "steps": null })), ""),
        (canary(json!({ "maxSurge": "10%", "maxUnavailable": 0 })), ""),
        (canary(json!({ "canaryService": "c", "stableService": "s" })), ""),
        (step(json!({ "setCanaryScale": { "weight": 5 } }), json!({ "smi": {} })), ""),
    ]);
}

#[test]
fn top_level_fields() {
    check(vec![
        (json!({ "replicas": -1 }), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (json!({ "selector": null }), "spec.selector: Required value: the labels that select the pods"),
        (
            json!({ "selector": { "matchLabels": null } }),
            "spec.selector: Invalid value: {}: must select by at least one label",
        ),
        (
            json!({ "selector": { "matchLabels": { "app": "a b" } } }),
            "spec.selector.matchLabels.app: Invalid value: \"a b\": must be a label value: at most 63 letters, digits, '-', '_' and '.'",
        ),
        (
            json!({ "selector": { "matchLabels": { "-x": "y" } } }),
            "spec.selector.matchLabels: Invalid value: \"-x\": must be a label key: at most 63 letters, digits, '-', '_' and '.', perhaps after a domain and '/'",
        ),
        (
            json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "Is", "values": ["web"] }] } }),
            "spec.selector.matchExpressions[0].operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        (
            json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "In" }] } }),
            "spec.selector.matchExpressions[0].values: Required value: at least one value for In and NotIn",
        ),
        (
            json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "Exists", "values": ["x"] }] } }),
            "spec.selector.matchExpressions[0].values: Invalid value: [\"x\"]: must be empty for Exists and DoesNotExist",
        ),
        (json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["api"] }] } }), ""),
        (
            json!({ "selector": { "matchLabels": { "app": "api" } } }),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            json!({ "minReadySeconds": -1 }),
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({ "revisionHistoryLimit": -1 }),
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({ "progressDeadlineSeconds": -1 }),
            "spec.progressDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({ "progressDeadlineSeconds": 10, "minReadySeconds": 10 }),
            "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds (10)",
        ),
        (
            json!({ "minReadySeconds": 600 }),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds (600)",
        ),
        (json!({ "strategy": { "canary": null } }), "spec.strategy: Required value: one of canary and blueGreen"),
        (
            json!({ "strategy": { "blueGreen": { "activeService": "a" } } }),
            "spec.strategy: Invalid value: \"canary and blueGreen\": exactly one of the two",
        ),
    ]);
}

#[test]
fn workload_references() {
    let reference = |fields: Value| {
        let mut reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" });
        merge_apply(&mut reference, &fields);
        json!({ "workloadRef": reference })
    };
    check(vec![
        (reference(json!({})), ""),
        (reference(json!({ "apiVersion": "v1", "kind": "PodTemplate", "scaleDown": "onsuccess" })), ""),
        (
            reference(json!({ "kind": "StatefulSet" })),
            "spec.workloadRef: Invalid value: \"apps/v1 StatefulSet\": apps/v1 Deployment, apps/v1 ReplicaSet or v1 PodTemplate",
        ),
        (reference(json!({ "name": "" })), "spec.workloadRef.name: Required value: the name of the workload"),
        (
            reference(json!({ "scaleDown": "always" })),
            "spec.workloadRef.scaleDown: Unsupported value: \"always\": supported values: \"never\", \"onsuccess\", \"progressively\"",
        ),
    ]);
    let (both, _) = rollout(&reference(json!({})));
    let problem = written(&both, &[])[0].to_string();
    let expected = "spec.template: Forbidden: template must be empty for workload reference rollout";
    assert_eq!(problem, expected);
    let mut patch = reference(json!({}));
    patch["template"] = Value::Null;
    patch["selector"] = Value::Null;
    assert_eq!(written(&rollout(&patch).0, &[]), []);
    patch["template"] =
        json!({ "metadata": { "creationTimestamp": null, "labels": null }, "spec": { "containers": null } });
    assert_eq!(written(&rollout(&patch).0, &[]), []);
}

#[test]
fn fields_that_could_not_be_read_are_problems_where_they_are_asked_for() {
    let (rollout, dropped) = rollout(&json!({ "minReadySeconds": "soon" }));
    let problems = spec(&rollout, &dropped);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].field, "spec.minReadySeconds");
    assert_eq!(spec(&rollout, &[]), []);
}

#[test]
fn blue_green_fields() {
    check(vec![
        (
            blue_green(json!({ "previewService": "p" })),
            "spec.strategy.blueGreen.activeService: Required value: the Service that users reach",
        ),
        (
            blue_green(json!({ "activeService": "a", "previewService": "a" })),
            "spec.strategy.blueGreen.activeService: Invalid value: \"a\": must differ from previewService",
        ),
        (
            blue_green(json!({ "activeService": "a", "scaleDownDelayRevisionLimit": 11 })),
            "spec.strategy.blueGreen.scaleDownDelayRevisionLimit: Invalid value: 11: must not be greater than revisionHistoryLimit (10)",
        ),
        (
            blue_green(json!({ "activeService": "a", "antiAffinity": {} })),
            "spec.strategy.blueGreen.antiAffinity: Invalid value: \"neither\": exactly one of preferredDuringSchedulingIgnoredDuringExecution and requiredDuringSchedulingIgnoredDuringExecution",
        ),
        (
            blue_green(json!({ "activeService": "a", "prePromotionAnalysis": { "args": [
                { "name": "x", "valueFrom": { "fieldRef": { "fieldPath": "metadata.generation" } } },
            ] } })),
            "spec.strategy.blueGreen.prePromotionAnalysis.args[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.generation\": metadata.name, metadata.namespace, metadata.uid, metadata.labels['<key>'], metadata.annotations['<key>'], or a field outside metadata",
        ),
    ]);
}

#[test]
fn canary_fields() {
    let affinity = |weight: i32| json!({ "antiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": { "weight": weight } } });
    check(vec![
        (
            canary(json!({ "maxSurge": 0, "maxUnavailable": "0%" })),
            "spec.strategy.canary.maxSurge: Invalid value: 0: must not be 0 when maxUnavailable is 0",
        ),
        (
            canary(json!({ "canaryService": "c", "stableService": "c" })),
            "spec.strategy.canary.stableService: Invalid value: \"c\": must differ from canaryService",
        ),
        (
            canary(json!({ "scaleDownDelaySeconds": 5 })),
            "spec.strategy.canary.scaleDownDelaySeconds: Invalid value: 5: can only be used with trafficRouting",
        ),
        (
            canary(json!({ "dynamicStableScale": true })),
            "spec.strategy.canary.dynamicStableScale: Invalid value: true: can only be used with trafficRouting",
        ),
        (
            canary(json!({ "canaryService": "c", "stableService": "s", "trafficRouting": { "smi": {} },
                "dynamicStableScale": true, "scaleDownDelaySeconds": 5 })),
            "spec.strategy.canary.dynamicStableScale: Invalid value: true: cannot be used together with scaleDownDelaySeconds",
        ),
        (canary(affinity(1)), ""),
        (
            canary(affinity(0)),
            "spec.strategy.canary.antiAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight: Invalid value: 0: must be between 1 and 100",
        ),
        (
            canary(json!({ "antiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": { "weight": 1 },
                "requiredDuringSchedulingIgnoredDuringExecution": {} } })),
            "spec.strategy.canary.antiAffinity: Invalid value: \"both\": exactly one of preferredDuringSchedulingIgnoredDuringExecution and requiredDuringSchedulingIgnoredDuringExecution",
        ),
        (
            canary(json!({ "replicaProgressThreshold": { "type": "Some", "value": 1 } })),
            "spec.strategy.canary.replicaProgressThreshold.type: Unsupported value: \"Some\": supported values: \"Percent\", \"Pods\"",
        ),
    ]);
}

#[test]
fn routers_need_services() {
    let rows = [
        ("alb", json!({ "alb": { "ingress": "i", "servicePort": 80 } })),
        ("istio", json!({ "istio": { "virtualService": { "name": "v" } } })),
        ("smi", json!({ "smi": {} })),
        ("apisix", json!({ "apisix": { "route": { "name": "r" } } })),
        ("ambassador", json!({ "ambassador": { "mappings": ["m"] } })),
        ("nginx", json!({ "nginx": { "stableIngress": "i" } })),
        ("appMesh", json!({ "appMesh": {} })),
        ("traefik", json!({ "traefik": { "weightedTraefikServiceName": "t" } })),
    ];
    for (name, routing) in rows {
        let expected = format!("must be set, as trafficRouting.{name} moves traffic between two Services");
        check(vec![
            (canary(json!({ "canaryService": "c", "stableService": "s", "trafficRouting": routing })), ""),
            (
                canary(json!({ "canaryService": "c", "trafficRouting": routing })),
                &format!("spec.strategy.canary.stableService: Invalid value: \"\": {expected}"),
            ),
            (
                canary(json!({ "stableService": "s", "trafficRouting": routing })),
                &format!("spec.strategy.canary.canaryService: Invalid value: \"\": {expected}"),
            ),
        ]);
    }
    let rule = json!({ "name": "d", "canarySubsetName": "c", "stableSubsetName": "s" });
    check(vec![
        (
            canary(
                json!({ "trafficRouting": { "istio": { "virtualService": { "name": "v" }, "destinationRule": rule } } }),
            ),
            "",
        ),
        (canary(json!({ "trafficRouting": { "plugins": { "argoproj-labs/gatewayAPI": { "httpRoute": "r" } } } })), ""),
    ]);
}

#[test]
fn ping_pong() {
    let alb = json!({ "alb": { "ingress": "i", "servicePort": 80, "rootService": "root" } });
    let with = |pair: Value, routing: &Value| canary(json!({ "pingPong": pair, "trafficRouting": routing }));
    let pair = json!({ "pingService": "a", "pongService": "b" });
    let path = "spec.strategy.canary";
    check(vec![
        (with(pair.clone(), &alb), ""),
        (with(pair.clone(), &json!({ "istio": { "virtualService": { "name": "v" } } })), ""),
        (
            with(pair.clone(), &json!({ "alb": { "ingress": "i", "servicePort": 80 } })),
            &format!(
                "{path}.trafficRouting.alb.rootService: Invalid value: \"\": must be set when alb is used with pingPong"
            ),
        ),
        (
            with(pair.clone(), &json!({ "smi": {} })),
            &format!("{path}.pingPong: Invalid value: \"a\": can only be used with alb, istio and plugins"),
        ),
        (
            with(json!({ "pongService": "b" }), &alb),
            &format!("{path}.pingPong.pingService: Invalid value: \"\": pingService and pongService must both be set"),
        ),
        (
            with(json!({ "pingService": "b" }), &alb),
            &format!("{path}.pingPong.pongService: Invalid value: \"\": pingService and pongService must both be set"),
        ),
        (
            with(json!({ "pingService": "a", "pongService": "a" }), &alb),
            &format!("{path}.pingPong.pingService: Invalid value: \"a\": must differ from pongService"),
        ),
    ]);
}

#[test]
fn steps() {
    let nginx = json!({ "nginx": { "stableIngress": "i" } });
    let limited = |max: i32| json!({ "nginx": { "stableIngress": "i" }, "maxTrafficWeight": max });
    let kinds = "exactly one of setWeight, pause, setCanaryScale, analysis, experiment, setHeaderRoute, setMirrorRoute and plugin";
    let path = "spec.strategy.canary.steps[0]";
    let pause = |duration: Value| canary(json!({ "steps": [{ "pause": { "duration": duration } }] }));
    let bad_pause = |found: &str| {
        format!(
            "{path}.pause.duration: Invalid value: {found}: must be 0 or more seconds, or a duration such as 30s, 5m or 1h30m"
        )
    };
    let weighted = json!({ "experiment": { "templates": [{ "name": "a", "specRef": "stable", "weight": 5 }] } });
    let from = |field: &str| json!({ "args": [{ "name": "x", "valueFrom": { "fieldRef": { "fieldPath": field } } }] });
    check(vec![
        (canary(json!({ "steps": [{}] })), &format!("{path}: Invalid value: {{}}: {kinds}")),
        (
            canary(json!({ "steps": [{ "setWeight": 5, "pause": {} }] })),
            &format!("{path}: Invalid value: \"setWeight and pause\": {kinds}"),
        ),
        (
            canary(json!({ "steps": [{ "setWeight": 20 }, { "pause": {} }, { "setWeight": 120 }] })),
            "spec.strategy.canary.steps[2].setWeight: Invalid value: 120: must be between 0 and 100",
        ),
        (
            canary(json!({ "steps": [{ "setWeight": -1 }] })),
            &format!("{path}.setWeight: Invalid value: -1: must be between 0 and 100"),
        ),
        (step(json!({ "setWeight": 800 }), limited(1000)), ""),
        (
            step(json!({ "setWeight": 1001 }), limited(1000)),
            &format!("{path}.setWeight: Invalid value: 1001: must be between 0 and 1000"),
        ),
        (
            step(json!({ "setWeight": 0 }), limited(0)),
            "spec.strategy.canary.trafficRouting.maxTrafficWeight: Invalid value: 0: must be greater than 0",
        ),
        (
            step(json!({ "setWeight": 1 }), json!({ "smi": {}, "maxTrafficWeight": 1000 })),
            "spec.strategy.canary.trafficRouting.maxTrafficWeight: Invalid value: 1000: can only be used with nginx and plugins",
        ),
        (pause(json!(0)), ""),
        (pause(json!("90")), ""),
        (pause(json!("1h30m")), ""),
        (pause(json!(-1)), &bad_pause("-1")),
        (pause(json!("-5m")), &bad_pause("\"-5m\"")),
        (pause(json!("soon")), &bad_pause("\"soon\"")),
        (
            canary(json!({ "steps": [{ "setCanaryScale": { "replicas": 1 } }] })),
            &format!(
                "spec.strategy.canary.trafficRouting: Required value: a router, as {path}.setCanaryScale needs one"
            ),
        ),
        (step(weighted.clone(), json!({ "smi": {} })), ""),
        (
            step(weighted.clone(), nginx),
            &format!(
                "{path}.experiment.templates[0].weight: Invalid value: 5: needs trafficRouting with alb, smi, istio or plugins"
            ),
        ),
        (
            canary(json!({ "steps": [weighted] })),
            &format!(
                "{path}.experiment.templates[0].weight: Invalid value: 5: needs trafficRouting with alb, smi, istio or plugins"
            ),
        ),
        (canary(json!({ "steps": [{ "analysis": from("metadata.labels['app']") }] })), ""),
        (canary(json!({ "steps": [{ "analysis": from("status.alb.loadBalancer.name") }] })), ""),
        (
            canary(json!({ "steps": [{ "analysis": from("metadata.ownerReferences[0]") }] })),
            &format!(
                "{path}.analysis.args[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.ownerReferences[0]\": metadata.name, metadata.namespace, metadata.uid, metadata.labels['<key>'], metadata.annotations['<key>'], or a field outside metadata"
            ),
        ),
        (canary(json!({ "steps": [{ "plugin": { "name": "acme/step" } }] })), ""),
    ]);
}

#[test]
fn managed_routes() {
    let istio = |names: Value| json!({ "istio": { "virtualService": { "name": "v" } }, "managedRoutes": names });
    let listed = json!([{ "name": "r" }]);
    let header = |value: Value| json!({ "setHeaderRoute": { "name": "r", "match": [{ "headerName": "X", "headerValue": value }] } });
    let mirror = |fields: Value| json!({ "setMirrorRoute": { "name": "r", "match": [fields] } });
    let alb = json!({ "alb": { "ingress": "i", "servicePort": 1 }, "managedRoutes": listed });
    let path = "spec.strategy.canary.steps[0]";
    check(vec![
        (step(header(json!({ "exact": "1" })), istio(listed.clone())), ""),
        (step(json!({ "setHeaderRoute": { "name": "r" } }), istio(listed.clone())), ""),
        (
            step(header(json!({})), istio(listed.clone())),
            &format!(
                "{path}.setHeaderRoute.match[0].headerValue: Invalid value: {{}}: exactly one of exact, prefix and regex"
            ),
        ),
        (
            step(header(json!({ "exact": "1", "regex": "2" })), istio(listed.clone())),
            &format!(
                "{path}.setHeaderRoute.match[0].headerValue: Invalid value: {{\"exact\":\"1\",\"regex\":\"2\"}}: exactly one of exact, prefix and regex"
            ),
        ),
        (step(header(json!({ "exact": "1" })), alb.clone()), ""),
        (
            step(header(json!({ "prefix": "1" })), alb),
            &format!(
                "{path}.setHeaderRoute.match[0].headerValue: Invalid value: {{\"prefix\":\"1\"}}: must be exact: alb knows no other"
            ),
        ),
        (
            step(
                header(json!({ "exact": "1" })),
                json!({ "nginx": { "stableIngress": "i" }, "managedRoutes": listed }),
            ),
            &format!(
                "{path}.setHeaderRoute: Invalid value: \"r\": needs trafficRouting with istio, alb, apisix or plugins"
            ),
        ),
        (
            canary(json!({ "steps": [header(json!({ "exact": "1" }))] })),
            &format!(
                "{path}.setHeaderRoute: Invalid value: \"r\": needs trafficRouting with istio, alb, apisix or plugins"
            ),
        ),
        (
            step(header(json!({ "exact": "1" })), istio(Value::Null)),
            &format!(
                "spec.strategy.canary.trafficRouting.managedRoutes: Required value: the route \"r\", which {path}.setHeaderRoute makes"
            ),
        ),
        (
            step(header(json!({ "exact": "1" })), istio(json!([{ "name": "other" }]))),
            &format!(
                "{path}.setHeaderRoute.name: Invalid value: \"r\": must be listed in spec.strategy.canary.trafficRouting.managedRoutes"
            ),
        ),
        (step(mirror(json!({ "method": { "exact": "GET" } })), istio(listed.clone())), ""),
        (
            step(mirror(json!({ "path": { "exact": "/", "prefix": "/" } })), istio(listed.clone())),
            &format!(
                "{path}.setMirrorRoute.match[0].path: Invalid value: {{\"exact\":\"/\",\"prefix\":\"/\"}}: exactly one of exact, prefix and regex"
            ),
        ),
        (
            step(mirror(json!({ "headers": { "X": {} } })), istio(listed.clone())),
            &format!(
                "{path}.setMirrorRoute.match[0].headers.X: Invalid value: {{}}: exactly one of exact, prefix and regex"
            ),
        ),
        (
            step(json!({ "setMirrorRoute": { "name": "r", "percentage": 101 } }), istio(listed.clone())),
            &format!("{path}.setMirrorRoute.percentage: Invalid value: 101: must be between 0 and 100"),
        ),
        (
            step(mirror(json!({})), json!({ "apisix": { "route": { "name": "x" } }, "managedRoutes": listed })),
            &format!("{path}.setMirrorRoute: Invalid value: \"r\": needs trafficRouting with istio or plugins"),
        ),
    ]);
}

#[test]
fn configuration_of_routers() {
    let with = |routing: Value| step(json!({ "setWeight": 1 }), routing);
    let path = "spec.strategy.canary.trafficRouting";
    let sticky = |seconds: i64| {
        with(json!({ "alb": { "ingress": "i", "servicePort": 1,
            "stickinessConfig": { "enabled": true, "durationSeconds": seconds } } }))
    };
    check(vec![
        (
            with(json!({ "nginx": { "stableIngress": "a", "stableIngresses": ["b"] } })),
            &format!("{path}.nginx: Invalid value: \"both\": exactly one of stableIngress and stableIngresses"),
        ),
        (
            with(json!({ "nginx": {} })),
            &format!("{path}.nginx: Invalid value: \"neither\": exactly one of stableIngress and stableIngresses"),
        ),
        (
            with(json!({ "alb": { "servicePort": 1 } })),
            &format!("{path}.alb: Invalid value: \"neither\": exactly one of ingress and ingresses"),
        ),
        (sticky(604_800), ""),
        (
            sticky(604_801),
            &format!(
                "{path}.alb.stickinessConfig.durationSeconds: Invalid value: 604801: must be between 1 and 604800"
            ),
        ),
        (
            with(json!({ "istio": {} })),
            &format!("{path}.istio: Invalid value: \"neither\": exactly one of virtualService and virtualServices"),
        ),
        (
            with(json!({ "istio": { "virtualServices": [{ "name": "a" }] } })),
            &format!(
                "{path}.istio.virtualServices[0].routes: Required value: the names of routes: there are several VirtualServices"
            ),
        ),
        (
            with(
                json!({ "istio": { "virtualServices": [{ "name": "a", "routes": ["x"] }, { "name": "a", "routes": ["y"] }] } }),
            ),
            &format!("{path}.istio.virtualServices[1].name: Duplicate value: \"a\": each VirtualService once"),
        ),
        (
            with(json!({ "istio": { "virtualService": { "routes": ["x"] } } })),
            &format!("{path}.istio: Invalid value: {{\"name\":\"\",\"routes\":[\"x\"]}}: a VirtualService has a name"),
        ),
        (
            with(json!({ "traefik": {} })),
            &format!("{path}.traefik.weightedTraefikServiceName: Required value: the name of a TraefikService"),
        ),
        (
            with(json!({ "apisix": {} })),
            &format!("{path}.apisix.route.name: Required value: the name of an ApisixRoute"),
        ),
        (
            with(json!({ "plugins": { "acme/router": {} } })),
            &format!(
                "{path}.plugins: Invalid value: \"acme/router\": argoproj-labs/gatewayAPI, the one that is built in"
            ),
        ),
    ]);
}

#[test]
fn the_controller_sees_the_rollout_before_what_it_names() {
    let shown = |patch: &Value| {
        let (rollout, dropped) = rollout(patch);
        first(&Snapshot { rollout, dropped, ..Default::default() }).map(|problem| problem.field)
    };
    assert_eq!(shown(&json!({})), None);
    let services = canary(json!({ "canaryService": "c", "stableService": "s" }));
    assert_eq!(shown(&services).as_deref(), Some("spec.strategy.canary.stableService"));
    let mut both = services;
    both["replicas"] = json!(-1);
    assert_eq!(shown(&both).as_deref(), Some("spec.replicas"));
    assert_eq!(shown(&json!({ "minReadySeconds": "soon" })), None, "what cannot be read is left out, as the peer does");
}

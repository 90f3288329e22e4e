use super::{References, first, references, spec, written};
use crate::rollout::{Service, Snapshot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::analysis::AnalysisTemplateSpec;
use tidegate_crds::patch::merge_apply;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::{ObjectRef, Objects, RouterOptions};

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
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: must be selected by spec.selector",
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
    let expected = "spec.template: Forbidden: must be empty, as workloadRef names the workload that has it";
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
fn pods() {
    let path = "spec.template.spec";
    let one = "spec.template.spec.containers[0]";
    let mount = |mount: Value| {
        pod(json!({ "volumes": [{ "name": "v" }],
            "containers": [{ "name": "web", "image": "w", "volumeMounts": [mount] }] }))
    };
    let ports = |ports: Value| container(json!({ "ports": ports }));
    check(vec![
        (pod(json!({ "containers": null })), &format!("{path}.containers: Required value: at least one container")),
        (container(json!({ "name": null })), &format!("{one}.name: Required value: a name")),
        (
            container(json!({ "name": "Web" })),
            &format!("{one}.name: Invalid value: \"Web\": must be at most 63 lower-case letters, digits and '-'"),
        ),
        (
            pod(json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "a", "image": "x" }] })),
            &format!("{path}.containers[1].name: Duplicate value: \"a\": names are unique"),
        ),
        (
            pod(json!({ "initContainers": [{ "name": "web", "image": "x" }] })),
            &format!("{path}.initContainers[0].name: Duplicate value: \"web\": names are unique"),
        ),
        (container(json!({ "image": null })), &format!("{one}.image: Required value: an image")),
        (
            container(json!({ "image": " web" })),
            &format!("{one}.image: Invalid value: \" web\": must not begin or end with a space"),
        ),
        (ports(json!([{}])), &format!("{one}.ports[0].containerPort: Required value: a port number")),
        (
            ports(json!([{ "containerPort": 70000 }])),
            &format!("{one}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535"),
        ),
        (
            ports(json!([{ "containerPort": 80, "protocol": "HTTP" }])),
            &format!(
                "{one}.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ),
        ),
        (
            ports(json!([{ "containerPort": 80, "name": "80" }])),
            &format!(
                "{one}.ports[0].name: Invalid value: \"80\": must be at most 15 lower-case letters, digits and '-', with at least one letter"
            ),
        ),
        (
            ports(json!([{ "containerPort": 80, "name": "a" }, { "containerPort": 81, "name": "a" }])),
            &format!("{one}.ports[1].name: Duplicate value: \"a\": names of ports are unique in a container"),
        ),
        (
            ports(json!([{ "containerPort": 80, "hostPort": -1 }])),
            &format!("{one}.ports[0].hostPort: Invalid value: -1: must be between 1 and 65535"),
        ),
        (
            container(json!({ "imagePullPolicy": "Sometimes" })),
            &format!(
                "{one}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ),
        ),
        (container(json!({ "env": [{ "value": "x" }] })), &format!("{one}.env[0].name: Required value: a name")),
        (
            container(json!({ "env": [{ "name": "A", "valueFrom": {} }] })),
            &format!("{one}.env[0].valueFrom: Invalid value: \"\": exactly one source"),
        ),
        (
            container(json!({ "env": [{ "name": "A", "value": "x", "valueFrom": { "fieldRef": {} } }] })),
            &format!("{one}.env[0].valueFrom: Invalid value: \"value and valueFrom\": only one of the two"),
        ),
        (mount(json!({ "name": "v", "mountPath": "/v" })), ""),
        (
            mount(json!({ "name": "x", "mountPath": "/v" })),
            &format!("{one}.volumeMounts[0].name: Not found: \"x\": a volume of this pod"),
        ),
        (mount(json!({ "name": "v" })), &format!("{one}.volumeMounts[0].mountPath: Required value: a path")),
        (
            pod(json!({ "volumes": [{ "name": "v", "emptyDir": {}, "secret": {} }] })),
            &format!("{path}.volumes[0]: Invalid value: \"emptyDir and secret\": a volume has one source"),
        ),
        (
            container(json!({ "readinessProbe": { "periodSeconds": 1 } })),
            &format!("{one}.readinessProbe: Required value: one of exec, httpGet, tcpSocket and grpc"),
        ),
        (
            container(json!({ "livenessProbe": { "successThreshold": 2, "exec": {} } })),
            &format!("{one}.livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ),
        (
            container(json!({ "resources": { "limits": { "cpu": "100m" }, "requests": { "cpu": 1 } } })),
            &format!("{one}.resources.requests.cpu: Invalid value: 1: must not be greater than the limit \"100m\""),
        ),
        (
            container(json!({ "resources": { "limits": { "memory": "-1Mi" } } })),
            &format!("{one}.resources.limits.memory: Invalid value: \"-1Mi\": must not be negative"),
        ),
        (
            pod(json!({ "restartPolicy": "Never" })),
            &format!("{path}.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""),
        ),
        (pod(json!({ "restartPolicy": "Always" })), ""),
        (
            pod(json!({ "activeDeadlineSeconds": 5 })),
            &format!("{path}.activeDeadlineSeconds: Forbidden: pods of a ReplicaSet have no deadline"),
        ),
        (
            pod(json!({ "terminationGracePeriodSeconds": -5 })),
            &format!("{path}.terminationGracePeriodSeconds: Invalid value: -5: must be greater than or equal to 0"),
        ),
        (
            pod(json!({ "dnsPolicy": "Mine" })),
            &format!(
                "{path}.dnsPolicy: Unsupported value: \"Mine\": supported values: \"ClusterFirst\", \"ClusterFirstWithHostNet\", \"Default\", \"None\""
            ),
        ),
        (
            pod(json!({ "serviceAccountName": "A_B" })),
            &format!(
                "{path}.serviceAccountName: Invalid value: \"A_B\": must be lower-case letters, digits, '-' and '.'"
            ),
        ),
        (
            pod(json!({ "tolerations": [{ "operator": "Equal" }] })),
            &format!("{path}.tolerations[0].operator: Invalid value: \"Equal\": must be Exists when key is empty"),
        ),
        (
            pod(
                json!({ "topologySpreadConstraints": [{ "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }] }),
            ),
            &format!("{path}.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0"),
        ),
        (
            pod(json!({ "ephemeralContainers": [{ "name": "debug", "image": "sh" }] })),
            &format!("{path}.ephemeralContainers: Forbidden: ephemeral containers are not allowed in a pod template"),
        ),
        (
            json!({ "template": { "metadata": { "labels": { "bad key": "x" } } } }),
            "spec.template.metadata.labels: Invalid value: \"bad key\": must be a label key: at most 63 letters, digits, '-', '_' and '.', perhaps after a domain and '/'",
        ),
    ]);
}

#[test]
fn nonsense_that_the_peer_skips_is_no_problem() {
    check(vec![
        (
            container(json!({ "resources": { "limits": { "memory": "invalid", "cpu": 0.001 }, "requests": "none" } })),
            "",
        ),
        (container(json!({ "resources": { "requests": { "cpu": { "a": 1 } }, "limits": { "cpu": "100m" } } })), ""),
        (container(json!({ "resources": [1] })), ""),
        (pod(json!({ "ephemeralContainers": [{ "name": 5 }] })), ""),
        (pod(json!({ "ephemeralContainers": "garbage" })), ""),
        (container(json!({ "securityContext": { "privileged": true } })), ""),
    ]);
}

fn service(selector: Value, managed_by: Option<&str>) -> Service {
    let annotations = managed_by.map(|name| json!({ "argo-rollouts.argoproj.io/managed-by-rollouts": name }));
    Service::from_value(&json!({ "metadata": { "annotations": annotations }, "spec": { "selector": selector } }))
}

#[derive(Default)]
struct Cluster {
    services: BTreeMap<String, Service>,
    templates: BTreeMap<(String, bool), AnalysisTemplateSpec>,
    routing: Objects,
}

impl Cluster {
    fn problems(&self, patch: &Value, complete: bool) -> Vec<String> {
        let found = References {
            services: &self.services,
            templates: &self.templates,
            routing: &self.routing,
            options: &RouterOptions::default(),
            complete,
        };
        let (rollout, _) = rollout(patch);
        references(&rollout, &found).iter().map(ToString::to_string).collect()
    }

    fn service(mut self, name: &str, service: Service) -> Self {
        self.services.insert(name.to_owned(), service);
        self
    }

    fn template(mut self, name: &str, cluster_scope: bool, spec: Value) -> Self {
        self.templates.insert((name.to_owned(), cluster_scope), serde_json::from_value(spec).unwrap());
        self
    }
}

#[test]
fn services_that_are_named() {
    let two = canary(
        json!({ "canaryService": "c", "stableService": "s", "stableMetadata": { "labels": { "role": "stable" } } }),
    );
    let web = || service(json!({ "app": "web", "rollouts-pod-template-hash": "x" }), Some("web"));
    let sound = || Cluster::default().service("c", web()).service("s", web());
    assert_eq!(sound().problems(&two, true), Vec::<String>::new());
    assert_eq!(
        Cluster::default().problems(&two, true),
        [
            "spec.strategy.canary.stableService: Invalid value: \"s\": service \"s\" not found in namespace shop",
            "spec.strategy.canary.canaryService: Invalid value: \"c\": service \"c\" not found in namespace shop",
        ]
    );
    assert_eq!(Cluster::default().problems(&two, false), Vec::<String>::new());
    let other = sound().service("c", service(json!({ "app": "api" }), None));
    assert_eq!(
        other.problems(&two, true),
        [
            "spec.strategy.canary.canaryService: Invalid value: \"c\": Service \"c\" selects pods with label app=api, the pod template has app=web"
        ]
    );
    let missing = sound().service("c", service(json!({ "tier": "x" }), None));
    assert!(missing.problems(&two, true)[0].ends_with("label tier=x, the pod template has no such label"));
    let ephemeral = sound().service("s", service(json!({ "app": "web", "role": "stable" }), None));
    assert_eq!(ephemeral.problems(&two, true), Vec::<String>::new(), "stableMetadata gives the label");
    let foreign = sound().service("s", service(json!({}), Some("api")));
    assert_eq!(
        foreign.problems(&two, true),
        ["spec.strategy.canary.stableService: Invalid value: \"s\": Service \"s\" is managed by another Rollout"]
    );
    let pair = canary(json!({ "pingPong": { "pingService": "a", "pongService": "b" } }));
    assert_eq!(Cluster::default().problems(&pair, true).len(), 2);
    let preview = blue_green(json!({ "activeService": "a", "previewService": "b" }));
    assert!(Cluster::default().problems(&preview, true)[1].starts_with("spec.strategy.blueGreen.previewService: "));
}

#[test]
fn analysis_templates_that_are_named() {
    let metric = |name: &str, query: &str, fields: Value| {
        let mut metric = json!({ "name": name, "provider": { "prometheus": { "query": query } } });
        merge_apply(&mut metric, &fields);
        metric
    };
    let plain = |name: &str| json!({ "metrics": [metric(name, "up", json!({}))] });
    let run = |templates: &[&str], args: Value| {
        let templates: Vec<Value> = templates.iter().map(|name| json!({ "templateName": name })).collect();
        canary(json!({ "steps": [{ "analysis": { "templates": templates, "args": args } }] }))
    };
    let none: [&str; 0] = [];
    let path = "spec.strategy.canary.steps[0].analysis";

    let one = Cluster::default().template("a", false, plain("m"));
    assert_eq!(one.problems(&run(&["a"], json!([])), true), none);
    assert_eq!(
        one.problems(&run(&["b"], json!([])), true),
        [format!(
            "{path}.templates[0].templateName: Invalid value: \"b\": AnalysisTemplate \"b\" not found in namespace shop"
        )]
    );
    assert_eq!(one.problems(&run(&["b"], json!([])), false), none);
    let cluster = canary(json!({ "analysis": { "templates": [{ "templateName": "a", "clusterScope": true }] } }));
    assert_eq!(
        one.problems(&cluster, true),
        [
            "spec.strategy.canary.analysis.templates[0].templateName: Invalid value: \"a\": ClusterAnalysisTemplate \"a\" not found"
        ]
    );

    let nested = Cluster::default()
        .template("a", false, json!({ "templates": [{ "templateName": "b" }, { "templateName": "c" }] }))
        .template(
            "b",
            false,
            json!({ "templates": [{ "templateName": "a" }], "metrics": [metric("m", "up", json!({}))] }),
        );
    assert_eq!(
        nested.problems(&run(&["a"], json!([])), true),
        [format!(
            "{path}.templates[0].templateName: Invalid value: \"c\": AnalysisTemplate \"c\" not found in namespace shop, which AnalysisTemplate a names"
        )]
    );
    assert_eq!(nested.template("c", false, json!({})).problems(&run(&["a"], json!([])), true), none);

    let twice = Cluster::default().template("a", false, plain("m")).template("b", false, plain("m"));
    assert_eq!(
        twice.problems(&run(&["a", "b"], json!([])), true),
        [format!("{path}.templates: Invalid value: \"m\": metric \"m\" stands in both a and b")]
    );

    let asking = |default: Value| {
        let args = json!([{ "name": "host", "value": default }]);
        json!({ "args": args, "metrics": [metric("m", "up{host=\"{{args.host}}\"}", json!({}))] })
    };
    let needy = Cluster::default().template("a", false, asking(Value::Null));
    assert_eq!(
        needy.problems(&run(&["a"], json!([])), true),
        [format!("{path}.args: Required value: a value for argument \"host\", which has no default in its template")]
    );
    assert_eq!(needy.problems(&run(&["a"], json!([{ "name": "host", "value": "x" }])), true), none);
    let differing = Cluster::default().template("a", false, asking("x".into())).template(
        "b",
        false,
        json!({ "args": [{ "name": "host", "value": "y" }] }),
    );
    assert_eq!(
        differing.problems(&run(&["a", "b"], json!([])), true),
        [format!(
            "{path}.templates: Invalid value: \"host\": argument \"host\" has different values in several templates"
        )]
    );
    let loose =
        Cluster::default().template("a", false, json!({ "metrics": [metric("m", "{{ args.nobody }}", json!({}))] }));
    assert_eq!(
        loose.problems(&run(&["a"], json!([])), true),
        [format!(
            "{path}.templates: Invalid value: \"{{{{args.nobody}}}}\": metric \"m\" of a uses it, no template declares it"
        )]
    );

    let endless = |count: Value| {
        let spec = json!({ "metrics": [metric("m", "up", json!({ "interval": "5s", "count": count }))],
                           "args": [{ "name": "n", "value": "3" }] });
        Cluster::default().template("a", false, spec)
    };
    assert_eq!(
        endless(Value::Null).problems(&run(&["a"], json!([])), true),
        [format!("{path}.templates: Invalid value: \"a\": metric \"m\" of a needs a count: here a run has to end")]
    );
    assert_eq!(endless(json!(0)).problems(&run(&["a"], json!([])), true).len(), 1);
    assert_eq!(endless(json!(3)).problems(&run(&["a"], json!([])), true), none);
    assert_eq!(endless(json!("{{args.n}}")).problems(&run(&["a"], json!([])), true), none);
    let background = canary(json!({ "analysis": { "templates": [{ "templateName": "a" }] } }));
    assert_eq!(endless(Value::Null).problems(&background, true), none, "a background run may go on");
}

#[test]
fn routes_that_are_named() {
    let object = |api: &str, kind: &str, plural: &str, name: &str, spec: Value| {
        let target = ObjectRef::new(api, kind, plural, "shop", name);
        (
            target,
            json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec }),
        )
    };
    let ingress = |service: &str, port: Value| {
        let path = json!({ "backend": { "service": { "name": service, "port": port } } });
        object(
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            "i",
            json!({ "rules": [{ "http": { "paths": [path] } }] }),
        )
    };
    let action = json!({ "name": "use-annotation" });
    let virtual_service = |hosts: [&str; 2]| {
        let route: Vec<Value> = hosts.iter().map(|host| json!({ "destination": { "host": host } })).collect();
        let http = json!({ "http": [{ "name": "main", "route": route }] });
        object("networking.istio.io/v1alpha3", "VirtualService", "virtualservices", "v", http)
    };
    let istio = |route: &str| json!({ "istio": { "virtualService": { "name": "v", "routes": [route] } } });
    let mapping = |spec: Value| object("getambassador.io/v2", "Mapping", "mappings", "m", spec);
    let ambassador = json!({ "ambassador": { "mappings": ["m"] } });
    let nginx = json!({ "nginx": { "stableIngress": "i" } });
    let alb = json!({ "alb": { "ingress": "i", "servicePort": 80 } });
    let traefik = json!({ "traefik": { "weightedTraefikServiceName": "t" } });
    let rows = [
        (&nginx, Some(ingress("s", json!({ "number": 80 }))), ""),
        (&nginx, None, "nginx: Not found: \"Ingress shop/i\": an existing object"),
        (
            &nginx,
            Some(ingress("x", json!({ "number": 80 }))),
            "nginx: Invalid value: \"Ingress shop/i\": spec.rules[].http.paths[].backend.service.name: found no backend s, expected at least one path that leads to the stable Service s",
        ),
        (&alb, Some(ingress("s", action.clone())), ""),
        (
            &alb,
            Some(ingress("x", action)),
            "alb: Invalid value: \"Ingress shop/i\": spec.rules[].http.paths[].backend: found no backend s, expected a path with backend s and port name use-annotation",
        ),
        (&istio("main"), Some(virtual_service(["c", "s"])), ""),
        (&istio("main"), None, "istio: Not found: \"VirtualService shop/v\": an existing object"),
        (
            &istio("other"),
            Some(virtual_service(["c", "s"])),
            "istio: Invalid value: \"VirtualService shop/v\": spec.http[].name: found no route other, expected it, as spec.strategy.canary.trafficRouting.istio.virtualService.routes names it",
        ),
        (
            &istio("main"),
            Some(virtual_service(["c", "x"])),
            "istio: Invalid value: \"VirtualService shop/v\": spec.http[0].route: found no such destination, expected one for the stable version, with host \"s\"",
        ),
        (&ambassador, Some(mapping(json!({ "service": "s" }))), ""),
        (
            &ambassador,
            Some(mapping(json!({ "service": "s", "weight": 5 }))),
            "ambassador: Invalid value: \"Mapping shop/m\": spec.weight: found 5, expected no weight: it has what the canary leaves",
        ),
        (&traefik, None, ""),
    ];
    let web = || service(json!({ "app": "web" }), None);
    for (routing, found, expected) in rows {
        let mut cluster = Cluster::default().service("c", web()).service("s", web());
        cluster.routing.0.extend(found.clone());
        let patch = canary(json!({ "canaryService": "c", "stableService": "s", "trafficRouting": routing }));
        let problems = cluster.problems(&patch, true);
        let expected: Vec<String> = [expected]
            .iter()
            .filter(|e| !e.is_empty())
            .map(|e| format!("spec.strategy.canary.trafficRouting.{e}"))
            .collect();
        assert_eq!(problems, expected, "{routing}");
        if found.is_none() {
            assert_eq!(cluster.problems(&patch, false), Vec::<String>::new(), "{routing} without the cluster");
        }
    }
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

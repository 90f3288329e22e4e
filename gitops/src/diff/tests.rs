use super::*;
use crate::normalize::LAST_APPLIED;
use serde_json::json;

fn differences(target: &Value, live: &Value) -> Vec<(String, Change)> {
    let settings = Settings {
        tracking: &Tracking::default(),
        ignore: &IgnoreRules::default(),
        options: &CompareOptions::default(),
    };
    compare(target, live, &settings).differences.into_iter().map(|d| (d.path, d.change)).collect()
}

/// `live` as client-side apply of `last` left it.
fn applied(mut live: Value, last: &Value) -> Value {
    object::set_annotation(&mut live, LAST_APPLIED, &last.to_string());
    live
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}, "spec": spec})
}

fn pods(container: Value) -> Value {
    deployment(json!({"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": [container]}}}))
}

#[test]
fn what_the_server_adds_is_no_difference() {
    let target = pods(json!({
        "name": "app", "image": "a:1", "env": [], "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}},
        "ports": [{"containerPort": 80}], "args": ["x"], "stdin": false,
    }));
    let live = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3, "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {
            "replicas": 1, "progressDeadlineSeconds": 600,
            "template": {"metadata": {}, "spec": {
                "containers": [{
                    "name": "app", "image": "a:1", "args": ["x"], "imagePullPolicy": "IfNotPresent",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                }, {"name": "injected", "image": "p"}],
                "restartPolicy": "Always",
            }},
        },
        "status": {"replicas": 1},
    });
    assert_eq!(differences(&target, &live), []);
    assert_eq!(differences(&target, &applied(live, &target)), []);
}

#[test]
fn what_is_said_and_not_there_is_a_difference() {
    let live = pods(json!({"name": "app", "image": "a:1", "args": ["x"], "env": [{"name": "A", "value": "1"}]}));
    let container = "/spec/template/spec/containers/0";
    for (target, path, change) in [
        (json!({"name": "app", "image": "a:2"}), "/image", Change::Set),
        (json!({"name": "app", "image": "a:1", "args": ["y"]}), "/args/0", Change::Set),
        (json!({"name": "app", "image": "a:1", "args": ["x", "y"]}), "/args", Change::Set),
        (json!({"name": "app", "image": "a:1", "tty": true}), "/tty", Change::Add),
        (json!({"name": "app", "env": [{"name": "A", "value": "2"}]}), "/env/0/value", Change::Set),
        (json!({"name": "app", "env": [{"name": "B", "value": "2"}]}), "/env/0", Change::Add),
        (json!({"name": "other"}), "", Change::Add),
    ] {
        assert_eq!(differences(&pods(target.clone()), &live), [(format!("{container}{path}"), change)], "{target}");
    }
}

#[test]
fn what_was_applied_and_is_no_longer_said_is_a_difference() {
    let last = deployment(json!({"replicas": 3, "template": {"spec": {"containers": [
        {"name": "app", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}, {"name": "old"}]}}}));
    let live = applied(last.clone(), &last);
    let target = deployment(
        json!({"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "A", "value": "1"}]}]}}}),
    );
    assert_eq!(
        differences(&target, &live),
        [
            ("/spec/replicas".to_owned(), Change::Remove),
            ("/spec/template/spec/containers/0/env/1".to_owned(), Change::Remove),
            ("/spec/template/spec/containers/1".to_owned(), Change::Remove),
        ]
    );
    let mut scaled = live;
    scaled["spec"] = target["spec"].clone();
    assert_eq!(differences(&target, &scaled), [], "gone already");
}

#[test]
fn what_server_side_apply_owned_is_what_was_applied() {
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [
        {"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}}]},
        "data": {"a": "1", "b": "2", "theirs": "3"}});
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
    assert_eq!(differences(&target, &live), [("/data/b".to_owned(), Change::Remove)]);
}

#[test]
fn empty_fields_count_for_custom_resources_only() {
    let custom =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    assert_eq!(differences(&custom(json!({"on": false})), &custom(json!({}))), [("/spec/on".to_owned(), Change::Add)]);
    assert_eq!(differences(&custom(json!({"on": null})), &custom(json!({}))), []);
    assert_eq!(differences(&deployment(json!({"paused": false})), &deployment(json!({}))), []);
    let mut labelled = custom(json!({}));
    labelled["metadata"]["labels"] = json!({});
    assert_eq!(differences(&labelled, &custom(json!({}))), []);
}

#[test]
fn null_says_nothing() {
    let live = deployment(json!({"replicas": 1}));
    let target = deployment(json!({"replicas": null}));
    assert_eq!(differences(&target, &live), []);
    assert_eq!(differences(&target, &applied(live.clone(), &live)), [("/spec/replicas".to_owned(), Change::Remove)]);
}

#[test]
fn elements_of_replaced_lists_may_have_defaults() {
    let ingress = |path: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"},
        "spec": {"rules": [{"http": {"paths": [path]}}]}})
    };
    assert_eq!(differences(&ingress(json!({"path": "/"})), &ingress(json!({"path": "/", "pathType": "Prefix"}))), []);
    let last = ingress(json!({"path": "/", "pathType": "Prefix"}));
    assert_eq!(
        differences(&ingress(json!({"path": "/"})), &applied(last.clone(), &last)),
        [("/spec/rules/0/http/paths/0/pathType".to_owned(), Change::Remove)]
    );
}

#[test]
fn the_order_counts_where_it_matters() {
    let with = |list: &str, names: [&str; 2]| {
        deployment(json!({"template": {"spec": {list: [{"name": names[0]}, {"name": names[1]}]}}}))
    };
    let path = |list: &str| format!("/spec/template/spec/{list}");
    assert_eq!(differences(&with("containers", ["a", "b"]), &with("containers", ["b", "a"])), []);
    assert_eq!(
        differences(&with("initContainers", ["a", "b"]), &with("initContainers", ["b", "a"])),
        [(path("initContainers"), Change::Set)]
    );
}

#[test]
fn amounts_in_a_rollout_are_amounts() {
    let rollout = |cpu: &str| {
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"},
        "spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": cpu}}}]}}}})
    };
    assert_eq!(differences(&rollout("1000m"), &rollout("1")), []);
    assert_eq!(differences(&rollout("1001m"), &rollout("1")).len(), 1);
}

#[test]
fn moving_to_another_tracking_method_removes_nothing() {
    let mut last = deployment(json!({}));
    object::set_label(&mut last, crate::tracking::DEFAULT_LABEL, "web");
    let live = applied(last.clone(), &last);
    let mut target = deployment(json!({}));
    Tracking::default().mark(&mut target, "web", "n");
    assert_eq!(differences(&target, &live), [("/metadata/annotations".to_owned(), Change::Add)]);
}

#[test]
fn a_secret_is_compared_as_it_is_stored() {
    let target = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "v"}});
    let live = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dg=="}, "type": "Opaque"});
    assert_eq!(differences(&target, &live), []);
    let changed = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dw=="}});
    let found = differences(&target, &changed);
    assert_eq!(found, [("/data/k".to_owned(), Change::Set)]);
}

#[test]
fn after_applying_there_is_no_difference() {
    let last = pods(json!({"name": "app", "image": "a:1", "env": [{"name": "GONE", "value": "1"}]}));
    let mut live = applied(last.clone(), &last);
    live["spec"]["replicas"] = 4.into();
    let target = pods(json!({"name": "app", "image": "a:2", "ports": [{"containerPort": 80}]}));
    assert!(!differences(&target, &live).is_empty());
    let merged = three_way::apply_three_way(Some(&last), &live, &target);
    assert_eq!(differences(&target, &applied(merged.clone(), &target)), []);
    assert_eq!(merged["spec"]["replicas"], 4);
}

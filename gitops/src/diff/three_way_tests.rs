use super::*;
use proptest::prelude::*;
use serde_json::json;

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": list}}}))
}

#[test]
fn keyed_lists_merge() {
    let last = containers(json!([
        {"name": "app", "image": "a:1", "env": [{"name": "A", "value": "1"}, {"name": "GONE", "value": "x"}]},
        {"name": "old", "image": "o"},
    ]));
    let live = containers(json!([
        {"name": "proxy", "image": "injected"},
        {"name": "app", "image": "a:1", "imagePullPolicy": "Always",
         "env": [{"name": "THEIRS", "value": "t"}, {"name": "A", "value": "1"}, {"name": "GONE", "value": "x"}],
         "ports": [{"containerPort": 53, "protocol": "UDP", "name": "dns"}]},
        {"name": "old", "image": "o"},
    ]));
    let target = containers(json!([
        {"name": "app", "image": "a:2", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
         "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]},
        {"name": "new", "image": "n"},
    ]));
    assert_eq!(
        apply_three_way(Some(&last), &live, &target),
        containers(json!([
            {"name": "proxy", "image": "injected"},
            {"name": "app", "image": "a:2", "imagePullPolicy": "Always",
             "env": [{"name": "THEIRS", "value": "t"}, {"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
             "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}]},
            {"name": "new", "image": "n"},
        ]))
    );
}

#[test]
fn a_union_loses_its_other_parts_when_it_changes() {
    let live = deployment(json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}}));
    let same = deployment(json!({"strategy": {"type": "RollingUpdate"}}));
    assert_eq!(apply_three_way(None, &live, &same), live);
    let other = deployment(json!({"strategy": {"type": "Recreate"}}));
    assert_eq!(apply_three_way(None, &live, &other), other);
}

#[test]
fn lists_of_custom_resources_are_replaced() {
    let custom = |list: Value| json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"template": {"spec": {"containers": list}}}});
    let live = custom(json!([{"name": "a", "image": "1", "x": 1}, {"name": "b"}]));
    let target = custom(json!([{"name": "a", "image": "2"}]));
    assert_eq!(apply_three_way(None, &live, &target), target);
}

#[test]
fn null_asks_for_removal() {
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}});
    let target = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": null}});
    assert_eq!(
        apply_three_way(None, &live, &target),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "2"}})
    );
}

#[test]
fn finalizers_of_others_stay() {
    let with = |list: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"finalizers": list}});
    let merged =
        apply_three_way(Some(&with(json!(["a", "b"]))), &with(json!(["x", "a", "b"])), &with(json!(["b", "c"])));
    assert_eq!(merged, with(json!(["x", "b", "c"])));
}

#[test]
fn the_spelling_of_an_amount_stays() {
    let with = |cpu: Value| containers(json!([{"name": "a", "resources": {"limits": {"cpu": cpu}}}]));
    assert_eq!(apply_three_way(None, &with(json!("1")), &with(json!("1000m"))), with(json!("1")));
    assert_eq!(apply_three_way(None, &with(json!("1")), &with(json!("1500m"))), with(json!("1500m")));
}

/// Objects whose maps and keyed lists overlap often. Values carry no null.
fn object() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![any::<bool>().prop_map(Value::from), (0..3i64).prop_map(Value::from), "[ab]".prop_map(Value::from)];
    let map = prop::collection::btree_map("[a-d]", leaf, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()));
    let container = ("[a-d]", map.clone()).prop_map(|(name, mut map)| {
        map["name"] = name.into();
        map
    });
    let list = prop::collection::vec(container, 0..4).prop_map(|mut list| {
        let mut seen = Vec::new();
        list.retain(|c| {
            !seen.contains(&c["name"]) && {
                seen.push(c["name"].clone());
                true
            }
        });
        Value::Array(list)
    });
    (map.clone(), map, list, prop::bool::ANY).prop_map(|(labels, selector, list, custom)| {
        let (api_version, kind) = if custom { ("example.com/v1", "Thing") } else { ("apps/v1", "Deployment") };
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"labels": labels},
            "spec": {"selector": selector, "template": {"spec": {"containers": list}}}})
    })
}

/// Whether everything in `part` is in `whole`; keyed lists by name.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(k, v)| whole.get(k).is_some_and(|w| is_part(v, w)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.iter().all(|p| whole.iter().any(|w| w["name"] == p["name"] && is_part(p, w)))
        }
        _ => part == whole,
    }
}

fn with_kind(value: &Value, of: &Value) -> Value {
    let mut value = value.clone();
    value["apiVersion"] = of["apiVersion"].clone();
    value["kind"] = of["kind"].clone();
    value
}

proptest! {
    #[test]
    fn what_is_said_is_there(last in object(), live in object(), target in object()) {
        let merged = apply_three_way(Some(&with_kind(&last, &target)), &with_kind(&live, &target), &target);
        prop_assert!(is_part(&target, &merged), "{merged}");
    }

    #[test]
    fn applying_twice_is_applying_once(last in object(), live in object(), target in object()) {
        let once = apply_three_way(Some(&with_kind(&last, &target)), &with_kind(&live, &target), &target);
        prop_assert_eq!(&apply_three_way(Some(&target), &once, &target), &once);
        prop_assert_eq!(&apply_three_way(None, &once, &target), &once);
    }

    #[test]
    fn fields_of_others_stay(live in object(), target in object()) {
        let live = with_kind(&live, &target);
        let merged = apply_three_way(None, &live, &target);
        for map in ["/metadata/labels", "/spec/selector"] {
            for (key, value) in live.pointer(map).and_then(Value::as_object).into_iter().flatten() {
                if target.pointer(map).and_then(|t| t.get(key)).is_none() {
                    prop_assert_eq!(merged.pointer(map).and_then(|m| m.get(key)), Some(value));
                }
            }
        }
        if target["kind"] == "Deployment" {
            for container in object::list(&live, "/spec/template/spec/containers") {
                let merged = object::list(&merged, "/spec/template/spec/containers");
                prop_assert!(merged.iter().any(|c| c["name"] == container["name"]));
            }
        }
    }

    #[test]
    fn what_was_applied_and_is_no_longer_said_goes(last in object(), target in object()) {
        // What is live is what was applied: then applying gives exactly the target.
        let last = with_kind(&last, &target);
        let merged = apply_three_way(Some(&last), &last, &target);
        prop_assert_eq!(merged, target);
    }
}

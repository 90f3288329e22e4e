use crate::fixture::{cluster, exact, object, prefix, refusal, regex, router, settle, try_router, wanted};
use crate::{Objects, Read, Router};
use serde_json::{Value, json};
use tidegate_crds::rollout::RouteMatch;

fn plugin(config: Value) -> Box<dyn Router> {
    router(json!({
        "plugins": { "argoproj-labs/gatewayAPI": config },
        "managedRoutes": [{ "name": "beta" }, { "name": "copy" }],
    }))
}

fn backend(name: &str, weight: i32) -> Value {
    json!({ "group": "", "kind": "Service", "name": name, "port": 80, "weight": weight })
}

fn path(value: &str) -> Value {
    json!([{ "path": { "type": "PathPrefix", "value": value } }])
}

/// An HTTPRoute `web` with two rules that split, and one of somebody else.
fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "web", "namespace": "shop", "labels": { "team": "a" } },
        "spec": {
            "parentRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
            "hostnames": ["shop.example"],
            "rules": [
                { "matches": path("/a"), "backendRefs": [backend("stable", 1), backend("canary", 1)] },
                { "name": "docs", "matches": path("/docs"), "backendRefs": [backend("docs", 1)] },
                { "name": "b", "matches": path("/b"), "backendRefs": [backend("stable", 1), backend("canary", 1), backend("tap", 7)] },
            ],
        },
    })
}

fn rules(objects: &Objects) -> &Vec<Value> {
    object(objects, "HTTPRoute", "web")["spec"]["rules"].as_array().unwrap()
}

fn weights(rule: &Value) -> Vec<(&str, i64)> {
    let backends = rule["backendRefs"].as_array().unwrap();
    backends.iter().map(|b| (b["name"].as_str().unwrap(), b["weight"].as_i64().unwrap_or(-1))).collect()
}

#[test]
fn sets_the_weights_of_every_rule_with_both_services() {
    let router = plugin(json!({ "httpRoute": "web" }));
    let mut objects = cluster([route()]);
    let plan = settle(&*router, &wanted(30), &mut objects);
    assert_eq!(plan.writes.len(), 1);
    assert_eq!(plan.events, [], "the controller's own event says it");
    let rules = rules(&objects);
    assert_eq!(weights(&rules[0]), [("stable", 70), ("canary", 30)]);
    assert_eq!(weights(&rules[1]), [("docs", 1)]);
    assert_eq!(weights(&rules[2]), [("stable", 70), ("canary", 30), ("tap", 7)], "tap is not ours");
    let typed: gateway_api::httproutes::HttpRoute =
        serde_json::from_value(object(&objects, "HTTPRoute", "web").clone()).unwrap();
    assert_eq!(typed.spec.rules.unwrap().len(), 3);
}

#[test]
fn the_largest_weight_may_differ_from_100() {
    let mut objects = cluster([route()]);
    let mut wanted = wanted(5);
    wanted.max = 95;
    settle(&*plugin(json!({ "httpRoute": "web" })), &wanted, &mut objects);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 90), ("canary", 5)]);
}

#[test]
fn a_rule_name_narrows_to_one_rule() {
    for config in [
        json!({ "httpRoute": "web", "httpRouteRuleName": "b" }),
        json!({ "httpRoutes": [{ "name": "web", "ruleName": "b" }] }),
        json!({ "HTTPRoutes": [{ "Name": "web", "rulename": "b" }] }),
    ] {
        let mut objects = cluster([route()]);
        settle(&*plugin(config), &wanted(30), &mut objects);
        assert_eq!(weights(&rules(&objects)[0]), [("stable", 1), ("canary", 1)]);
        assert_eq!(weights(&rules(&objects)[2])[0], ("stable", 70));
    }
}

#[test]
fn marks_the_route_while_any_rollout_is_at_work() {
    let router = plugin(json!({ "httpRoute": "web" }));
    let mut objects = cluster([route()]);
    let marks = |objects: &Objects| {
        let metadata = &object(objects, "HTTPRoute", "web")["metadata"];
        (
            metadata["labels"]["rollouts.argoproj.io/gatewayapi-canary"].as_str().map(str::to_owned),
            metadata["annotations"]["rollouts.argoproj.io/gatewayapi-active-rollouts"].as_str().map(str::to_owned),
        )
    };
    settle(&*router, &wanted(0), &mut objects);
    assert_eq!(marks(&objects), (None, None));
    settle(&*router, &wanted(10), &mut objects);
    assert_eq!(marks(&objects), (Some("in-progress".into()), Some("shop/web".into())));
    let (target, mut shared) = objects.0.pop_first().unwrap();
    shared["metadata"]["annotations"]["rollouts.argoproj.io/gatewayapi-active-rollouts"] = "shop/web,other/app".into();
    objects.insert(target, shared);
    settle(&*router, &wanted(0), &mut objects);
    assert_eq!(
        marks(&objects),
        (Some("in-progress".into()), Some("other/app".into())),
        "the other one is still at work"
    );
    let (target, mut shared) = objects.0.pop_first().unwrap();
    shared["metadata"]["annotations"]["rollouts.argoproj.io/gatewayapi-active-rollouts"] = "shop/web".into();
    objects.insert(target, shared);
    settle(&*router, &wanted(0), &mut objects);
    assert_eq!(marks(&objects), (None, None));
    assert_eq!(object(&objects, "HTTPRoute", "web")["metadata"]["labels"], json!({ "team": "a" }));

    let own = plugin(json!({ "httpRoute": "web", "inProgressLabelKey": "k", "inProgressLabelValue": "v" }));
    settle(&*own, &wanted(10), &mut objects);
    assert_eq!(object(&objects, "HTTPRoute", "web")["metadata"]["labels"]["k"], "v");
    let mut objects = cluster([route()]);
    settle(&*plugin(json!({ "httpRoute": "web", "disableInProgressLabel": true })), &wanted(10), &mut objects);
    assert_eq!(marks(&objects), (None, None));
}

#[test]
fn a_header_route_is_one_rule_for_each_rule_that_splits() {
    let router = plugin(json!({ "httpRoute": "web" }));
    let mut objects = cluster([route()]);
    let with = wanted(0).header("beta", "X-Beta", exact("1"));
    settle(&*router, &with, &mut objects);
    let made = rules(&objects);
    assert_eq!(made.len(), 5);
    assert_eq!(
        made[3],
        json!({
            "name": "beta",
            "matches": [{
                "path": { "type": "PathPrefix", "value": "/a" },
                "headers": [{ "name": "X-Beta", "type": "Exact", "value": "1" }],
            }],
            "backendRefs": [{ "group": "", "kind": "Service", "name": "canary", "port": 80 }],
        })
    );
    assert_eq!(made[4]["name"], "beta-1");
    assert_eq!(made[4]["matches"][0]["path"]["value"], "/b");

    // A later weight leaves the header rules without one.
    let mut later = wanted(40).header("beta", "X-Beta", exact("1"));
    settle(&*router, &later, &mut objects);
    assert_eq!(weights(&rules(&objects)[3]), [("canary", -1)]);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 60), ("canary", 40)]);

    // What the API server fills in is not a difference, but a weight of 0 is.
    let (target, mut stored) = objects.0.pop_first().unwrap();
    stored["spec"]["rules"][3]["backendRefs"][0]["weight"] = 1.into();
    objects.insert(target.clone(), stored.clone());
    assert_eq!(router.plan(&later.input(&objects)).unwrap().writes, []);
    stored["spec"]["rules"][3]["backendRefs"][0]["weight"] = 0.into();
    objects.insert(target.clone(), stored.clone());
    assert_eq!(router.plan(&later.input(&objects)).unwrap().writes.len(), 1);

    // A rule that somebody took away comes back.
    stored["spec"]["rules"].as_array_mut().unwrap().remove(4);
    objects.insert(target, stored);
    settle(&*router, &later, &mut objects);
    assert_eq!(rules(&objects).len(), 5);

    // Another value, and the end.
    later.headers[0].match_[0].header_value = prefix("v1.");
    settle(&*router, &later, &mut objects);
    let header = &rules(&objects)[3]["matches"][0]["headers"][0];
    assert_eq!(header, &json!({ "name": "X-Beta", "type": "RegularExpression", "value": "^v1\\..*" }));
    later.headers[0].match_[0].header_value = regex("v[12]");
    settle(&*router, &later, &mut objects);
    assert_eq!(rules(&objects)[3]["matches"][0]["headers"][0]["value"], "v[12]");
    settle(&*router, &wanted(40), &mut objects);
    assert_eq!(rules(&objects).len(), 3);
}

#[test]
fn header_routes_only_go_into_routes_that_use_them() {
    let config = json!({ "httpRoutes": [{ "name": "web" }, { "name": "api", "useHeaderRoutes": true }] });
    let mut api = route();
    api["metadata"]["name"] = "api".into();
    let mut objects = cluster([route(), api]);
    settle(&*plugin(config), &wanted(10).header("beta", "X-Beta", exact("1")), &mut objects);
    assert_eq!(rules(&objects).len(), 3);
    assert_eq!(object(&objects, "HTTPRoute", "api")["spec"]["rules"].as_array().unwrap().len(), 5);
}

#[test]
fn a_rule_of_a_user_is_not_taken_for_a_managed_one() {
    let mut user = route();
    user["spec"]["rules"][1]["name"] = "beta-1".into();
    let before = user["spec"]["rules"][1].clone();
    let mut objects = cluster([user]);
    settle(&*plugin(json!({ "httpRoute": "web" })), &wanted(10), &mut objects);
    assert_eq!(rules(&objects)[1], before);
}

#[test]
fn mirrors_with_the_weights_of_the_rule() {
    let router = plugin(json!({ "httpRoute": "web", "httpRouteRuleName": "b" }));
    let mut objects = cluster([route()]);
    let matched = RouteMatch {
        method: Some(exact("get")),
        path: Some(exact("/b/cart")),
        headers: [("X-Region".to_owned(), prefix("eu"))].into(),
    };
    settle(&*router, &wanted(20).mirror("copy", matched, Some(35)), &mut objects);
    assert_eq!(
        rules(&objects)[3],
        json!({
            "name": "copy",
            "matches": [{
                "method": "GET",
                "path": { "type": "Exact", "value": "/b/cart" },
                "headers": [{ "name": "X-Region", "type": "RegularExpression", "value": "^eu.*" }],
            }],
            "filters": [{ "type": "RequestMirror", "requestMirror": {
                "backendRef": { "group": "", "kind": "Service", "name": "canary", "port": 80 },
                "percent": 35,
            } }],
            "backendRefs": [backend("stable", 80), backend("canary", 20), backend("tap", 7)],
        })
    );
    settle(&*router, &wanted(20), &mut objects);
    assert_eq!(rules(&objects).len(), 3);
}

#[test]
fn a_mirror_of_everything_comes_before_the_rule_that_it_equals() {
    let router = plugin(json!({ "httpRoute": "web", "httpRouteRuleName": "b" }));
    let mut objects = cluster([route()]);
    let matched = RouteMatch { path: Some(prefix("/b")), ..Default::default() };
    let with = wanted(20).mirror("copy", matched, None);
    settle(&*router, &with, &mut objects);
    assert_eq!(rules(&objects)[0]["name"], "copy");
    assert_eq!(rules(&objects)[0]["filters"][0]["requestMirror"].get("percent"), None);
    assert_eq!(rules(&objects).len(), 4);
}

#[test]
fn a_nameless_mirror_rule_of_the_controller_before_us_is_replaced() {
    let config = json!({
        "canaryService": "canary", "stableService": "stable",
        "steps": [{ "setMirrorRoute": { "name": "copy", "match": [{ "method": { "exact": "GET" } }] } }],
        "trafficRouting": {
            "managedRoutes": [{ "name": "copy" }],
            "plugins": { "argoproj-labs/gatewayAPI": { "httpRoute": "web", "httpRouteRuleName": "b" } },
        },
    });
    let canary = serde_json::from_value(config).unwrap();
    let mut routers = crate::routers("web", "shop", &canary, &crate::RouterOptions::default()).unwrap();
    let router = routers.remove(0);
    let mut with = wanted(20);
    with.mirrors = canary.steps.clone().unwrap().into_iter().filter_map(|s| s.set_mirror_route).collect();
    let mut objects = cluster([route()]);
    settle(&*router, &with, &mut objects);
    let (target, mut stored) = objects.0.pop_first().unwrap();
    stored["spec"]["rules"][3].as_object_mut().unwrap().remove("name");
    objects.insert(target, stored);
    settle(&*router, &with, &mut objects);
    assert_eq!(rules(&objects).len(), 4);
    assert_eq!(rules(&objects)[3]["name"], "copy");
}

#[test]
fn an_experiments_service_is_reached_by_its_own_port() {
    let router = plugin(json!({ "httpRoute": "web" }));
    let mut objects = cluster([route()]);
    settle(&*router, &wanted(10).experiment("exp-a", "h1", 5).behind_port(80, 8080), &mut objects);
    let backends = rules(&objects)[0]["backendRefs"].clone();
    let of = |name: &str| backends.as_array().unwrap().iter().find(|b| b["name"] == name).unwrap()["port"].clone();
    assert_eq!([of("canary"), of("exp-a")], [json!(80), json!(8080)]);
}

#[test]
fn experiments_come_and_go() {
    let router = plugin(json!({ "httpRoute": "web" }));
    let mut objects = cluster([route()]);
    settle(&*router, &wanted(10).experiment("exp-a", "h1", 5).experiment("exp-b", "h2", 15), &mut objects);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 70), ("canary", 10), ("exp-a", 5), ("exp-b", 15)]);
    settle(&*router, &wanted(10).experiment("exp-b", "h2", 20), &mut objects);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 70), ("canary", 10), ("exp-b", 20)]);
    settle(&*router, &wanted(10), &mut objects);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 90), ("canary", 10)]);
    assert_eq!(weights(&rules(&objects)[2]), [("stable", 90), ("canary", 10), ("tap", 7)]);
    let annotations = &object(&objects, "HTTPRoute", "web")["metadata"]["annotations"];
    assert_eq!(annotations.get(super::EXPERIMENT_SERVICES), None);
}

#[test]
fn finds_routes_by_label_and_in_another_namespace() {
    let config = json!({ "httpRouteSelector": { "matchLabels": { "team": "a" } }, "namespace": "edge" });
    let router = plugin(config);
    let mut elsewhere = route();
    elsewhere["metadata"]["namespace"] = "edge".into();
    for rule in elsewhere["spec"]["rules"].as_array_mut().unwrap() {
        for backend in rule["backendRefs"].as_array_mut().unwrap() {
            backend["namespace"] = "shop".into();
        }
    }
    let mut other = elsewhere.clone();
    other["metadata"]["name"] = "other".into();
    other["metadata"]["labels"]["team"] = "b".into();
    let mut objects = cluster([elsewhere, other.clone()]);
    assert!(matches!(&router.reads(&objects)[..], [Read::Select { namespace: Some(ns), .. }] if ns == "edge"));
    settle(&*router, &wanted(10), &mut objects);
    assert_eq!(weights(&rules(&objects)[0]), [("stable", 90), ("canary", 10)]);
    assert_eq!(object(&objects, "HTTPRoute", "other")["spec"], other["spec"]);
    assert!(refusal(&*router, &wanted(10), &Objects::default()).contains("no route in namespace edge"));
}

#[test]
fn tcp_tls_and_grpc_routes_take_weights() {
    for (field, kind, version) in
        [("tcpRoute", "TCPRoute", "v1alpha2"), ("tlsRoute", "TLSRoute", "v1"), ("grpcRoute", "GRPCRoute", "v1")]
    {
        let mut objects = cluster([json!({
            "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "rules": [{ "backendRefs": [backend("stable", 1), backend("canary", 1)] }] },
        })]);
        let with = wanted(25).header("beta", "X-Beta", exact("1"));
        settle(&*plugin(json!({ field: "web" })), &with, &mut objects);
        let rules = object(&objects, kind, "web")["spec"]["rules"].as_array().unwrap();
        assert_eq!(weights(&rules[0]), [("stable", 75), ("canary", 25)]);
        assert_eq!(rules.len(), if kind == "GRPCRoute" { 2 } else { 1 });
        if kind == "GRPCRoute" {
            assert_eq!(
                rules[1]["matches"],
                json!([{ "headers": [{ "name": "X-Beta", "type": "Exact", "value": "1" }] }])
            );
        }
    }
}

#[test]
fn tells_whether_the_gateway_has_taken_it() {
    let condition = |kind: &str, status: &str, generation: i64| {
        json!({ "type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let parent = |name: &str, conditions: Vec<Value>| json!({ "controllerName": "x/y", "parentRef": { "name": name, "namespace": "shop" }, "conditions": conditions });
    let accepted =
        |generation| vec![condition("Accepted", "True", generation), condition("ResolvedRefs", "True", generation)];
    let rows: Vec<(&str, Value, Option<bool>, &str)> = vec![
        ("no status", Value::Null, None, ""),
        ("no parents", json!({ "parents": [] }), None, ""),
        ("current", json!({ "parents": [parent("edge", accepted(4))] }), Some(true), ""),
        ("behind", json!({ "parents": [parent("edge", accepted(3))] }), Some(false), "for generation 3"),
        (
            "refused",
            json!({ "parents": [parent("edge", vec![condition("Accepted", "False", 4)])] }),
            Some(false),
            "does not take",
        ),
        (
            "no backend",
            json!({ "parents": [parent("edge", vec![condition("Accepted", "True", 4), condition("ResolvedRefs", "False", 4)])] }),
            Some(false),
            "ResolvedRefs is False",
        ),
        ("left behind by a Gateway that is not named", json!({ "parents": [parent("former", accepted(1))] }), None, ""),
        (
            "one of two is behind",
            json!({ "parents": [parent("edge", accepted(4)), parent("edge", accepted(2))] }),
            Some(false),
            "generation 2",
        ),
        ("not a status", json!({ "parents": "garbage" }), None, ""),
    ];
    for (name, status, verified, pending) in rows {
        let router = plugin(json!({ "httpRoute": "web" }));
        let mut objects = cluster([route()]);
        settle(&*router, &wanted(30), &mut objects);
        let (target, mut stored) = objects.0.pop_first().unwrap();
        stored["status"] = status.clone();
        stored["metadata"]["generation"] = 4.into();
        objects.insert(target, stored);
        let plan = router.plan(&wanted(30).input(&objects)).unwrap();
        assert_eq!(plan.verified, verified, "{name}");
        assert!(plan.pending.unwrap_or_default().contains(pending), "{name}");
        // As long as there is something to write nothing is taken.
        let plan = router.plan(&wanted(31).input(&objects)).unwrap();
        assert_eq!(plan.verified, verified.map(|_| false), "{name}");
    }
}

#[test]
fn says_what_is_wrong() {
    let missing = refusal(&*plugin(json!({ "httpRoute": "web" })), &wanted(1), &Objects::default());
    assert_eq!(missing, "HTTPRoute shop/web does not exist: Rollout shop/web moves its traffic");
    let mut lonely = route();
    lonely["spec"]["rules"] = json!([{ "backendRefs": [backend("stable", 1)] }]);
    let message = refusal(&*plugin(json!({ "httpRoute": "web" })), &wanted(1), &cluster([lonely]));
    assert!(message.contains("spec.rules: found no rule with backendRefs to Services canary and stable"), "{message}");
    let named = plugin(json!({ "httpRoute": "web", "httpRouteRuleName": "nope" }));
    assert!(refusal(&*named, &wanted(1), &cluster([route()])).contains("no rule named nope"));
    for (config, field) in [
        (json!({}), "gatewayAPI: found no route"),
        (json!("text"), "gatewayAPI: found \"text\", expected a map"),
        (json!({ "httpRoute": 3 }), "gatewayAPI.httpRoute: found 3"),
        (json!({ "httpRoutes": [{ "useHeaderRoutes": true }] }), "httpRoutes[0].name: found nothing"),
        (json!({ "grpcRoutes": {} }), "grpcRoutes: found {}, expected a list"),
        (json!({ "tcpRouteSelector": "x" }), "tcpRouteSelector: found \"x\""),
    ] {
        let error = try_router(json!({ "plugins": { "argoproj-labs/gatewayAPI": config } })).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    let error = try_router(json!({ "plugins": { "acme/router": {} } })).unwrap_err().to_string();
    assert!(error.contains("plugins: found acme/router, expected argoproj-labs/gatewayAPI"), "{error}");
}

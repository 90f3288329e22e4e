use crate::fixture::{canary, cluster, exact, object, prefix, refusal, regex, router, settle, wanted};
use crate::{Objects, Read, Router, RouterOptions, routers};
use serde_json::{Value, json};
use tidegate_crds::keys::{MANAGED_BY, POD_TEMPLATE_HASH};
use tidegate_crds::rollout::RouteMatch;

fn istio(config: Value) -> Box<dyn Router> {
    router(json!({ "istio": config, "managedRoutes": [{ "name": "copy" }, { "name": "beta" }] }))
}

fn to(host: &str, weight: i32) -> Value {
    json!({ "destination": { "host": host, "port": { "number": 80 } }, "weight": weight })
}

fn subset(name: &str, weight: i32) -> Value {
    json!({ "destination": { "host": "web", "subset": name }, "weight": weight })
}

fn virtual_service(spec: Value) -> Value {
    json!({ "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
            "metadata": { "name": "vs", "namespace": "shop" }, "spec": spec })
}

fn destination_rule() -> Value {
    json!({ "apiVersion": "networking.istio.io/v1alpha3", "kind": "DestinationRule",
            "metadata": { "name": "dr", "namespace": "shop" },
            "spec": { "host": "web.shop.svc", "trafficPolicy": { "tls": {} }, "subsets": [
                { "name": "canary", "labels": { "app": "web" }, "trafficPolicy": { "x": 1 } },
                { "name": "stable" },
                { "name": "pinned", "labels": { "a": "b" } },
                { "name": "left-over", "labels": { POD_TEMPLATE_HASH: "gone" } },
            ] } })
}

fn spec(objects: &Objects) -> &Value {
    &object(objects, "VirtualService", "vs")["spec"]
}

#[test]
fn weighs_the_only_http_route_by_the_first_label_of_the_host() {
    let mut objects = cluster([virtual_service(json!({
        "hosts": ["shop.example"],
        "http": [{ "timeout": "3s", "route": [to("stable.shop.svc.cluster.local", 100), to("canary", 0), to("old-experiment", 0)] }],
    }))]);
    let router = istio(json!({ "virtualService": { "name": "vs" } }));
    let plan = settle(&*router, &wanted(30), &mut objects);
    assert_eq!(plan.events[0].reason, "Updated VirtualService");
    assert_eq!(plan.events[0].message, "VirtualService `vs` set to desiredWeight '30'");
    let route = json!([to("stable.shop.svc.cluster.local", 70), to("canary", 30)]);
    assert_eq!(spec(&objects), &json!({ "hosts": ["shop.example"], "http": [{ "timeout": "3s", "route": route }] }));
    settle(&*router, &wanted(10).experiment("exp", "h", 20), &mut objects);
    let weights = |objects: &Objects| {
        let route = spec(objects)["http"][0]["route"].as_array().unwrap();
        route.iter().map(|d| d["weight"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(weights(&objects), [70, 10, 20]);
    assert_eq!(spec(&objects)["http"][0]["route"][2]["destination"]["host"], "exp");
    settle(&*router, &wanted(10), &mut objects);
    assert_eq!(weights(&objects), [90, 10]);
}

#[test]
fn weighs_named_routes_and_leaves_the_others() {
    let other = json!({ "name": "other", "route": [to("stable", 50), to("canary", 50)] });
    let mut objects = cluster([virtual_service(json!({
        "http": [other, { "name": "main", "route": [to("stable", 100), to("canary", 0)] }],
    }))]);
    settle(&*istio(json!({ "virtualService": { "name": "vs", "routes": ["main"] } })), &wanted(30), &mut objects);
    assert_eq!(spec(&objects)["http"][0], other);
    assert_eq!(spec(&objects)["http"][1]["route"][1]["weight"], 30);
}

#[test]
fn weighs_several_virtual_services_in_other_namespaces() {
    let mut first =
        virtual_service(json!({ "http": [{ "name": "a", "route": [to("stable", 100), to("canary", 0)] }] }));
    let second = first.clone();
    first["metadata"] = json!({ "name": "one", "namespace": "mesh" });
    let mut objects = cluster([first, second]);
    let router = istio(json!({ "virtualServices": [
        { "name": "one.mesh", "routes": ["a"] }, { "name": "vs", "routes": ["a"] },
    ] }));
    assert!(
        matches!(&router.reads(&objects)[0], Read::Object(target) if target.to_string() == "VirtualService mesh/one")
    );
    assert_eq!(settle(&*router, &wanted(30), &mut objects).writes.len(), 2);
    assert_eq!(object(&objects, "VirtualService", "one")["spec"]["http"][0]["route"][1]["weight"], 30);
}

#[test]
fn the_api_version_is_an_option() {
    let options = RouterOptions { istio_api_version: "v1".into(), ..Default::default() };
    let config = canary(json!({ "istio": { "virtualService": { "name": "vs" } } }));
    let router = &routers("web", "shop", &config, &options).unwrap()[0];
    assert!(
        matches!(&router.reads(&Objects::default())[..], [Read::Object(t)] if t.api_version == "networking.istio.io/v1")
    );
}

#[test]
fn weighs_tls_and_tcp_routes_by_port_and_host() {
    let tls = |port: i64, host: &str| json!({ "match": [{ "port": port, "sniHosts": [host] }], "route": [to("stable", 100), to("canary", 0)] });
    let tcp = |port: i64| json!({ "match": [{ "port": port }], "route": [to("stable", 100), to("canary", 0)] });
    let mut objects = cluster([virtual_service(json!({
        "http": [{ "route": [to("docs", 100)] }, { "route": [to("blog", 100)] }],
        "tls": [tls(443, "a"), tls(443, "b"), tls(444, "a")],
        "tcp": [tcp(1), tcp(2)],
    }))]);
    let router = istio(json!({ "virtualService": {
        "name": "vs", "tlsRoutes": [{ "port": 443, "sniHosts": ["b"] }], "tcpRoutes": [{ "port": 2 }],
    } }));
    settle(&*router, &wanted(30), &mut objects);
    let weights = |field: &str| {
        let routes = spec(&objects)[field].as_array().unwrap();
        routes.iter().map(|r| r["route"][1]["weight"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(weights("tls"), [0, 30, 0]);
    assert_eq!(weights("tcp"), [0, 30]);
    assert_eq!(spec(&objects)["http"][0]["route"], json!([to("docs", 100)]));

    let mut objects = cluster([virtual_service(json!({ "tcp": [tcp(1)] }))]);
    settle(&*istio(json!({ "virtualService": { "name": "vs" } })), &wanted(30), &mut objects);
    assert_eq!(spec(&objects)["tcp"][0]["route"][1]["weight"], 30);
}

#[test]
fn what_a_tls_route_leaves_out_may_be_anything() {
    let tls = |port: i64, host: &str| json!({ "match": [{ "port": port, "sniHosts": [host] }], "route": [to("stable", 100), to("canary", 0)] });
    let weights = |asked: Value| {
        let routes = json!({ "tls": [tls(443, "a"), tls(443, "b"), tls(444, "a")] });
        let mut objects = cluster([virtual_service(routes)]);
        let router = istio(json!({ "virtualService": { "name": "vs", "tlsRoutes": [asked] } }));
        router.plan(&wanted(30).input(&objects)).map_err(|error| error.to_string())?;
        settle(&*router, &wanted(30), &mut objects);
        let routes = spec(&objects)["tls"].as_array().unwrap();
        Ok(routes.iter().map(|r| r["route"][1]["weight"].as_i64().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(weights(json!({ "port": 443 })), Ok(vec![30, 30, 0]));
    assert_eq!(weights(json!({ "sniHosts": ["a"] })), Ok(vec![30, 0, 30]));
    for (asked, words) in [
        (json!({ "port": 80 }), "no route with port 80"),
        (json!({ "port": 444, "sniHosts": ["b"] }), "no route with port 444 and the SNI hosts b"),
        (json!({}), "no route with neither port nor SNI hosts"),
    ] {
        let error: String = weights(asked).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

fn by_subset(additional: &[&str]) -> Box<dyn Router> {
    istio(json!({
        "virtualService": { "name": "vs" },
        "destinationRule": {
            "name": "dr", "canarySubsetName": "canary", "stableSubsetName": "stable", "additionalSubsetNames": additional,
        },
    }))
}

#[test]
fn a_destination_rule_selects_the_pods_before_traffic_goes_there() {
    let route = json!([subset("stable", 100), subset("canary", 0), subset("pinned", 0)]);
    let mut objects = cluster([destination_rule(), virtual_service(json!({ "http": [{ "route": route }] }))]);
    let plan = settle(&*by_subset(&["pinned"]), &wanted(30).experiment("exp", "h", 5), &mut objects);
    let kinds: Vec<_> = plan.writes.iter().map(|write| write.target().kind.as_str()).collect();
    assert_eq!(kinds, ["DestinationRule", "VirtualService"]);
    assert_eq!(plan.events[0].message, "DestinationRule dr subset updated (canary: new, stable: old)");
    let rule = object(&objects, "DestinationRule", "dr");
    assert_eq!(rule["metadata"]["annotations"][MANAGED_BY], "web");
    assert_eq!(rule["spec"]["trafficPolicy"], json!({ "tls": {} }));
    assert_eq!(
        rule["spec"]["subsets"],
        json!([
            { "name": "canary", "labels": { "app": "web", POD_TEMPLATE_HASH: "new" }, "trafficPolicy": { "x": 1 } },
            { "name": "stable", "labels": { POD_TEMPLATE_HASH: "old" } },
            { "name": "pinned", "labels": { "a": "b" } },
            { "name": "exp", "labels": { POD_TEMPLATE_HASH: "h" } },
        ])
    );
    let route = &spec(&objects)["http"][0]["route"];
    let exp = json!({ "destination": { "host": "exp" }, "weight": 5 });
    assert_eq!(route, &json!([subset("stable", 65), subset("canary", 30), subset("pinned", 0), exp]));

    let mut first = wanted(0);
    first.stable_hash.clear();
    settle(&*by_subset(&[]), &first, &mut objects);
    let subsets = object(&objects, "DestinationRule", "dr")["spec"]["subsets"].as_array().unwrap();
    assert_eq!(subsets.len(), 2);
    assert_eq!(subsets[1], json!({ "name": "stable", "labels": {} }));
}

#[test]
fn a_superseded_canary_loses_its_traffic_before_its_subset_selects_other_pods() {
    let kinds = |plan: crate::Plan| plan.writes.iter().map(|write| write.target().kind.clone()).collect::<Vec<_>>();
    let route = json!([subset("stable", 100), subset("canary", 0)]);
    let mut objects = cluster([destination_rule(), virtual_service(json!({ "http": [{ "route": route }] }))]);
    let router = by_subset(&[]);
    assert_eq!(kinds(settle(&*router, &wanted(30), &mut objects)), ["DestinationRule", "VirtualService"]);
    let mut next = wanted(0);
    next.canary_hash = "newer".into();
    assert_eq!(kinds(settle(&*router, &next, &mut objects)), ["VirtualService", "DestinationRule"]);
    next.weight = 100;
    assert_eq!(kinds(settle(&*router, &next, &mut objects)), ["VirtualService"]);
    // At the end the stable subset has the new pods before it gets the traffic back.
    next.weight = 0;
    next.stable_hash = "newer".into();
    assert_eq!(kinds(settle(&*router, &next, &mut objects)), ["DestinationRule", "VirtualService"]);
}

#[test]
fn managed_routes_come_first_in_their_order() {
    let user = json!({ "name": "user", "route": [to("docs", 100)] });
    let mut objects = cluster([virtual_service(json!({
        "http": [user, { "name": "main", "route": [to("stable", 100), to("canary", 0)] }],
    }))]);
    let router = istio(json!({ "virtualService": { "name": "vs", "routes": ["main"] } }));
    let matched = RouteMatch {
        method: Some(exact("GET")),
        path: Some(prefix("/")),
        headers: [("agent".to_owned(), regex("a.*"))].into(),
    };
    let mut with = wanted(30).header("beta", "X-Beta", exact("1")).mirror("copy", matched, Some(35));
    settle(&*router, &with, &mut objects);
    let canary = json!({ "host": "canary", "port": { "number": 80 } });
    let main = json!([to("stable", 70), to("canary", 30)]);
    assert_eq!(
        spec(&objects)["http"],
        json!([
            {
                "name": "copy",
                "match": [{ "method": { "exact": "GET" }, "uri": { "prefix": "/" }, "headers": { "agent": { "regex": "a.*" } } }],
                "route": main,
                "mirror": canary,
                "mirrorPercentage": { "value": 35 },
            },
            {
                "name": "beta",
                "match": [{ "headers": { "X-Beta": { "exact": "1" } } }],
                "route": [{ "destination": canary, "weight": 100 }],
            },
            user,
            { "name": "main", "route": main },
        ])
    );
    // Numbers that come back as floats are no difference.
    let (target, mut stored) = objects.0.pop_first().unwrap();
    stored["spec"]["http"][0]["mirrorPercentage"]["value"] = 35.0.into();
    stored["spec"]["http"][3]["route"][0]["weight"] = 70.0.into();
    objects.insert(target, stored);
    assert_eq!(router.plan(&with.input(&objects)).unwrap().writes, []);
    // The mirror follows the weights.
    with.weight = 50;
    settle(&*router, &with, &mut objects);
    assert_eq!(spec(&objects)["http"][0]["route"][0]["weight"], 50);
    settle(&*router, &wanted(30), &mut objects);
    assert_eq!(spec(&objects)["http"].as_array().unwrap().len(), 2);
}

#[test]
fn a_header_route_by_subset_goes_to_the_host_of_the_rule() {
    let route = json!([subset("stable", 100), subset("canary", 0)]);
    let mut objects = cluster([destination_rule(), virtual_service(json!({ "http": [{ "route": route }] }))]);
    settle(&*by_subset(&[]), &wanted(0).header("beta", "X-Beta", exact("1")), &mut objects);
    let beta = &spec(&objects)["http"][0]["route"][0]["destination"];
    assert_eq!(beta, &json!({ "host": "web.shop.svc", "subset": "canary" }));
    assert_eq!(spec(&objects)["http"][1]["route"][0]["weight"], 100);
}

#[test]
fn says_what_is_wrong() {
    let plain = || istio(json!({ "virtualService": { "name": "vs" } }));
    let error = plain().plan(&wanted(1).input(&Objects::default())).unwrap_err();
    assert_eq!(error.event_reason(), "VirtualServiceNotFound");
    assert_eq!(error.to_string(), "VirtualService shop/vs does not exist: Rollout shop/web moves its traffic");
    let two = json!({ "http": [{ "route": [] }, { "route": [] }] });
    assert!(refusal(&*plain(), &wanted(1), &cluster([virtual_service(two)])).contains("spec.http: found 2 routes"));
    assert!(refusal(&*plain(), &wanted(1), &cluster([virtual_service(json!({}))])).contains("spec: found no routes"));
    let lonely = json!({ "http": [{ "route": [to("stable", 100)] }] });
    let message = refusal(&*plain(), &wanted(1), &cluster([virtual_service(lonely)]));
    assert!(
        message.contains("spec.http[0].route: found no such destination, expected one for the canary"),
        "{message}"
    );
    let named = istio(json!({ "virtualService": { "name": "vs", "routes": ["x"] } }));
    let http = json!({ "http": [{ "name": "y", "route": [] }] });
    assert!(refusal(&*named, &wanted(1), &cluster([virtual_service(http)])).contains("found no route x"));
    let error = by_subset(&[]).plan(&wanted(1).input(&Objects::default())).unwrap_err();
    assert_eq!(error.event_reason(), "DestinationRuleNotFound");
    let mut rule = destination_rule();
    rule["spec"]["subsets"].as_array_mut().unwrap().remove(0);
    assert!(refusal(&*by_subset(&[]), &wanted(1), &cluster([rule])).contains("spec.subsets: found no subset canary"));
}

#[test]
fn a_rule_that_nobody_names_selects_no_hash_any_more() {
    let mut rule = destination_rule();
    assert_eq!(crate::released_rule(&rule), None, "nothing of ours is in it");
    rule["metadata"]["annotations"] = json!({ MANAGED_BY: "web", "note": "theirs" });
    rule["spec"]["subsets"][0]["labels"][POD_TEMPLATE_HASH] = "abc".into();
    assert_eq!(crate::rule_is_managed_by(&rule), Some("web"));
    let patch = crate::released_rule(&rule).unwrap();
    tidegate_crds::patch::merge_apply(&mut rule, &patch);
    let mut expected = destination_rule();
    expected["metadata"]["annotations"] = json!({ "note": "theirs" });
    expected["spec"]["subsets"][3]["labels"] = json!({});
    assert_eq!(rule, expected, "also of a subset that an earlier version left over");
}

//! Gateway API beyond the weights of an HTTPRoute: copies of requests, two Services that take turns, gRPC, TCP and TLS.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::gateway::Gateway;
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::traefik::GATEWAY;
use tidegate_e2e::{Load, http, run};

use crate::rollout_traffic::{self, GATEWAY_API, weights};
use crate::scene::{self, HASH, Scene};

/// A Rollout whose pods take their leave.
fn polite(name: &str, replicas: u32, strategy: Value) -> Value {
    let mut rollout = scene::rollout(name, "1", replicas, strategy);
    scene::polite(&mut rollout["spec"]["template"]);
    rollout
}

/// How many requests the pods of a hash have answered, by their own account.
async fn served(scene: &Scene, hash: &str) -> Result<u64> {
    let client = http::client()?;
    let mut sum = 0;
    for pod in scene.list("v1", "Pod").await? {
        if pod["metadata"]["labels"][HASH] != hash || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let address = pod["status"]["podIP"].as_str().context("a pod's address")?;
        let text = client.get(format!("http://{address}:8080/metrics")).send().await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with("http_requests_total{"));
        for line in lines {
            let count = line.rsplit(' ').next().context("a count")?;
            sum += count.parse::<f64>().with_context(|| line.to_owned())? as u64;
        }
    }
    Ok(sum)
}

/// Waits until this share of users' requests reaches the pods of a hash, over at least 300 of them. The two counts are not
/// of the same moment; the longer it takes, the less that matters.
async fn copies_are(scene: &Scene, users: &RunningLoad, hash: &str, share: f64) -> Result<()> {
    scene.next_answers(users, 40).await?;
    let before = (served(scene, hash).await?, users.report().requests);
    let found = scene
        .until(&format!("copies of {share} of the requests"), async || {
            let (copies, answers) = (served(scene, hash).await? - before.0, users.report().requests - before.1);
            let found = copies as f64 / answers as f64;
            ensure!(answers >= 300 && (found - share).abs() <= 0.05, "{found:.3} of {answers}");
            Ok(found)
        })
        .await?;
    println!("{}: {found:.3} of the requests were copied, expected {share}", scene.name());
    Ok(())
}

/// Names of the route's rules; empty for one without.
async fn rules(scene: &Scene) -> Result<Vec<String>> {
    let route = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
    let rules = route["spec"]["rules"].as_array().context("rules")?;
    Ok(rules.iter().map(|rule| rule["name"].as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
fn a_canary_gets_copies_while_users_see_the_stable_version_only() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "mirror").await?;
        rollout_traffic::prepare(&scene, "web").await?;
        // The first is more than the route's own rule asks for, the second is the same: both have to win over it.
        let get = json!([{"method": {"exact": "GET"}, "path": {"prefix": "/"}}]);
        let all = json!([{"path": {"prefix": "/"}}]);
        let steps = json!([
            {"setCanaryScale": {"replicas": 1}},
            {"setMirrorRoute": {"name": "shadow", "percentage": 50, "match": get}},
            {"pause": {}},
            {"setMirrorRoute": {"name": "shadow", "match": all}},
            {"pause": {}},
            {"setMirrorRoute": {"name": "shadow"}},
            {"pause": {}},
        ]);
        let mut rollout = rollout_traffic::routed("web", "1", 1, steps);
        scene::polite(&mut rollout["spec"]["template"]);
        let routing = &mut rollout["spec"]["strategy"]["canary"]["trafficRouting"];
        routing["managedRoutes"] = json!([{"name": "shadow"}]);
        scene.deploy(rollout).await?;
        // Traefik copies no requests.
        let gateway = Gateway::start(&scene.namespace, "web").await?;
        let url = gateway.url();
        scene.answers(&url, None, "1").await?;
        let users = Load::new(&url, None, 100.0).start()?;
        scene.set_tag("web", "2")?;

        let paused = scene.paused_at("web", 2).await?;
        let canary = paused["status"]["currentPodHash"].as_str().context("the canary's hash")?.to_owned();
        for (step, share) in [(2, 0.5), (4, 1.0)] {
            scene.paused_at("web", step).await?;
            copies_are(&scene, &users, &canary, share).await?;
            if step == 2 {
                scene.plugin(&["promote", "web"])?;
            }
        }
        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 6).await?;
        assert_eq!(rules(&scene).await?, [""]);
        // The last ones may still be on their way.
        scene
            .until("no more copies", async || {
                let before = served(&scene, &canary).await?;
                scene.next_answers(&users, 40).await?;
                let more = served(&scene, &canary).await? - before;
                ensure!(more == 0, "{more} came");
                Ok(())
            })
            .await?;
        let report = users.report();
        assert_eq!(report.share("1"), 1.0, "a user saw a copy's answer: {report}");
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&users, "2", 1.0).await?;
        scene.without_errors(users).await
    })
}

#[test]
fn ping_and_pong_take_turns() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "turns").await?;
        for name in ["web-ping", "web-pong"] {
            scene.apply(scene::service(name, "web")).await?;
        }
        let (namespace, gateway) = GATEWAY;
        let backend = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
        scene
            .apply(json!({
                "apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": {"name": "web", "labels": {}},
                "spec": {
                    "parentRefs": [{"name": gateway, "namespace": namespace}],
                    "hostnames": [scene.host()],
                    "rules": [{"backendRefs": [backend("web-ping", 100), backend("web-pong", 0)]}],
                },
            }))
            .await?;
        let strategy = json!({"canary": {
            "pingPong": {"pingService": "web-ping", "pongService": "web-pong"},
            "abortScaleDownDelaySeconds": 2, "scaleDownDelaySeconds": 2,
            "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web"}}},
            "steps": [{"setWeight": 30}, {"pause": {}}],
        }});
        let deployed = scene.deploy(polite("web", 2, strategy)).await?;
        assert_eq!(deployed["status"]["canary"]["stablePingPong"], "ping");
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let load = Load::new(&url, Some(&host), 100.0).start()?;
        scene.share_is(&load, "1", 1.0).await?;

        for (tag, stable, canary) in [("2", "ping", "pong"), ("3", "pong", "ping")] {
            let before = scene.rollout("web").await?["status"]["stableRS"].clone();
            scene.set_tag("web", tag)?;
            let paused = scene.paused_at("web", 1).await?;
            let (stable, canary) = (format!("web-{stable}"), format!("web-{canary}"));
            let found = &paused["status"]["canary"]["weights"];
            assert_eq!(
                (&found["stable"]["serviceName"], &found["canary"]["serviceName"]),
                (&json!(stable), &json!(canary))
            );
            // The stable version's Service is not touched: its pods are where they were.
            assert_eq!(before, scene.service_selector(&stable).await?);
            assert_eq!(paused["status"]["currentPodHash"], scene.service_selector(&canary).await?);
            scene.share_is(&load, tag, 0.3).await?;
            scene.plugin(&["promote", "web"])?;
            let done = scene.phase("web", "Healthy").await?;
            assert_eq!(
                format!("web-{}", done["status"]["canary"]["stablePingPong"].as_str().unwrap_or_default()),
                canary
            );
            scene.share_is(&load, tag, 1.0).await?;
            let mut expected = [(stable.clone(), 0), (canary.clone(), 100)];
            expected.sort();
            let mut found = weights(&scene, "web").await?;
            found.sort();
            assert_eq!(found, expected);
        }
        scene.sizes("web", &[(1, 0), (2, 0), (3, 2)]).await?;

        // A third that is taken back: everybody stays where they are.
        scene.set_tag("web", "4")?;
        scene.paused_at("web", 1).await?;
        scene.share_is(&load, "4", 0.3).await?;
        scene.plugin(&["abort", "web"])?;
        let aborted = scene.phase("web", "Degraded").await?;
        assert_eq!(aborted["status"]["canary"]["stablePingPong"], "ping");
        scene.share_is(&load, "3", 1.0).await?;
        scene.without_errors(load).await
    })
}

#[test]
fn grpc_calls_are_split_and_led_like_requests() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "grpc").await?;
        for name in ["web-stable", "web-canary"] {
            scene.apply(scene::service(name, "web")).await?;
        }
        let rules = json!([{
            "matches": [{"method": {"service": "tidegate.test.Server", "method": "Answer"}}],
            "backendRefs": [{"name": "web-stable", "port": 80}, {"name": "web-canary", "port": 80, "weight": 0}],
        }]);
        scene.apply(rollout_traffic::route(&scene, "GRPCRoute", "web", rules)).await?;
        let strategy = json!({"canary": {
            "stableService": "web-stable", "canaryService": "web-canary",
            "abortScaleDownDelaySeconds": 2, "scaleDownDelaySeconds": 2,
            "trafficRouting": {
                "managedRoutes": [{"name": "testers"}],
                "plugins": {"argoproj-labs/gatewayAPI": {"grpcRoutes": [{"name": "web", "useHeaderRoutes": true}]}},
            },
            "steps": [
                {"setWeight": 25},
                {"setHeaderRoute": {"name": "testers", "match": [
                    {"headerName": "x-tester", "headerValue": {"prefix": "beta-"}},
                ]}},
                {"pause": {}},
            ],
        }});
        scene.deploy(polite("web", 2, strategy)).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        let calls = |headers: &[(&str, &str)]| {
            let mut load = Load::new(&url, Some(&host), 100.0);
            load.grpc = true;
            load.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            load.start()
        };
        // The first calls may come before the data plane has the route.
        let early = calls(&[])?;
        scene.share_is(&early, "1", 1.0).await?;
        drop(early);
        let users = calls(&[])?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 2).await?;
        scene.share_is(&users, "2", 0.25).await?;
        let testers = calls(&[("x-tester", "beta-7")])?;
        scene.share_is(&testers, "2", 1.0).await?;
        scene.without_errors(testers).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&users, "2", 1.0).await?;
        scene.sizes("web", &[(1, 0), (2, 2)]).await?;
        let live = scene.get(GATEWAY_API, "GRPCRoute", "web").await?;
        assert_eq!(live["spec"]["rules"].as_array().map(Vec::len), Some(1), "{}", live["spec"]["rules"]);
        scene.without_errors(users).await
    })
}

/// Routes of this kind, which a Rollout names in this field, split connections; `client` makes one for each request.
async fn connections_are_split(
    scene: &Scene,
    route: Value,
    field: &str,
    client: reqwest::Client,
    url: &str,
) -> Result<()> {
    for name in ["web-stable", "web-canary"] {
        scene.apply(scene::service(name, "web")).await?;
    }
    scene.apply(route).await?;
    let strategy = json!({"canary": {
        "stableService": "web-stable", "canaryService": "web-canary",
        "abortScaleDownDelaySeconds": 2, "scaleDownDelaySeconds": 2,
        "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {field: "web"}}},
        "steps": [{"setWeight": 35}, {"pause": {}}],
    }});
    scene.deploy(polite("web", 2, strategy)).await?;
    scene
        .until("an answer", async || {
            let answer = http::ask(&client, url, None).await?;
            ensure!(answer.version == "1", "{answer:?}");
            Ok(())
        })
        .await?;
    let mut load = Load::new(url, None, 100.0);
    load.client = Some(client);
    let load = load.start()?;
    scene.share_is(&load, "1", 1.0).await?;
    scene.set_tag("web", "2")?;
    scene.paused_at("web", 1).await?;
    scene.share_is(&load, "2", 0.35).await?;
    scene.plugin(&["promote", "web"])?;
    scene.phase("web", "Healthy").await?;
    scene.share_is(&load, "2", 1.0).await?;
    scene.sizes("web", &[(1, 0), (2, 2)]).await?;
    scene.without_errors(load).await
}

/// A route of connections on the Gateway's listener `section`.
fn route_of_connections(version: &str, kind: &str, section: &str, hosts: &[String]) -> Value {
    let (namespace, gateway) = GATEWAY;
    let mut route = json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
        "metadata": {"name": "web", "labels": {}},
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": namespace, "sectionName": section}],
            "rules": [{"backendRefs": [
                {"name": "web-stable", "port": 80}, {"name": "web-canary", "port": 80, "weight": 0},
            ]}],
        },
    });
    if !hosts.is_empty() {
        route["spec"]["hostnames"] = json!(hosts);
    }
    route
}

#[test]
fn connections_are_split_by_a_tcp_route() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "tcp").await?;
        let route = route_of_connections("v1alpha2", "TCPRoute", "tcp", &[]);
        let client = http::connecting_client()?;
        connections_are_split(&scene, route, "tcpRoute", client, &cluster.tcp_gateway_url()).await
    })
}

#[test]
fn connections_are_split_by_a_tls_route() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "tls").await?;
        let host = scene.host();
        let route = route_of_connections("v1", "TLSRoute", "tls", std::slice::from_ref(&host));
        let (address, authority) = cluster.tls_gateway()?;
        let client = http::tls_client(&host, address, &authority)?;
        let url = format!("https://{host}:{}", address.port());
        connections_are_split(&scene, route, "tlsRoute", client, &url).await
    })
}

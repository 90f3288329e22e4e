//! Canaries behind a router, with real requests: what users get is what the steps say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::traefik::{GATEWAY, NGINX_CLASS};
use tidegate_e2e::{Load, http, run, wait_for};

use crate::scene::{self, SOON, Scene, phase_is};

pub const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// A route of this kind for the scene's host, at Traefik's Gateway.
pub fn route(scene: &Scene, kind: &str, name: &str, rules: Value) -> Value {
    let (namespace, gateway) = GATEWAY;
    json!({
        "apiVersion": GATEWAY_API, "kind": kind,
        "metadata": {"name": name, "namespace": scene.name(), "labels": {}},
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": namespace}],
            "hostnames": [scene.host()],
            "rules": rules,
        },
    })
}

/// Waits until the route `web` gives everything to the stable Service.
pub async fn all_on_stable(scene: &Scene) -> Result<()> {
    scene
        .until("all traffic on the stable version", async || {
            let found = weights(scene, "web").await?;
            ensure!(found == [("web-stable".to_owned(), 100), ("web-canary".to_owned(), 0)], "{found:?}");
            Ok(())
        })
        .await
}

/// A Rollout that moves traffic in the HTTPRoute of its name.
pub fn routed(name: &str, tag: &str, replicas: u32, steps: Value) -> Value {
    scene::rollout(
        name,
        tag,
        replicas,
        json!({"canary": {
            "stableService": format!("{name}-stable"),
            "canaryService": format!("{name}-canary"),
            "abortScaleDownDelaySeconds": 2,
            "scaleDownDelaySeconds": 2,
            "trafficRouting": {
                "managedRoutes": [{"name": "testers"}],
                "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": name}},
            },
            "steps": steps,
        }}),
    )
}

/// Services and route for [`routed`].
pub async fn prepare(scene: &Scene, name: &str) -> Result<()> {
    for suffix in ["stable", "canary"] {
        scene.apply(scene::service(&format!("{name}-{suffix}"), name)).await?;
    }
    // All traffic on the stable one, as users write it.
    let backend = |suffix: &str, weight: u32| json!({"name": format!("{name}-{suffix}"), "port": 80, "weight": weight});
    let rules = json!([{"backendRefs": [backend("stable", 100), backend("canary", 0)]}]);
    scene.apply(route(scene, "HTTPRoute", name, rules)).await
}

/// Names and weights of the route's first rule.
pub async fn weights(scene: &Scene, name: &str) -> Result<Vec<(String, i64)>> {
    let route = scene.get(GATEWAY_API, "HTTPRoute", name).await?;
    let backends = route["spec"]["rules"][0]["backendRefs"].as_array().context("backends")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(backends.iter().map(|backend| (text(&backend["name"]), backend["weight"].as_i64().unwrap_or(1))).collect())
}

#[test]
fn users_get_the_share_of_each_step_and_no_error() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "split").await?;
        prepare(&scene, "web").await?;
        let steps = json!([{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
        scene.deploy(routed("web", "1", 2, steps)).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let load = Load::new(&url, Some(&host), 100.0).start()?;
        scene.share_is(&load, "1", 1.0).await?;

        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 1).await?;
        let weights_now = &paused["status"]["canary"]["weights"];
        assert_eq!((&weights_now["canary"]["weight"], &weights_now["stable"]["weight"]), (&json!(10), &json!(90)));
        assert_eq!(weights_now["canary"]["serviceName"], "web-canary");
        assert_eq!(weights(&scene, "web").await?, [("web-stable".to_owned(), 90), ("web-canary".to_owned(), 10)]);
        scene.share_is(&load, "2", 0.1).await?;
        scene.sizes("web", &[(1, 2), (2, 1)]).await?;
        let live = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
        assert_eq!(live["metadata"]["labels"]["rollouts.argoproj.io/gatewayapi-canary"], "in-progress");

        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 3).await?;
        scene.share_is(&load, "2", 0.5).await?;

        // Taken back: all traffic first, then the pods, which stay for their time.
        scene.plugin(&["abort", "web"])?;
        scene.phase("web", "Degraded").await?;
        all_on_stable(&scene).await?;
        scene.share_is(&load, "2", 0.0).await?;
        scene.sizes("web", &[(1, 2), (2, 0)]).await?;

        scene.plugin(&["retry", "rollout", "web"])?;
        scene.paused_at("web", 1).await?;
        scene.share_is(&load, "2", 0.1).await?;
        scene.plugin(&["promote", "web", "--full"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&load, "2", 1.0).await?;
        let sets = scene.sizes("web", &[(1, 0), (2, 2)]).await?;
        assert_eq!(scene.service_selector("web-stable").await?, sets[1].hash);
        assert_eq!(scene.service_selector("web-canary").await?, sets[1].hash);
        let live = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
        assert!(live["metadata"]["labels"]["rollouts.argoproj.io/gatewayapi-canary"].is_null(), "{live}");
        scene.without_errors(load).await?;
        Ok(())
    })
}

#[test]
fn testers_reach_the_canary_also_after_the_controller_was_killed() -> Result<()> {
    run(async |cluster| {
        let (scene, mut controller) = Scene::with_controller(cluster, "header", &[]).await?;
        prepare(&scene, "web").await?;
        let steps = json!([
            {"setCanaryScale": {"replicas": 1}},
            {"setHeaderRoute": {"name": "testers", "match": [
                {"headerName": "x-tester", "headerValue": {"exact": "yes"}},
            ]}},
            {"pause": {}},
            {"setWeight": 50},
            {"pause": {}},
        ]);
        scene.deploy(routed("web", "1", 2, steps)).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let users = Load::new(&url, Some(&host), 100.0).start()?;
        scene.set_tag("web", "2")?;

        // Killed while the update is under way.
        scene
            .rollout_is("web", "at work", |rollout| {
                ensure!(rollout["status"]["currentPodHash"] != rollout["status"]["stableRS"], "{}", rollout["status"]);
                Ok(())
            })
            .await?;
        controller.kill()?;
        controller.restart()?;
        scene.paused_at("web", 2).await?;
        let mut testers = Load::new(&url, Some(&host), 100.0);
        testers.headers.push(("x-tester".to_owned(), "yes".to_owned()));
        let testers = testers.start()?;
        scene.share_is(&testers, "2", 1.0).await?;
        scene.share_is(&users, "1", 1.0).await?;
        scene.sizes("web", &[(1, 2), (2, 1)]).await?;

        // Somebody removes the rule while nobody looks; the next controller puts it back.
        controller.kill()?;
        let mut live = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
        let rules = live["spec"]["rules"].as_array_mut().context("rules")?;
        ensure!(rules.len() == 2 && rules[1]["name"] == "testers", "{rules:?}");
        let without = json!({"spec": {"rules": [rules[0]]}});
        scene.patch(GATEWAY_API, "HTTPRoute", "web", without).await?;
        scene.share_is(&testers, "1", 1.0).await?;
        controller.restart()?;
        scene
            .until("the rule to be back", async || {
                let live = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
                ensure!(live["spec"]["rules"][1]["name"] == "testers", "{}", live["spec"]["rules"]);
                Ok(())
            })
            .await?;
        scene.share_is(&testers, "2", 1.0).await?;

        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 4).await?;
        scene.share_is(&testers, "2", 1.0).await?;
        scene.share_is(&users, "2", 0.5).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene
            .until("the rule to be gone", async || {
                let live = scene.get(GATEWAY_API, "HTTPRoute", "web").await?;
                let rules = live["spec"]["rules"].as_array().map(Vec::len);
                ensure!(rules == Some(1), "{}", live["spec"]["rules"]);
                Ok(())
            })
            .await?;
        for load in [users, testers] {
            scene.without_errors(load).await?;
        }
        controller.stop(Duration::from_secs(30))
    })
}

#[test]
fn the_canarys_pods_follow_their_own_scale() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "scale").await?;
        prepare(&scene, "web").await?;
        let steps = json!([
            {"setCanaryScale": {"replicas": 3}},
            {"setWeight": 25},
            {"pause": {}},
            {"setCanaryScale": {"weight": 50}},
            {"pause": {}},
            {"setCanaryScale": {"matchTrafficWeight": true}},
            {"pause": {}},
        ]);
        scene.deploy(routed("web", "1", 4, steps)).await?;
        scene.set_tag("web", "2")?;
        for (step, pods) in [(2, 3), (4, 2), (6, 1)] {
            let paused = scene.paused_at("web", step).await?;
            assert_eq!(paused["status"]["canary"]["weights"]["canary"]["weight"], 25);
            scene.sizes("web", &[(1, 4), (2, pods)]).await?;
            scene.plugin(&["promote", "web"])?;
        }
        scene.phase("web", "Healthy").await?;
        scene.sizes("web", &[(1, 0), (2, 4)]).await?;
        Ok(())
    })
}

#[test]
fn nginx_gets_a_canary_ingress_beside_the_users() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "nginx").await?;
        for name in ["web-stable", "web-canary"] {
            scene.apply(scene::service(name, "web")).await?;
        }
        let host = scene.host();
        let rules = |service: &str| {
            json!([{"host": host, "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"number": 80}}},
            }]}}])
        };
        scene
            .apply(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"name": "web", "labels": {}},
                "spec": {"ingressClassName": NGINX_CLASS, "rules": rules("web-stable")},
            }))
            .await?;
        let strategy = json!({"canary": {
            "stableService": "web-stable", "canaryService": "web-canary",
            "abortScaleDownDelaySeconds": 2,
            "trafficRouting": {"nginx": {
                "stableIngress": "web",
                "additionalIngressAnnotations": {"canary-by-header": "x-tester"},
            }},
            "steps": [{"setWeight": 30}, {"pause": {}}],
        }});
        let deployed = scene.deploy(scene::rollout("web", "1", 1, strategy)).await?;
        let url = cluster.gateway_url();
        scene.answers(&url, Some(&host), "1").await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        let made = scene.get("networking.k8s.io/v1", "Ingress", "web-web-canary").await?;
        assert_eq!(
            made["metadata"]["annotations"],
            json!({
                "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-by-header": "x-tester",
                "nginx.ingress.kubernetes.io/canary-weight": "30",
            })
        );
        assert_eq!(made["spec"], json!({"ingressClassName": NGINX_CLASS, "rules": rules("web-canary")}));
        assert_eq!(
            made["metadata"]["ownerReferences"],
            json!([{
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web",
                "uid": deployed["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }])
        );
        // Ingresses tell nobody whether the data plane has them: wait for the first answer.
        scene.answers(&url, Some(&host), "2").await?;
        let load = Load::new(&url, Some(&host), 100.0).start()?;
        scene.share_is(&load, "2", 0.3).await?;
        scene.plugin(&["abort", "web"])?;
        scene
            .until("weight 0", async || {
                let made = scene.get("networking.k8s.io/v1", "Ingress", "web-web-canary").await?;
                let weight = &made["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"];
                ensure!(weight == "0", "{weight}");
                Ok(())
            })
            .await?;
        scene.share_is(&load, "2", 0.0).await?;
        scene.sizes("web", &[(1, 1), (2, 0)]).await?;
        scene.without_errors(load).await?;
        let users = scene.get("networking.k8s.io/v1", "Ingress", "web").await?;
        assert_eq!(users["spec"]["rules"], rules("web-stable"), "the user's own Ingress is the user's");
        Ok(())
    })
}

#[test]
fn an_unready_canary_gets_no_traffic() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "unready").await?;
        prepare(&scene, "web").await?;
        let mut rollout = routed("web", "1", 1, json!([{"setWeight": 50}, {"pause": {}}]));
        rollout["spec"]["progressDeadlineAbort"] = true.into();
        rollout["spec"]["progressDeadlineSeconds"] = 4.into();
        scene.deploy(rollout).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let load = Load::new(&url, Some(&host), 100.0).start()?;
        scene.set_tag("web", "unready")?;
        // Every weight on the way to the abort is looked at.
        let what = "the update to be aborted";
        wait_for(what, SOON, async || {
            let found = weights(&scene, "web").await?;
            assert_eq!(found[1], ("web-canary".to_owned(), 0), "an empty version gets traffic");
            phase_is(&scene.rollout("web").await?, "Degraded")
        })
        .await?;
        scene.without_errors(load).await?;
        assert_eq!(http::ask(&http::client()?, &url, Some(&host)).await?.version, "1");
        Ok(())
    })
}

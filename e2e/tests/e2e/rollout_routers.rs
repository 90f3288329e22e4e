//! Canaries behind routers other than Gateway API, from the first request of the new version to the last of the old one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::traefik::NGINX_CLASS;
use tidegate_e2e::{Load, run};

use crate::scene::{self, Scene};

const TRAEFIK: &str = "traefik.io/v1alpha1";
const INGRESS: &str = "networking.k8s.io/v1";

/// A Rollout whose traffic moves by this `trafficRouting`, between `web-stable` and `web-canary`.
fn routed(replicas: u32, routing: Value, steps: Value) -> Value {
    let strategy = json!({"canary": {
        "stableService": "web-stable", "canaryService": "web-canary",
        "abortScaleDownDelaySeconds": 2, "scaleDownDelaySeconds": 2,
        "trafficRouting": routing,
        "steps": steps,
    }});
    let mut rollout = scene::rollout("web", "1", replicas, strategy);
    scene::polite(&mut rollout["spec"]["template"]);
    rollout
}

async fn services(scene: &Scene) -> Result<()> {
    for name in ["web-stable", "web-canary"] {
        scene.apply(scene::service(name, "web")).await?;
    }
    Ok(())
}

/// A load through the data plane, once it knows the way.
async fn users(scene: &Scene, headers: &[(&str, &str)]) -> Result<RunningLoad> {
    let (url, host) = (scene.cluster.gateway_url(), scene.host());
    scene.answers(&url, Some(&host), "1").await?;
    let mut load = Load::new(&url, Some(&host), 100.0);
    load.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load.start()
}

/// Names and weights of the TraefikService's services.
async fn traefik_weights(scene: &Scene) -> Result<Vec<(String, i64)>> {
    let split = scene.get(TRAEFIK, "TraefikService", "web").await?;
    let services = split["spec"]["weighted"]["services"].as_array().context("services")?;
    let of = |service: &Value| Some((service["name"].as_str()?.to_owned(), service["weight"].as_i64()?));
    services.iter().map(|service| of(service).with_context(|| service.to_string())).collect()
}

#[test]
fn traefiks_own_service_leads_users_over() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "traefik").await?;
        services(&scene).await?;
        let backend = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
        scene
            .apply(json!({
                "apiVersion": TRAEFIK, "kind": "TraefikService", "metadata": {"name": "web", "labels": {}},
                "spec": {"weighted": {"services": [backend("web-stable", 100), backend("web-canary", 0)]}},
            }))
            .await?;
        scene
            .apply(json!({
                "apiVersion": TRAEFIK, "kind": "IngressRoute", "metadata": {"name": "web", "labels": {}},
                "spec": {"entryPoints": ["web"], "routes": [{
                    "match": format!("Host(`{}`)", scene.host()), "kind": "Rule",
                    "services": [{"name": "web", "kind": "TraefikService"}],
                }]},
            }))
            .await?;
        let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]);
        let routing = json!({"traefik": {"weightedTraefikServiceName": "web"}});
        scene.deploy(routed(2, routing, steps)).await?;
        let load = users(&scene, &[]).await?;
        scene.share_is(&load, "2", 0.0).await?;

        scene.set_tag("web", "2")?;
        for (step, weight, share) in [(1, 20, 0.2), (3, 60, 0.6)] {
            let paused = scene.paused_at("web", step).await?;
            assert_eq!(paused["status"]["canary"]["weights"]["canary"]["weight"], weight);
            let expected = [("web-stable".to_owned(), 100 - weight), ("web-canary".to_owned(), weight)];
            assert_eq!(traefik_weights(&scene).await?, expected);
            scene.share_is(&load, "2", share).await?;
            scene.plugin(&["promote", "web"])?;
        }
        scene.phase("web", "Healthy").await?;
        scene.share_is(&load, "2", 1.0).await?;
        let sets = scene.sizes("web", &[(1, 0), (2, 2)]).await?;
        assert_eq!(scene.service_selector("web-stable").await?, sets[1].hash);
        assert_eq!(traefik_weights(&scene).await?, [("web-stable".to_owned(), 100), ("web-canary".to_owned(), 0)]);

        // And back, from the middle of the next update.
        scene.set_tag("web", "3")?;
        scene.paused_at("web", 1).await?;
        scene.share_is(&load, "3", 0.2).await?;
        scene.plugin(&["abort", "web"])?;
        scene.phase("web", "Degraded").await?;
        scene.share_is(&load, "2", 1.0).await?;
        scene.sizes("web", &[(1, 0), (2, 2), (3, 0)]).await?;
        scene.without_errors(load).await
    })
}

#[test]
fn a_traefik_service_that_is_not_there_is_named() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "traefik-none").await?;
        services(&scene).await?;
        let steps = json!([{"setWeight": 50}, {"pause": {}}]);
        let routing = json!({"traefik": {"weightedTraefikServiceName": "web"}});
        scene.apply(routed(1, routing, steps)).await?;
        let message = format!("TraefikService {}/web does not exist", scene.name());
        scene.told("Rollout", "web", "TrafficRoutingError", &message).await?;
        // It may come later.
        scene
            .apply(json!({
                "apiVersion": TRAEFIK, "kind": "TraefikService", "metadata": {"name": "web", "labels": {}},
                "spec": {"weighted": {"services": [
                    {"name": "web-stable", "port": 80}, {"name": "web-canary", "port": 80},
                ]}},
            }))
            .await?;
        scene.phase("web", "Healthy").await?;
        scene
            .until("the weights of the first version", async || {
                let found = traefik_weights(&scene).await?;
                ensure!(found == [("web-stable".to_owned(), 100), ("web-canary".to_owned(), 0)], "{found:?}");
                Ok(())
            })
            .await
    })
}

/// The annotations of the canary Ingress.
async fn annotations(scene: &Scene) -> Result<Value> {
    let made = scene.get(INGRESS, "Ingress", "web-web-canary").await?;
    Ok(made["metadata"]["annotations"].clone())
}

#[test]
fn nginx_annotations_choose_users_by_weight_header_and_cookie() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "nginx-users").await?;
        services(&scene).await?;
        let backend = json!({"service": {"name": "web-stable", "port": {"number": 80}}});
        let rule = json!({
            "host": scene.host(),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
        });
        scene
            .apply(json!({
                "apiVersion": INGRESS, "kind": "Ingress", "metadata": {"name": "web", "labels": {}},
                "spec": {"ingressClassName": NGINX_CLASS, "rules": [rule]},
            }))
            .await?;
        // Weights of 200: 40 are a fifth.
        let routing = json!({
            "maxTrafficWeight": 200,
            "nginx": {
                "stableIngress": "web",
                "additionalIngressAnnotations": {"canary-by-header": "x-tester"},
                "canaryIngressAnnotations": {"nginx.ingress.kubernetes.io/canary-by-cookie": "beta"},
            },
        });
        let steps = json!([{"setWeight": 40}, {"pause": {}}, {"setWeight": 100}, {"pause": {}}]);
        scene.deploy(routed(2, routing, steps)).await?;
        let everybody = users(&scene, &[]).await?;
        scene.share_is(&everybody, "2", 0.0).await?;

        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        let expected = |weight: &str| {
            json!({
                "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-by-cookie": "beta",
                "nginx.ingress.kubernetes.io/canary-by-header": "x-tester",
                "nginx.ingress.kubernetes.io/canary-weight": weight,
                "nginx.ingress.kubernetes.io/canary-weight-total": "200",
            })
        };
        assert_eq!(annotations(&scene).await?, expected("40"));
        scene.share_is(&everybody, "2", 0.2).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        let always = |name: &str, value: &str| {
            let mut load = Load::new(&url, Some(&host), 50.0);
            load.headers = vec![(name.to_owned(), value.to_owned())];
            load.start()
        };
        for (name, value, version) in [
            ("x-tester", "always", "2"),
            ("x-tester", "never", "1"),
            ("cookie", "beta=always", "2"),
            ("cookie", "beta=never", "1"),
        ] {
            let chosen = always(name, value)?;
            scene.share_is(&chosen, version, 1.0).await.with_context(|| format!("{name}: {value}"))?;
            scene.without_errors(chosen).await?;
        }

        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 3).await?;
        assert_eq!(annotations(&scene).await?, expected("100"));
        scene.share_is(&everybody, "2", 0.5).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&everybody, "2", 1.0).await?;
        scene.sizes("web", &[(1, 0), (2, 2)]).await?;
        assert_eq!(annotations(&scene).await?, expected("0"));
        scene.without_errors(everybody).await
    })
}

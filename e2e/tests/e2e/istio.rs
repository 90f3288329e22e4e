//! Istio's VirtualServices and DestinationRules, as a mesh would read them from a real API server; also those of another
//! cluster.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{Controller, apply, run};

use crate::roles;
use crate::scene::{self, HASH, Scene};

const ISTIO: &str = "networking.istio.io/v1alpha3";
/// Says on a DestinationRule which Rollout it belongs to.
const MANAGED_BY: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";
/// The label of the Secret with the kubeconfig of the cluster that Istio is configured in.
const PRIMARY: &str = "istio.argoproj.io/primary-cluster";

async fn install_istio(scene: &Scene) -> Result<()> {
    for (kind, plural) in [("VirtualService", "virtualservices"), ("DestinationRule", "destinationrules")] {
        let definition = apply::definition("networking.istio.io", "v1alpha3", kind, plural);
        apply::define(&scene.namespace.client, &definition).await?;
    }
    Ok(())
}

/// A VirtualService with a route of the Rollout's, one of somebody else's, and one for TLS.
fn virtual_service(destinations: [Value; 2]) -> Value {
    let [stable, canary] = destinations;
    let route = json!([{"destination": stable, "weight": 100}, {"destination": canary, "weight": 0}]);
    json!({
        "apiVersion": ISTIO, "kind": "VirtualService", "metadata": {"name": "web", "labels": {}},
        "spec": {
            "hosts": ["web.example.com"], "gateways": ["public"],
            "http": [
                {"name": "primary", "retries": {"attempts": 2}, "route": route},
                {"name": "legal", "match": [{"uri": {"prefix": "/legal"}}], "route": [{"destination": {"host": "legal"}}]},
            ],
            "tls": [{"match": [{"port": 443, "sniHosts": ["web.example.com"]}], "route": route}],
        },
    })
}

/// The weights of a route's destinations, in their order.
fn weights(route: &Value) -> Vec<i64> {
    route["route"].as_array().into_iter().flatten().filter_map(|to| to["weight"].as_i64()).collect()
}

/// Waits until the VirtualService's own routes, which come last, have these weights.
async fn has_weights(scene: &Scene, expected: [i64; 2]) -> Result<Value> {
    scene
        .until(&format!("weights {expected:?}"), async || {
            let service = scene.get(ISTIO, "VirtualService", "web").await?;
            let http = service["spec"]["http"].as_array().context("http")?;
            let named = |name: &str| http.iter().find(|route| route["name"] == name).context(name.to_owned());
            ensure!(weights(named("primary")?) == expected, "{service}");
            ensure!(weights(&service["spec"]["tls"][0]) == expected, "{service}");
            assert_eq!(named("legal")?["route"], json!([{"destination": {"host": "legal"}}]), "it is not ours");
            Ok(service)
        })
        .await
}

fn routed(istio: Value, services: Value, steps: Value) -> Value {
    let mut canary = json!({
        "scaleDownDelaySeconds": 1, "trafficRouting": {"istio": istio, "managedRoutes": [{"name": "testers"}]}, "steps": steps,
    });
    for (name, service) in services.as_object().into_iter().flatten() {
        canary[name] = service.clone();
    }
    scene::rollout("web", "1", 1, json!({"canary": canary}))
}

fn hosts() -> [Value; 2] {
    [json!({"host": "web-stable"}), json!({"host": "web-canary"})]
}

/// The routes of the VirtualService that are the Rollout's.
fn own_routes() -> Value {
    json!({"name": "web", "routes": ["primary"], "tlsRoutes": [{"port": 443}]})
}

fn by_host(steps: Value) -> Value {
    let services = json!({"stableService": "web-stable", "canaryService": "web-canary"});
    routed(json!({"virtualService": own_routes()}), services, steps)
}

async fn services(scene: &Scene) -> Result<()> {
    for name in ["web-stable", "web-canary"] {
        scene.apply(scene::service(name, "web")).await?;
    }
    Ok(())
}

#[test]
fn weights_and_headers_go_to_the_routes_that_the_rollout_names() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "istio").await?;
        install_istio(&scene).await?;
        let mut controller = scene.namespace.start_controller(&[]).await?;
        services(&scene).await?;
        scene.apply(virtual_service(hosts())).await?;
        let header = json!({"name": "testers", "match": [{"headerName": "x-tester", "headerValue": {"exact": "1"}}]});
        let steps = json!([
            {"setWeight": 20}, {"setHeaderRoute": header}, {"pause": {}}, {"setWeight": 70}, {"pause": {}},
        ]);
        scene.deploy(by_host(steps)).await?;
        let before = has_weights(&scene, [100, 0]).await?;

        scene.set_tag("web", "2")?;
        scene.paused_at("web", 2).await?;
        let service = has_weights(&scene, [80, 20]).await?;
        let first = &service["spec"]["http"][0];
        assert_eq!(first["name"], "testers", "what is managed comes first");
        assert_eq!(first["match"][0]["headers"]["x-tester"], json!({"exact": "1"}));
        assert_eq!(first["route"], json!([{"destination": {"host": "web-canary"}, "weight": 100}]));

        // A route of ours that somebody takes away comes back, also by a controller that did not see it go.
        controller.kill()?;
        let http: Vec<Value> = service["spec"]["http"].as_array().context("http")?[1..].to_vec();
        scene.patch(ISTIO, "VirtualService", "web", json!({"spec": {"http": http}})).await?;
        controller.restart()?;
        scene
            .until("the header route to be back", async || {
                let found = scene.get(ISTIO, "VirtualService", "web").await?;
                ensure!(found["spec"] == service["spec"], "{found}");
                Ok(())
            })
            .await?;

        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 4).await?;
        has_weights(&scene, [30, 70]).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        let after = has_weights(&scene, [100, 0]).await?;
        assert_eq!(after["spec"], before["spec"], "nothing is left behind");
        Ok(())
    })
}

#[test]
fn subsets_select_versions_and_are_given_back() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "istio-subsets").await?;
        install_istio(&scene).await?;
        let mut controller = scene.namespace.start_controller(&[]).await?;
        scene.apply(scene::service("web", "web")).await?;
        let subset = |name: &str| json!({"host": "web", "subset": name});
        scene.apply(virtual_service([subset("stable"), subset("canary")])).await?;
        let labels = json!({"app": "web"});
        scene
            .apply(json!({
                "apiVersion": ISTIO, "kind": "DestinationRule", "metadata": {"name": "web", "labels": {}},
                "spec": {"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}, "subsets": [
                    {"name": "canary", "labels": labels}, {"name": "stable", "labels": labels},
                    {"name": "all", "labels": labels},
                ]},
            }))
            .await?;
        let istio = json!({
            "virtualService": own_routes(),
            "destinationRule": {
                "name": "web", "canarySubsetName": "canary", "stableSubsetName": "stable",
                "additionalSubsetNames": ["all"],
            },
        });
        scene.deploy(routed(istio, json!({}), json!([{"setWeight": 40}, {"pause": {}}]))).await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        has_weights(&scene, [60, 40]).await?;
        let revisions = scene.revisions("web").await?;
        let hash = |number: u32| revisions.iter().find(|r| r.number == number).map(|r| r.hash.clone());
        let subsets = async || -> Result<Vec<Value>> {
            let rule = scene.get(ISTIO, "DestinationRule", "web").await?;
            assert_eq!(rule["spec"]["trafficPolicy"]["loadBalancer"]["simple"], "ROUND_ROBIN");
            Ok(rule["spec"]["subsets"].as_array().context("subsets")?.clone())
        };
        let with = |number: u32| json!({"app": "web", HASH: hash(number)});
        let found = subsets().await?;
        assert_eq!(found[0]["labels"], with(2));
        assert_eq!(found[1]["labels"], with(1));
        assert_eq!(found[2]["labels"], labels, "a subset that is not ours");
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        has_weights(&scene, [100, 0]).await?;
        assert_eq!(subsets().await?[1]["labels"], with(2));

        // Also when it goes while no controller runs.
        controller.kill()?;
        scene.kubectl(&["delete", "rollout", "web"])?;
        controller.restart()?;
        scene
            .until("the subsets to be as they were", async || {
                let found = subsets().await?;
                ensure!(found.iter().all(|subset| subset["labels"] == labels), "{found:?}");
                Ok(())
            })
            .await
    })
}

/// A Secret that says where Istio is configured.
fn primary(kubeconfig: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "istio-remote-secret-west", "labels": {PRIMARY: "true"}},
        "stringData": {"west": kubeconfig},
    })
}

/// A controller that has no right to Istio's objects in its own cluster.
async fn without_istio(scene: &Scene) -> Result<Controller> {
    let mut rules = roles::chart_rules()?;
    let istio = json!(["networking.istio.io"]);
    let count = rules.len();
    rules.retain(|rule| rule["apiGroups"] != istio);
    ensure!(rules.len() < count, "the chart has no rule for Istio");
    let user = roles::account(scene, rules).await?;
    scene.namespace.start_controller(&[&user]).await
}

#[test]
fn routes_may_be_in_another_cluster() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "istio-primary").await?;
        install_istio(&scene).await?;
        services(&scene).await?;
        scene.apply(virtual_service(hosts())).await?;
        scene.apply(primary("clusters: [hush")).await?;
        let mut controller = without_istio(&scene).await?;
        // A Rollout of another cluster has its rule there too.
        let theirs = json!({
            "apiVersion": ISTIO, "kind": "DestinationRule",
            "metadata": {"name": "theirs", "labels": {}, "annotations": {MANAGED_BY: "theirs"}},
            "spec": {"host": "theirs", "subsets": [{"name": "stable", "labels": {HASH: "abcde"}}]},
        });
        scene.apply(theirs.clone()).await?;
        scene.apply(by_host(json!([{"setWeight": 25}, {"pause": {}}]))).await?;
        scene
            .until("the log to name the Secret", async || {
                let said = controller.log();
                ensure!(
                    said.contains("istio-remote-secret-west") && said.contains("data.west is no kubeconfig"),
                    "{said}"
                );
                ensure!(!said.contains("hush"), "the log has the Secret's content");
                Ok(())
            })
            .await?;

        // The same cluster under another identity: only that has the right to Istio's objects.
        let kubeconfig = std::fs::read_to_string(cluster.kubeconfig().context("a cluster of the harness")?)?;
        scene.apply(primary(&kubeconfig)).await?;
        controller.kill()?;
        controller.restart()?;
        controller.wait_ready().await?;
        scene.phase("web", "Healthy").await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        has_weights(&scene, [75, 25]).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        has_weights(&scene, [100, 0]).await?;
        let rule = scene.get(ISTIO, "DestinationRule", "theirs").await?;
        assert_eq!(rule["metadata"]["annotations"], theirs["metadata"]["annotations"]);
        assert_eq!(rule["spec"], theirs["spec"]);
        Ok(())
    })
}

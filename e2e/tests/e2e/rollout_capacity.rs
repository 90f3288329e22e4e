//! Pods come before the traffic and go after it: with a stable version that shrinks, an autoscaler at work, and a
//! Deployment that hands over. Pods take their leave before they stop to answer, as those of careful users do.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::{Load, run, wait_for};

use crate::rollout_traffic::{self, weights};
use crate::scene::{self, SOON, Scene, phase_is};

async fn users(scene: &Scene) -> Result<RunningLoad> {
    let (url, host) = (scene.cluster.gateway_url(), scene.host());
    scene.answers(&url, Some(&host), "1").await?;
    Load::new(&url, Some(&host), 100.0).start()
}

/// Pods that a weight needs, of so many.
fn needed(weight: i64, replicas: i64) -> i64 {
    (weight * replicas + 99) / 100
}

/// Looks whether both versions have the pods for their weights. While traffic goes back, the canary only loses pods and
/// weight, and the stable version only gains them: what is read before and after tells what was true in between.
async fn capacity_is_enough(scene: &Scene, replicas: i64) -> Result<()> {
    let before = scene.revisions("web").await?;
    let now = weights(scene, "web").await?;
    let after = scene.revisions("web").await?;
    let weight = |name: &str| now.iter().find(|(found, _)| found == name).map_or(0, |(_, weight)| *weight);
    let (stable, canary) = (after[0].available, before[1].available);
    let wanted = (needed(weight("web-stable"), replicas), needed(weight("web-canary"), replicas));
    ensure!(
        stable >= wanted.0 && canary >= wanted.1,
        "{stable} stable and {canary} canary pods for the weights {now:?}"
    );
    Ok(())
}

#[test]
fn a_shrunk_stable_version_is_whole_again_before_the_canary_goes() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "dynamic").await?;
        rollout_traffic::prepare(&scene, "web").await?;
        let steps = json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"setWeight": 75}, {"pause": {}}]);
        let mut rollout = rollout_traffic::routed("web", "1", 4, steps);
        scene::polite(&mut rollout["spec"]["template"]);
        let canary = &mut rollout["spec"]["strategy"]["canary"];
        canary["dynamicStableScale"] = true.into();
        canary["scaleDownDelaySeconds"] = Value::Null;
        scene.deploy(rollout).await?;
        let load = users(&scene).await?;

        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        scene.sizes("web", &[(1, 3), (2, 1)]).await?;
        scene.share_is(&load, "2", 0.25).await?;
        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 4).await?;
        scene.sizes("web", &[(1, 1), (2, 3)]).await?;
        scene.share_is(&load, "2", 0.75).await?;

        scene.plugin(&["abort", "web"])?;
        // Each look on the way is one that has to be good: `?` leaves at once.
        let mut bad = None;
        wait_for("all traffic and pods on the stable version", SOON, async || {
            if let Err(error) = capacity_is_enough(&scene, 4).await {
                bad.get_or_insert(error);
                return Ok(());
            }
            let found = weights(&scene, "web").await?;
            let sets = scene.revisions("web").await?;
            let sizes: Vec<i64> = sets.iter().map(|set| set.available).collect();
            ensure!(found[0].1 == 100 && sizes == [4, 0], "weights {found:?}, available {sizes:?}");
            Ok(())
        })
        .await?;
        if let Some(error) = bad {
            return Err(error.context(scene.namespace.describe().await));
        }
        scene.phase("web", "Degraded").await?;
        scene.share_is(&load, "1", 1.0).await?;

        // And to the end, where the old version goes with its traffic.
        scene.plugin(&["retry", "rollout", "web"])?;
        scene.paused_at("web", 1).await?;
        scene.plugin(&["promote", "web", "--full"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&load, "2", 1.0).await?;
        scene.sizes("web", &[(1, 0), (2, 4)]).await?;
        scene.without_errors(load).await
    })
}

#[test]
fn an_autoscaler_changes_both_versions_and_no_weight() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "autoscaled").await?;
        rollout_traffic::prepare(&scene, "web").await?;
        let mut rollout = rollout_traffic::routed("web", "1", 2, json!([{"setWeight": 50}, {"pause": {}}]));
        scene::polite(&mut rollout["spec"]["template"]);
        scene.deploy(rollout).await?;
        let load = users(&scene).await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        scene.sizes("web", &[(1, 2), (2, 1)]).await?;

        for (replicas, canary) in [(6, 3), (3, 2), (1, 1)] {
            // As an autoscaler does it: a patch of the scale subresource.
            let patch = format!(r#"{{"spec": {{"replicas": {replicas}}}}}"#);
            scene.kubectl(&["patch", "rollout", "web", "--subresource=scale", "--type=merge", "--patch", &patch])?;
            scene.sizes("web", &[(1, replicas), (2, canary)]).await?;
            let all = replicas + canary;
            let scaled = scene
                .rollout_is("web", "paused at its new size", |rollout| {
                    phase_is(rollout, "Paused")?;
                    let status = &rollout["status"];
                    ensure!(status["HPAReplicas"] == all && status["availableReplicas"] == all, "{status}");
                    Ok(())
                })
                .await?;
            assert_eq!(scaled["status"]["currentStepIndex"], 1);
            assert_eq!(scaled["status"]["canary"]["weights"]["canary"]["weight"], 50);
            scene.share_is(&load, "2", 0.5).await?;
        }
        let path = format!("/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts/web/scale", scene.name());
        let scale: Value = serde_json::from_str(&scene.kubectl(&["get", "--raw", &path])?)?;
        assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(2)));
        assert_eq!(scale["status"]["selector"], "app=web");
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&load, "2", 1.0).await?;
        scene.sizes("web", &[(1, 0), (2, 1)]).await?;
        scene.without_errors(load).await
    })
}

/// How many pods are ready and stay.
async fn ready(scene: &Scene) -> Result<usize> {
    let pods = scene.list("v1", "Pod").await?;
    let ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.into_iter().any(|found| found["type"] == "Ready" && found["status"] == "True")
    };
    Ok(pods.iter().filter(ready).count())
}

#[test]
fn a_deployment_hands_over_pod_by_pod() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "hand-over").await?;
        let mut template = scene::template("web", "1");
        scene::polite(&mut template);
        scene
            .apply(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {}},
                "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": template},
            }))
            .await?;
        scene.apply(scene::service("web", "web")).await?;
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        scene.apply(rollout_traffic::route(&scene, "HTTPRoute", "web", rules)).await?;
        scene
            .until("the Deployment's pods", async || {
                let deployment = scene.get("apps/v1", "Deployment", "web").await?;
                ensure!(deployment["status"]["availableReplicas"] == 4, "{}", deployment["status"]);
                Ok(())
            })
            .await?;
        let load = users(&scene).await?;

        let mut rollout = scene::canary("web", "1", 4, json!([{"setWeight": 50}, {"pause": {}}]));
        let spec = rollout["spec"].as_object_mut().context("spec")?;
        spec.remove("template");
        spec.remove("selector");
        let reference =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": "progressively"});
        spec.insert("workloadRef".to_owned(), reference);
        scene.apply(rollout).await?;
        // Not a pod less on the way.
        let mut least = usize::MAX;
        wait_for("the Deployment to have handed over", SOON, async || {
            least = least.min(ready(&scene).await?);
            let deployment = scene.get("apps/v1", "Deployment", "web").await?;
            phase_is(&scene.rollout("web").await?, "Healthy")?;
            let (wanted, has) = (&deployment["spec"]["replicas"], &deployment["status"]["replicas"]);
            ensure!(wanted == 0 && (has.is_null() || has == 0), "the Deployment wants {wanted} and has {has}");
            Ok(())
        })
        .await?;
        println!("{}: at least {least} of 4 pods were ready", scene.name());
        ensure!(least >= 4, "only {least} of 4 pods were ready\n{}", scene.namespace.describe().await);
        scene.sizes("web", &[(1, 4)]).await?;

        // From now on the Deployment's template is the Rollout's.
        scene.plugin(&["set", "image", "web", "server=tidegate/testserver:2"])?;
        scene
            .rollout_is("web", "paused with the new template", |rollout| {
                phase_is(rollout, "Paused")?;
                ensure!(rollout["status"]["currentStepIndex"] == 1, "{}", rollout["status"]);
                Ok(())
            })
            .await?;
        scene.sizes("web", &[(1, 2), (2, 2)]).await?;
        scene.share_is(&load, "2", 0.5).await?;
        scene.plugin(&["promote", "web"])?;
        scene.share_is(&load, "2", 1.0).await?;
        scene.phase("web", "Healthy").await?;
        scene.sizes("web", &[(1, 0), (2, 4)]).await?;
        let deployment = scene.get("apps/v1", "Deployment", "web").await?;
        assert_eq!(deployment["spec"]["replicas"], 0, "nobody scales it up again");
        scene.without_errors(load).await
    })
}

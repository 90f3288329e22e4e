//! Rollouts that another controller has left behind are taken over as they are.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{http, run};

use crate::scene::{self, HASH, INSTANCE, REVISION, Scene};

/// Hashes of another controller's making; ours are others.
const STABLE: &str = "6c54544bf9";
const CANARY: &str = "7d9f8bdc5c";

/// A ReplicaSet as the other controller has made it.
async fn replica_set(scene: &Scene, owner: &Value, tag: &str, hash: &str, revision: &str, replicas: u32) -> Result<()> {
    let mut template = scene::template("web", tag);
    template["metadata"]["labels"][HASH] = hash.into();
    // What an older API server had defaulted in the template of its day, written out.
    template["spec"]["restartPolicy"] = "Always".into();
    template["spec"]["dnsPolicy"] = "ClusterFirst".into();
    template["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log".into();
    scene
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": format!("web-{hash}"),
                "labels": {"app": "web", HASH: hash},
                "annotations": {REVISION: revision, "rollout.argoproj.io/desired-replicas": "2"},
                "ownerReferences": [{
                    "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web",
                    "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web", HASH: hash}},
                "template": template,
            },
        }))
        .await
}

/// Waits until so many pods of a hash are available.
async fn available(scene: &Scene, hash: &str, replicas: u32) -> Result<()> {
    scene
        .until(&format!("{replicas} available pods of {hash}"), async || {
            let set = scene.get("apps/v1", "ReplicaSet", &format!("web-{hash}")).await?;
            ensure!(set["status"]["availableReplicas"] == replicas, "{}", set["status"]);
            Ok(())
        })
        .await
}

/// Writes what the other controller had written, and then hands the Rollout over. The generation does not change.
async fn hand_over(scene: &Scene, revision: &str, status: Value) -> Result<()> {
    scene.patch_rollout("web", json!({"metadata": {"annotations": {REVISION: revision}}})).await?;
    let api = scene.objects("argoproj.io/v1alpha1", "Rollout")?;
    let patch = kube::api::Patch::Merge(json!({"status": status}));
    api.patch_status("web", &kube::api::PatchParams::default(), &patch).await?;
    scene.patch_rollout("web", json!({"metadata": {"labels": {INSTANCE: Scene::instance()}}})).await?;
    // Once its metrics show the Rollout, the controller has been through a pass over it.
    let (url, client) = (Scene::controller()?.metrics_url(), http::client()?);
    let series = format!(r#"rollout_info{{namespace="{}",name="web""#, scene.name());
    scene
        .until("the controller to have looked at it", async || {
            let metrics = client.get(&url).send().await?.text().await?;
            ensure!(metrics.contains(&series), "no {series}");
            Ok(())
        })
        .await
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": time, "lastTransitionTime": time,
    })
}

/// The Rollout, under nobody's eyes.
async fn foreign(scene: &Scene, tag: &str) -> Result<Value> {
    let mut rollout = scene::canary("web", tag, 2, json!([{"setWeight": 50}, {"pause": {}}]));
    rollout["metadata"]["labels"] = json!({INSTANCE: "nobody"});
    scene.apply(rollout).await?;
    scene.rollout("web").await
}

async fn sets(scene: &Scene) -> Result<BTreeMap<String, (Value, Value, Value)>> {
    let sets = scene.list("apps/v1", "ReplicaSet").await?;
    let name = |set: &Value| set["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kept = |set: &Value| {
        let metadata = &set["metadata"];
        (metadata["uid"].clone(), metadata["annotations"][REVISION].clone(), set["spec"].clone())
    };
    Ok(sets.iter().map(|set| (name(set), kept(set))).collect())
}

#[test]
fn a_settled_rollout_is_taken_over_without_a_new_revision() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "adopt").await?;
        let rollout = foreign(&scene, "1").await?;
        replica_set(&scene, &rollout, "1", STABLE, "7", 2).await?;
        available(&scene, STABLE, 2).await?;
        let (pods, before) = (scene.pods().await?, sets(&scene).await?);
        let status = json!({
            "observedGeneration": rollout["metadata"]["generation"].to_string(),
            "currentPodHash": STABLE, "stableRS": STABLE,
            "currentStepHash": "5f4d8b7c6d", "currentStepIndex": 2,
            "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "HPAReplicas": 2,
            "selector": "app=web", "phase": "Healthy",
            "blueGreen": {}, "canary": {},
            "conditions": [
                condition("Available", "True", "AvailableReason", "Rollout has minimum availability"),
                condition("Progressing", "True", "NewReplicaSetAvailable", "ReplicaSet has successfully progressed."),
                condition("Completed", "True", "RolloutCompleted", "RolloutCompleted"),
                condition("Healthy", "True", "RolloutHealthy", "Rollout is healthy"),
            ],
        });
        hand_over(&scene, "7", status).await?;
        let taken = scene.phase("web", "Healthy").await?;
        assert_eq!(
            (&taken["status"]["stableRS"], &taken["status"]["currentPodHash"]),
            (&json!(STABLE), &json!(STABLE))
        );
        assert_eq!(sets(&scene).await?, before, "a ReplicaSet was changed");
        assert_eq!(scene.pods().await?, pods, "a pod was replaced");
        assert_eq!(taken["metadata"]["annotations"][REVISION], "7");
        assert_eq!(scene.events("Rollout", "web").await?, [], "nothing happened, so there is nothing to tell");

        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        let sets = scene.sizes("web", &[(7, 1), (8, 1)]).await?;
        assert_eq!(sets[0].hash, STABLE);
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.sizes("web", &[(7, 0), (8, 2)]).await?;
        // Back to what the other controller had made: its ReplicaSet, not a new one.
        scene.set_tag("web", "1")?;
        scene.paused_at("web", 1).await?;
        let sets = scene.sizes("web", &[(8, 1), (9, 1)]).await?;
        assert_eq!(sets[1].hash, STABLE);
        Ok(())
    })
}

#[test]
fn an_update_under_way_goes_on_where_it_stands() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "midway").await?;
        let rollout = foreign(&scene, "2").await?;
        replica_set(&scene, &rollout, "1", STABLE, "3", 1).await?;
        replica_set(&scene, &rollout, "2", CANARY, "4", 1).await?;
        available(&scene, STABLE, 1).await?;
        available(&scene, CANARY, 1).await?;
        let (pods, before) = (scene.pods().await?, sets(&scene).await?);
        let status = json!({
            "observedGeneration": rollout["metadata"]["generation"].to_string(),
            "currentPodHash": CANARY, "stableRS": STABLE,
            "currentStepHash": "5f4d8b7c6d", "currentStepIndex": 1,
            "controllerPause": true,
            "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}],
            "replicas": 2, "updatedReplicas": 1, "readyReplicas": 2, "availableReplicas": 2, "HPAReplicas": 2,
            "selector": "app=web", "phase": "Paused", "message": "CanaryPauseStep",
            "blueGreen": {}, "canary": {},
            "conditions": [
                condition("Available", "True", "AvailableReason", "Rollout has minimum availability"),
                condition("Completed", "False", "RolloutCompleted", "RolloutCompleted"),
                condition("Progressing", "Unknown", "RolloutPaused", "Rollout is paused"),
                condition("Paused", "True", "RolloutPaused", "Rollout is paused"),
            ],
        });
        hand_over(&scene, "4", status).await?;
        let taken = scene.paused_at("web", 1).await?;
        let start = taken["status"]["pauseConditions"][0]["startTime"].as_str().context("the start of the pause")?;
        assert_eq!(start, "2026-01-01T00:00:00Z", "the pause began anew");
        assert_eq!(sets(&scene).await?, before, "a ReplicaSet was changed");
        assert_eq!(scene.pods().await?, pods, "a pod was replaced");

        scene.plugin(&["promote", "web"])?;
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(done["status"]["stableRS"], CANARY);
        let sets = scene.sizes("web", &[(3, 0), (4, 2)]).await?;
        assert_eq!((sets[0].hash.as_str(), sets[1].hash.as_str()), (STABLE, CANARY));
        Ok(())
    })
}

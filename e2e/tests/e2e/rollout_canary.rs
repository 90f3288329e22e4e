//! Canaries without traffic routing: the ratio of pods is the weight.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::run;

use crate::scene::{self, HASH, REVISION, Scene, condition, phase_is};

const FIRST_DEPLOY: [&str; 6] = [
    "RolloutAddedToInformer",
    "RolloutUpdated",
    "NewReplicaSetCreated",
    "RolloutNotCompleted",
    "ScalingReplicaSet",
    "RolloutCompleted",
];
const UPDATE: [&str; 6] = [
    "RolloutUpdated",
    "NewReplicaSetCreated",
    "RolloutNotCompleted",
    "ScalingReplicaSet",
    "RolloutStepCompleted",
    "RolloutPaused",
];

#[test]
fn events_come_in_the_order_that_clients_compare() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "events").await?;
        scene.apply(scene::canary("web", "1", 1, json!([{"setWeight": 50}, {"pause": {}}]))).await?;
        for type_ in ["Available", "Progressing", "Completed", "Healthy"] {
            scene.kubectl_wait("web", type_)?;
        }
        let first = scene.phase("web", "Healthy").await?;
        // The first deployment has nothing to compare with: it skips the steps.
        assert_eq!(first["status"]["currentStepIndex"], 2);
        assert_eq!(first["status"]["stableRS"], first["status"]["currentPodHash"]);
        let mut expected: Vec<&str> = FIRST_DEPLOY.to_vec();
        scene.reasons("web", &expected).await?;

        scene.set_tag("web", "2")?;
        scene.kubectl_wait("web", "Paused")?;
        let paused = scene.paused_at("web", 1).await?;
        assert_eq!(paused["status"]["message"], "CanaryPauseStep");
        assert_eq!(paused["status"]["controllerPause"], true);
        assert_eq!(condition(&paused, "Completed")["status"], "False");
        assert_eq!(condition(&paused, "Healthy")["status"], "False");
        assert_eq!(condition(&paused, "Progressing")["reason"], "RolloutPaused");
        expected.extend(UPDATE);
        scene.reasons("web", &expected).await?;
        scene.told("Rollout", "web", "RolloutUpdated", "Rollout updated to revision 2").await?;
        scene.told("Rollout", "web", "RolloutStepCompleted", "Rollout step 1/2 completed (setWeight: 50)").await?;

        scene.plugin(&["abort", "web"])?;
        let aborted = scene.phase("web", "Degraded").await?;
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("RolloutAborted: Rollout aborted update to revision 2"), "{message}");
        assert_eq!(aborted["status"]["currentStepIndex"], 0);
        scene.sizes("web", &[(1, 1), (2, 0)]).await?;
        expected.extend(["ScalingReplicaSet", "RolloutAborted"]);
        scene.reasons("web", &expected).await?;
        let scaled = scene.events("Rollout", "web").await?;
        let down = scaled.iter().rev().find(|event| event.reason == "ScalingReplicaSet").cloned();
        let down = down.map(|event| event.message).unwrap_or_default();
        let hash = aborted["status"]["currentPodHash"].as_str().unwrap_or_default();
        assert_eq!(down, format!("Scaled down ReplicaSet web-{hash} (revision 2) from 1 to 0"));

        // A retry repeats what was told before: those events are counted up.
        scene.plugin(&["retry", "rollout", "web"])?;
        scene.paused_at("web", 1).await?;
        for (reason, message) in [
            ("ScalingReplicaSet", format!("Scaled up ReplicaSet web-{hash} (revision 2) from 0 to 1")),
            ("RolloutStepCompleted", "Rollout step 1/2 completed (setWeight: 50)".to_owned()),
            ("RolloutPaused", "CanaryPauseStep".to_owned()),
        ] {
            scene
                .until(&format!("{reason} to be told twice"), async || {
                    let events = scene.events("Rollout", "web").await?;
                    let found = events.iter().find(|event| event.reason == reason && event.message.contains(&message));
                    ensure!(found.is_some_and(|event| event.count == 2), "{events:#?}");
                    Ok(())
                })
                .await?;
        }

        scene.plugin(&["promote", "web"])?;
        scene.kubectl_wait("web", "Completed")?;
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(done["status"]["stableRS"], hash);
        scene.kubectl_wait("web", "Paused=false")?;
        expected.extend(["RolloutStepCompleted", "RolloutResumed", "ScalingReplicaSet", "RolloutCompleted"]);
        scene.reasons("web", &expected).await?;
        let told = format!("Rollout completed update to revision 2 ({hash}): Completed all 2 canary steps");
        scene.told("Rollout", "web", "RolloutCompleted", &told).await?;
        Ok(())
    })
}

#[test]
fn a_canary_is_scaled_superseded_undone_and_forgotten() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "steps").await?;
        let steps = json!([{"setWeight": 25}, {"pause": {}}]);
        scene.deploy(scene::canary("web", "1", 4, steps)).await?;
        scene.set_tag("web", "2")?;
        scene.paused_at("web", 1).await?;
        scene.sizes("web", &[(1, 3), (2, 1)]).await?;

        // In the middle of the step, through the scale subresource as an autoscaler does it.
        scene.kubectl(&["scale", "rollout/web", "--replicas=8"])?;
        scene.sizes("web", &[(1, 6), (2, 2)]).await?;
        let scale = scene.kubectl(&[
            "get",
            "--raw",
            &format!("/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts/web/scale", scene.name()),
        ])?;
        let scale: Value = serde_json::from_str(&scale)?;
        assert_eq!(scale["status"]["selector"], "app=web");
        scene.rollout_is("web", "still paused", |rollout| phase_is(rollout, "Paused")).await?;
        scene.kubectl(&["scale", "rollout/web", "--replicas=4"])?;
        scene.sizes("web", &[(1, 3), (2, 1)]).await?;

        // A newer version while the update is paused: it takes the canary's place.
        scene.set_tag("web", "3")?;
        scene.paused_at("web", 1).await?;
        let sets = scene.sizes("web", &[(1, 3), (2, 0), (3, 1)]).await?;
        let superseded = scene.rollout("web").await?;
        assert_eq!(superseded["status"]["stableRS"], sets[0].hash.as_str());
        assert_eq!(superseded["status"]["currentPodHash"], sets[2].hash.as_str());
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.sizes("web", &[(1, 0), (2, 0), (3, 4)]).await?;

        // An older revision comes back as a new one, of the same ReplicaSet, through the steps.
        let said = scene.plugin(&["undo", "web", "--to-revision=1"])?;
        assert_eq!(said, "rollout 'web' undo\n");
        scene.paused_at("web", 1).await?;
        let again = scene.sizes("web", &[(2, 0), (3, 3), (4, 1)]).await?;
        assert_eq!(again[2].hash, sets[0].hash);
        assert_eq!(again[2].annotations["rollout.argoproj.io/revision-history"], "1");
        let said = scene.plugin(&["promote", "web", "--full"])?;
        assert_eq!(said, "rollout 'web' fully promoted\n");
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(done["metadata"]["annotations"][REVISION], "4");
        scene.told("Rollout", "web", "RolloutCompleted", "Full promotion requested").await?;

        scene.patch_rollout("web", json!({"spec": {"revisionHistoryLimit": 1}})).await?;
        scene.sizes("web", &[(3, 0), (4, 4)]).await?;
        Ok(())
    })
}

#[test]
fn a_user_pauses_goes_back_and_restarts() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "user").await?;
        scene.deploy(scene::canary("web", "1", 2, json!([{"setWeight": 50}, {"pause": {}}]))).await?;

        // Paused before the update: the new version is known, but gets no pods.
        let said = scene.plugin(&["pause", "web"])?;
        assert!(said.contains("paused"), "{said}");
        scene.set_tag("web", "2")?;
        let paused = scene.phase("web", "Paused").await?;
        assert_eq!(paused["status"]["message"], "manually paused");
        scene.sizes("web", &[(1, 2), (2, 0)]).await?;
        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 1).await?;
        scene.sizes("web", &[(1, 1), (2, 1)]).await?;

        // Back to the stable template: nothing to prove, so no steps.
        scene.set_tag("web", "1")?;
        let back = scene.phase("web", "Healthy").await?;
        assert_eq!(back["status"]["currentPodHash"], back["status"]["stableRS"]);
        assert_eq!(back["status"]["currentStepIndex"], 2);
        scene.told("Rollout", "web", "SkipSteps", "Rollback to stable").await?;
        scene.sizes("web", &[(2, 0), (3, 2)]).await?;

        // New pods of the same revision. An eviction takes one pod at a time. A pod made in the second of the restart is
        // not older than that.
        scene
            .until("a second that no pod was made in", async || {
                let now = jiff::Timestamp::now().to_string();
                for pod in scene.list("v1", "Pod").await? {
                    let made = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
                    ensure!(made.get(..19) < now.get(..19), "{made}");
                }
                Ok(())
            })
            .await?;
        let before = scene.pods().await?;
        let said = scene.plugin(&["restart", "web"])?;
        assert!(said.contains("restarts in"), "{said}");
        scene
            .until("all pods to be new", async || {
                let now = scene.pods().await?;
                let old: Vec<&String> = now.keys().filter(|name| before.contains_key(*name)).collect();
                ensure!(old.is_empty() && now.len() == 2, "old {old:?} of {now:?}");
                Ok(())
            })
            .await?;
        let restarted = scene
            .rollout_is("web", "restarted", |rollout| {
                phase_is(rollout, "Healthy")?;
                ensure!(rollout["status"]["restartedAt"] == rollout["spec"]["restartAt"], "{}", rollout["status"]);
                Ok(())
            })
            .await?;
        assert_eq!(restarted["metadata"]["annotations"][REVISION], "3");
        Ok(())
    })
}

#[test]
fn a_version_that_never_becomes_ready_times_out() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "deadline").await?;
        let steps = json!([{"setWeight": 50}, {"pause": {}}]);
        for (name, abort) in [("waits", false), ("aborts", true)] {
            let mut rollout = scene::canary(name, "1", 1, steps.clone());
            rollout["spec"]["progressDeadlineAbort"] = abort.into();
            scene.apply(rollout).await?;
        }
        for name in ["waits", "aborts"] {
            scene.phase(name, "Healthy").await?;
            scene.patch_rollout(name, json!({"spec": {"progressDeadlineSeconds": 3}})).await?;
            scene.set_tag(name, "unready")?;
        }
        let waiting = scene.phase("waits", "Degraded").await?;
        let hash = waiting["status"]["currentPodHash"].as_str().unwrap_or_default();
        let message = format!("ReplicaSet \"waits-{hash}\" has timed out progressing.");
        assert_eq!(waiting["status"]["message"], format!("ProgressDeadlineExceeded: {message}"));
        assert_eq!(condition(&waiting, "Progressing")["reason"], "ProgressDeadlineExceeded");
        assert_eq!(condition(&waiting, "Available")["status"], "True", "the stable version serves on");
        let (code, _, said) = scene.plugin_ends(&["status", "waits", "--timeout=60s"])?;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("degraded") && said.contains(&message), "{said}");
        // A better version ends it, with a deadline of its own.
        scene.patch_rollout("waits", json!({"spec": {"progressDeadlineSeconds": 600}})).await?;
        scene.set_tag("waits", "2")?;
        scene.paused_at("waits", 1).await?;
        scene.sizes("waits", &[(1, 1), (2, 0), (3, 1)]).await?;

        let aborted = scene
            .rollout_is("aborts", "aborted", |rollout| {
                let reason = &condition(rollout, "Progressing")["reason"];
                ensure!(reason == "RolloutAborted", "{reason}");
                Ok(())
            })
            .await?;
        assert_eq!(aborted["status"]["abort"], true);
        phase_is(&aborted, "Degraded")?;
        scene.sizes("aborts", &[(1, 1), (2, 0)]).await?;
        Ok(())
    })
}

#[test]
fn garbage_in_a_pod_template_disturbs_nothing() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "garbage").await?;
        let mut rollout = scene::canary("web", "1", 1, json!([{"setWeight": 50}]));
        let spec = &mut rollout["spec"]["template"]["spec"];
        spec["containers"][0]["resources"] = json!({
            "limits": {"memory": "invalid"},
            "requests": {"cpu": 0.001, "memory": "16Mi"},
        });
        scene.deploy(rollout).await?;
        let sets = scene.list("apps/v1", "ReplicaSet").await?;
        let resources = &sets[0]["spec"]["template"]["spec"]["containers"][0]["resources"];
        assert_eq!(resources["requests"], json!({"cpu": "1m", "memory": "16Mi"}));
        assert!(resources["limits"]["memory"].is_null(), "{resources}");
        // And it stays one revision, whatever else changes.
        scene.patch_rollout("web", json!({"spec": {"minReadySeconds": 1}})).await?;
        scene.phase("web", "Healthy").await?;
        assert_eq!(scene.revisions("web").await?.len(), 1);
        Ok(())
    })
}

#[test]
fn a_deployment_is_taken_over_by_reference() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "workload").await?;
        scene
            .apply(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {}},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": scene::template("web", "1"),
                },
            }))
            .await?;
        let mut rollout = scene::canary("web", "1", 1, json!([{"setWeight": 50}, {"pause": {}}]));
        let spec = rollout["spec"].as_object_mut().into_iter().next();
        spec.into_iter().for_each(|spec| {
            spec.remove("template");
            spec.remove("selector");
            spec.insert(
                "workloadRef".to_owned(),
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": "onsuccess"}),
            );
        });
        scene.deploy(rollout).await?;
        scene
            .until("the Deployment to be scaled down", async || {
                let deployment = scene.get("apps/v1", "Deployment", "web").await?;
                ensure!(deployment["spec"]["replicas"] == 0, "{}", deployment["spec"]["replicas"]);
                Ok(())
            })
            .await?;
        scene.sizes("web", &[(1, 1)]).await?;
        // The image is the Deployment's, and so is the command's work.
        let said = scene.plugin(&["set", "image", "web", "server=tidegate/testserver:2"])?;
        assert!(said.contains("deployment \"web\" image updated"), "{said}");
        let paused = scene
            .rollout_is("web", "paused with the Deployment's new template", |rollout| {
                phase_is(rollout, "Paused")?;
                ensure!(rollout["metadata"]["annotations"][REVISION] == "2", "{}", rollout["metadata"]);
                Ok(())
            })
            .await?;
        let deployment = scene.get("apps/v1", "Deployment", "web").await?;
        let generation = deployment["metadata"]["generation"].as_i64().unwrap_or_default().to_string();
        assert_eq!(paused["status"]["workloadObservedGeneration"], generation);
        assert_eq!(paused["metadata"]["annotations"]["rollout.argoproj.io/workload-generation"], generation);
        assert!(paused["spec"]["template"].is_null(), "the resolved template was stored");
        assert!(paused["spec"]["selector"].is_null(), "the resolved selector was stored");
        scene.plugin(&["promote", "web"])?;
        let done = scene
            .rollout_is("web", "healthy at revision 2", |rollout| {
                phase_is(rollout, "Healthy")?;
                ensure!(rollout["status"]["stableRS"] == paused["status"]["currentPodHash"], "{}", rollout["status"]);
                Ok(())
            })
            .await?;
        scene.sizes("web", &[(1, 0), (2, 1)]).await?;
        let pods = scene.list("v1", "Pod").await?;
        let hash = &done["status"]["stableRS"];
        let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        assert!(living.clone().count() == 1 && living.clone().all(|pod| &pod["metadata"]["labels"][HASH] == hash));
        // Without the Rollout nothing would serve.
        scene.kubectl(&["delete", "rollout", "web"])?;
        scene
            .until("the Deployment to have its pods again", async || {
                let deployment = scene.get("apps/v1", "Deployment", "web").await?;
                let metadata = &deployment["metadata"];
                ensure!(deployment["spec"]["replicas"] == 1, "{}", deployment["spec"]["replicas"]);
                ensure!(metadata["labels"].get("rollout.tidegate.dev/scaled-down").is_none(), "{metadata}");
                ensure!(deployment["status"]["availableReplicas"] == 1, "{}", deployment["status"]);
                Ok(())
            })
            .await
    })
}

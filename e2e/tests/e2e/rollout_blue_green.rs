//! Blue-green: both versions stand, one Service switches.

use anyhow::Result;
use serde_json::{Value, json};
use tidegate_e2e::cluster::Cluster;
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::{Load, run};

use crate::scene::{self, Scene};

async fn prepare(scene: &Scene) -> Result<()> {
    scene.apply(scene::service("active", "web")).await?;
    scene.apply(scene::service("preview", "web")).await
}

fn blue_green(more: Value) -> Value {
    let mut strategy = json!({"activeService": "active", "previewService": "preview"});
    if let (Some(strategy), Some(more)) = (strategy.as_object_mut(), more.as_object()) {
        strategy.extend(more.clone());
    }
    scene::rollout("web", "1", 2, json!({"blueGreen": strategy}))
}

/// Load on a Service. Every request is a connection of its own, or it would stay with the pod of the first.
async fn load(scene: &Scene, service: &str) -> Result<RunningLoad> {
    let url = scene.service_url(service).await?;
    scene.answers(&url, None, "1").await?;
    let mut load = Load::new(&url, None, 50.0);
    load.headers.push(("connection".to_owned(), "close".to_owned()));
    load.start()
}

/// An analysis of one constant measurement with this verdict.
fn verdict(cluster: &Cluster, name: &str, good: bool) -> Value {
    let condition = if good { "result[0] == 1" } else { "result[0] == 2" };
    let metric = scene::constant(cluster, "check", 1.0, json!({"successCondition": condition}));
    scene::analysis_template(name, json!({"metrics": [metric]}))
}

#[test]
fn the_switch_waits_for_a_user_and_goes_back_at_once() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "bluegreen").await?;
        prepare(&scene).await?;
        scene.deploy(blue_green(json!({"autoPromotionEnabled": false, "scaleDownDelaySeconds": 60}))).await?;
        let sets = scene.sizes("web", &[(1, 2)]).await?;
        assert_eq!(scene.service_selector("active").await?, sets[0].hash);
        let users = load(&scene, "active").await?;

        scene.set_tag("web", "2")?;
        let paused = scene.phase("web", "Paused").await?;
        assert_eq!(paused["status"]["message"], "BlueGreenPause");
        assert_eq!(paused["status"]["blueGreen"]["activeSelector"], sets[0].hash.as_str());
        let sets = scene.sizes("web", &[(1, 2), (2, 2)]).await?;
        assert_eq!(paused["status"]["blueGreen"]["previewSelector"], sets[1].hash.as_str());
        let preview = scene.service_url("preview").await?;
        scene.answers(&preview, None, "2").await?;
        scene.share_is(&users, "1", 1.0).await?;

        scene.plugin(&["promote", "web"])?;
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(done["status"]["stableRS"], sets[1].hash.as_str());
        assert_eq!(scene.service_selector("active").await?, sets[1].hash);
        let switched = format!("Switched selector for service 'active' from '{}' to '{}'", sets[0].hash, sets[1].hash);
        scene.told("Rollout", "web", "SwitchService", &switched).await?;
        scene.share_is(&users, "2", 1.0).await?;
        // The old version stands ready for its time …
        let sets = scene.sizes("web", &[(1, 2), (2, 2)]).await?;
        let deadline = sets[0].annotations.get("scale-down-deadline").cloned().unwrap_or_default();
        assert!(deadline.parse::<jiff::Timestamp>().is_ok(), "scale-down-deadline is {deadline:?}");
        // … and going back to it needs no pause.
        scene.plugin(&["undo", "web"])?;
        let back = scene.phase("web", "Healthy").await?;
        assert_eq!(back["status"]["stableRS"], sets[0].hash.as_str());
        scene.told("Rollout", "web", "RolloutCompleted", "Fast rollback").await?;
        scene.share_is(&users, "1", 1.0).await?;
        scene.without_errors(users).await?;
        Ok(())
    })
}

#[test]
fn the_old_version_goes_after_its_delay() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "delay").await?;
        prepare(&scene).await?;
        let options = json!({"scaleDownDelaySeconds": 3, "autoPromotionSeconds": 2, "previewReplicaCount": 1});
        scene.deploy(blue_green(options)).await?;
        let users = load(&scene, "active").await?;
        scene.set_tag("web", "2")?;
        // One pod to look at, and all of them before the switch.
        let paused = scene.phase("web", "Paused").await?;
        assert_eq!(paused["status"]["message"], "BlueGreenPause");
        scene.phase("web", "Healthy").await?;
        let sets = scene.sizes("web", &[(1, 0), (2, 2)]).await?;
        assert_eq!(scene.service_selector("active").await?, sets[1].hash);
        scene.share_is(&users, "2", 1.0).await?;
        scene.without_errors(users).await?;
        let first = scene.events("Rollout", "web").await?;
        let preview = format!("Scaled up ReplicaSet web-{} (revision 2) from 0 to 1", sets[1].hash);
        assert!(first.iter().any(|event| event.message == preview), "{first:#?}");
        Ok(())
    })
}

#[test]
fn a_bad_preview_never_becomes_active() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "pre").await?;
        prepare(&scene).await?;
        scene.apply(verdict(cluster, "smoke", false)).await?;
        let options = json!({
            "prePromotionAnalysis": {"templates": [{"templateName": "smoke"}]},
            "abortScaleDownDelaySeconds": 2,
        });
        scene.deploy(blue_green(options)).await?;
        let stable = scene.sizes("web", &[(1, 2)]).await?[0].hash.clone();
        scene.set_tag("web", "2")?;
        let aborted = scene.phase("web", "Degraded").await?;
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        let wanted = "Blue/green pre-promotion analysis phase error/failed: Metric \"check\" assessed Failed due to \
                      failed (1) > failureLimit (0)";
        assert!(message.contains(wanted), "{message}");
        assert_eq!(scene.service_selector("active").await?, stable);
        let events = scene.events("Rollout", "web").await?;
        let to_new = |message: &str| message.contains("'active'") && !message.ends_with(&format!("to '{stable}'"));
        assert!(!events.iter().any(|event| to_new(&event.message)), "{events:#?}");
        let run = aborted["status"]["blueGreen"]["prePromotionAnalysisRunStatus"].clone();
        assert_eq!(run["status"], "Failed");
        let name = format!("web-{}-2-pre", aborted["status"]["currentPodHash"].as_str().unwrap_or_default());
        assert_eq!(run["name"], name);
        scene.sizes("web", &[(1, 2), (2, 0)]).await?;

        // With a better judge the same version goes through.
        scene.apply(verdict(cluster, "smoke", true)).await?;
        scene.plugin(&["retry", "rollout", "web"])?;
        let done = scene.phase("web", "Healthy").await?;
        assert_eq!(scene.service_selector("active").await?, done["status"]["currentPodHash"].as_str().unwrap_or("?"));
        Ok(())
    })
}

#[test]
fn what_fails_after_the_switch_is_switched_back() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "post").await?;
        prepare(&scene).await?;
        scene.apply(verdict(cluster, "smoke", false)).await?;
        let options = json!({"postPromotionAnalysis": {"templates": [{"templateName": "smoke"}]}});
        scene.deploy(blue_green(options)).await?;
        let stable = scene.sizes("web", &[(1, 2)]).await?[0].hash.clone();
        let users = load(&scene, "active").await?;
        scene.set_tag("web", "2")?;
        let aborted = scene.phase("web", "Degraded").await?;
        let new = aborted["status"]["currentPodHash"].as_str().unwrap_or_default();
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("Blue/green post-promotion analysis phase error/failed: "), "{message}");
        for (from, to) in [(stable.as_str(), new), (new, stable.as_str())] {
            let switched = format!("Switched selector for service 'active' from '{from}' to '{to}'");
            scene.told("Rollout", "web", "SwitchService", &switched).await?;
        }
        assert_eq!(scene.service_selector("active").await?, stable);
        assert_eq!(aborted["status"]["stableRS"], stable.as_str());
        scene.share_is(&users, "1", 1.0).await?;
        scene.without_errors(users).await?;
        Ok(())
    })
}

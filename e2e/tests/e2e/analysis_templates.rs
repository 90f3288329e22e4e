//! Analysis templates that are made of others, serve all namespaces, measure only to look, and take an update back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tidegate_e2e::{Load, run};

use crate::rollout_traffic;
use crate::scene::{self, Scene};

const ARGO: &str = "argoproj.io/v1alpha1";

fn cluster_templates(scene: &Scene) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "ClusterAnalysisTemplate");
    Api::all_with(scene.namespace.client.clone(), &ApiResource::from_gvk(&kind))
}

/// A template for all namespaces; its name is one that no other test has.
async fn cluster_template(scene: &Scene, name: &str, spec: Value) -> Result<String> {
    let name = format!("{name}-{}", scene.name());
    let object =
        json!({"apiVersion": ARGO, "kind": "ClusterAnalysisTemplate", "metadata": {"name": name}, "spec": spec});
    tidegate_e2e::apply::apply(&scene.namespace.client, &object).await?;
    Ok(name)
}

/// Results of a run, by metric.
fn results(run: &Value) -> BTreeMap<&str, &Value> {
    let results = run["status"]["metricResults"].as_array();
    results.into_iter().flatten().map(|result| (result["name"].as_str().unwrap_or_default(), result)).collect()
}

#[test]
fn templates_of_the_cluster_are_nested_and_keep_what_they_are_told_to() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "cluster-wide").await?;
        let good = json!({"successCondition": "result[0] == {{args.expected}}", "interval": "150ms", "count": 13});
        let often = |name: &str| scene::constant(cluster, name, 1.0, good.clone());
        let inner = json!({
            "args": [{"name": "expected"}],
            "metrics": [often("kept-12"), often("kept-3"), often("kept")],
            "measurementRetention": [{"metricName": "kept-1.*", "limit": 12}],
        });
        let inner = cluster_template(&scene, "inner", inner).await?;
        // An error is no verdict either, in a metric that is only looked at.
        let mut broken = scene::constant(cluster, "look-broken", 1.0, json!({"consecutiveErrorLimit": 0}));
        broken["provider"]["prometheus"]["query"] = "no query (".into();
        let wrong = scene::constant(cluster, "look-wrong", 1.0, json!({"successCondition": "result[0] == 2"}));
        let outer = json!({
            "args": [{"name": "expected", "value": "7"}, {"name": "team"}, {"name": "hash"}],
            "templates": [{"templateName": inner, "clusterScope": true}],
            "metrics": [broken, wrong],
            "dryRun": [{"metricName": "look-broken"}],
        });
        let outer = cluster_template(&scene, "outer", outer).await?;
        let here = scene::constant(
            cluster,
            "here",
            1.0,
            json!({"successCondition": "'{{args.team}}' == 'shop' && '{{args.hash}}' != '' && result[0] == 1"}),
        );
        let local = json!({
            "args": [{"name": "team"}, {"name": "hash"}],
            "templates": [{"templateName": outer, "clusterScope": true}],
            "metrics": [here],
        });
        scene.apply(scene::analysis_template("local", local)).await?;
        let steps = json!([
            {"analysis": {
                "templates": [{"templateName": "local"}, {"templateName": outer, "clusterScope": true}],
                "args": [
                    {"name": "expected", "value": "1"},
                    {"name": "team", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
                    {"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
                ],
                "dryRun": [{"metricName": "look-w.*"}],
                "measurementRetention": [{"metricName": "kept-3", "limit": 3}],
                "analysisRunMetadata": {"labels": {"looked-at": "yes"}, "annotations": {"why": "a test"}},
            }},
            {"pause": {}},
        ]);
        let mut rollout = scene::canary("web", "1", 1, steps);
        rollout["metadata"]["labels"]["team"] = "shop".into();
        scene.deploy(rollout).await?;
        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 1).await?;
        let hash = paused["status"]["currentPodHash"].as_str().context("a hash")?;
        let run = scene.get(ARGO, "AnalysisRun", &format!("web-{hash}-2-0")).await?;
        assert_eq!(run["status"]["phase"], "Successful", "{}", run["status"]);
        let results = results(&run);
        let found: Vec<(&str, &Value, &Value)> =
            results.iter().map(|(name, result)| (*name, &result["phase"], &result["dryRun"])).collect();
        let (success, yes, no) = (json!("Successful"), json!(true), Value::Null);
        assert_eq!(
            found,
            [
                ("here", &success, &no),
                ("kept", &success, &no),
                ("kept-12", &success, &no),
                ("kept-3", &success, &no),
                ("look-broken", &json!("Error"), &yes),
                ("look-wrong", &json!("Failed"), &yes),
            ]
        );
        for (name, kept) in [("kept", 10), ("kept-12", 12), ("kept-3", 3)] {
            let result = results[name];
            let measurements = result["measurements"].as_array().map(Vec::len);
            assert_eq!(
                (measurements, &result["count"], &result["successful"]),
                (Some(kept), &json!(13), &json!(13)),
                "{name}"
            );
        }
        assert_eq!(run["status"]["runSummary"]["successful"], 4);
        let dry = &run["status"]["dryRunSummary"];
        assert_eq!((&dry["count"], &dry["failed"], &dry["error"]), (&json!(2), &json!(1), &json!(1)));
        assert_eq!(run["metadata"]["labels"]["looked-at"], "yes");
        assert_eq!(run["metadata"]["annotations"]["why"], "a test");
        assert_eq!(run["metadata"]["labels"]["app"], "web");
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        for name in [&inner, &outer] {
            cluster_templates(&scene).delete(name, &DeleteParams::default()).await?;
        }
        // What is gone is named, and nothing of the next update runs.
        scene.set_tag("web", "3")?;
        scene
            .rollout_is("web", "InvalidSpec", |rollout| {
                let message = rollout["status"]["message"].as_str().unwrap_or_default();
                ensure!(message.starts_with("InvalidSpec: ") && message.contains(&outer), "{message}");
                Ok(())
            })
            .await?;
        Ok(())
    })
}

#[test]
fn a_background_analysis_takes_an_update_back_and_no_user_notices() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "background").await?;
        rollout_traffic::prepare(&scene, "web").await?;
        let limits = json!({"interval": "200ms", "successCondition": "result[0] < 1.5", "failureLimit": 2});
        let mut metric = scene::constant(cluster, "level", 1.0, limits);
        metric["provider"]["prometheus"]["query"] = "vector({{args.level}})".into();
        let template =
            cluster_template(&scene, "level", json!({"args": [{"name": "level", "value": "1"}], "metrics": [metric]}))
                .await?;
        let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
        let mut rollout = rollout_traffic::routed("web", "1", 2, steps);
        scene::polite(&mut rollout["spec"]["template"]);
        let analysis = |level: &str| {
            json!({
                "startingStep": 2,
                "templates": [{"templateName": template, "clusterScope": true}],
                "args": [{"name": "level", "value": level}],
            })
        };
        rollout["spec"]["strategy"]["canary"]["analysis"] = analysis("2");
        scene.deploy(rollout).await?;
        let (url, host) = (cluster.gateway_url(), scene.host());
        scene.answers(&url, Some(&host), "1").await?;
        let load = Load::new(&url, Some(&host), 100.0).start()?;

        scene.set_tag("web", "2")?;
        let paused = scene.paused_at("web", 1).await?;
        assert!(paused["status"]["canary"]["currentBackgroundAnalysisRunStatus"].is_null(), "{}", paused["status"]);
        scene.share_is(&load, "2", 0.2).await?;
        scene.plugin(&["promote", "web"])?;
        let aborted = scene.phase("web", "Degraded").await?;
        let hash = aborted["status"]["currentPodHash"].as_str().context("a hash")?.to_owned();
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        let wanted = "RolloutAborted: Rollout aborted update to revision 2: Background analysis phase error/failed: \
                      Metric \"level\" assessed Failed due to failed (3) > failureLimit (2)";
        assert_eq!(message, wanted);
        rollout_traffic::all_on_stable(&scene).await?;
        scene.share_is(&load, "2", 0.0).await?;
        scene.sizes("web", &[(1, 2), (2, 0)]).await?;

        // Mended and tried again: a run of its own, which ends well with the update.
        scene.patch_rollout("web", json!({"spec": {"strategy": {"canary": {"analysis": analysis("1")}}}})).await?;
        scene.plugin(&["retry", "rollout", "web"])?;
        scene.paused_at("web", 1).await?;
        scene.plugin(&["promote", "web"])?;
        scene.paused_at("web", 3).await?;
        let again = format!("web-{hash}-2.1");
        scene
            .until("three good measurements", async || {
                let run = scene.get(ARGO, "AnalysisRun", &again).await?;
                let result = &run["status"]["metricResults"][0];
                ensure!(result["successful"].as_i64() >= Some(3) && run["status"]["phase"] == "Running", "{result}");
                Ok(())
            })
            .await?;
        scene.share_is(&load, "2", 0.5).await?;
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;
        scene.share_is(&load, "2", 1.0).await?;
        scene
            .until("the run to be ended", async || {
                let run = scene.get(ARGO, "AnalysisRun", &again).await?;
                ensure!(run["status"]["phase"] == "Successful", "{}", run["status"]);
                Ok(())
            })
            .await?;
        cluster_templates(&scene).delete(&template, &DeleteParams::default()).await?;
        scene.without_errors(load).await
    })
}

//! Experiments: versions side by side for a while, on their own and as steps of a Rollout.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::load::RunningLoad;
use tidegate_e2e::{Load, run};

use crate::rollout_traffic::{self, GATEWAY_API, weights};
use crate::scene::{self, HASH, Scene, phase_is};

const ARGO: &str = "argoproj.io/v1alpha1";

fn experiment(name: &str, spec: Value) -> Value {
    json!({"apiVersion": ARGO, "kind": "Experiment", "metadata": {"name": name, "labels": {}}, "spec": spec})
}

/// A variant with a Service.
fn variant(name: &str, tag: &str) -> Value {
    let labels = json!({"app": "compare", "variant": name});
    let mut template = scene::template("compare", tag);
    template["metadata"]["labels"] = labels.clone();
    json!({"name": name, "selector": {"matchLabels": labels}, "template": template, "service": {}})
}

/// Successful as soon as a version has answered four hundred requests well, by the account of the real Prometheus.
fn answered(scene: &Scene) -> Value {
    let query = format!(
        r#"sum(http_requests_total{{namespace="{}",rollouts_pod_template_hash="{{{{args.hash}}}}",code="200"}})"#,
        scene.name()
    );
    scene::analysis_template(
        "answered",
        json!({"args": [{"name": "hash"}], "metrics": [{
            "name": "answered", "interval": "500ms",
            "successCondition": "len(result) > 0 && result[0] >= 400",
            "failureLimit": -1, "consecutiveSuccessLimit": 1,
            "provider": {"prometheus": {"address": scene.cluster.prometheus_url(), "query": query}},
        }]}),
    )
}

async fn experiment_is(
    scene: &Scene,
    name: &str,
    what: &str,
    mut condition: impl FnMut(&Value) -> Result<()>,
) -> Result<Value> {
    scene
        .until(&format!("Experiment {name}: {what}"), async || {
            let found = scene.get(ARGO, "Experiment", name).await?;
            condition(&found).with_context(|| found["status"].to_string())?;
            Ok(found)
        })
        .await
}

async fn in_phase(scene: &Scene, name: &str, phase: &str) -> Result<Value> {
    experiment_is(scene, name, phase, |found| phase_is(found, phase)).await
}

/// Status of each variant, by name.
fn variants<'a>(experiment: &'a Value) -> Vec<(&'a str, &'a str)> {
    let statuses = experiment["status"]["templateStatuses"].as_array();
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    statuses.into_iter().flatten().map(|status| (text(&status["name"]), text(&status["status"]))).collect()
}

/// The hash of a variant's pods.
fn hash_of(experiment: &Value, variant: &str) -> Result<String> {
    let mut statuses = experiment["status"]["templateStatuses"].as_array().into_iter().flatten();
    let found = statuses.find(|status| status["name"] == variant).with_context(|| variant.to_owned())?;
    Ok(found["podTemplateHash"].as_str().with_context(|| found.to_string())?.to_owned())
}

/// Waits until no ReplicaSet of an experiment has pods and its Services are gone.
async fn is_taken_down(scene: &Scene, name: &str) -> Result<()> {
    scene
        .until(&format!("{name} to be taken down"), async || {
            for set in scene.list("apps/v1", "ReplicaSet").await? {
                let (owner, pods) = (&set["metadata"]["ownerReferences"][0]["name"], &set["status"]["replicas"]);
                ensure!(owner != name || pods == 0, "{} has {pods} pods", set["metadata"]["name"]);
            }
            for service in scene.list("v1", "Service").await? {
                let owner = &service["metadata"]["ownerReferences"][0]["name"];
                ensure!(owner != name, "there is {}", service["metadata"]["name"]);
            }
            Ok(())
        })
        .await
}

/// Every line, with single spaces.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The text has lines that begin so. Which of several siblings is the last depends on the second in which each was made.
fn has(text: &str, starts: &[String]) {
    let siblings = |line: &str| line.replace('└', "├");
    let lines: Vec<String> = squeezed(text).iter().map(|line| siblings(line)).collect();
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(&siblings(start))), "no line {start:?} in\n{text}");
    }
}

#[test]
fn two_versions_are_compared_until_the_verdict() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "compare").await?;
        scene.apply(answered(&scene)).await?;
        // Nothing that has to come to an end: it is ended with the experiment.
        let endless = scene::constant(cluster, "endless", 1.0, json!({"interval": "500ms"}));
        scene.apply(scene::analysis_template("endless", json!({"metrics": [endless]}))).await?;
        let hash =
            |variant: &str| json!([{"name": "hash", "value": format!("{{{{templates.{variant}.podTemplateHash}}}}")}]);
        let analysis = |name: &str, variant: &str| json!({"name": name, "templateName": "answered", "requiredForCompletion": true, "args": hash(variant)});
        let spec = json!({
            "templates": [variant("baseline", "1"), variant("candidate", "2")],
            "duration": "1s",
            "scaleDownDelaySeconds": 1,
            "analyses": [
                analysis("old", "baseline"), analysis("new", "candidate"),
                {"name": "beside", "templateName": "endless"},
            ],
        });
        scene.apply(experiment("compare", spec)).await?;

        // Its time is over, but a required verdict is not there: it goes on.
        let waiting = experiment_is(&scene, "compare", "beyond its time", |found| {
            phase_is(found, "Running")?;
            let expected = [("baseline", "Successful"), ("candidate", "Successful")];
            ensure!(variants(found) == expected, "{:?}", variants(found));
            Ok(())
        })
        .await?;
        assert!(!waiting["status"]["availableAt"].is_null(), "{}", waiting["status"]);
        let (baseline, candidate) = (hash_of(&waiting, "baseline")?, hash_of(&waiting, "candidate")?);
        assert_ne!(baseline, candidate);
        let tree = scene.plugin(&["get", "experiment", "compare", "--no-color"])?;
        has(
            &tree,
            &[
                "Name: compare".to_owned(),
                format!("Namespace: {}", scene.name()),
                "Status: ◌ Running".to_owned(),
                "Images: tidegate/testserver:1".to_owned(),
                "tidegate/testserver:2".to_owned(),
                "NAME KIND STATUS AGE INFO".to_owned(),
                "Σ compare Experiment ◌ Running".to_owned(),
                "├──⧉ compare-baseline ReplicaSet ✔ Healthy".to_owned(),
                "├──⧉ compare-candidate ReplicaSet ✔ Healthy".to_owned(),
                "│ └──□ compare-candidate-".to_owned(),
                "├──α compare-new AnalysisRun ◌ Running".to_owned(),
            ],
        );

        let mut loads = Vec::new();
        for (name, version) in [("compare-baseline", "1"), ("compare-candidate", "2")] {
            let url = scene.service_url(name).await?;
            scene.answers(&url, None, version).await?;
            let load = Load::new(&url, None, 60.0).start()?;
            scene.share_is(&load, version, 1.0).await?;
            // Too few for the verdict; after it the Services go, and with them the answers.
            scene.without_errors(load).await?;
            loads.push(Load::new(&url, None, 100.0));
        }
        let loads: Vec<RunningLoad> = loads.into_iter().map(Load::start).collect::<Result<_>>()?;
        let done = in_phase(&scene, "compare", "Successful").await?;
        assert_eq!(done["status"]["message"], "Required AnalysisRuns completed");
        let run = scene.get(ARGO, "AnalysisRun", "compare-new").await?;
        assert_eq!(run["spec"]["args"], json!([{"name": "hash", "value": candidate}]));
        assert_eq!(run["metadata"]["ownerReferences"][0]["uid"], done["metadata"]["uid"]);
        drop(loads);
        is_taken_down(&scene, "compare").await?;
        scene
            .until("the endless run to be ended", async || {
                let run = scene.get(ARGO, "AnalysisRun", "compare-beside").await?;
                ensure!(
                    run["status"]["phase"] == "Successful" && run["spec"]["terminate"] == true,
                    "{}",
                    run["status"]
                );
                Ok(())
            })
            .await?;
        let tree = scene.plugin(&["get", "experiment", "compare", "--no-color"])?;
        has(
            &tree,
            &[
                "Status: ✔ Successful".to_owned(),
                "Message: Required AnalysisRuns completed".to_owned(),
                "├──⧉ compare-baseline ReplicaSet • ScaledDown".to_owned(),
                "├──α compare-new AnalysisRun ✔ Successful".to_owned(),
            ],
        );
        Ok(())
    })
}

#[test]
fn an_experiment_ends_with_the_first_bad_verdict_or_by_hand() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "verdicts").await?;
        let wrong = scene::constant(cluster, "wrong", 1.0, json!({"successCondition": "result[0] == 2"}));
        scene.apply(scene::analysis_template("wrong", json!({"metrics": [wrong]}))).await?;
        let spec = |analyses: Value| {
            json!({
                "templates": [variant("one", "1")], "duration": "1h", "scaleDownDelaySeconds": 0, "analyses": analyses,
            })
        };
        scene.apply(experiment("fails", spec(json!([{"name": "wrong", "templateName": "wrong"}])))).await?;
        scene.apply(experiment("ended", spec(json!([])))).await?;
        scene
            .apply(experiment("unready", {
                let mut spec = spec(json!([]));
                spec["templates"][0] = variant("two", "unready");
                spec["progressDeadlineSeconds"] = 3.into();
                spec
            }))
            .await?;

        let failed = in_phase(&scene, "fails", "Failed").await?;
        let message = failed["status"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("Metric \"wrong\" assessed Failed due to failed (1) > failureLimit (0)"), "{message}");
        is_taken_down(&scene, "fails").await?;

        in_phase(&scene, "ended", "Running").await?;
        let said = scene.plugin(&["terminate", "experiment", "ended"])?;
        assert_eq!(said, "experiment 'ended' terminated\n");
        in_phase(&scene, "ended", "Successful").await?;
        is_taken_down(&scene, "ended").await?;

        let late = in_phase(&scene, "unready", "Failed").await?;
        assert_eq!(variants(&late), [("two", "Failed")]);
        is_taken_down(&scene, "unready").await
    })
}

#[test]
fn a_step_compares_the_stable_version_with_the_new_one() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "step").await?;
        let good = json!({"successCondition": "result[0] == 1 && '{{args.stable}}' != '{{args.new}}'"});
        let metric = scene::constant(cluster, "verdict", 1.0, good);
        scene
            .apply(scene::analysis_template(
                "verdict",
                json!({"args": [{"name": "stable"}, {"name": "new"}], "metrics": [metric]}),
            ))
            .await?;
        let wrong = scene::constant(cluster, "wrong", 1.0, json!({"successCondition": "result[0] == 2"}));
        scene.apply(scene::analysis_template("wrong", json!({"metrics": [wrong]}))).await?;
        let step = |analysis: Value| {
            json!([
                {"experiment": {
                    "duration": "1s", "scaleDownDelaySeconds": 1,
                    "templates": [
                        {"name": "baseline", "specRef": "stable", "metadata": {"labels": {"role": "baseline"}}},
                        {"name": "canary", "specRef": "canary", "replicas": 2, "service": {"name": "try-it"}},
                    ],
                    "analyses": [analysis],
                }},
                {"setWeight": 50},
                {"pause": {}},
            ])
        };
        let good = json!({
            "name": "verdict", "templateName": "verdict", "requiredForCompletion": true,
            "args": [
                {"name": "stable", "valueFrom": {"podTemplateHashValue": "Stable"}},
                {"name": "new", "value": "{{templates.canary.podTemplateHash}}"},
            ],
        });
        scene.deploy(scene::canary("web", "1", 1, step(good))).await?;
        scene.set_tag("web", "2")?;
        let running = scene
            .rollout_is("web", "with an experiment", |rollout| {
                ensure!(!rollout["status"]["canary"]["currentExperiment"].is_null(), "{}", rollout["status"]);
                Ok(())
            })
            .await?;
        let name = format!("web-{}-2-0", running["status"]["currentPodHash"].as_str().unwrap_or_default());
        assert_eq!(running["status"]["canary"]["currentExperiment"], name.as_str());
        let paused = scene.paused_at("web", 2).await?;
        let found = scene.get(ARGO, "Experiment", &name).await?;
        assert_eq!(found["status"]["phase"], "Successful", "{}", found["status"]);
        let owner = &found["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Rollout"), &paused["metadata"]["uid"]));
        let templates = &found["spec"]["templates"];
        for (index, tag, replicas) in [(0, "1", Value::Null), (1, "2", json!(2))] {
            let image = &templates[index]["template"]["spec"]["containers"][0]["image"];
            assert_eq!(
                (image, &templates[index]["replicas"]),
                (&json!(format!("tidegate/testserver:{tag}")), &replicas)
            );
        }
        assert_eq!(templates[0]["template"]["metadata"]["labels"]["role"], "baseline");
        let run = scene.get(ARGO, "AnalysisRun", &format!("{name}-verdict")).await?;
        let args = run["spec"]["args"].as_array().context("args")?;
        let value = |name: &str| args.iter().find(|arg| arg["name"] == name).map(|arg| arg["value"].clone());
        assert_eq!(value("stable"), Some(paused["status"]["stableRS"].clone()));
        let canary = hash_of(&found, "canary")?;
        assert_eq!(value("new"), Some(canary.clone().into()));
        // A Service of the Rollout's must never reach an experiment's pods.
        assert_ne!(paused["status"]["currentPodHash"], canary.as_str());
        is_taken_down(&scene, &name).await?;
        let tree = scene.plugin(&["get", "rollout", "web", "--no-color"])?;
        has(
            &tree,
            &[
                format!("│ └──Σ {name} Experiment ✔ Successful"),
                format!("│ ├──⧉ {name}-baseline ReplicaSet • ScaledDown"),
                format!("│ └──α {name}-verdict AnalysisRun ✔ Successful"),
            ],
        );
        scene.plugin(&["promote", "web"])?;
        scene.phase("web", "Healthy").await?;

        // A bad verdict takes the update back, with no pod of it beside the experiment's.
        let steps = step(json!({"name": "wrong", "templateName": "wrong"}));
        scene.patch_rollout("web", json!({"spec": {"strategy": {"canary": {"steps": steps}}}})).await?;
        scene.phase("web", "Healthy").await?;
        scene.set_tag("web", "3")?;
        let aborted = scene.phase("web", "Degraded").await?;
        let message = aborted["status"]["message"].as_str().unwrap_or_default();
        for part in ["RolloutAborted: ", "Experiment analysis phase is error/failed: ", "assessed Failed"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        scene.sizes("web", &[(1, 0), (2, 1), (3, 0)]).await?;
        Ok(())
    })
}

/// The share of the next answers that came from pods of a ReplicaSet.
async fn share_of_pods(scene: &Scene, load: &RunningLoad, set: &str, requests: u64) -> Result<f64> {
    let report = scene.next_answers(load, requests).await?;
    let prefix = format!("{set}-");
    let of_set: u64 = report.pods.iter().filter(|(pod, _)| pod.starts_with(&prefix)).map(|(_, count)| count).sum();
    Ok(of_set as f64 / report.requests as f64)
}

/// Users get their share of an experiment's versions. `port` is that of the Services in the route; the pods listen at 8080.
async fn experiment_gets_a_share(scene: &Scene, port: u16) -> Result<()> {
    rollout_traffic::prepare(scene, "web").await?;
    for name in ["web-stable", "web-canary"] {
        let ports = json!({"spec": {"ports": [{"name": "http", "port": port, "targetPort": 8080}]}});
        scene.patch("v1", "Service", name, ports).await?;
    }
    let backend = |name: &str, weight: u32| json!({"name": name, "port": port, "weight": weight});
    let rules = json!({"spec": {"rules": [{"backendRefs": [backend("web-stable", 100), backend("web-canary", 0)]}]}});
    scene.patch(GATEWAY_API, "HTTPRoute", "web", rules).await?;
    let steps = json!([
        {"experiment": {"scaleDownDelaySeconds": 2, "templates": [
            {"name": "baseline", "specRef": "stable", "weight": 10},
            {"name": "canary", "specRef": "canary", "weight": 20},
        ]}},
        {"setWeight": 40},
        {"pause": {}},
    ]);
    let mut rollout = rollout_traffic::routed("web", "1", 1, steps);
    scene::polite(&mut rollout["spec"]["template"]);
    scene.deploy(rollout).await?;
    let (url, host) = (scene.cluster.gateway_url(), scene.host());
    scene.answers(&url, Some(&host), "1").await?;
    let load = Load::new(&url, Some(&host), 100.0).start()?;
    scene.share_is(&load, "1", 1.0).await?;

    scene.set_tag("web", "2")?;
    let hash = scene
        .rollout_is("web", "at work", |rollout| {
            ensure!(rollout["status"]["currentPodHash"] != rollout["status"]["stableRS"], "{}", rollout["status"]);
            Ok(())
        })
        .await?["status"]["currentPodHash"]
        .as_str()
        .context("a hash")?
        .to_owned();
    let name = format!("web-{hash}-2-0");
    in_phase(scene, &name, "Running").await?;
    let (baseline, canary) = (format!("{name}-baseline"), format!("{name}-canary"));
    scene
        .until("the weights of the experiment", async || {
            let mut found = weights(scene, "web").await?;
            found.sort();
            let mut expected = [("web-stable", 70), ("web-canary", 0), (&baseline, 10), (&canary, 20)]
                .map(|(name, weight)| (name.to_owned(), weight));
            expected.sort();
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await?;
    scene.share_is(&load, "2", 0.2).await?;
    let share = share_of_pods(scene, &load, &baseline, 400).await?;
    println!("{}: {share:.3} of the answers came from the baseline, expected 0.1", scene.name());
    ensure!((share - 0.1).abs() < 0.061, "{share:.3} of the answers came from the baseline, expected 0.1 ± 0.061");
    let pods = share_of_pods(scene, &load, &canary, 200).await?;
    ensure!((pods - 0.2).abs() < 0.113, "{pods:.3} of the answers came from the experiment's canary, expected 0.2");
    let status = scene.rollout("web").await?["status"]["canary"]["weights"].clone();
    let mut additional: Vec<(Value, Value)> = status["additional"]
        .as_array()
        .with_context(|| status.to_string())?
        .iter()
        .map(|found| (found["serviceName"].clone(), found["weight"].clone()))
        .collect();
    additional.sort_by_key(|(name, _)| name.to_string());
    assert_eq!(additional, [(json!(baseline), json!(10)), (json!(canary), json!(20))]);

    // Its traffic goes back before its pods go.
    scene.plugin(&["terminate", "experiment", &name])?;
    scene.paused_at("web", 2).await?;
    let expected = [("web-stable".to_owned(), 60), ("web-canary".to_owned(), 40)];
    assert_eq!(weights(scene, "web").await?, expected);
    scene.share_is(&load, "2", 0.4).await?;
    is_taken_down(scene, &name).await?;
    let share = share_of_pods(scene, &load, &name, 100).await?;
    ensure!(share == 0.0, "{share:.3} of the answers came from the experiment after its end");
    let sets = scene.sizes("web", &[(1, 1), (2, 1)]).await?;
    assert_eq!(sets[1].hash, hash, "the ReplicaSets with {HASH} of the Rollout");
    scene.plugin(&["promote", "web"])?;
    scene.phase("web", "Healthy").await?;
    scene.share_is(&load, "2", 1.0).await?;
    scene.without_errors(load).await
}

#[test]
fn users_get_their_share_of_an_experiment() -> Result<()> {
    run(async |cluster| experiment_gets_a_share(&Scene::new(cluster, "share").await?, 8080).await)
}

#[test]
fn users_get_their_share_of_an_experiment_behind_another_port() -> Result<()> {
    run(async |cluster| experiment_gets_a_share(&Scene::new(cluster, "share-port").await?, 80).await)
}

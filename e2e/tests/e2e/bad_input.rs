//! What users get wrong: each mistake has a clear condition, event and exit code, is over when it is mended, and
//! disturbs nothing else.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::run;

use crate::scene::{self, Scene, condition};

/// Waits until a Rollout is refused, and returns the message of its condition.
async fn refused(scene: &Scene, name: &str) -> Result<String> {
    let rollout = scene
        .rollout_is(name, "refused", |rollout| {
            ensure!(condition(rollout, "InvalidSpec")["status"] == "True", "{}", rollout["status"]);
            Ok(())
        })
        .await?;
    let message = condition(&rollout, "InvalidSpec")["message"].as_str().context("a message")?.to_owned();
    assert_eq!(rollout["status"]["phase"], "Degraded");
    assert_eq!(rollout["status"]["message"], format!("InvalidSpec: {message}"));
    assert_eq!(condition(&rollout, "InvalidSpec")["reason"], "InvalidSpec");
    scene.told("Rollout", name, "InvalidSpec", &message).await?;
    Ok(message)
}

/// `lint` of these documents: exit code and what it says.
fn lint(scene: &Scene, documents: &[Value]) -> Result<(i32, String)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("rollout.yaml");
    let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    std::fs::write(&file, texts.join("\n---\n"))?;
    let (code, said, errors) = scene.plugin_ends(&["lint", "-f", &file.to_string_lossy()])?;
    Ok((code, format!("{said}{errors}")))
}

#[test]
fn an_invalid_rollout_is_refused_in_so_many_words() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "invalid").await?;
        let good = scene::canary("good", "1", 1, json!([{"setWeight": 50}]));
        let mut cases: Vec<(&str, Value, &str)> = Vec::new();
        cases.push((
            "weight",
            scene::canary("weight", "1", 1, json!([{"setWeight": 101}])),
            "spec.strategy.canary.steps[0].setWeight: Invalid value: 101: must be between 0 and 100",
        ));
        cases.push((
            "duration",
            scene::canary("duration", "1", 1, json!([{"pause": {"duration": "soon"}}])),
            "spec.strategy.canary.steps[0].pause.duration: Invalid value: \"soon\"",
        ));
        let mut labels = scene::canary("labels", "1", 1, json!([]));
        labels["spec"]["template"]["metadata"]["labels"]["app"] = "other".into();
        cases.push(("labels", labels, "spec.template.metadata.labels"));
        let both = json!({"canary": {}, "blueGreen": {"activeService": "a"}});
        cases.push(("both", scene::rollout("both", "1", 1, both), "spec.strategy"));
        for (_, rollout, _) in &cases {
            scene.apply(rollout.clone()).await?;
        }
        // One that is right, in the middle of those that are not.
        scene.deploy(good.clone()).await?;
        for (name, rollout, words) in &cases {
            let message = refused(&scene, name).await?;
            let start = format!("The Rollout \"{name}\" is invalid: ");
            assert!(message.starts_with(&start) && message.contains(words), "{message}");
            assert_eq!(scene.revisions(name).await?, [], "{name}: work was done on an invalid Rollout");
            let (code, said) = lint(&scene, &[good.clone(), rollout.clone()])?;
            assert!(code == 1 && said.contains(words), "{name}: {code}: {said}");
            let (code, _, said) = scene.plugin_ends(&["status", name, "--timeout=20s"])?;
            assert!(code == 1 && said.contains(words), "{name}: {code}: {said}");
        }
        assert_eq!(lint(&scene, &[good])?, (0, String::new()));
        // Mended, it goes on.
        scene.deploy(scene::canary("weight", "1", 1, json!([{"setWeight": 99}]))).await?;
        let mended = scene.rollout("weight").await?;
        assert!(condition(&mended, "InvalidSpec").is_null(), "{}", mended["status"]);
        Ok(())
    })
}

#[test]
fn what_a_rollout_names_may_come_later() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "missing").await?;
        scene.apply(scene::rollout("services", "1", 1, json!({"blueGreen": {"activeService": "nowhere"}}))).await?;
        let steps = json!([{"analysis": {"templates": [{"templateName": "absent"}]}}]);
        scene.apply(scene::canary("templates", "1", 1, steps)).await?;
        let mut workload = scene::canary("workload", "1", 1, json!([]));
        if let Some(spec) = workload["spec"].as_object_mut() {
            spec.remove("template");
            spec.remove("selector");
            spec.insert("workloadRef".into(), json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "lost"}));
        }
        scene.apply(workload).await?;
        let message = refused(&scene, "services").await?;
        let field = "spec.strategy.blueGreen.activeService: Invalid value: \"nowhere\": service \"nowhere\" not found";
        assert!(message.contains(field), "{message}");
        let message = refused(&scene, "templates").await?;
        let field = "spec.strategy.canary.steps[0].analysis.templates[0].templateName: Invalid value: \"absent\": \
                     AnalysisTemplate \"absent\" not found";
        assert!(message.contains(field), "{message}");
        let message = refused(&scene, "workload").await?;
        assert!(message.contains("spec.workloadRef") && message.contains("lost"), "{message}");

        let started = std::time::Instant::now();
        scene.apply(scene::service("nowhere", "services")).await?;
        let metric = scene::constant(cluster, "one", 1.0, json!({}));
        scene.apply(scene::analysis_template("absent", json!({"metrics": [metric]}))).await?;
        scene
            .apply(json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "lost", "labels": {}},
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": {"app": "lost"}},
                    "template": scene::template("lost", "1"),
                },
            }))
            .await?;
        for name in ["services", "templates", "workload"] {
            scene
                .rollout_is(name, "accepted", |rollout| {
                    ensure!(condition(rollout, "InvalidSpec").is_null(), "{}", rollout["status"]);
                    Ok(())
                })
                .await?;
        }
        // Noticed, not polled for: the next look would come after 20 s.
        assert!(started.elapsed().as_secs() < 15, "it took {:?}", started.elapsed());
        for name in ["services", "templates", "workload"] {
            scene.phase(name, "Healthy").await?;
        }
        Ok(())
    })
}

#[test]
fn a_service_of_another_rollout_is_not_taken() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "taken").await?;
        scene.apply(scene::service("shared", "one")).await?;
        let strategy = json!({"blueGreen": {"activeService": "shared"}});
        let first = scene.deploy(scene::rollout("one", "1", 1, strategy.clone())).await?;
        let hash = first["status"]["stableRS"].as_str().unwrap_or_default();
        let mut second = scene::rollout("two", "1", 1, strategy);
        second["spec"]["selector"]["matchLabels"] = json!({"app": "one", "of": "two"});
        second["spec"]["template"]["metadata"]["labels"] = json!({"app": "one", "of": "two"});
        scene.apply(second).await?;
        let message = refused(&scene, "two").await?;
        assert!(message.contains("Service \"shared\" is managed by another Rollout"), "{message}");
        assert_eq!(scene.service_selector("shared").await?, hash);
        // When its Rollout is gone, the Service is free: for everybody, and for the other.
        scene.kubectl(&["delete", "rollout", "one"])?;
        let second = scene.phase("two", "Healthy").await?;
        assert_eq!(scene.service_selector("shared").await?, second["status"]["stableRS"].as_str().unwrap_or("?"));
        Ok(())
    })
}

#[test]
fn what_the_cluster_refuses_is_told_and_tried_again() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "quota").await?;
        scene
            .apply(json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "labels": {}},
                "spec": {"hard": {"count/replicasets.apps": "0"}},
            }))
            .await?;
        scene
            .until("the quota to be in force", async || {
                let quota = scene.get("v1", "ResourceQuota", "none").await?;
                ensure!(quota["status"]["hard"]["count/replicasets.apps"] == "0", "{}", quota["status"]);
                Ok(())
            })
            .await?;
        scene.apply(scene::canary("web", "1", 1, json!([]))).await?;
        scene
            .until("the refusal to be told", async || {
                let rollout = scene.rollout("web").await?;
                let progressing = condition(&rollout, "Progressing");
                ensure!(progressing["reason"] == "ReplicaSetCreateError", "{}", rollout["status"]);
                let message = progressing["message"].as_str().unwrap_or_default();
                ensure!(message.contains("exceeded quota"), "{message}");
                Ok(())
            })
            .await?;
        scene.kubectl(&["delete", "resourcequota", "none"])?;
        scene.phase("web", "Healthy").await?;
        Ok(())
    })
}

#[test]
fn lint_reads_files_as_users_write_them() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "lint").await?;
        let directory = tempfile::tempdir()?;
        let check = |text: &str| -> Result<(i32, String)> {
            let file = directory.path().join("file.yaml");
            std::fs::write(&file, text)?;
            let (code, said, errors) = scene.plugin_ends(&["lint", "-f", &file.to_string_lossy()])?;
            Ok((code, format!("{said}{errors}")))
        };
        let (code, said) = check("kind: Rollout\n  metadata: [broken")?;
        assert!(code == 1 && said.contains("file.yaml"), "{code}: {said}");
        let mut typo = scene::canary("web", "1", 1, json!([{"setWeight": 50}]));
        typo["spec"]["stratgy"] = json!({});
        let (code, said) = check(&typo.to_string())?;
        assert!(code == 1 && said.contains("spec.stratgy: unknown field"), "{code}: {said}");
        // What the file has is checked against what it names.
        let strategy = json!({"blueGreen": {"activeService": "web"}});
        let rollout = scene::rollout("web", "1", 1, strategy).to_string();
        let service = scene::service("web", "other").to_string();
        let (code, said) = check(&format!("{rollout}\n---\n{service}"))?;
        let words = "Service \"web\" selects pods with label app=other, the pod template has app=web";
        assert!(code == 1 && said.contains(words), "{code}: {said}");
        let (code, _, said) = scene.plugin_ends(&["lint", "-f", "/nowhere/file.yaml"])?;
        assert!(code == 1 && said.contains("/nowhere/file.yaml"), "{code}: {said}");
        Ok(())
    })
}

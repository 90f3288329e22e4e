//! What a sync does: pruning and its guard, healing, waves, hooks, and revisions that a rollout rejected.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::run;

use crate::gitops::{ARGO, Plane, automated, conditions, config_map, message, phase, sync_status};
use crate::scene;

#[test]
fn what_git_drops_is_pruned_but_never_everything() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "prune").await?;
        let first = plane.repository.commit(
            "Two",
            &[("app/a.yaml", Some(&config_map("a", "1"))), ("app/b.yaml", Some(&config_map("b", "1")))],
        )?;
        plane.apply(config("bystander")).await?;
        plane.apply(plane.app("app", "app", json!({"syncPolicy": automated()}))).await?;
        plane.synced("app", &first).await?;
        let kept = plane.get("v1", "ConfigMap", "a").await?;
        assert_eq!(
            kept["metadata"]["annotations"]["argocd.argoproj.io/tracking-id"],
            format!("app:/ConfigMap:{}/a", plane.name())
        );

        let second = plane.repository.commit("One", &[("app/b.yaml", None)])?;
        plane.refresh("app").await?;
        plane.synced("app", &second).await?;
        plane.value_is("b", "value", None).await?;
        let now = plane.get("v1", "ConfigMap", "a").await?;
        assert_eq!(now["metadata"]["uid"], kept["metadata"]["uid"]);

        let third = plane.repository.commit("Nothing", &[("app/a.yaml", None), ("app/readme.md", Some("empty"))])?;
        plane.refresh("app").await?;
        plane.says("app", "SyncError", &[&third, "auto-sync will wipe out all resources"]).await?;
        plane.refresh("app").await?;
        assert_eq!(plane.value("a", "value").await?.as_deref(), Some("1"));
        assert_eq!(sync_status(&plane.application("app").await?), "OutOfSync");

        // With leave to do so it empties the application, and only that.
        let patch = json!({"spec": {"syncPolicy": {"automated": {"allowEmpty": true}}}});
        plane.patch(ARGO, "Application", "app", patch).await?;
        plane.synced("app", &third).await?;
        plane.value_is("a", "value", None).await?;
        assert_eq!(plane.value("bystander", "value").await?.as_deref(), Some("0"));
        assert!(conditions(&plane.application("app").await?).is_empty());
        Ok(())
    })
}

fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": "0"}})
}

#[test]
fn drift_is_healed_when_that_is_wanted() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "heal").await?;
        let commit = plane.repository.commit(
            "Start",
            &[("healed/a.yaml", Some(&config_map("a", "1"))), ("left/b.yaml", Some(&config_map("b", "1")))],
        )?;
        plane.apply(plane.app("healed", "healed", json!({"syncPolicy": automated()}))).await?;
        plane.apply(plane.app("left", "left", json!({"syncPolicy": {"automated": {}}}))).await?;
        plane.synced("healed", &commit).await?;
        plane.synced("left", &commit).await?;
        for name in ["a", "b"] {
            plane.patch("v1", "ConfigMap", name, json!({"data": {"value": "drift"}})).await?;
        }
        plane.value_is("a", "value", Some("1")).await?;
        plane
            .app_is("left", "out of sync", |app| {
                ensure!(sync_status(app) == "OutOfSync", "{}", app["status"]);
                Ok(())
            })
            .await?;
        // Deleted objects come back, and what is not in Git stays as it is.
        plane.kubectl(&["delete", "configmap", "a"])?;
        plane.patch("v1", "ConfigMap", "b", json!({"data": {"other": "mine"}})).await?;
        plane.value_is("a", "value", Some("1")).await?;
        let healed = plane
            .app_is("healed", "in sync again", |app| {
                ensure!(sync_status(app) == "Synced" && phase(app) == "Succeeded", "{}", app["status"]);
                Ok(())
            })
            .await?;
        let operation = &healed["status"]["operationState"]["operation"];
        assert_eq!(operation["initiatedBy"]["automated"], true);
        assert_eq!(operation["sync"]["resources"][0]["name"], "a");
        // Healing is no deployment.
        assert_eq!(healed["status"]["history"].as_array().map(Vec::len), Some(1));
        assert_eq!(plane.value("b", "value").await?.as_deref(), Some("drift"));
        Ok(())
    })
}

fn job(name: &str, hook: &str, policy: &str, code: &str) -> String {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "annotations": {
            "argocd.argoproj.io/hook": hook, "argocd.argoproj.io/hook-delete-policy": policy,
        }},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "job", "image": "tidegate/testserver:1", "args": ["exit", code, "--after", "200"]}],
            }},
        },
    })
    .to_string()
}

fn wave(name: &str, value: &str, wave: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "annotations": {"argocd.argoproj.io/sync-wave": wave}}, "data": {"value": value},
    })
    .to_string()
}

/// What the audit log says was made first, second and so on.
fn made(plane: &Plane, since: jiff::Timestamp) -> Result<Vec<String>> {
    let requests = plane.cluster.requests("rollouts-controller", since)?;
    let mut requests: Vec<_> = requests
        .iter()
        .filter(|r| r.object_ref.namespace == plane.name())
        .filter(|r| r.response_status.code < 300 && ["create", "patch"].contains(&r.verb.as_str()))
        .filter(|r| ["configmaps", "jobs"].contains(&r.object_ref.resource.as_str()))
        .collect();
    requests.sort_by_key(|r| r.received);
    let mut names: Vec<String> = Vec::new();
    for request in requests {
        let name = request.object_ref.name.clone();
        // The dry run comes first, in any order, and is told by its name being seen again.
        names.retain(|known| *known != name);
        names.push(name);
    }
    Ok(names)
}

#[test]
fn waves_and_hooks_run_in_order() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "waves").await?;
        let before = job("before", "PreSync", "BeforeHookCreation", "0");
        let after = job("after", "PostSync", "HookSucceeded", "0");
        let failed = job("failed", "SyncFail", "BeforeHookCreation", "0");
        let commit = plane.repository.commit(
            "Start",
            &[
                ("app/late.yaml", Some(&wave("late", "1", "2"))),
                ("app/early.yaml", Some(&wave("early", "1", "-1"))),
                ("app/middle.yaml", Some(&config_map("middle", "1"))),
                ("app/before.yaml", Some(&before)),
                ("app/after.yaml", Some(&after)),
                ("app/failed.yaml", Some(&failed)),
            ],
        )?;
        plane.apply(plane.app("app", "app", json!({"syncPolicy": {"automated": {}}}))).await?;
        let app = plane.synced("app", &commit).await?;
        assert_eq!(message(&app), "successfully synced (no more tasks)");

        // Each came into being after the one before it was there, by the API server's own clock.
        let created = async |kind: &str, version: &str, name: &str| -> Result<String> {
            let object = plane.get(version, kind, name).await?;
            Ok(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned())
        };
        let job = plane.get("batch/v1", "Job", "before").await?;
        let done = job["status"]["completionTime"].as_str().unwrap_or_default().to_owned();
        let (early, middle, late) = (
            created("ConfigMap", "v1", "early").await?,
            created("ConfigMap", "v1", "middle").await?,
            created("ConfigMap", "v1", "late").await?,
        );
        assert!(!done.is_empty() && done <= early && early < middle && middle < late, "{done} {early} {middle} {late}");
        let results = app.pointer("/status/operationState/syncResult/resources").and_then(Value::as_array);
        let result = |name: &str| -> Result<Value> {
            let found = results.into_iter().flatten().find(|result| result["name"] == name);
            found.cloned().with_context(|| format!("no result of {name}"))
        };
        for (name, type_) in [("before", "PreSync"), ("after", "PostSync")] {
            let result = result(name)?;
            assert_eq!((&result["hookType"], &result["hookPhase"]), (&json!(type_), &json!("Succeeded")), "{result}");
        }
        assert!(result("failed").is_err(), "a hook for failures ran in a success");
        // HookSucceeded goes, BeforeHookCreation stays until the next time.
        plane
            .until("the hook that succeeded to be gone", async || {
                let jobs = plane.list("batch/v1", "Job").await?;
                let names: Vec<&str> = jobs.iter().filter_map(|job| job["metadata"]["name"].as_str()).collect();
                ensure!(names == ["before"], "{names:?}");
                Ok(())
            })
            .await?;
        let names: Vec<&str> = app["status"]["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|resource| resource["name"].as_str())
            .collect();
        assert_eq!(names, ["early", "late", "middle"], "hooks are no resources");

        // The next sync makes the hook anew; one that fails keeps everything after it from being applied.
        let failing = self::job("before", "PreSync", "BeforeHookCreation", "1");
        let bad = plane.repository.commit(
            "Fail before",
            &[("app/before.yaml", Some(&failing)), ("app/middle.yaml", Some(&config_map("middle", "2")))],
        )?;
        let since = jiff::Timestamp::now();
        let patch = json!({"spec": {"syncPolicy": {"automated": null}}});
        plane.patch(ARGO, "Application", "app", patch).await?;
        let (code, said, errors) = plane.argocd_ends(&["app", "sync", "app", "--timeout", "60"])?;
        assert!(code == 20 && errors.contains("Operation has completed with phase: Failed"), "{code}: {said}{errors}");
        let app = plane.application("app").await?;
        assert_eq!(app["status"]["operationState"]["syncResult"]["revision"], bad);
        assert!(message(&app).contains("synchronization tasks completed unsuccessfully"), "{}", message(&app));
        assert_eq!(plane.value("middle", "value").await?.as_deref(), Some("1"));
        assert_ne!(plane.get("batch/v1", "Job", "before").await?["metadata"]["uid"], job["metadata"]["uid"]);
        plane.get("batch/v1", "Job", "failed").await.context("the hook for failures")?;
        let order = made(&plane, since)?;
        let at = |name: &str| order.iter().position(|found| found == name).with_context(|| format!("{order:?}"));
        assert!(at("before")? < at("failed")?, "{order:?}");
        Ok(())
    })
}

#[test]
fn a_rejected_revision_needs_an_explicit_sync() -> Result<()> {
    run(async |cluster| {
        let plane = Plane::new(cluster, "rejected").await?;
        let manifest = |tag: &str| scene::canary("web", tag, 2, json!([{"setWeight": 50}, {"pause": {}}])).to_string();
        let settings = |value: &str| config_map("settings", value);
        let good = plane.repository.commit(
            "Version 1",
            &[("app/web.yaml", Some(&manifest("1"))), ("app/settings.yaml", Some(&settings("1")))],
        )?;
        plane.apply(plane.app("app", "app", json!({"syncPolicy": automated()}))).await?;
        plane.synced("app", &good).await?;
        plane.phase("web", "Healthy").await?;
        let bad = plane.repository.commit(
            "Version 2",
            &[("app/web.yaml", Some(&manifest("2"))), ("app/settings.yaml", Some(&settings("2")))],
        )?;
        plane.refresh("app").await?;
        plane.paused_at("web", 1).await?;
        plane.plugin(&["abort", "web"])?;
        plane.phase("web", "Degraded").await?;
        let rollout = format!("{}/web", plane.name());
        plane.says("app", "RejectedRevisionWarning", &[&bad, &rollout, "aborted"]).await?;
        let shown = plane.argocd(&["app", "get", "app"])?;
        assert!(shown.contains("RejectedRevisionWarning") && shown.contains(&bad), "{shown}");

        // Somebody goes back to the stable version: neither a refresh nor healing brings the rejected one again.
        plane.plugin(&["undo", "web", "--to-revision=1"])?;
        plane.phase("web", "Healthy").await?;
        for _ in 0..2 {
            let app = plane.refresh("app").await?;
            assert_eq!(sync_status(&app), "OutOfSync");
            assert!(conditions(&app).contains_key("RejectedRevisionWarning"), "{}", app["status"]);
            assert!(app["operation"].is_null(), "{}", app["operation"]);
        }
        plane.patch("v1", "ConfigMap", "settings", json!({"data": {"value": "drift"}})).await?;
        plane.refresh("app").await?;
        let web = plane.rollout("web").await?;
        let image = web.pointer("/spec/template/spec/containers/0/image");
        assert_eq!(image, Some(&json!("tidegate/testserver:1")));
        assert_eq!(plane.value("settings", "value").await?.as_deref(), Some("drift"));

        // Whoever asks for it by hand means it.
        let (code, said, errors) = plane.argocd_ends(&["app", "sync", "app", "--timeout", "60"])?;
        assert_eq!(code, 0, "{said}{errors}");
        plane.paused_at("web", 1).await?;
        plane
            .app_is("app", "no longer rejecting", |app| {
                ensure!(!conditions(app).contains_key("RejectedRevisionWarning"), "{:?}", conditions(app));
                Ok(())
            })
            .await?;
        plane.plugin(&["promote", "web"])?;
        plane.phase("web", "Healthy").await?;
        plane.synced("app", &bad).await?;
        assert_eq!(plane.value("settings", "value").await?.as_deref(), Some("2"));
        Ok(())
    })
}

//! The kinds as a real API server has them: every field that is applied is there when it is read.

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_e2e::run;

use crate::scene::Scene;

/// Kinds whose status only its subresource changes.
const WITH_STATUS: [&str; 2] = ["Rollout", "ApplicationSet"];
/// What the API server adds to any object.
const ADDED: [&str; 6] = ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "namespace"];

/// Manifests that use every field of every kind (the `crds` crate checks that they do).
fn fixtures() -> Result<Vec<Value>> {
    let directory = tidegate_e2e::state::repository().join("crds/tests/fixtures");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        found.push(serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?);
    }
    Ok(found)
}

/// The object without what the API server adds.
fn written(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| !ADDED.contains(&key.as_str()));
    }
    object
}

#[test]
fn every_field_reads_back_unchanged() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::alone(cluster, "types").await?;
        let params = PatchParams::apply("tidegate-e2e").force();
        let mut kinds = Vec::new();
        for fixture in fixtures()? {
            let (kind, version) = (&fixture["kind"], &fixture["apiVersion"]);
            let (kind, version) = (kind.as_str().context("kind")?, version.as_str().context("apiVersion")?);
            let name = fixture["metadata"]["name"].as_str().context("name")?;
            let all = kube::Api::all_with(scene.namespace.client.clone(), &resource(version, kind)?);
            let cluster_scoped = kind == "ClusterAnalysisTemplate";
            let api = if cluster_scoped { all } else { scene.objects(version, kind)? };
            let mut wanted = fixture.clone();
            if let Some(metadata) = wanted["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
            let context = || format!("{kind} {name}");
            api.patch(name, &params, &Patch::Apply(&wanted)).await.with_context(context)?;
            if WITH_STATUS.contains(&kind) {
                let found = serde_json::to_value(api.get(name).await?)?;
                assert_eq!(found["status"], Value::Null, "{kind}: the status was written without its subresource");
                let status = json!({
                    "apiVersion": version, "kind": kind, "metadata": {"name": name}, "status": wanted["status"],
                });
                api.patch_status(name, &params, &Patch::Apply(&status)).await.with_context(context)?;
            }
            let found = written(serde_json::to_value(api.get(name).await?)?);
            assert_eq!(found["spec"], wanted["spec"], "{kind} {name}");
            assert_eq!(found["status"], wanted["status"], "{kind} {name}");
            assert_eq!(found, wanted, "{kind} {name}");
            if cluster_scoped {
                api.delete(name, &Default::default()).await?;
            }
            kinds.push(kind.to_owned());
        }
        kinds.sort();
        kinds.dedup();
        assert_eq!(
            kinds,
            [
                "AnalysisRun",
                "AnalysisTemplate",
                "AppProject",
                "Application",
                "ApplicationSet",
                "ClusterAnalysisTemplate",
                "Experiment",
                "Rollout",
            ]
        );
        Ok(())
    })
}

fn resource(version: &str, kind: &str) -> Result<kube::core::ApiResource> {
    let (group, version) = version.split_once('/').context("group/version")?;
    Ok(kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind)))
}

#[test]
fn other_tools_find_what_they_look_for() -> Result<()> {
    run(async |cluster| {
        let scene = Scene::new(cluster, "columns").await?;
        let rollout = crate::scene::canary("web", "1", 1, json!([{"setWeight": 50}]));
        scene.deploy(rollout).await?;
        let table = scene.kubectl(&["get", "ro", "web"])?;
        let columns: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(columns, ["NAME", "DESIRED", "CURRENT", "UP-TO-DATE", "AVAILABLE", "AGE"], "{table}");
        let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(row[..5], ["web", "1", "1", "1", "1"], "{table}");
        for short in ["at", "ar", "exp", "cat"] {
            scene.kubectl(&["get", short])?;
        }
        // The selector cannot be changed, which the API server itself refuses.
        let patch = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#;
        let refused = scene.kubectl(&["patch", "rollout", "web", "--type=merge", "--patch", patch]);
        let refused = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused.contains("selector"), "{refused}");
        Ok(())
    })
}

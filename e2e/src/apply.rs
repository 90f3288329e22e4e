//! Server-side apply of objects of any kind, and of definitions of kinds.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Server-side apply of one object of any kind, whose plural is the kind's with an `s` or `es`.
pub async fn apply(client: &kube::Client, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).context("an object for the API server")?;
    let types = object.types.clone().context("the object has no kind")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.name_any();
    api.patch(&name, &PatchParams::apply("tidegate-e2e").force(), &Patch::Apply(&object))
        .await
        .with_context(|| format!("apply {} {name}", resource.kind))?;
    Ok(())
}

/// Applies a CustomResourceDefinition and waits until the API server has it.
pub async fn define(client: &kube::Client, definition: &Value) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = definition["metadata"]["name"].as_str().context("a definition has a name")?;
    apply(client, definition).await?;
    crate::wait_for(&format!("{name} to be served"), Duration::from_secs(30), async || {
        let status = definitions.get(name).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let served = conditions.iter().any(|found| found.type_ == "Established" && found.status == "True");
        anyhow::ensure!(served, "conditions {conditions:?}");
        Ok(())
    })
    .await
}

/// A CustomResourceDefinition of somebody else's kind, whose spec may hold anything.
pub fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    })
}

//! Server-side apply of objects of any kind.

use anyhow::{Context, Result};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::Value;

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

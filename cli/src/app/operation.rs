//! `.operation`: what a client writes to start a sync, and whether it may.

use super::connect::{AppName, Connection};
use super::summary;
use crate::failure;
use anyhow::{Result, bail};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_crds::application::{Application, Operation};

/// The patch that asks the controller to look at the sources and the cluster again.
pub fn refresh(hard: bool) -> Value {
    json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": if hard { "hard" } else { "normal" }}}})
}

/// The patch that agrees to the deletion of objects that ask for it.
pub fn approval(now: jiff::Timestamp) -> Value {
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"metadata": {"annotations": {"argocd.argoproj.io/deletion-approved": at}}})
}

/// Why an operation may not start now.
///
/// # Errors
/// When one is running, or the Application is being deleted.
pub fn may_start(app: &Application) -> Result<()> {
    if app.metadata.deletion_timestamp.is_some() {
        bail!("application '{}' is being deleted", app.name());
    }
    if app.operation.is_some() {
        bail!("another operation is already in progress");
    }
    Ok(())
}

/// Writes the operation, unless the Application was changed in between.
///
/// # Errors
/// When the API server refuses, or another operation came first.
pub async fn start(connection: &Connection, app: &Application, operation: &Operation) -> Result<()> {
    may_start(app)?;
    let name = AppName::of(app);
    let api = connection.apps(&name.namespace);
    let mut current = app.clone();
    loop {
        let patch = json!({
            "metadata": {"resourceVersion": current.metadata.resource_version},
            "operation": operation,
        });
        match api.patch(&name.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            // The controller writes the status at any time; only another operation is in the way.
            Err(error) if failure::is_conflict(&error) => {
                current = api.get(&name.name).await?;
                may_start(&current)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether automated sync is on.
pub fn is_automated(app: &Application) -> bool {
    summary::automated(app.spec.sync_policy.as_ref()).is_some()
}

/// Whether a phase is an end.
pub fn completed(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed" | "Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_operation_at_a_time() {
        let app = |extra: Value| -> Application {
            let mut object = json!({"metadata": {"name": "shop"}, "spec": {}});
            object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value(object).unwrap()
        };
        assert!(may_start(&app(json!({}))).is_ok());
        let error = may_start(&app(json!({"operation": {"sync": {}}}))).unwrap_err();
        assert_eq!(error.to_string(), "another operation is already in progress");
        let deleted = app(json!({"metadata": {"name": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert!(may_start(&deleted).is_err());
    }

    #[test]
    fn refresh_is_an_annotation() {
        assert_eq!(refresh(false)["metadata"]["annotations"]["argocd.argoproj.io/refresh"], "normal");
        assert_eq!(refresh(true)["metadata"]["annotations"]["argocd.argoproj.io/refresh"], "hard");
    }
}

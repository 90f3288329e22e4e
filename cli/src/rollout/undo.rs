//! `undo`.

use super::{info, patch};
use crate::cluster::Connection;
use crate::output::print;
use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;
use tidegate_crds::keys;
use tidegate_crds::rollout::{Rollout, WorkloadRef};

/// Puts the pod template of an earlier revision back into the Rollout (or into the workload that it refers to). The
/// steps run as for any update, except within `rollbackWindow`, and except back to the stable version, which is at once.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  # Back to the revision before the current one
  tidegate rollout undo web

  # Back to revision 3
  tidegate rollout undo web --to-revision 3")]
pub struct Args {
    /// Name of the Rollout
    #[arg(value_name = "ROLLOUT")]
    name: String,
    /// Revision to go back to; 0 is the one before the current one
    #[arg(long, value_name = "N", default_value_t = 0)]
    to_revision: i64,
}

pub async fn run(args: Args, connection: &Connection) -> Result<()> {
    let namespace = connection.namespace.as_str();
    let rollouts: Api<Rollout> = Api::namespaced(connection.client.clone(), namespace);
    let rollout = rollouts.get(&args.name).await?;
    // As JSON: a typed copy of a template would lose fields that the type does not know.
    let resource = ApiResource::erase::<k8s_openapi::api::apps::v1::ReplicaSet>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), namespace, &resource);
    let found = api.list(&ListParams::default().labels(keys::POD_TEMPLATE_HASH)).await?;
    let owner = rollout.metadata.uid.as_deref().unwrap_or_default();
    let owned: Vec<DynamicObject> = found
        .items
        .into_iter()
        .filter(|rs| rs.metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner))
        .collect();
    let revisions: Vec<i64> = owned.iter().map(|rs| info::revision(&rs.metadata)).collect();
    let revision = target(&args.name, &revisions, args.to_revision)?;
    let Some(rs) = owned.iter().find(|rs| info::revision(&rs.metadata) == revision) else {
        bail!("unable to find specified revision {revision} in history");
    };
    let template = rs.data.pointer("/spec/template").cloned().unwrap_or(Value::Null);
    let ephemeral =
        rs.metadata.annotations.as_ref().and_then(|map| map.get(keys::EPHEMERAL_METADATA)).map(String::as_str);
    let hash = rs.metadata.labels.as_ref().and_then(|labels| labels.get(keys::POD_TEMPLATE_HASH));
    if hash.is_some() && hash == rollout.status.current_pod_hash.as_ref() {
        return print(&format!("skipped rollback (current template already matches revision {revision})\n"));
    }
    let body: json_patch::Patch =
        serde_json::from_value(patch::undo(&template, ephemeral, injects_anti_affinity(&rollout)))?;
    let params = PatchParams::default();
    match &rollout.spec.workload_ref {
        None => {
            rollouts.patch(&args.name, &params, &Patch::Json::<()>(body)).await?;
        }
        Some(workload) => {
            let (resource, path) = workload_resource(workload)?;
            let body = if path == "/template" {
                serde_json::from_value(retarget(patch::undo(&template, ephemeral, injects_anti_affinity(&rollout))))?
            } else {
                body
            };
            let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), namespace, &resource);
            api.patch(&workload.name, &params, &Patch::Json::<()>(body))
                .await
                .with_context(|| format!("{} {:?}", workload.kind, workload.name))?;
        }
    }
    print(&format!("rollout '{}' undo\n", args.name))
}

/// The revision to go back to.
fn target(name: &str, revisions: &[i64], wanted: i64) -> Result<i64> {
    if wanted < 0 {
        bail!("no revision found for rollout \"{name}\": --to-revision is {wanted}, expected 0 or a revision");
    }
    if wanted > 0 {
        if !revisions.contains(&wanted) {
            bail!("unable to find specified revision {wanted} in history");
        }
        return Ok(wanted);
    }
    let mut known: Vec<i64> = revisions.iter().copied().filter(|revision| *revision > 0).collect();
    known.sort_unstable();
    known.dedup();
    match known.as_slice() {
        [] | [_] => bail!("no revision found for rollout \"{name}\""),
        [.., previous, _] => Ok(*previous),
    }
}

fn injects_anti_affinity(rollout: &Rollout) -> bool {
    let strategy = &rollout.spec.strategy;
    strategy.canary.as_ref().is_some_and(|canary| canary.anti_affinity.is_some())
        || strategy.blue_green.as_ref().is_some_and(|blue_green| blue_green.anti_affinity.is_some())
}

/// The API of the workload that a Rollout takes its template from, and where the template is in it.
pub fn workload_resource(workload: &WorkloadRef) -> Result<(ApiResource, &'static str)> {
    use k8s_openapi::api::{apps, core};
    Ok(match workload.kind.as_str() {
        "Deployment" => (ApiResource::erase::<apps::v1::Deployment>(&()), "/spec/template"),
        "ReplicaSet" => (ApiResource::erase::<apps::v1::ReplicaSet>(&()), "/spec/template"),
        "PodTemplate" => (ApiResource::erase::<core::v1::PodTemplate>(&()), "/template"),
        other => bail!("spec.workloadRef.kind: found {other:?}, expected Deployment, ReplicaSet or PodTemplate"),
    })
}

/// The same patch for a PodTemplate, whose template is at the top.
fn retarget(mut patch: Value) -> Value {
    patch[0]["path"] = Value::from("/template");
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_revision() {
        assert_eq!(target("web", &[31, 29, 30], 0).unwrap(), 30);
        assert_eq!(target("web", &[31, 29, 30], 29).unwrap(), 29);
        let text = |result: Result<i64>| result.unwrap_err().to_string();
        assert_eq!(text(target("web", &[31, 30], 1)), "unable to find specified revision 1 in history");
        assert_eq!(text(target("web", &[], 0)), "no revision found for rollout \"web\"");
        assert_eq!(text(target("web", &[1], 0)), "no revision found for rollout \"web\"");
        assert!(text(target("web", &[31, 30], -1)).starts_with("no revision found for rollout \"web\""));
    }

    #[test]
    fn knows_where_workloads_keep_their_template() {
        let of = |kind: &str| workload_resource(&WorkloadRef { kind: kind.into(), ..Default::default() });
        assert_eq!(of("Deployment").unwrap().1, "/spec/template");
        assert_eq!(of("PodTemplate").unwrap().1, "/template");
        assert!(of("StatefulSet").unwrap_err().to_string().contains("StatefulSet"));
    }
}

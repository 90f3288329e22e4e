//! Gathers what a decision about an Experiment looks at. Reads only, and from the stores alone.

use super::snapshot::{Findings, Service, Snapshot};
use crate::cache::Key;
use crate::context::{Context, owned_by};
use crate::rollout::ReplicaSet;
use crate::worker::Failure;
use serde_json::Value;
use std::collections::BTreeSet;
use tidegate_crds::experiment::Experiment;

/// Everything that a decision about the Experiment `key` looks at; none when there is no such Experiment.
pub(super) fn observe(context: &Context, key: &Key, findings: &Findings) -> Result<Option<Snapshot>, Failure> {
    let stores = &context.stores;
    let Some(value) = stores.experiments.value(key) else { return Ok(None) };
    let (experiment, dropped) = Experiment::decode(value).map_err(|error| Failure::Error(error.to_string()))?;
    for field in dropped {
        tracing::debug!(experiment = %key, path = field.path, reason = field.reason, "A field is left out.");
    }
    let uid = experiment.metadata.uid.clone().unwrap_or_default();
    let owned = owned_by(&uid);
    let replica_sets: Vec<ReplicaSet> =
        stores.replica_sets.by_index::<Value>(&owned).iter().filter_map(ReplicaSet::from_value).collect();
    let names = experiment.spec.analyses.iter().map(|a| (a.template_name.clone(), a.cluster_scope)).collect();
    let mut snapshot = Snapshot {
        analysis_runs: stores.analysis_runs.by_index(&owned),
        templates: crate::rollout::observe::templates(context, &key.namespace, names),
        instance_id: context.instance_id(),
        findings: findings.clone(),
        replica_sets,
        experiment,
        ..Snapshot::default()
    };
    for name in services(&snapshot) {
        if let Some(service) = stores.services.value(&Key::new(&key.namespace, &name)) {
            snapshot.services.insert(name, Service::from_value(&service));
        }
    }
    for analysis in &snapshot.experiment.spec.analyses {
        let base = format!("{}-{}", key.name, analysis.name);
        let mut name = base.clone();
        for attempt in 1.. {
            let run = Key::new(&key.namespace, &name);
            if !stores.analysis_runs.contains(&run) {
                break;
            }
            snapshot.taken.insert(name);
            name = format!("{base}.{attempt}");
        }
    }
    for run in &snapshot.analysis_runs {
        snapshot.taken.remove(run.name());
    }
    Ok(Some(snapshot))
}

/// The Services that the Experiment may want or have.
fn services(snapshot: &Snapshot) -> BTreeSet<String> {
    let experiment = &snapshot.experiment;
    let mut names = BTreeSet::new();
    for template in &experiment.spec.templates {
        let Some(service) = &template.service else { continue };
        let rs = snapshot.replica_set(&template.name).map(|rs| rs.name.clone());
        let named = service.name.clone().filter(|name| !name.is_empty());
        names.insert(named.or(rs).unwrap_or_else(|| format!("{}-{}", experiment.name(), template.name)));
    }
    names.extend(experiment.status.template_statuses.iter().filter_map(|status| status.service_name.clone()));
    names
}

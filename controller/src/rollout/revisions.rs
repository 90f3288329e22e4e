//! Which ReplicaSet is which, and how many are kept.

use super::decision::{Action, Stage};
use super::pass::Pass;
use super::snapshot::ReplicaSet;
use super::template;
use crate::events::Event;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_crds::keys;

/// Becomes the owner of ReplicaSets that the selector selects and nobody owns.
pub(crate) fn adopt(pass: &mut Pass<'_>) {
    let orphans: Vec<_> = pass.snapshot.replica_sets.iter().filter(|rs| rs.owner.is_none() && !rs.deleting).collect();
    for rs in orphans {
        pass.because(format!("adopts ReplicaSet {}", rs.name));
        pass.act(Stage::Prepare, Action::AdoptReplicaSet { name: rs.name.clone(), uid: rs.uid.clone() });
    }
}

/// Finds the ReplicaSet of the current template, whoever made it: by the hash in a status that has seen this very
/// generation, by our own hash, or by meaning. An installation of the peer is taken over with no new revision.
pub(crate) fn identify(pass: &mut Pass<'_>) {
    let rollout = pass.rollout();
    let wanted = &rollout.spec.template;
    let generation = rollout.metadata.generation.unwrap_or(0).to_string();
    let seen = pass.status.observed_generation.as_deref() == Some(generation.as_str())
        && pass.snapshot.workload.as_ref().is_none_or(|w| {
            pass.status.workload_observed_generation.as_deref() == Some(w.generation.to_string().as_str())
        });
    let by_status = || {
        let hash = pass.status.current_pod_hash.as_deref().filter(|_| seen)?;
        pass.owned().find(|rs| rs.hash() == hash)
    };
    let own_hash = || template::pod_hash(wanted, pass.status.collision_count);
    let by_hash = || {
        let hash = own_hash();
        pass.owned().find(|rs| rs.hash() == hash && template::same(&rs.template, wanted, ephemeral(rs)))
    };
    let by_meaning = || {
        let mut same: Vec<_> = pass.owned().filter(|rs| template::same(&rs.template, wanted, ephemeral(rs))).collect();
        same.sort_by_key(|rs| (rs.created, rs.name.clone()));
        same.first().copied()
    };
    match by_status().or_else(by_hash).or_else(by_meaning) {
        Some(rs) => {
            let (hash, name) = (rs.hash().to_owned(), rs.name.clone());
            pass.hash = hash;
            pass.new_name = name;
        }
        None => {
            let hash = own_hash();
            pass.new_name = format!("{}-{hash}", rollout.name());
            pass.hash = hash;
        }
    }
}

pub(crate) fn ephemeral(rs: &ReplicaSet) -> Option<&str> {
    rs.annotations.get(keys::EPHEMERAL_METADATA).map(String::as_str)
}

/// Makes the ReplicaSet of the current template if it is missing, and the newest revision if it is not.
pub(crate) fn ensure_new(pass: &mut Pass<'_>) {
    let rollout = pass.rollout();
    let hash = pass.hash.clone();
    let newest_other = pass.owned().filter(|rs| rs.hash() != hash).map(ReplicaSet::revision).max().unwrap_or(0);
    let existing = pass.new_rs();
    pass.revision = match existing {
        Some(rs) if rs.revision() > newest_other => rs.revision(),
        _ => newest_other + 1,
    };
    let revision = pass.revision.to_string();
    let annotations = rollout.metadata.annotations.clone().unwrap_or_default();
    let mut own = BTreeMap::new();
    if annotations.get(keys::REVISION) != Some(&revision) {
        own.insert(keys::REVISION.to_owned(), revision.clone());
    }
    if let Some(workload) = &pass.snapshot.workload {
        let generation = workload.generation.to_string();
        if annotations.get(keys::WORKLOAD_GENERATION) != Some(&generation) {
            own.insert(keys::WORKLOAD_GENERATION.to_owned(), generation);
        }
    }
    if own.contains_key(keys::REVISION) {
        let event = Event::normal("RolloutUpdated", format!("Rollout updated to revision {revision}"));
        pass.act_telling(Stage::Prepare, Action::AnnotateRollout { annotations: own }, event);
    } else if !own.is_empty() {
        pass.act(Stage::Prepare, Action::AnnotateRollout { annotations: own });
    }
    let copied: BTreeMap<String, String> = annotations.into_iter().filter(|(key, _)| is_copied(key)).collect();
    match existing {
        Some(rs) => {
            if rs.revision().to_string() != revision {
                let mut history = rs.annotations.get(keys::REVISION_HISTORY).cloned().unwrap_or_default();
                if rs.revision() > 0 {
                    history = if history.is_empty() {
                        rs.revision().to_string()
                    } else {
                        format!("{history},{}", rs.revision())
                    };
                    pass.annotate_rs(rs, keys::REVISION_HISTORY, Some(history));
                }
                pass.annotate_rs(rs, keys::REVISION, Some(revision));
            }
            for (key, value) in copied {
                pass.annotate_rs(rs, &key, Some(value));
            }
            pass.set_min_ready(rs, rollout.spec.min_ready_seconds.unwrap_or(0));
        }
        None => create(pass, copied),
    }
}

/// Annotations of the Rollout that its ReplicaSets carry too.
fn is_copied(key: &str) -> bool {
    ![
        keys::LAST_APPLIED,
        keys::REVISION,
        keys::REVISION_HISTORY,
        keys::DESIRED_REPLICAS,
        keys::NOTIFIED,
        keys::WORKLOAD_GENERATION,
    ]
    .contains(&key)
}

fn create(pass: &mut Pass<'_>, mut annotations: BTreeMap<String, String>) {
    let rollout = pass.rollout();
    let name = pass.new_name.clone();
    annotations.insert(keys::REVISION.to_owned(), pass.revision.to_string());
    annotations.insert(keys::DESIRED_REPLICAS.to_owned(), pass.replicas().to_string());
    let mut template = template::with_hash(&rollout.spec.template, &pass.hash);
    let strategy = &rollout.spec.strategy;
    let rule = strategy
        .canary
        .as_ref()
        .and_then(|c| c.anti_affinity.as_ref())
        .or_else(|| strategy.blue_green.as_ref().and_then(|b| b.anti_affinity.as_ref()));
    if let Some(rule) = rule
        && !pass.stable_hash().is_empty()
        && !pass.promoted()
    {
        template::add_anti_affinity(&mut template, rule, pass.stable_hash(), rollout.namespace());
    }
    if let Some(remembered) = super::metadata::put_on_template(pass, &mut template) {
        annotations.insert(keys::EPHEMERAL_METADATA.to_owned(), remembered);
    }
    let mut selector = serde_json::to_value(rollout.spec.selector.clone().unwrap_or_default()).unwrap_or_default();
    template::set(&mut selector, &["matchLabels", keys::POD_TEMPLATE_HASH], pass.hash.as_str().into());
    let mut labels = rollout.spec.template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    labels[keys::POD_TEMPLATE_HASH] = pass.hash.as_str().into();
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": rollout.namespace(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": pass.owner_reference(),
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    });
    if let Some(seconds) = rollout.spec.min_ready_seconds.filter(|s| *s > 0) {
        object["spec"]["minReadySeconds"] = Value::from(seconds);
    }
    let revision = pass.revision;
    let event = Event::normal("NewReplicaSetCreated", format!("Created ReplicaSet {name} (revision {revision})"));
    pass.because(format!("creates ReplicaSet {name} for revision {revision}"));
    pass.act_telling(Stage::Prepare, Action::CreateReplicaSet { name, object }, event);
}

/// The current template lies within the rollback window behind the stable version.
pub(crate) fn in_rollback_window(pass: &Pass<'_>) -> bool {
    let Some(window) = pass.rollout().spec.rollback_window.as_ref().and_then(|w| w.revisions) else { return false };
    let (Some(new), Some(stable)) = (pass.new_rs(), pass.stable_rs()) else { return false };
    if new.created >= stable.created {
        return false;
    }
    let between = pass.owned().filter(|rs| rs.created > new.created && rs.created < stable.created).count();
    (between as i64) < i64::from(window)
}

/// Deletes old ReplicaSets without pods beyond the history limit.
pub(crate) fn clean_up(pass: &mut Pass<'_>) {
    let limit = usize::try_from(pass.rollout().spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let weights = pass.status.canary.weights.clone().unwrap_or_default();
    let referenced: Vec<String> = [
        pass.status.blue_green.active_selector.clone(),
        pass.status.blue_green.preview_selector.clone(),
        weights.canary.pod_template_hash,
        weights.stable.pod_template_hash,
    ]
    .into_iter()
    .flatten()
    .chain(pass.snapshot.services.values().map(|s| s.hash().to_owned()))
    // The version that was stable before this pass stays until the status that says otherwise is written.
    .chain(pass.rollout().status.stable_rs.clone())
    .collect();
    let mut old: Vec<_> = pass
        .others()
        .into_iter()
        .filter(|rs| rs.replicas == 0 && rs.current == 0 && rs.owner.is_some())
        .filter(|rs| !referenced.iter().any(|hash| hash == rs.hash()))
        .collect();
    old.sort_by_key(|rs| (rs.revision(), rs.created));
    let beyond = old.len().saturating_sub(limit);
    for rs in old.into_iter().take(beyond) {
        pass.because(format!("deletes ReplicaSet {}: beyond revisionHistoryLimit {limit}", rs.name));
        pass.act(Stage::Clean, Action::DeleteReplicaSet { name: rs.name.clone(), uid: rs.uid.clone() });
    }
}

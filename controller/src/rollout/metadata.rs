//! Ephemeral metadata: labels and annotations that pods carry as long as they have a role.

use super::decision::{Action, Stage};
use super::pass::Pass;
use super::snapshot::{ReplicaSet, text_map};
use super::template;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_crds::keys;
use tidegate_crds::rollout::PodTemplateMetadata;

/// What the pods with `hash` carry in their present role.
fn wanted(pass: &Pass<'_>, hash: &str) -> PodTemplateMetadata {
    let strategy = &pass.rollout().spec.strategy;
    let (fresh, settled) = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => (&canary.canary_metadata, &canary.stable_metadata),
        (_, Some(blue_green)) => (&blue_green.preview_metadata, &blue_green.active_metadata),
        _ => return PodTemplateMetadata::default(),
    };
    let is_settled = hash == pass.stable_hash() || pass.stable_hash().is_empty();
    if is_settled { settled } else { fresh }.clone().unwrap_or_default()
}

/// Puts them onto the template of a ReplicaSet that is to be created; gives the text that remembers them.
pub(crate) fn put_on_template(pass: &Pass<'_>, template: &mut Value) -> Option<String> {
    let wanted = wanted(pass, &pass.hash);
    for (part, map) in [("labels", &wanted.labels), ("annotations", &wanted.annotations)] {
        for (key, value) in map {
            template::set(template, &["metadata", part, key], value.as_str().into());
        }
    }
    template::ephemeral_json(&wanted.labels, &wanted.annotations)
}

/// Brings the pods of all versions in line with their roles.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let mut all: Vec<(&ReplicaSet, PodTemplateMetadata)> = Vec::new();
    for rs in pass.new_rs().into_iter().chain(pass.stable_rs().filter(|_| !pass.promoted())) {
        all.push((rs, wanted(pass, rs.hash())));
    }
    // An older version has no role any more, however long its pods stay.
    all.extend(pass.others().into_iter().map(|rs| (rs, PodTemplateMetadata::default())));
    for (rs, wanted) in all {
        let remembered = template::ephemeral_json(&wanted.labels, &wanted.annotations);
        if rs.annotations.get(keys::EPHEMERAL_METADATA) == remembered.as_ref() {
            continue;
        }
        let before: Value =
            rs.annotations.get(keys::EPHEMERAL_METADATA).and_then(|r| serde_json::from_str(r).ok()).unwrap_or_default();
        pass.because(format!("labels the pods of ReplicaSet {} for their role", rs.name));
        pass.act(
            Stage::Label,
            Action::EphemeralMetadata {
                name: rs.name.clone(),
                hash: rs.hash().to_owned(),
                labels: change(&text_map(before.get("labels")), wanted.labels),
                annotations: change(&text_map(before.get("annotations")), wanted.annotations),
                remembered,
            },
        );
    }
}

fn change(before: &BTreeMap<String, String>, wanted: BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let mut change: BTreeMap<String, Option<String>> = before.keys().map(|key| (key.clone(), None)).collect();
    change.extend(wanted.into_iter().map(|(key, value)| (key, Some(value))));
    change
}

//! One thing that a sync does: apply an object, run a hook, or prune an object.

use super::hook::HookType;
use super::{OperationPhase, Phase};
use crate::object::{self, Key};
use serde_json::Value;
use tidegate_crds::application::ResourceResult;

/// Annotation with an object's wave.
pub const SYNC_WAVE: &str = "argocd.argoproj.io/sync-wave";
const HELM_HOOK_WEIGHT: &str = "helm.sh/hook-weight";

/// The wave of an object: negative ones come first, 0 is the default.
pub fn wave(object: &Value) -> i64 {
    let number = |key| object::annotation(object, key).and_then(|text| text.trim().parse::<i64>().ok());
    number(SYNC_WAVE).or_else(|| number(HELM_HOOK_WEIGHT)).unwrap_or(0)
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// When.
    pub phase: Phase,
    /// When, within the phase.
    pub wave: i64,
    /// Which object.
    pub key: Key,
    /// `apiVersion` to write it in.
    pub api_version: String,
    /// What it shall be; `None` to prune.
    pub target: Option<Value>,
    /// The hook's type; `None` for ordinary objects.
    pub hook: Option<HookType>,
}

impl Task {
    /// Whether the object is to be pruned.
    pub fn is_prune(&self) -> bool {
        self.target.is_none()
    }

    /// Whether this result is about this task.
    pub fn has(&self, result: &ResourceResult) -> bool {
        result.group == self.key.group
            && result.kind == self.key.kind
            && result.namespace == self.key.namespace
            && result.name == self.key.name
            && result.sync_phase.as_deref() == Some(self.phase.as_str())
    }

    /// A result of this task.
    pub fn result(&self, status: Option<&str>, phase: OperationPhase, message: &str) -> ResourceResult {
        ResourceResult {
            group: self.key.group.clone(),
            version: self.api_version.rsplit('/').next().unwrap_or_default().to_owned(),
            kind: self.key.kind.clone(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            status: status.map(str::to_owned),
            message: (!message.is_empty()).then(|| message.to_owned()),
            hook_type: self.hook.map(|hook| hook.as_str().to_owned()),
            hook_phase: Some(phase.as_str().to_owned()),
            sync_phase: Some(self.phase.as_str().to_owned()),
            images: self.target.as_ref().map(super::images::images).unwrap_or_default(),
        }
    }
}

/// How far a result is.
pub fn phase_of(result: &ResourceResult) -> Option<OperationPhase> {
    OperationPhase::parse(result.hook_phase.as_deref()?)
}

/// Puts `result` in the place of the one about the same task, or at the end.
pub fn upsert(results: &mut Vec<ResourceResult>, result: ResourceResult) {
    let same = |other: &&mut ResourceResult| {
        other.group == result.group
            && other.kind == result.kind
            && other.namespace == result.namespace
            && other.name == result.name
            && other.sync_phase == result.sync_phase
    };
    match results.iter_mut().find(same) {
        Some(place) => *place = result,
        None => results.push(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn waves() {
        for (annotations, expected) in [
            (json!({}), 0),
            (json!({SYNC_WAVE: "3"}), 3),
            (json!({SYNC_WAVE: " -2 "}), -2),
            (json!({SYNC_WAVE: "x", HELM_HOOK_WEIGHT: "5"}), 5),
            (json!({SYNC_WAVE: "x"}), 0),
            (json!({SYNC_WAVE: "1", HELM_HOOK_WEIGHT: "5"}), 1),
        ] {
            assert_eq!(wave(&json!({"metadata": {"annotations": annotations}})), expected, "{annotations}");
        }
    }
}

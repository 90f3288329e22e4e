//! Hooks: objects that are not part of the application's state, but run at some phase of a sync or a deletion.

use super::Phase;
use crate::object;
use jiff::Timestamp;
use serde_json::Value;

/// Annotation that makes an object a hook.
pub const HOOK: &str = "argocd.argoproj.io/hook";
/// Annotation that says when a hook is deleted.
pub const DELETE_POLICY: &str = "argocd.argoproj.io/hook-delete-policy";
/// Keeps a hook's result from being lost by a deletion from elsewhere.
pub const HOOK_FINALIZER: &str = "argocd.argoproj.io/hook-finalizer";
/// Annotation on hooks: the attempt and the phase that made the object, see [`attempt`].
pub const ATTEMPT: &str = "tidegate.io/operation";
const HELM_HOOK: &str = "helm.sh/hook";
const HELM_DELETE_POLICY: &str = "helm.sh/hook-delete-policy";

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookType {
    /// Before a sync.
    PreSync,
    /// With the sync.
    Sync,
    /// After a sync.
    PostSync,
    /// After a failed sync.
    SyncFail,
    /// Never applied.
    Skip,
    /// Before the application's resources are deleted.
    PreDelete,
    /// After the application's resources were deleted.
    PostDelete,
}

impl HookType {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreSync => "PreSync",
            Self::Sync => "Sync",
            Self::PostSync => "PostSync",
            Self::SyncFail => "SyncFail",
            Self::Skip => "Skip",
            Self::PreDelete => "PreDelete",
            Self::PostDelete => "PostDelete",
        }
    }

    /// The phase of a sync that the hook runs in.
    pub fn phase(self) -> Option<Phase> {
        match self {
            Self::PreSync => Some(Phase::PreSync),
            Self::Sync => Some(Phase::Sync),
            Self::PostSync => Some(Phase::PostSync),
            Self::SyncFail => Some(Phase::SyncFail),
            Self::Skip | Self::PreDelete | Self::PostDelete => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        use HookType::{PostDelete, PostSync, PreDelete, PreSync, Skip, Sync, SyncFail};
        [PreSync, Sync, PostSync, SyncFail, Skip, PreDelete, PostDelete].into_iter().find(|t| t.as_str() == text)
    }
}

/// When a hook is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePolicy {
    /// When the operation succeeded.
    HookSucceeded,
    /// When the operation failed.
    HookFailed,
    /// Before it is made anew.
    BeforeHookCreation,
}

/// What an object is a hook for; empty for ordinary objects. Helm's hooks count when no type of ours is given; those that
/// have no counterpart (test, rollback) are skipped.
pub fn types(object: &Value) -> Vec<HookType> {
    let mut types: Vec<HookType> =
        object::annotation_list(object, HOOK).into_iter().filter_map(HookType::parse).collect();
    if types.is_empty() {
        let helm = object::annotation_list(object, HELM_HOOK);
        types = helm.iter().filter_map(|hook| helm_type(hook)).collect();
        if types.is_empty() && !helm.is_empty() && !helm.contains(&"crd-install") {
            types.push(HookType::Skip);
        }
    }
    types.sort();
    types.dedup();
    types
}

fn helm_type(hook: &str) -> Option<HookType> {
    match hook {
        "pre-install" | "pre-upgrade" => Some(HookType::PreSync),
        "post-install" | "post-upgrade" => Some(HookType::PostSync),
        "pre-delete" => Some(HookType::PreDelete),
        "post-delete" => Some(HookType::PostDelete),
        _ => None,
    }
}

/// Whether the object is a hook (of a sync or a deletion), and not merely skipped.
pub fn is_hook(object: &Value) -> bool {
    types(object).iter().any(|t| *t != HookType::Skip)
}

/// Whether the object is no part of the application's state.
pub fn is_hook_or_skipped(object: &Value) -> bool {
    !types(object).is_empty()
}

/// Whether the object is never applied.
pub fn is_skipped(object: &Value) -> bool {
    types(object).contains(&HookType::Skip)
}

/// When the hook is deleted.
pub fn delete_policies(object: &Value) -> Vec<DeletePolicy> {
    let ours = object::annotation_list(object, DELETE_POLICY).into_iter().filter_map(|policy| match policy {
        "HookSucceeded" => Some(DeletePolicy::HookSucceeded),
        "HookFailed" => Some(DeletePolicy::HookFailed),
        "BeforeHookCreation" => Some(DeletePolicy::BeforeHookCreation),
        _ => None,
    });
    let helm = object::annotation_list(object, HELM_DELETE_POLICY).into_iter().filter_map(|policy| match policy {
        "hook-succeeded" => Some(DeletePolicy::HookSucceeded),
        "hook-failed" => Some(DeletePolicy::HookFailed),
        "before-hook-creation" => Some(DeletePolicy::BeforeHookCreation),
        _ => None,
    });
    let policies: Vec<DeletePolicy> = ours.chain(helm).collect();
    if policies.is_empty() { vec![DeletePolicy::BeforeHookCreation] } else { policies }
}

/// Identifies one phase of one attempt of one operation. A hook that carries it was made by just that, even if the
/// controller died before it could note so.
pub fn attempt(started_at: Timestamp, retry_count: i64, phase: Phase) -> String {
    format!("{started_at}/{retry_count}/{}", phase.as_str())
}

/// The hook as it is made in `phase`: named, with the finalizer and the attempt.
pub fn concrete(hook: &Value, phase: Phase, revision: &str, started_at: Timestamp, retry_count: i64) -> Value {
    let mut hook = hook.clone();
    let generate = object::text(&hook, "/metadata/generateName").to_owned();
    if object::name(&hook).is_empty() && !generate.is_empty() {
        let short: String = revision.chars().take(7).collect();
        let name = format!("{generate}{short}-{}-{}", phase.as_str().to_lowercase(), started_at.as_second());
        let metadata = object::child(&mut hook, "metadata");
        metadata["name"] = name.into();
        if let Value::Object(metadata) = metadata {
            metadata.remove("generateName");
        }
    }
    object::set_annotation(&mut hook, ATTEMPT, &attempt(started_at, retry_count, phase));
    let metadata = object::child(&mut hook, "metadata");
    let mut finalizers = object::list(metadata, "/finalizers").to_vec();
    if !finalizers.iter().any(|f| f == HOOK_FINALIZER) {
        finalizers.push(HOOK_FINALIZER.into());
        metadata["finalizers"] = finalizers.into();
    }
    hook
}

/// Whether the live object carries the hook finalizer.
pub fn has_finalizer(live: &Value) -> bool {
    object::list(live, "/metadata/finalizers").iter().any(|f| f == HOOK_FINALIZER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(annotations: Value) -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "annotations": annotations}})
    }

    #[test]
    fn types_of_hooks() {
        use HookType::{PostDelete, PostSync, PreDelete, PreSync, Skip, Sync, SyncFail};
        for (annotations, expected) in [
            (json!({}), vec![]),
            (json!({HOOK: "PreSync"}), vec![PreSync]),
            (json!({HOOK: "PostSync, PreSync"}), vec![PreSync, PostSync]),
            (json!({HOOK: "Sync,SyncFail,Odd"}), vec![Sync, SyncFail]),
            (json!({HOOK: "Skip"}), vec![Skip]),
            (json!({HOOK: "Odd"}), vec![]),
            (json!({HELM_HOOK: "pre-install,pre-upgrade"}), vec![PreSync]),
            (json!({HELM_HOOK: "post-install"}), vec![PostSync]),
            (json!({HELM_HOOK: "pre-delete,post-delete"}), vec![PreDelete, PostDelete]),
            (json!({HELM_HOOK: "crd-install"}), vec![]),
            (json!({HELM_HOOK: "test"}), vec![Skip]),
            (json!({HELM_HOOK: "test-success"}), vec![Skip]),
            (json!({HELM_HOOK: "pre-rollback"}), vec![Skip]),
            (json!({HOOK: "PostSync", HELM_HOOK: "pre-install"}), vec![PostSync]),
            (json!({HOOK: "Odd", HELM_HOOK: "pre-install"}), vec![PreSync]),
        ] {
            assert_eq!(types(&with(annotations.clone())), expected, "{annotations}");
        }
        assert!(!is_hook(&with(json!({HOOK: "Skip"}))));
        assert!(is_hook_or_skipped(&with(json!({HOOK: "Skip"}))));
    }

    #[test]
    fn policies_of_hooks() {
        use DeletePolicy::{BeforeHookCreation, HookFailed, HookSucceeded};
        for (annotations, expected) in [
            (json!({}), vec![BeforeHookCreation]),
            (json!({DELETE_POLICY: "HookSucceeded"}), vec![HookSucceeded]),
            (json!({DELETE_POLICY: "HookSucceeded, HookFailed"}), vec![HookSucceeded, HookFailed]),
            (
                json!({DELETE_POLICY: "HookSucceeded", HELM_DELETE_POLICY: "before-hook-creation"}),
                vec![HookSucceeded, BeforeHookCreation],
            ),
            (json!({DELETE_POLICY: "Odd"}), vec![BeforeHookCreation]),
        ] {
            assert_eq!(delete_policies(&with(annotations.clone())), expected, "{annotations}");
        }
    }

    #[test]
    fn generated_names_are_told_by_the_operation() {
        let started: Timestamp = "2026-01-02T03:04:05Z".parse().expect("time");
        let hook = json!({"kind": "Job", "metadata": {"generateName": "migrate-"}});
        let made = concrete(&hook, Phase::PreSync, "0123456789abcdef", started, 0);
        assert_eq!(object::name(&made), "migrate-0123456-presync-1767323045");
        assert_eq!(made.pointer("/metadata/generateName"), None);
        assert!(has_finalizer(&made));
        assert_eq!(object::annotation(&made, ATTEMPT), Some("2026-01-02T03:04:05Z/0/PreSync"));
        assert_eq!(concrete(&made, Phase::PreSync, "x", started, 0), made);
    }
}

//! Application: manifests in Git, a chart or an OCI artifact, and the cluster that shall look like them.

mod source;
mod status;

pub use source::{
    DirectorySource, DrySource, HelmFileParameter, HelmParameter, HelmSource, HydrateTo, Jsonnet, JsonnetVar,
    KustomizePatch, KustomizeReplicas, KustomizeSource, KustomizeTarget, PluginEnv, PluginParameter, PluginSource,
    Source, SourceHydrator, SyncSource,
};
pub use status::{
    ApplicationCondition, ApplicationStatus, ApplicationSummary, ComparedTo, HealthStatus, HydrateOperation,
    OperationState, ResourceResult, ResourceStatus, RevisionHistory, SourceHydratorStatus, SuccessfulHydrateOperation,
    SyncResult, SyncStatus,
};

use crate::resource::custom_resource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

custom_resource! {
    /// Manifests at a source and the cluster that shall look like them.
    Application, "applications", kube::core::NamespaceResourceScope, ApplicationSpec, ApplicationStatus,
    extra {
        /// The sync that somebody asks for. Removed when it is done.
        operation: Operation
    }
}

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSpec {
    /// The AppProject. Empty means `default`.
    pub project: String,
    /// Where the manifests go.
    pub destination: Destination,
    /// Where the manifests come from. Not read when `sources` or `sourceHydrator` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Where the manifests come from, several places at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Renders one branch and syncs from another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_hydrator: Option<SourceHydrator>,
    /// When and how to sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_policy: Option<SyncPolicy>,
    /// What does not count as a difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_differences: Vec<IgnoreDifferences>,
    /// Links and notes for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
    /// How many deployments to remember. Default 10; 0 remembers none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i64>,
}

/// A cluster and a namespace. Exactly one of `server` and `name`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Destination {
    /// URL of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace for manifests that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// When and how to sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncPolicy {
    /// Sync without being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automated: Option<AutomatedSync>,
    /// `Key=value` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_options: Vec<String>,
    /// Try again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Labels and annotations of the namespace that `CreateNamespace=true` makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_namespace_metadata: Option<ManagedNamespaceMetadata>,
}

/// Sync without being asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AutomatedSync {
    /// Delete what is no longer in the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Undo changes in the cluster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub self_heal: bool,
    /// Go on when nothing is left in the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// False turns it off and keeps the settings. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Try again after a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Retry {
    /// How often. Negative: without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// How long to wait in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Resolve the revision again before each try.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refresh: bool,
}

/// How long to wait: duration times factor to the number of tries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Backoff {
    /// Go duration, or seconds. Default 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<i64>,
    /// Go duration, or seconds. Default 3m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
}

/// Labels and annotations of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagedNamespaceMetadata {
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What does not count as a difference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct IgnoreDifferences {
    /// Glob of the API group; none is the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Glob of the kind.
    pub kind: String,
    /// Name. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Fields as JSON pointers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub json_pointers: Vec<String>,
    /// Fields as jq expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jq_path_expressions: Vec<String>,
    /// Fields that these field managers own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managed_fields_managers: Vec<String>,
}

/// A name and a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Info {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// A sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncOperation>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiated_by: Option<OperationInitiator>,
    /// Notes for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
    /// Try again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// A sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncOperation {
    /// Revision. Default: what the source says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Revisions, one a source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Delete what is no longer in the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prune: bool,
    /// Change nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Default: with hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_strategy: Option<SyncStrategy>,
    /// Only these. Then no hooks run and the history does not change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<SyncOperationResource>,
    /// In place of the specification's source, as for a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// In place of the specification's sources, as for a rollback.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Manifests to apply in place of the source's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
    /// `Key=value` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_options: Vec<String>,
    /// How often self-heal has tried at this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_heal_attempts_count: Option<i64>,
}

/// With hooks or without.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncStrategy {
    /// Without hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<SyncStrategyForce>,
    /// With hooks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<SyncStrategyForce>,
}

/// How to apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncStrategyForce {
    /// Delete and create again what cannot be changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// One resource to sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncOperationResource {
    /// API group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct OperationInitiator {
    /// Somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The controller itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub automated: bool,
}

impl ApplicationSpec {
    /// The sources that count: the hydrator's sync source, or else `sources` if there are any, or else `source`.
    pub fn sources(&self) -> Cow<'_, [Source]> {
        if let Some(hydrator) = &self.source_hydrator {
            return Cow::Owned(vec![hydrator.source()]);
        }
        match &self.source {
            Some(source) if self.sources.is_empty() => Cow::Borrowed(std::slice::from_ref(source)),
            _ => Cow::Borrowed(&self.sources),
        }
    }

    /// The name of the AppProject: `default` when none is given.
    pub fn project(&self) -> &str {
        if self.project.is_empty() { "default" } else { &self.project }
    }

    /// The value of a sync option of the application, such as `true` for `CreateNamespace`.
    pub fn sync_option(&self, key: &str) -> Option<&str> {
        self.sync_policy.as_ref().and_then(|policy| policy.sync_option(key))
    }

    /// The settings of automated sync, when it is on.
    pub fn automated(&self) -> Option<&AutomatedSync> {
        self.sync_policy.as_ref()?.automated.as_ref().filter(|automated| automated.enabled != Some(false))
    }

    /// How many deployments to remember. Negative limits count as 0.
    pub fn revision_history_limit(&self) -> usize {
        self.revision_history_limit.map_or(10, |limit| usize::try_from(limit).unwrap_or(0))
    }
}

impl SyncPolicy {
    /// The value of a sync option, such as `true` for `CreateNamespace`.
    pub fn sync_option(&self, key: &str) -> Option<&str> {
        sync_option(self.sync_options.iter().map(String::as_str), key)
    }
}

impl SyncOperation {
    /// The value of a sync option of this operation, such as `true` for `CreateNamespace`.
    pub fn sync_option(&self, key: &str) -> Option<&str> {
        sync_option(self.sync_options.iter().map(String::as_str), key)
    }
}

/// The value of `key` among `Key=value` options; the last one that is given wins. Serves the lists of specifications
/// and the parts of a comma-separated annotation.
pub fn sync_option<'a>(options: impl IntoIterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    options
        .into_iter()
        .filter_map(|option| option.trim().split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> ApplicationSpec {
        let (spec, dropped) = crate::decode::lenient(value);
        assert_eq!(dropped, []);
        spec
    }

    #[test]
    fn the_hydrator_wins_over_sources_and_sources_over_source() {
        let mut all = spec(json!({
            "source": {"repoURL": "one"},
            "sources": [{"repoURL": "two"}, {"repoURL": "three"}],
            "sourceHydrator": {
                "drySource": {"repoURL": "dry", "targetRevision": "HEAD", "path": "app"},
                "syncSource": {"targetBranch": "env/prod", "path": "prod"},
            },
        }));
        let urls = |spec: &ApplicationSpec| spec.sources().iter().map(|s| s.repo_url.clone()).collect::<Vec<_>>();
        assert_eq!(
            all.sources().as_ref(),
            [Source {
                repo_url: "dry".into(),
                target_revision: Some("env/prod".into()),
                path: Some("prod".into()),
                ..Source::default()
            }]
        );
        all.source_hydrator = None;
        assert_eq!(urls(&all), ["two", "three"]);
        all.sources.clear();
        assert_eq!(urls(&all), ["one"]);
        all.source = None;
        assert!(urls(&all).is_empty());
    }

    #[test]
    fn sync_options_are_found_by_name_and_the_last_wins() {
        let with = |options: Value| spec(json!({"syncPolicy": {"syncOptions": options}}));
        let cases = [
            (json!([]), None),
            (json!(["CreateNamespaceX=true"]), None),
            (json!(["CreateNamespace"]), None),
            (json!(["CreateNamespace=true"]), Some("true")),
            (json!([" CreateNamespace = true "]), Some("true")),
            (json!(["CreateNamespace=true", "CreateNamespace=false"]), Some("false")),
        ];
        for (options, expected) in cases {
            assert_eq!(with(options.clone()).sync_option("CreateNamespace"), expected, "{options}");
        }
        assert_eq!(spec(json!({})).sync_option("CreateNamespace"), None);
        assert_eq!(sync_option("Prune=false,Delete=confirm".split(','), "Delete"), Some("confirm"));
    }

    #[test]
    fn automated_sync_is_on_unless_it_says_otherwise() {
        let on = |policy: Value| spec(json!({"syncPolicy": policy})).automated().is_some();
        assert!(!on(json!({})));
        assert!(on(json!({"automated": {}})));
        assert!(on(json!({"automated": {"enabled": true}})));
        assert!(!on(json!({"automated": {"enabled": false, "prune": true}})));
    }

    #[test]
    fn the_operation_stands_beside_spec_and_status() {
        let value = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "shop"},
            "spec": {"project": "", "destination": {}},
            "operation": {"sync": {"revision": "abc"}, "initiatedBy": {"username": "jo"}},
        });
        let (app, dropped) = Application::decode(value.clone()).unwrap();
        assert_eq!(dropped, []);
        assert_eq!(app.spec.project(), "default");
        assert_eq!(serde_json::to_value(&app).unwrap(), value);
    }

    #[test]
    fn the_history_limit_defaults_to_ten_and_is_never_negative() {
        for (limit, expected) in [(json!(null), 10), (json!(0), 0), (json!(3), 3), (json!(-1), 0)] {
            assert_eq!(spec(json!({"revisionHistoryLimit": limit})).revision_history_limit(), expected);
        }
    }
}

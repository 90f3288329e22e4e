//! Application: manifests in Git, a chart or an OCI artifact, and the cluster that shall look like them.

use crate::resource::custom_resource;
use crate::{IntOrString, Time, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

/// One place that manifests come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// URL of the Git repository, chart repository or OCI artifact.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// Directory in the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Branch, tag, commit or version range. Default `HEAD` in Git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// Name of a chart; makes `repoURL` a chart repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart: Option<String>,
    /// Name by which value files of other sources refer to this tree, as `$name/path`.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<String>,
    /// Label for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only tags that start with this count for a version range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_prefix: Option<String>,
    /// Render as a chart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helm: Option<HelmSource>,
    /// Render with Kustomize.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kustomize: Option<KustomizeSource>,
    /// Read plain manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// Render with a plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginSource>,
}

/// How to render a chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HelmSource {
    /// Value files, relative to the chart; a later one wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub value_files: Vec<String>,
    /// Leave out value files that do not exist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_missing_value_files: bool,
    /// Values as YAML text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Values as an object; wins over `values`.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub values_object: Value,
    /// Single values; win over all other values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<HelmParameter>,
    /// Single values that are read from files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub file_parameters: Vec<HelmFileParameter>,
    /// Default: the application's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_name: Option<String>,
    /// Kept, not used: there is one Helm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Send the repository's credentials to other hosts, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pass_credentials: bool,
    /// Leave out the chart's `crds` directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_crds: bool,
    /// Leave out test hooks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_tests: bool,
    /// Do not check values against the chart's schema.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_schema_validation: bool,
    /// Namespace of the release. Default: the destination's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Kubernetes version that the chart sees. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_version: Option<String>,
    /// API versions that the chart sees. Default: the cluster's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_versions: Vec<String>,
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HelmParameter {
    /// Path of the value.
    pub name: String,
    /// The value.
    pub value: String,
    /// Keep it a string, whatever it looks like.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_string: bool,
}

/// One value from a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HelmFileParameter {
    /// Path of the value.
    pub name: String,
    /// The file.
    pub path: String,
}

/// How to build with Kustomize.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct KustomizeSource {
    /// Put before all names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// Put after all names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_suffix: Option<String>,
    /// Image overrides, `[old=]name[:tag][@digest]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Replica overrides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<KustomizeReplicas>,
    /// Labels for everything, selectors included.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub common_labels: BTreeMap<String, String>,
    /// Replace labels that exist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_common_labels: bool,
    /// Leave selectors alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub label_without_selector: bool,
    /// Label pod templates although selectors are left alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub label_include_templates: bool,
    /// Annotations for everything.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub common_annotations: BTreeMap<String, String>,
    /// Replace annotations that exist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_common_annotations: bool,
    /// Fill in build variables in annotations.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub common_annotations_envsubst: bool,
    /// Namespace for everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Patches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<KustomizePatch>,
    /// Components to add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Leave out components that do not exist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_missing_components: bool,
    /// Which of the configured Kustomize programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Kubernetes version that charts see. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_version: Option<String>,
    /// API versions that charts see. Default: the cluster's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_versions: Vec<String>,
}

/// A replica override.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct KustomizeReplicas {
    /// Name of the workload.
    pub name: String,
    /// Number of replicas.
    #[schemars(schema_with = "schema::int_or_string")]
    pub count: IntOrString,
}

/// A patch. `patch` or `path`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct KustomizePatch {
    /// The patch itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// File with the patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What to patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<KustomizeTarget>,
    /// `allowNameChange`, `allowKindChange`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, bool>,
}

/// What a patch is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct KustomizeTarget {
    /// API group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// API version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Regular expression for the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Regular expression for the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// Annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation_selector: Option<String>,
}

/// How to read plain manifests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DirectorySource {
    /// Read sub-directories, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recurse: bool,
    /// Glob of files to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// Glob of files to leave out; wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// How to evaluate Jsonnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonnet: Option<Jsonnet>,
    /// Read files whatever their extension.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_extension_filter: bool,
}

/// How to evaluate Jsonnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Jsonnet {
    /// External variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ext_vars: Vec<JsonnetVar>,
    /// Top-level arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tlas: Vec<JsonnetVar>,
    /// Library directories, from the root of the repository.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub libs: Vec<String>,
}

/// A variable of Jsonnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct JsonnetVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
    /// The value is code.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub code: bool,
}

/// How to call a plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginSource {
    /// The plugin. Without it the plugins are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<PluginEnv>,
    /// Parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<PluginParameter>,
}

/// A variable of a plugin's environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginEnv {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A parameter of a plugin. One of `string`, `array` and `map`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginParameter {
    /// Name.
    pub name: String,
    /// A text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string: Option<String>,
    /// A list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<Vec<String>>,
    /// A map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<BTreeMap<String, String>>,
}

/// Renders one branch, commits the result to another and syncs from that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SourceHydrator {
    /// What to render.
    pub dry_source: DrySource,
    /// What to sync from.
    pub sync_source: SyncSource,
    /// Where to commit, when that is not where to sync from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydrate_to: Option<HydrateTo>,
}

/// What to render.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DrySource {
    /// URL of the Git repository.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// Branch, tag or commit.
    pub target_revision: String,
    /// Directory in the repository.
    pub path: String,
    /// Render as a chart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helm: Option<HelmSource>,
    /// Render with Kustomize.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kustomize: Option<KustomizeSource>,
    /// Read plain manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// Render with a plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginSource>,
}

/// What to sync from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncSource {
    /// URL of the Git repository. Default: the dry source's.
    #[serde(rename = "repoURL", skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// Branch.
    pub target_branch: String,
    /// Directory. Not the root.
    pub path: String,
}

/// Where to commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HydrateTo {
    /// Branch.
    pub target_branch: String,
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

/// What the controller found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationStatus {
    /// Whether the cluster looks like the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// Whether what runs there works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// The objects one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// Past deployments, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RevisionHistory>,
    /// What is wrong or odd.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ApplicationCondition>,
    /// The running operation, or else the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_state: Option<OperationState>,
    /// URLs and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<ApplicationSummary>,
    /// When cluster and source were last compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<Time>,
    /// Not used any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
    /// `Helm`, `Kustomize`, `Directory` or `Plugin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// The same for `sources`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_types: Vec<String>,
    /// Where the health of resources stands: here (empty) or `appTree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_health_source: Option<String>,
    /// Namespace of the controller that wrote this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_namespace: Option<String>,
    /// How hydration stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_hydrator: Option<SourceHydratorStatus>,
}

/// Whether the cluster looks like the source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncStatus {
    /// `Synced`, `OutOfSync` or `Unknown`.
    pub status: String,
    /// What was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<ComparedTo>,
    /// Revision that was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Revisions that were compared, one a source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ComparedTo {
    /// Source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Destination.
    pub destination: Destination,
    /// What did not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_differences: Vec<IgnoreDifferences>,
}

/// How something is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthStatus {
    /// `Healthy`, `Suspended`, `Progressing`, `Missing`, `Degraded` or `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// One object of an application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceStatus {
    /// API group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// API version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `Synced`, `OutOfSync` or `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// It is a hook.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hook: bool,
    /// It is no longer in the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub requires_pruning: bool,
    /// Somebody has to agree to its deletion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub requires_deletion_confirmation: bool,
    /// Wave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_wave: Option<i64>,
}

/// A past deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RevisionHistory {
    /// Rises with every deployment.
    pub id: i64,
    /// Revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Revisions, one a source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// End of the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
    /// Start of the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy_started_at: Option<Time>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiated_by: Option<OperationInitiator>,
}

/// What is wrong or odd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationCondition {
    /// Type; one that ends in `Error` is an error, any other a warning.
    #[serde(rename = "type")]
    pub type_: String,
    /// What.
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// An operation and how it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct OperationState {
    /// What was asked.
    pub operation: Operation,
    /// `Running`, `Terminating`, `Failed`, `Error` or `Succeeded`.
    pub phase: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End, of the last try when another one follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Number of tries after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<i64>,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_result: Option<SyncResult>,
}

/// What came out of a sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SyncResult {
    /// Objects and hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceResult>,
    /// Revision.
    pub revision: String,
    /// Revisions, one a source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Labels and annotations of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_namespace_metadata: Option<ManagedNamespaceMetadata>,
}

/// What came out for one object or hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceResult {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Synced`, `SyncFailed`, `Pruned` or `PruneSkipped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `PreSync`, `Sync`, `PostSync` or `SyncFail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_type: Option<String>,
    /// `Running`, `Terminating`, `Failed`, `Error` or `Succeeded`; of objects, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_phase: Option<String>,
    /// Phase of the sync in which it was handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_phase: Option<String>,
    /// Images of a workload.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// URLs and images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSummary {
    /// Where users reach it.
    #[serde(rename = "externalURLs", skip_serializing_if = "Vec::is_empty")]
    pub external_urls: Vec<String>,
    /// Images that it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// It has Applications among its objects.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_app_of_apps: bool,
}

/// How hydration stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SourceHydratorStatus {
    /// The running hydration, or else the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_operation: Option<HydrateOperation>,
    /// The last one that worked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_operation: Option<SuccessfulHydrateOperation>,
    /// Dry revision that was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_compared_dry_revision: Option<String>,
}

/// A hydration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct HydrateOperation {
    /// What was asked.
    pub source_hydrator: SourceHydrator,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// `Hydrating`, `Hydrated` or `Failed`.
    pub phase: String,
    /// Why.
    pub message: String,
    /// Commit that was rendered.
    #[serde(rename = "drySHA", skip_serializing_if = "Option::is_none")]
    pub dry_sha: Option<String>,
    /// Commit that came out.
    #[serde(rename = "hydratedSHA", skip_serializing_if = "Option::is_none")]
    pub hydrated_sha: Option<String>,
}

/// A hydration that worked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SuccessfulHydrateOperation {
    /// What was asked.
    pub source_hydrator: SourceHydrator,
    /// Commit that was rendered.
    #[serde(rename = "drySHA", skip_serializing_if = "Option::is_none")]
    pub dry_sha: Option<String>,
    /// Commit that came out.
    #[serde(rename = "hydratedSHA", skip_serializing_if = "Option::is_none")]
    pub hydrated_sha: Option<String>,
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

impl SourceHydrator {
    /// The sync source as an application's source: a branch and a directory of plain manifests.
    pub fn source(&self) -> Source {
        Source {
            repo_url: self.sync_source.repo_url.clone().unwrap_or_else(|| self.dry_source.repo_url.clone()),
            target_revision: Some(self.sync_source.target_branch.clone()),
            path: Some(self.sync_source.path.clone()),
            ..Source::default()
        }
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
    use serde_json::json;

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

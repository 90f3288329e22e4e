//! Where an Application's manifests come from, and how they are rendered.

use crate::{IntOrString, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

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

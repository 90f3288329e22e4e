//! ApplicationSet: one template and generators that make Applications of it.

use crate::application::{HealthStatus, ResourceStatus};
use crate::resource::custom_resource;
use crate::{IntOrString, LabelSelector, Time, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

custom_resource! {
    /// A template and generators that make Applications of it.
    ApplicationSet, "applicationsets", kube::core::NamespaceResourceScope, ApplicationSetSpec, ApplicationSetStatus
}

/// What to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetSpec {
    /// Templates are Go templates. Default: `{{name}}` is replaced in texts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub go_template: bool,
    /// Options of Go templates, such as `missingkey=error`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub go_template_options: Vec<String>,
    /// Where the parameters come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generators: Vec<Generator>,
    /// Metadata and specification of the Applications, kept as it was written.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// A patch as a Go template, put over the Applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_patch: Option<String>,
    /// What may be done to the Applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_policy: Option<ApplicationSetSyncPolicy>,
    /// In which order changes go out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ApplicationSetStrategy>,
    /// Metadata of Applications that others own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserved_fields: Option<PreservedFields>,
    /// Fields of Applications that others own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_application_differences: Vec<IgnoreApplicationDifferences>,
    /// Kept, not used: nested selectors always apply.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub apply_nested_selectors: bool,
}

/// A generator. Exactly one kind, and perhaps a selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Generator {
    /// Parameters that are written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ListGenerator>,
    /// The clusters that are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<ClusterGenerator>,
    /// Directories or files of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitGenerator>,
    /// All pairs of two generators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix: Option<MatrixGenerator>,
    /// Parameters of several generators, put together by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeGenerator>,
    /// The repositories of an organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scm_provider: Option<ScmProviderGenerator>,
    /// The open pull requests of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestGenerator>,
    /// Clusters that another controller chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_decision_resource: Option<ClusterDecisionResourceGenerator>,
    /// An HTTP service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginGenerator>,
    /// Keeps only parameters that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Parameters that are written here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ListGenerator {
    /// One map of parameters for each Application.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_values")]
    pub elements: Vec<Value>,
    /// The same as YAML text, which may be a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elements_yaml: Option<String>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
}

/// The clusters that are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterGenerator {
    /// Labels of the cluster's Secret. Without it the local cluster counts, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// One Application with all clusters in `clusters`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub flat_list: bool,
}

/// Directories or files of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GitGenerator {
    /// URL.
    #[serde(rename = "repoURL")]
    pub repo_url: String,
    /// Branch, tag or commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Directories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<GitDirectory>,
    /// Files whose content is parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<GitFile>,
    /// How often to look. Default 180.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<i64>,
    /// Put before the names of the path parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_param_prefix: Option<String>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A glob of directories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GitDirectory {
    /// Glob.
    pub path: String,
    /// Leave these out; wins.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude: bool,
}

/// A glob of files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GitFile {
    /// Glob.
    pub path: String,
    /// Leave these out; wins.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude: bool,
}

/// All pairs of two generators.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MatrixGenerator {
    /// Exactly two; the second may use parameters of the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_objects")]
    pub generators: Vec<Generator>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
}

/// Parameters of several generators, put together by key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MergeGenerator {
    /// Two at least; the first is the base.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_objects")]
    pub generators: Vec<Generator>,
    /// Parameters that have to be equal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merge_keys: Vec<String>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
}

/// The repositories of an organisation. Exactly one provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ScmProviderGenerator {
    /// GitHub.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub github: Option<Value>,
    /// GitLab.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub gitlab: Option<Value>,
    /// Bitbucket Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub bitbucket: Option<Value>,
    /// Bitbucket Server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub bitbucket_server: Option<Value>,
    /// Gitea.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub gitea: Option<Value>,
    /// Azure DevOps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub azure_dev_ops: Option<Value>,
    /// AWS CodeCommit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub aws_code_commit: Option<Value>,
    /// Any of them has to match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<ScmProviderFilter>,
    /// `https` or `ssh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clone_protocol: Option<String>,
    /// How often to look. Default 1800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<i64>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A filter of repositories. All fields have to match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ScmProviderFilter {
    /// Regular expression for the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_match: Option<String>,
    /// Paths that have to be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths_exist: Vec<String>,
    /// Paths that must not be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths_do_not_exist: Vec<String>,
    /// Regular expression for a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_match: Option<String>,
    /// Regular expression for the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_match: Option<String>,
}

/// The open pull requests of a repository. Exactly one provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PullRequestGenerator {
    /// GitHub.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub github: Option<Value>,
    /// GitLab.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub gitlab: Option<Value>,
    /// Gitea.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub gitea: Option<Value>,
    /// Bitbucket Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub bitbucket: Option<Value>,
    /// Bitbucket Server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub bitbucket_server: Option<Value>,
    /// Azure DevOps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub azuredevops: Option<Value>,
    /// Any of them has to match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<PullRequestFilter>,
    /// A repository that is gone has no pull requests.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continue_on_repo_not_found_error: bool,
    /// How often to look. Default 1800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<i64>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// A filter of pull requests. All fields have to match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PullRequestFilter {
    /// Regular expression for the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_match: Option<String>,
    /// Regular expression for the branch that it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_branch_match: Option<String>,
    /// Regular expression for the title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_match: Option<String>,
}

/// Clusters that another controller chose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterDecisionResourceGenerator {
    /// ConfigMap that says where the decision stands.
    pub config_map_ref: String,
    /// Name of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// How often to look. Default 180.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<i64>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// An HTTP service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginGenerator {
    /// ConfigMap that says how to reach it.
    pub config_map_ref: PluginConfigMapRef,
    /// What it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<PluginInput>,
    /// How often to ask. Default 1800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after_seconds: Option<i64>,
    /// Put over the common template.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub template: Value,
    /// Further parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// The name of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginConfigMapRef {
    /// Name.
    pub name: String,
}

/// What a plugin is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PluginInput {
    /// Any parameters.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub parameters: Value,
}

/// What may be done to the Applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetSyncPolicy {
    /// Keep what Applications made when they are deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preserve_resources_on_deletion: bool,
    /// `create-only`, `create-update`, `create-delete` or `sync`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications_sync: Option<String>,
}

/// In which order changes go out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetStrategy {
    /// `AllAtOnce` (default) or `RollingSync`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_sync: Option<RollingSync>,
    /// `AllAtOnce` (default) or `Reverse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_order: Option<String>,
}

/// The steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingSync {
    /// One after another.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<RollingSyncStep>,
}

/// Applications that change together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingSyncStep {
    /// Labels of the Applications.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<MatchExpression>,
    /// How many at a time: a number or a percentage. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub max_update: Option<IntOrString>,
}

/// A condition on a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MatchExpression {
    /// Label.
    pub key: String,
    /// `In` or `NotIn`.
    pub operator: String,
    /// Values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Metadata of Applications that others own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PreservedFields {
    /// Annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// Fields of Applications that others own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct IgnoreApplicationDifferences {
    /// Name of the Application. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Fields as JSON pointers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub json_pointers: Vec<String>,
    /// Fields as jq expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jq_path_expressions: Vec<String>,
}

/// What the controller found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetStatus {
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ApplicationSetCondition>,
    /// Applications in their steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub application_status: Vec<ApplicationSetApplicationStatus>,
    /// Applications. At most 5000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceStatus>,
    /// Number of Applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources_count: Option<i64>,
    /// Health of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Reason in a sentence.
    pub message: String,
    /// When its status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason in one word.
    pub reason: String,
}

/// An Application in its step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ApplicationSetApplicationStatus {
    /// Name.
    pub application: String,
    /// When its status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Why.
    pub message: String,
    /// `Waiting`, `Pending`, `Progressing` or `Healthy`.
    pub status: String,
    /// Number of the step, from 1.
    pub step: String,
    /// Revisions that it shall have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_revisions: Vec<String>,
}

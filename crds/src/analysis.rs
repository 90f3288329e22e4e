//! AnalysisTemplate, ClusterAnalysisTemplate and AnalysisRun: what to measure, and what came out.

use crate::resource::custom_resource;
use crate::{IntOrString, Time, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

custom_resource! {
    /// What to measure, for the Rollouts of one namespace.
    AnalysisTemplate, "analysistemplates", kube::core::NamespaceResourceScope, AnalysisTemplateSpec, NoStatus
}
custom_resource! {
    /// What to measure, for Rollouts everywhere.
    ClusterAnalysisTemplate, "clusteranalysistemplates", kube::core::ClusterResourceScope, AnalysisTemplateSpec, NoStatus
}
custom_resource! {
    /// One run of an analysis and its verdict.
    AnalysisRun, "analysisruns", kube::core::NamespaceResourceScope, AnalysisRunSpec, AnalysisRunStatus
}

/// The status of a kind that has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NoStatus {}

/// What to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AnalysisTemplateSpec {
    /// Metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Arguments, with their defaults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
    /// Metrics that are measured and never count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<DryRun>,
    /// How many measurements to keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurement_retention: Vec<MeasurementRetention>,
    /// Further templates whose metrics belong to this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<crate::rollout::AnalysisTemplateRef>,
}

/// What to measure in one run. Complete: later edits of templates do not reach it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AnalysisRunSpec {
    /// Metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
    /// Ends the run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terminate: bool,
    /// Metrics that are measured and never count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<DryRun>,
    /// How many measurements to keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurement_retention: Vec<MeasurementRetention>,
    /// When to delete the run after its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_strategy: Option<TtlStrategy>,
}

/// When to delete a run after its end. The more specific field wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct TtlStrategy {
    /// Whatever came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_completion: Option<i32>,
    /// After phase Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_failure: Option<i32>,
    /// After phase Successful.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_success: Option<i32>,
}

/// Metrics that are measured and never count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DryRun {
    /// Regular expression for the metric's name.
    pub metric_name: String,
}

/// How many measurements to keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MeasurementRetention {
    /// Regular expression for the metric's name.
    pub metric_name: String,
    /// Number of measurements.
    pub limit: i32,
}

/// An argument of a template or a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Argument {
    /// Name.
    pub name: String,
    /// Value; in a template, the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// Where an argument's value is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ValueFrom {
    /// A Secret in the run's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// A field of the Rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A pod template hash: `Stable` or `Latest`. Only where a Rollout or an Experiment fills in arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template_hash_value: Option<String>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// A field of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct FieldRef {
    /// Path, such as `metadata.labels['app']` or `status.albs[0].loadBalancer.name`.
    pub field_path: String,
}

/// A value that a Rollout gives to a template's argument. The same shape as [`Argument`].
pub type AnalysisRunArgument = Argument;

/// One thing to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Metric {
    /// Unique in the run.
    pub name: String,
    /// Go duration between the end of a measurement and the start of the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Go duration before the first measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<String>,
    /// How many measurements. Without it and without an interval: 1; without it and with an interval: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub count: Option<IntOrString>,
    /// Has to be true for a measurement to be successful.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_condition: Option<String>,
    /// Makes a measurement failed when true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_condition: Option<String>,
    /// How many failures are forgiven. Default 0; -1: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub failure_limit: Option<IntOrString>,
    /// How many inconclusive measurements are forgiven. Default 0; -1: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub inconclusive_limit: Option<IntOrString>,
    /// How many errors in a row are forgiven. Default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub consecutive_error_limit: Option<IntOrString>,
    /// How many successes in a row end the metric as successful. Default 0: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub consecutive_success_limit: Option<IntOrString>,
    /// Where to measure. Exactly one.
    pub provider: MetricProvider,
}

/// Where to measure. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricProvider {
    /// Prometheus and what speaks its API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusMetric>,
    /// A JSON API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<WebMetric>,
    /// A Kubernetes Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobMetric>,
    /// Datadog.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub datadog: Option<Value>,
    /// New Relic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub new_relic: Option<Value>,
    /// Wavefront.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub wavefront: Option<Value>,
    /// Amazon CloudWatch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub cloud_watch: Option<Value>,
    /// Graphite.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub graphite: Option<Value>,
    /// InfluxDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub influxdb: Option<Value>,
    /// Apache SkyWalking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub skywalking: Option<Value>,
    /// Kayenta.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub kayenta: Option<Value>,
    /// A plugin: one entry, name to configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::any_map")]
    pub plugin: BTreeMap<String, Value>,
}

impl MetricProvider {
    /// The names of the providers that are set, as the metrics label `type` spells them.
    pub fn set(&self) -> Vec<&'static str> {
        let all = [
            ("Prometheus", self.prometheus.is_some()),
            ("Web", self.web.is_some()),
            ("Job", self.job.is_some()),
            ("Datadog", self.datadog.is_some()),
            ("NewRelic", self.new_relic.is_some()),
            ("Wavefront", self.wavefront.is_some()),
            ("CloudWatch", self.cloud_watch.is_some()),
            ("Graphite", self.graphite.is_some()),
            ("Influxdb", self.influxdb.is_some()),
            ("skywalking", self.skywalking.is_some()),
            ("Kayenta", self.kayenta.is_some()),
            ("RPCPlugin", !self.plugin.is_empty()),
        ];
        all.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect()
    }
}

/// A query to Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PrometheusMetric {
    /// Base URL. Default: the environment variable `ARGO_ROLLOUTS_PROMETHEUS_ADDRESS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// PromQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Seconds. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Do not verify the server's certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Headers of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<WebHeader>,
    /// How to authenticate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// Ask for a range instead of an instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_query: Option<RangeQuery>,
}

/// A range of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RangeQuery {
    /// Start: an expression such as `now() - duration("5m")`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// End: an expression such as `now()`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Go duration between points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// How to authenticate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Authentication {
    /// AWS Signature Version 4, for Amazon Managed Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigv4: Option<Sigv4>,
    /// OAuth 2 client credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<Oauth2>,
    /// Name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
}

/// AWS Signature Version 4.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Sigv4 {
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
}

/// OAuth 2 client credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Oauth2 {
    /// Token endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Client secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Name and password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct BasicAuth {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A header of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WebHeader {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
}

/// A request to a JSON API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WebMetric {
    /// `GET` (default), `POST` or `PUT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// URL.
    pub url: String,
    /// Headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<WebHeader>,
    /// Body as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Body as JSON; then `body` is not set.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_value")]
    pub json_body: Value,
    /// Seconds. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Kubernetes JSONPath of the value. Default `{$}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_path: Option<String>,
    /// Do not verify the server's certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// How to authenticate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// A Job whose success is the measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct JobMetric {
    /// Labels and annotations of the Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub metadata: Option<Value>,
    /// `batch/v1` JobSpec, kept as it was written.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::any_object")]
    pub spec: Value,
}

/// How a measurement, a metric or a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AnalysisPhase {
    /// Not started.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Nothing measured yet.
    Pending,
    /// Going on.
    Running,
    /// Good.
    Successful,
    /// Bad.
    Failed,
    /// Could not be measured.
    Error,
    /// Neither good nor bad.
    Inconclusive,
}

impl AnalysisPhase {
    /// The phase will not change any more.
    pub fn completed(self) -> bool {
        matches!(self, Self::Successful | Self::Failed | Self::Error | Self::Inconclusive)
    }

    /// The text in the API; empty for [`Self::Unset`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Error => "Error",
            Self::Inconclusive => "Inconclusive",
        }
    }
}

/// What came out of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AnalysisRunStatus {
    /// Phase.
    #[serde(skip_serializing_if = "AnalysisPhase::is_unset")]
    pub phase: AnalysisPhase,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Results by metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metric_results: Vec<MetricResult>,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Metrics by outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_summary: Option<RunSummary>,
    /// Dry-run metrics by outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run_summary: Option<RunSummary>,
}

impl AnalysisPhase {
    fn is_unset(&self) -> bool {
        *self == Self::Unset
    }
}

/// Metrics by outcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct RunSummary {
    /// All.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i32,
    /// Good.
    #[serde(skip_serializing_if = "is_zero")]
    pub successful: i32,
    /// Bad.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: i32,
    /// Neither.
    #[serde(skip_serializing_if = "is_zero")]
    pub inconclusive: i32,
    /// Not measured.
    #[serde(skip_serializing_if = "is_zero")]
    pub error: i32,
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// What came out of one metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricResult {
    /// Metric.
    pub name: String,
    /// Phase.
    pub phase: AnalysisPhase,
    /// The last measurements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Measurements without error.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i32,
    /// Good ones.
    #[serde(skip_serializing_if = "is_zero")]
    pub successful: i32,
    /// Bad ones.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: i32,
    /// Neither.
    #[serde(skip_serializing_if = "is_zero")]
    pub inconclusive: i32,
    /// Errors.
    #[serde(skip_serializing_if = "is_zero")]
    pub error: i32,
    /// Errors in a row.
    #[serde(skip_serializing_if = "is_zero")]
    pub consecutive_error: i32,
    /// Successes in a row.
    #[serde(skip_serializing_if = "is_zero")]
    pub consecutive_success: i32,
    /// The metric does not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What the provider tells about the metric, such as the query.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Measurement {
    /// Phase.
    pub phase: AnalysisPhase,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Value, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What the provider tells about the measurement, such as the Job's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// When to look again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_at: Option<Time>,
}

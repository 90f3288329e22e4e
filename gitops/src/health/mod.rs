//! How an object is, and how an application is as a whole.
//!
//! A kind's rule is one function from the live object to its health, and one line in [`RULES`]. Kinds without a rule have
//! no health; they count for nothing.

mod apis;
mod argo;
mod autoscaling;
mod batch;
mod gateway;
mod network;
mod pods;
mod policy;
mod ready;
mod storage;
mod workloads;

use crate::object::{self, Key};
use serde_json::Value;
use std::fmt;

/// Annotation that takes an object out of its application's health.
pub const IGNORE_HEALTHCHECK: &str = "argocd.argoproj.io/ignore-healthcheck";

/// From best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// As it should be.
    Healthy,
    /// Waiting for somebody.
    Suspended,
    /// Not yet as it should be.
    Progressing,
    /// Not in the cluster.
    Missing,
    /// Failed.
    Degraded,
    /// Cannot be told.
    Unknown,
}

impl Status {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Suspended => "Suspended",
            Self::Progressing => "Progressing",
            Self::Missing => "Missing",
            Self::Degraded => "Degraded",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The health of an object or an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub status: Status,
    /// Why. May be empty.
    pub message: String,
}

impl Health {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    fn healthy(message: impl Into<String>) -> Self {
        Self::new(Status::Healthy, message)
    }
    fn progressing(message: impl Into<String>) -> Self {
        Self::new(Status::Progressing, message)
    }
    fn degraded(message: impl Into<String>) -> Self {
        Self::new(Status::Degraded, message)
    }
    fn suspended(message: impl Into<String>) -> Self {
        Self::new(Status::Suspended, message)
    }
    fn unknown(message: impl Into<String>) -> Self {
        Self::new(Status::Unknown, message)
    }
}

/// A kind's rule.
struct Rule {
    group: &'static str,
    kind: &'static str,
    /// The versions that the rule can read; empty for all.
    versions: &'static [&'static str],
    check: fn(&Value) -> Health,
}

const fn rule(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    check: fn(&Value) -> Health,
) -> Rule {
    Rule { group, kind, versions, check }
}

/// Every rule. A new kind gets a function in the file of its group and a line here.
const RULES: &[Rule] = &[
    rule("apps", "Deployment", &["v1"], workloads::deployment),
    rule("apps", "StatefulSet", &["v1"], workloads::stateful_set),
    rule("apps", "DaemonSet", &["v1"], workloads::daemon_set),
    rule("apps", "ReplicaSet", &["v1"], workloads::replica_set),
    rule("batch", "Job", &["v1"], batch::job),
    rule("batch", "CronJob", &[], batch::cron_job),
    rule("", "Pod", &["v1"], pods::pod),
    rule("", "Service", &["v1"], network::service),
    rule("networking.k8s.io", "Ingress", &[], network::ingress),
    rule("extensions", "Ingress", &[], network::ingress),
    rule("", "PersistentVolumeClaim", &["v1"], storage::claim),
    rule("autoscaling", "HorizontalPodAutoscaler", &["v1", "v2", "v2beta1", "v2beta2"], autoscaling::autoscaler),
    rule("apiregistration.k8s.io", "APIService", &["v1", "v1beta1"], apis::api_service),
    rule("apiextensions.k8s.io", "CustomResourceDefinition", &[], apis::definition),
    rule("policy", "PodDisruptionBudget", &[], policy::disruption_budget),
    rule("argoproj.io", "Rollout", &[], argo::rollout),
    rule("argoproj.io", "AnalysisRun", &[], argo::analysis_run),
    rule("argoproj.io", "Experiment", &[], argo::experiment),
    rule("argoproj.io", "ApplicationSet", &[], argo::application_set),
    rule("argoproj.io", "Workflow", &[], argo::workflow),
    rule("gateway.networking.k8s.io", "Gateway", &[], gateway::gateway),
    rule("gateway.networking.k8s.io", "GatewayClass", &[], gateway::class),
    rule("gateway.networking.k8s.io", "HTTPRoute", &[], gateway::route),
    rule("gateway.networking.k8s.io", "GRPCRoute", &[], gateway::route),
    rule("cert-manager.io", "Certificate", &[], ready::certificate),
    rule("cert-manager.io", "Issuer", &[], ready::ready),
    rule("cert-manager.io", "ClusterIssuer", &[], ready::ready),
    rule("external-secrets.io", "ExternalSecret", &[], ready::ready),
    rule("external-secrets.io", "SecretStore", &[], ready::ready),
    rule("external-secrets.io", "ClusterSecretStore", &[], ready::ready),
    rule("external-secrets.io", "PushSecret", &[], ready::ready),
    rule("bitnami.com", "SealedSecret", &[], ready::sealed_secret),
];

/// The health of a live object, `None` for kinds without a rule.
pub fn of(live: &Value) -> Option<Health> {
    let only_hook_finalizer =
        object::list(live, "/metadata/finalizers").iter().all(|f| f == crate::sync::HOOK_FINALIZER)
            && !object::list(live, "/metadata/finalizers").is_empty();
    if object::is_deleting(live) && !only_hook_finalizer {
        return Some(Health::progressing("Pending deletion"));
    }
    let (group, kind, version) = (object::group(live), object::kind(live), object::version(live));
    let rule = RULES.iter().find(|rule| rule.group == group && rule.kind == kind)?;
    if !rule.versions.is_empty() && !rule.versions.contains(&version) {
        let api_version = object::api_version(live);
        return Some(Health::unknown(format!("unsupported {kind} GVK: {api_version}, Kind={kind}")));
    }
    Some((rule.check)(live))
}

/// One resource of an application, as its health sees it.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Which object.
    pub key: &'a Key,
    /// The live object.
    pub live: Option<&'a Value>,
    /// What Git says, if anything.
    pub target: Option<&'a Value>,
    /// Its health, as [`of`] or a custom rule says; `None` for kinds without a rule.
    pub health: Option<Health>,
}

impl Part<'_> {
    fn counts(&self, app: &Key) -> bool {
        let object = self.live.or(self.target);
        let ignored = object.is_some_and(|o| {
            object::annotation(o, IGNORE_HEALTHCHECK) == Some("true") || crate::sync::hook::is_hook_or_skipped(o)
        });
        !ignored && self.key != app
    }
}

/// The health of an application whose own key is `app`: the worst of its parts, and who is to blame.
pub fn aggregate<'a>(app: &Key, parts: impl IntoIterator<Item = Part<'a>>) -> Health {
    let mut worst = Status::Healthy;
    let mut blamed: Vec<String> = Vec::new();
    let (mut counted, mut missing) = (0usize, 0usize);
    for part in parts.into_iter().filter(|part| part.counts(app)) {
        counted += 1;
        if part.live.is_none() {
            missing += 1;
            continue;
        }
        let Some(health) = part.health else { continue };
        let is_child = part.key.group == "argoproj.io" && part.key.kind == "Application";
        if is_child && matches!(health.status, Status::Missing | Status::Unknown) {
            continue;
        }
        if health.status > worst {
            worst = health.status;
            blamed.clear();
        }
        if health.status == worst && worst != Status::Healthy {
            blamed.push(named(part.key));
        }
    }
    if counted > 0 && counted == missing {
        return Health::new(Status::Missing, "");
    }
    Health::new(worst, caused_by(&blamed))
}

/// `[group/]Kind:[namespace/]name`
fn named(key: &Key) -> String {
    let Key { group, kind, namespace, name } = key;
    let kind = if group.is_empty() { kind.clone() } else { format!("{group}/{kind}") };
    if namespace.is_empty() { format!("{kind}:{name}") } else { format!("{kind}:{namespace}/{name}") }
}

/// How many are named before the rest is only counted.
const NAMED: usize = 3;

fn caused_by(blamed: &[String]) -> String {
    if blamed.is_empty() {
        return String::new();
    }
    let shown = blamed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match blamed.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("Caused by {shown} and {more} more"),
        _ => format!("Caused by {shown}"),
    }
}

/// The first condition of a type.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object::list(object, "/status/conditions").iter().find(|c| object::text(c, "/type") == kind)
}

/// Whether a condition is True.
fn is_true(condition: &Value) -> bool {
    object::text(condition, "/status") == "True"
}

/// The message of a condition.
fn message(condition: &Value) -> &str {
    object::text(condition, "/message")
}

/// The integer at a pointer, 0 without one.
fn count(object: &Value, pointer: &str) -> i64 {
    object::integer(object, pointer).unwrap_or(0)
}

#[cfg(test)]
mod tests;

//! The Kubernetes API as the controllers write to it: JSON in, JSON out.
//!
//! One small trait stands between every `act` and the cluster, so that the same code runs against a real API server and
//! against the simulated one that injects faults. Reads for decisions come from [`crate::cache`].

use crate::lean::Lean;
use futures::future::BoxFuture;
use k8s_openapi::jiff;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// A kind of object and where it is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// Group; empty for core.
    pub group: Cow<'static, str>,
    /// Version.
    pub version: Cow<'static, str>,
    /// Kind.
    pub kind: Cow<'static, str>,
    /// Plural, as it stands in URLs.
    pub plural: Cow<'static, str>,
    /// Lives in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// A kind that is known when the program is built.
    pub const fn fixed(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// A kind that is named by an object or a configuration.
    pub fn named(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(version.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
            plural: Cow::Owned(plural.to_owned()),
            namespaced,
        }
    }

    /// `group/version`, or `version` for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The URL path of a collection (empty `name`) or an object.
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [self.plural.as_ref(), name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

/// The kinds that the controllers name themselves.
pub mod resources {
    use super::Resource;
    const ARGO: &str = "argoproj.io";
    const ALPHA: &str = "v1alpha1";
    /// Rollout.
    pub const ROLLOUT: Resource = Resource::fixed(ARGO, ALPHA, "Rollout", "rollouts", true);
    /// AnalysisRun.
    pub const ANALYSIS_RUN: Resource = Resource::fixed(ARGO, ALPHA, "AnalysisRun", "analysisruns", true);
    /// AnalysisTemplate.
    pub const ANALYSIS_TEMPLATE: Resource = Resource::fixed(ARGO, ALPHA, "AnalysisTemplate", "analysistemplates", true);
    /// ClusterAnalysisTemplate.
    pub const CLUSTER_ANALYSIS_TEMPLATE: Resource =
        Resource::fixed(ARGO, ALPHA, "ClusterAnalysisTemplate", "clusteranalysistemplates", false);
    /// Experiment.
    pub const EXPERIMENT: Resource = Resource::fixed(ARGO, ALPHA, "Experiment", "experiments", true);
    /// Application.
    pub const APPLICATION: Resource = Resource::fixed(ARGO, ALPHA, "Application", "applications", true);
    /// AppProject.
    pub const APP_PROJECT: Resource = Resource::fixed(ARGO, ALPHA, "AppProject", "appprojects", true);
    /// ApplicationSet.
    pub const APPLICATION_SET: Resource = Resource::fixed(ARGO, ALPHA, "ApplicationSet", "applicationsets", true);
    /// ReplicaSet.
    pub const REPLICA_SET: Resource = Resource::fixed("apps", "v1", "ReplicaSet", "replicasets", true);
    /// Deployment.
    pub const DEPLOYMENT: Resource = Resource::fixed("apps", "v1", "Deployment", "deployments", true);
    /// Job.
    pub const JOB: Resource = Resource::fixed("batch", "v1", "Job", "jobs", true);
    /// Service.
    pub const SERVICE: Resource = Resource::fixed("", "v1", "Service", "services", true);
    /// EndpointSlice.
    pub const ENDPOINT_SLICE: Resource =
        Resource::fixed("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
    /// Pod.
    pub const POD: Resource = Resource::fixed("", "v1", "Pod", "pods", true);
    /// PodTemplate.
    pub const POD_TEMPLATE: Resource = Resource::fixed("", "v1", "PodTemplate", "podtemplates", true);
    /// Namespace.
    pub const NAMESPACE: Resource = Resource::fixed("", "v1", "Namespace", "namespaces", false);
    /// Secret.
    pub const SECRET: Resource = Resource::fixed("", "v1", "Secret", "secrets", true);
    /// ConfigMap.
    pub const CONFIG_MAP: Resource = Resource::fixed("", "v1", "ConfigMap", "configmaps", true);
    /// Event.
    pub const EVENT: Resource = Resource::fixed("", "v1", "Event", "events", true);
    /// Ingress.
    pub const INGRESS: Resource = Resource::fixed("networking.k8s.io", "v1", "Ingress", "ingresses", true);
    /// Lease.
    pub const LEASE: Resource = Resource::fixed("coordination.k8s.io", "v1", "Lease", "leases", true);
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such object.
    #[error("{0}")]
    NotFound(String),
    /// The object changed in between.
    #[error("{0}")]
    Conflict(String),
    /// There is such an object already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The API server does not accept the object.
    #[error("{0}")]
    Invalid(String),
    /// The controller lacks the right.
    #[error("{0}")]
    Forbidden(String),
    /// Too many requests, or an eviction that a PodDisruptionBudget forbids.
    #[error("{message}")]
    TooManyRequests {
        /// What the server says.
        message: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// No answer in time. The write may have taken effect.
    #[error("no answer from the API server within {0:?}")]
    Timeout(Duration),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ApiError {
    /// The HTTP status for the metrics, 0 when there was none.
    pub fn code(&self) -> u16 {
        match self {
            Self::NotFound(_) => 404,
            Self::Conflict(_) | Self::AlreadyExists(_) => 409,
            Self::Invalid(_) => 422,
            Self::Forbidden(_) => 403,
            Self::TooManyRequests { .. } => 429,
            Self::Timeout(_) | Self::Other(_) => 0,
        }
    }
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge; built-in kinds only.
    Strategic,
    /// RFC 6902.
    Json,
    /// Server-side apply under this manager; `force` takes fields from other managers.
    Apply {
        /// Field manager.
        manager: &'static str,
        /// Take fields from other managers.
        force: bool,
    },
}

/// What happens to dependents on deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector removes them afterwards.
    Background,
    /// The object goes when they are gone.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// A call's answer.
pub type ApiResult<T> = Result<T, ApiError>;

/// The calls that controllers make. `namespace` is empty for cluster-scoped kinds and for all namespaces in a list.
pub trait Api: Send + Sync {
    /// Reads one object.
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>>;
    /// Reads the objects that a label selector (`a=b,c`; empty for all) selects.
    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, ApiResult<Vec<Value>>>;
    /// Creates an object.
    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        dry_run: bool,
    ) -> BoxFuture<'a, ApiResult<Value>>;
    /// Changes an object; `subresource` is empty or `status` and the like.
    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>>;
    /// Replaces an object; its `metadata.resourceVersion`, when set, is the precondition.
    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>>;
    /// Deletes an object. `uid`, when not empty, is the precondition. An object that is gone already is no error.
    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        propagation: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>>;
    /// Asks for the eviction of a pod, which a PodDisruptionBudget may refuse.
    fn evict<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, ApiResult<()>>;
}

/// What to patch, and how.
#[derive(Clone, Copy, Debug)]
pub struct PatchCall<'a> {
    /// Kind.
    pub resource: &'a Resource,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Empty, `status`, `scale`, …
    pub subresource: &'a str,
    /// How the body is meant.
    pub kind: PatchKind,
    /// The patch.
    pub body: &'a Value,
    /// Ask only what would come out.
    pub dry_run: bool,
}

/// How long a call may take before it counts as lost.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Hears of every call: its kind, verb and HTTP status.
type CallObserver = std::sync::Arc<dyn Fn(&Resource, &'static str, u16) + Send + Sync>;

/// Kinds that lie in another cluster.
pub struct Elsewhere {
    /// Their API group.
    pub group: &'static str,
    /// The cluster, or why it cannot be used.
    pub client: Result<kube::Client, String>,
}

/// The API of a real cluster, and of the one that has some kinds in its place.
#[derive(Clone)]
pub struct KubeApi {
    client: kube::Client,
    elsewhere: Option<std::sync::Arc<Elsewhere>>,
    observer: CallObserver,
}

impl KubeApi {
    /// Calls through `client`; `observer` hears of every call's kind, verb and HTTP status.
    pub fn new(client: kube::Client, observer: impl Fn(&Resource, &'static str, u16) + Send + Sync + 'static) -> Self {
        Self { client, elsewhere: None, observer: std::sync::Arc::new(observer) }
    }

    /// The same, with some kinds in another cluster.
    pub fn with(&self, elsewhere: Elsewhere) -> Self {
        Self { elsewhere: Some(std::sync::Arc::new(elsewhere)), ..self.clone() }
    }

    /// The client of the cluster that has this kind, for calls and watches.
    ///
    /// # Errors
    /// When the kind lies in another cluster that cannot be used.
    pub fn client(&self, resource: &Resource) -> ApiResult<&kube::Client> {
        match &self.elsewhere {
            Some(elsewhere) if resource.group == elsewhere.group => {
                elsewhere.client.as_ref().map_err(|why| ApiError::Other(why.clone()))
            }
            _ => Ok(&self.client),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        verb: &'static str,
        request: Result<http::Request<Vec<u8>>, http::Error>,
    ) -> ApiResult<T> {
        let request = request.map_err(|error| ApiError::Other(format!("invalid request: {error}")))?;
        let client = self.client(resource)?;
        let answer = tokio::time::timeout(CALL_TIMEOUT, client.request::<T>(request)).await;
        let result = match answer {
            Err(_) => Err(ApiError::Timeout(CALL_TIMEOUT)),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(from_kube(error)),
        };
        (self.observer)(
            resource,
            verb,
            result.as_ref().map_or_else(ApiError::code, |_| if verb == "create" { 201 } else { 200 }),
        );
        result
    }
}

fn from_kube(error: kube::Error) -> ApiError {
    let kube::Error::Api(status) = error else { return ApiError::Other(error_chain(&error)) };
    let message = status.message.clone();
    match (status.code, status.reason.as_str()) {
        (404, _) => ApiError::NotFound(message),
        (409, "AlreadyExists") => ApiError::AlreadyExists(message),
        (409, _) => ApiError::Conflict(message),
        (400 | 413 | 422, _) => ApiError::Invalid(message),
        (401 | 403, _) => ApiError::Forbidden(message),
        (429, _) => ApiError::TooManyRequests {
            message,
            retry_after: status
                .details
                .map(|d| d.retry_after_seconds)
                .filter(|s| *s > 0)
                .map(|s| Duration::from_secs(s.into())),
        },
        (code, reason) => ApiError::Other(format!("the API server answered {code} {reason}: {message}")),
    }
}

/// An error with its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn request(method: &str, uri: String) -> http::request::Builder {
    http::Request::builder().method(method).uri(uri).header("Accept", "application/json")
}

/// Percent-encodes a query value.
fn query(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

impl Api for KubeApi {
    fn get<'a>(&'a self, resource: &'a Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            self.call(resource, "get", request("GET", resource.path(namespace, name, "")).body(Vec::new())).await
        })
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, ApiResult<Vec<Value>>> {
        Box::pin(async move {
            let mut items = Vec::new();
            let mut token = String::new();
            loop {
                let mut uri = format!("{}?limit=500", resource.path(namespace, "", ""));
                for (key, value) in [("labelSelector", selector), ("continue", token.as_str())] {
                    if !value.is_empty() {
                        uri = format!("{uri}&{key}={}", query(value));
                    }
                }
                let mut page: Value = self.call(resource, "list", request("GET", uri).body(Vec::new())).await?;
                let next = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().to_owned();
                if let Some(Value::Array(list)) = page.get_mut("items").map(Value::take) {
                    items.extend(list.into_iter().map(|mut item| {
                        item["apiVersion"] = resource.api_version().into();
                        item["kind"] = resource.kind.as_ref().into();
                        item
                    }));
                }
                if next.is_empty() {
                    return Ok(items);
                }
                token = next;
            }
        })
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        object: &'a Value,
        dry_run: bool,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            let mut uri = resource.path(namespace, "", "");
            if dry_run {
                uri.push_str("?dryRun=All");
            }
            let body = object.to_string().into_bytes();
            self.call(resource, "create", request("POST", uri).header("Content-Type", "application/json").body(body))
                .await
        })
    }

    fn patch<'a>(&'a self, call: PatchCall<'a>) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            let mut uri = call.resource.path(call.namespace, call.name, call.subresource);
            let mut parameters = Vec::new();
            let content = match call.kind {
                PatchKind::Merge => "application/merge-patch+json",
                PatchKind::Strategic => "application/strategic-merge-patch+json",
                PatchKind::Json => "application/json-patch+json",
                PatchKind::Apply { manager, force } => {
                    parameters.push(format!("fieldManager={manager}"));
                    parameters.push(format!("force={force}"));
                    "application/apply-patch+yaml"
                }
            };
            if call.dry_run {
                parameters.push("dryRun=All".to_owned());
            }
            if !parameters.is_empty() {
                uri = format!("{uri}?{}", parameters.join("&"));
            }
            let body = call.body.to_string().into_bytes();
            let request = request("PATCH", uri).header("Content-Type", content).body(body);
            if call.kind == PatchKind::Merge {
                // Who owns which field matters to server-side apply only.
                return self.call::<Lean>(call.resource, "patch", request).await.map(|lean| lean.0);
            }
            self.call(call.resource, "patch", request).await
        })
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, ApiResult<Value>> {
        Box::pin(async move {
            let uri = resource.path(namespace, name, "");
            let body = object.to_string().into_bytes();
            self.call(resource, "update", request("PUT", uri).header("Content-Type", "application/json").body(body))
                .await
        })
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
        propagation: Propagation,
    ) -> BoxFuture<'a, ApiResult<()>> {
        Box::pin(async move {
            let mut options = serde_json::json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation.as_str(),
            });
            if !uid.is_empty() {
                options["preconditions"] = serde_json::json!({"uid": uid});
            }
            let uri = resource.path(namespace, name, "");
            let body = options.to_string().into_bytes();
            let request = request("DELETE", uri).header("Content-Type", "application/json").body(body);
            match self.call::<Value>(resource, "delete", request).await {
                Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
                // Another object of that name: the one that was meant is gone.
                Err(ApiError::Conflict(_)) if !uid.is_empty() => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn evict<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, ApiResult<()>> {
        Box::pin(async move {
            let body = serde_json::json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace},
            });
            let uri = resources::POD.path(namespace, pod, "eviction");
            let request =
                request("POST", uri).header("Content-Type", "application/json").body(body.to_string().into_bytes());
            match self.call::<Value>(&resources::POD, "create", request).await {
                Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// The time now, as objects carry it: whole seconds.
pub fn whole_seconds(now: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

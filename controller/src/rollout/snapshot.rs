//! Everything that a decision about one Rollout looks at, as a plain value.

use super::alb::Answer;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_analysis::template::Templates;
use tidegate_crds::analysis::{AnalysisRun, AnalysisTemplateSpec};
use tidegate_crds::decode::Dropped;
use tidegate_crds::experiment::Experiment;
use tidegate_crds::keys;
use tidegate_crds::rollout::Rollout;
use tidegate_traffic::{Objects, RouterOptions};

/// Everything that a decision about one Rollout looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Rollout. With `workloadRef`, its template and selector are those of the workload.
    pub rollout: Rollout,
    /// Fields of the Rollout that could not be read.
    pub dropped: Vec<Dropped>,
    /// The workload that `workloadRef` names; `None` without a reference or when it does not exist.
    pub workload: Option<Workload>,
    /// ReplicaSets that the Rollout owns, or that its selector selects and nobody owns.
    pub replica_sets: Vec<ReplicaSet>,
    /// The Services that the Rollout names, as far as they exist.
    pub services: BTreeMap<String, Service>,
    /// Who is ready behind these Services, as far as EndpointSlices tell.
    pub endpoints: BTreeMap<String, Endpoints>,
    /// What AWS says of load balancers; `None` when nobody asks.
    pub aws: Option<Answer>,
    /// AnalysisRuns that the Rollout owns.
    pub analysis_runs: Vec<AnalysisRun>,
    /// Experiments that the Rollout owns.
    pub experiments: Vec<Experiment>,
    /// The analysis templates that the Rollout names, and those that these name.
    pub templates: TemplateSet,
    /// What the traffic routers asked to see.
    pub routing: Objects,
    /// API versions for the routers.
    pub router_options: RouterOptions,
    /// Pods of the ReplicaSets; only when a restart is asked for.
    pub pods: Vec<Pod>,
    /// The controller's instance id; put onto what the Rollout creates.
    pub instance_id: String,
}

/// Analysis templates by name and scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateSet(pub BTreeMap<(String, bool), AnalysisTemplateSpec>);

impl Templates for TemplateSet {
    fn template(&self, name: &str, cluster_scope: bool) -> Option<&AnalysisTemplateSpec> {
        self.0.get(&(name.to_owned(), cluster_scope))
    }
}

/// The workload that `workloadRef` names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.replicas`; `None` for a PodTemplate.
    pub replicas: Option<i32>,
    /// Kind.
    pub kind: String,
    /// The Rollout brings a template of its own as well, which is one too many.
    pub template_twice: bool,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSet {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version that was looked at.
    pub resource_version: String,
    /// Creation time.
    pub created: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// Uid of the controlling owner.
    pub owner: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.template`.
    pub template: Value,
    /// `status.replicas`: pods that exist.
    pub current: i32,
    /// `status.readyReplicas`.
    pub ready: i32,
    /// Why pods cannot be created, as the ReplicaSet controller says: reason and message.
    pub failure: Option<(String, String)>,
    /// `status.availableReplicas`, 0 as long as the ReplicaSet controller has not seen the newest spec with fewer pods.
    pub available: i32,
}

impl ReplicaSet {
    /// Reads a ReplicaSet; missing fields are as the API server would default them.
    pub fn from_value(value: &Value) -> Option<Self> {
        let metadata = value.get("metadata")?;
        let int = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0) as i32;
        let owners = metadata.get("ownerReferences").and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|o| o.get("controller") == Some(&Value::Bool(true)));
        let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
        let failure = conditions.into_iter().flatten().find(|c| {
            c.get("type").and_then(Value::as_str) == Some("ReplicaFailure")
                && c.get("status").and_then(Value::as_str) == Some("True")
        });
        Some(Self {
            failure: failure.map(|c| (text(c, "reason"), text(c, "message"))),
            name: text(metadata, "name"),
            uid: text(metadata, "uid"),
            resource_version: text(metadata, "resourceVersion"),
            created: text(metadata, "creationTimestamp").parse().unwrap_or_default(),
            deleting: metadata.get("deletionTimestamp").is_some_and(|d| !d.is_null()),
            owner: controller.map(|o| text(o, "uid")),
            labels: text_map(metadata.get("labels")),
            annotations: text_map(metadata.get("annotations")),
            replicas: value.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1) as i32,
            min_ready_seconds: int("/spec/minReadySeconds"),
            template: value.pointer("/spec/template").cloned().unwrap_or_default(),
            current: int("/status/replicas"),
            ready: int("/status/readyReplicas"),
            available: int("/status/availableReplicas"),
        })
    }

    /// Hash of the pod template.
    pub fn hash(&self) -> &str {
        self.labels.get(keys::POD_TEMPLATE_HASH).map_or("", String::as_str)
    }

    /// Available pods that stay: those beyond the wanted number are on their way out.
    pub fn serving(&self) -> i32 {
        self.available.min(self.replicas)
    }

    /// Revision; 0 when there is none.
    pub fn revision(&self) -> i64 {
        self.annotations.get(keys::REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
    }

    /// When it may be scaled down.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.annotations.get(keys::SCALE_DOWN_DEADLINE).and_then(|d| d.parse().ok())
    }

    /// It belongs to an Experiment.
    pub fn of_experiment(&self) -> bool {
        self.annotations.contains_key(keys::EXPERIMENT_NAME)
    }

    /// `spec.replicas` of the Rollout when it was last scaled.
    pub fn desired_replicas(&self) -> Option<i32> {
        self.annotations.get(keys::DESIRED_REPLICAS).and_then(|d| d.parse().ok())
    }
}

/// A Service, as far as Rollouts care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
    /// The Rollout that manages it.
    pub managed_by: Option<String>,
    /// Ports, each with the number or name of the pods' port behind it.
    pub ports: Vec<(i32, IntOrString)>,
}

impl Service {
    /// Reads a Service.
    pub fn from_value(value: &Value) -> Self {
        let annotations = text_map(value.pointer("/metadata/annotations"));
        let ports = value.pointer("/spec/ports").and_then(Value::as_array);
        Self {
            selector: text_map(value.pointer("/spec/selector")),
            managed_by: annotations.get(keys::MANAGED_BY).cloned(),
            ports: ports.into_iter().flatten().filter_map(Self::port).collect(),
        }
    }

    fn port(port: &Value) -> Option<(i32, IntOrString)> {
        let number = i32::try_from(port.get("port")?.as_i64()?).ok()?;
        let target = port.get("targetPort").and_then(|target| serde_json::from_value(target.clone()).ok());
        Some((number, target.unwrap_or(IntOrString::Int(number))))
    }

    /// Hash that the selector asks for; empty when it asks for none.
    pub fn hash(&self) -> &str {
        self.selector.get(keys::POD_TEMPLATE_HASH).map_or("", String::as_str)
    }
}

/// Who is ready behind a Service, as its EndpointSlices tell every data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Names of the ready pods.
    pub pods: BTreeSet<String>,
}

/// The API server cuts the base of a generated name to this length before it adds five letters.
const GENERATED_NAME_BASE: usize = 58;
/// How many letters it adds.
const GENERATED_NAME_SUFFIX: usize = 5;

impl Endpoints {
    /// Reads all slices of one Service.
    pub fn from_slices(slices: &[Value]) -> Self {
        let endpoints = slices.iter().filter_map(|slice| slice.get("endpoints")?.as_array()).flatten();
        let pods = endpoints
            .filter(|e| Self::is_ready(e))
            .filter_map(|e| e.get("targetRef"))
            .filter(|t| text(t, "kind") == "Pod");
        Self { pods: pods.map(|pod| text(pod, "name")).collect() }
    }

    /// The addresses of each ready endpoint, with the ports of its slice.
    pub(crate) fn addresses(slices: &[Value]) -> Vec<Vec<(String, u16)>> {
        let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for slice in slices {
            let ports = list(slice, "ports");
            let ports: Vec<u16> = ports.iter().filter_map(|p| p.get("port")?.as_u64()?.try_into().ok()).collect();
            for endpoint in list(slice, "endpoints").iter().filter(|e| Self::is_ready(e)) {
                let addresses = list(endpoint, "addresses");
                let addresses = addresses.iter().filter_map(Value::as_str);
                found.push(addresses.flat_map(|a| ports.iter().map(|port| (a.to_owned(), *port))).collect());
            }
        }
        found
    }

    /// Without the condition an endpoint counts as ready.
    fn is_ready(endpoint: &Value) -> bool {
        endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false))
    }

    /// A pod of the ReplicaSet is among them.
    pub fn reach(&self, replica_set: &str) -> bool {
        let mut base = format!("{replica_set}-");
        base.truncate(base.floor_char_boundary(GENERATED_NAME_BASE));
        let length = base.len() + GENERATED_NAME_SUFFIX;
        self.pods.iter().any(|pod| pod.len() == length && pod.starts_with(&base))
    }
}

/// A pod, as far as a restart cares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Hash of its template.
    pub hash: String,
    /// Creation time.
    pub created: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// Since when it has been ready; `None` when it is not.
    pub ready_since: Option<Timestamp>,
}

impl Pod {
    /// It has been ready for this many seconds, and stays.
    pub fn available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        let seconds = i64::from(min_ready_seconds.max(0));
        // The time is given in whole seconds: the second in which it ends is not over yet.
        let long_enough = |since: Timestamp| seconds == 0 || since.as_second() + seconds < now.as_second();
        !self.deleting && self.ready_since.is_some_and(long_enough)
    }

    /// Reads a pod.
    pub fn from_value(value: &Value) -> Option<Self> {
        let metadata = value.get("metadata")?;
        let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|c| {
            c.get("type").and_then(Value::as_str) == Some("Ready")
                && c.get("status").and_then(Value::as_str) == Some("True")
        });
        Some(Self {
            ready_since: ready.map(|c| text(c, "lastTransitionTime").parse().unwrap_or_default()),
            name: text(metadata, "name"),
            hash: metadata
                .get("labels")
                .and_then(|l| l.get(keys::POD_TEMPLATE_HASH))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            created: text(metadata, "creationTimestamp").parse().unwrap_or_default(),
            deleting: metadata.get("deletionTimestamp").is_some_and(|d| !d.is_null()),
        })
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A map of texts; what is no text is left out.
pub(crate) fn text_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The Services that a Rollout names.
pub fn service_names(rollout: &Rollout) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let strategy = &rollout.spec.strategy;
    if let Some(canary) = &strategy.canary {
        names.extend(canary.canary_service.clone());
        names.extend(canary.stable_service.clone());
        if let Some(pair) = &canary.ping_pong {
            names.extend([pair.ping_service.clone(), pair.pong_service.clone()]);
        }
        if let Some(routing) = &canary.traffic_routing {
            names.extend(routing.alb.as_ref().and_then(|a| a.root_service.clone()));
            names.extend(routing.smi.as_ref().and_then(|s| s.root_service.clone()));
        }
    }
    if let Some(blue_green) = &strategy.blue_green {
        names.insert(blue_green.active_service.clone());
        names.extend(blue_green.preview_service.clone());
    }
    names.remove("");
    names
}

/// Kind under which the index of Rollouts has the DestinationRules that they name.
pub const DESTINATION_RULE: &str = "DestinationRule";

/// The DestinationRule of Istio that a Rollout names.
pub fn destination_rule_name(rollout: &Rollout) -> Option<&str> {
    let istio = rollout.spec.strategy.canary.as_ref()?.traffic_routing.as_ref()?.istio.as_ref()?;
    istio.destination_rule.as_ref().map(|rule| rule.name.as_str()).filter(|name| !name.is_empty())
}

/// The analysis templates that a Rollout names itself, with their scope.
pub fn template_names(rollout: &Rollout) -> BTreeSet<(String, bool)> {
    let mut names = BTreeSet::new();
    let strategy = &rollout.spec.strategy;
    let mut add = |analysis: &tidegate_crds::rollout::RolloutAnalysis| {
        names.extend(analysis.templates.iter().map(|t| (t.template_name.clone(), t.cluster_scope)));
    };
    if let Some(canary) = &strategy.canary {
        if let Some(background) = &canary.analysis {
            add(&background.analysis);
        }
        for step in canary.steps.iter().flatten() {
            if let Some(analysis) = &step.analysis {
                add(analysis);
            }
        }
    }
    if let Some(blue_green) = &strategy.blue_green {
        blue_green.pre_promotion_analysis.iter().for_each(&mut add);
        blue_green.post_promotion_analysis.iter().for_each(&mut add);
    }
    if let Some(canary) = &strategy.canary {
        for step in canary.steps.iter().flatten() {
            let analyses = step.experiment.iter().flat_map(|e| &e.analyses);
            names.extend(analyses.map(|a| (a.template_name.clone(), a.cluster_scope)));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_are_those_of_the_replica_set_whose_name_their_pods_carry() {
        let slice = |endpoints: Value| json!({"metadata": {"name": "web"}, "endpoints": endpoints});
        let pod = |name: &str, ready: Value| json!({"conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}});
        let long = "a".repeat(70);
        let slices = [
            slice(json!([pod("web-7d9-abcde", json!(true)), pod("api-1-abcde", json!(false))])),
            slice(json!([pod("web-7d9-2-fghij", Value::Null), pod(&format!("{}abcde", &long[..58]), json!(true))])),
            slice(json!([{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Node", "name": "db-1-abcde"}}])),
            slice(Value::Null),
        ];
        let endpoints = Endpoints::from_slices(&slices);
        let table =
            [("web-7d9", true), ("web-7d9-2", true), ("web", false), ("api-1", false), ("db-1", false), (&long, true)];
        for (replica_set, reached) in table {
            assert_eq!(endpoints.reach(replica_set), reached, "{replica_set}");
        }
        assert!(!Endpoints::from_slices(&[slice(Value::Null)]).reach("web"));
    }
}
